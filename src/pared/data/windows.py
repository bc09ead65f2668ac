"""Windows of a series and what follows them."""

import numpy as np
import numpy.typing as npt

from pared.types import DataError

Array = npt.NDArray[np.float64]


def windows(values: Array, window: int, horizon: int = 1) -> tuple[Array, Array, Array]:
    """Cut a series into every window of `window` rows and the target value `horizon` rows after its end.

        x[i] = values[i : i + window],    last[i] = values[i + window - 1, 0],
        target[i] = values[i + window - 1 + horizon, 0],    i = 0 ... m - 1,    m = n - window - horizon + 1

    Returns: x (m, window, columns), last (m,), target (m,); read-only views of `values` (n, columns).
    Cost: none; nothing is copied.
    Raises: ValueError unless window and horizon are at least 1; DataError for a series without a single window.
    """
    if window < 1 or horizon < 1:
        raise ValueError(f"window and horizon must be at least 1; got {window} and {horizon}")
    count = len(values) - window - horizon + 1
    if count < 1:
        raise DataError(
            f"{len(values)} rows are too few for a window of {window} and a horizon of {horizon}: "
            f"at least {window + horizon} are needed"
        )
    x = np.lib.stride_tricks.sliding_window_view(values, window, axis=0)[:count].transpose(0, 2, 1)
    return x, values[window - 1 : window - 1 + count, 0], values[window - 1 + horizon :, 0]
