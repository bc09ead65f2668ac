"""A series: a table of numbers in time order, its first column the target."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pared.types import DataError

SMOOTH = 0.95
CHOICES = ("values", "increments", "auto")


@dataclass(frozen=True, eq=False)
class Series:
    """Rows in time order, at equal steps; column 0 is what is forecast, the others are further inputs.

    `values` is copied to a read-only float64 array (length, columns). `window` and `predict` are suggestions;
    `lyapunov` is the largest exponent per sample step in nats, None where it is not known.

    Raises: DataError for a table that is not (length, columns) or holds NaN or infinite values.
    """

    name: str
    values: npt.NDArray[np.float64]
    columns: tuple[str, ...]
    window: int
    predict: str
    lyapunov: float | None
    source: str

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.columns) or not self.columns:
            raise DataError(f"{self.name}: values must be (rows, {len(self.columns)} columns), got {values.shape}")
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if wrong.size:
            raise DataError(f"{self.name}: {wrong.size} rows hold NaN or infinite values, the first is row {wrong[0]}")
        values.flags.writeable = False
        object.__setattr__(self, "values", values)


def resolve_predict(series: Series, predict: str = "auto") -> str:
    """Decide what the network's output means: the next value itself, or its increment over the last known one.

    "auto" takes the suggestion of the series; where that is "auto" too: "increments" if the lag-1 autocorrelation

        r = sum (x_t - m)(x_{t+1} - m) / sum (x_t - m)^2

    of the target is above 0.95 (a smooth, finely sampled flow, or a random walk), else "values". A network trained on
    the values of such a series learns little more than persistence. r is measured on the first min(5000, length // 2)
    rows, which the default protocol never tests on.

    Returns: "values" or "increments".
    Raises: ValueError for any other word.
    """
    if predict not in CHOICES:
        raise ValueError(f"predict must be one of {', '.join(CHOICES)}; got {predict!r}")
    choice = series.predict if predict == "auto" else predict
    if choice != "auto":
        return choice
    head = series.values[: min(5000, len(series.values) // 2), 0]
    return "increments" if autocorrelation(head) > SMOOTH else "values"


def autocorrelation(x: npt.NDArray[np.float64]) -> float:
    """Lag-1 autocorrelation of a 1-d array, sum (x_t - m)(x_{t+1} - m) / sum (x_t - m)^2; 0 for a constant one."""
    if x.size < 2 or np.ptp(x) == 0:
        return 0.0
    deviation = x - x.mean()
    return float(deviation[:-1] @ deviation[1:] / (deviation @ deviation))
