"""Does a forecast move the way the truth moves? Counted in the two ways that the literature mixes up."""

import numpy as np
from numpy.typing import NDArray

from pared.evaluation.metrics import Floats


def paper_hits(truth: Floats, forecast: Floats) -> NDArray[np.bool_]:
    """Right directions as the paper counts them: forecast against forecast, truth against truth.

    sign(forecast[t] - forecast[t-1]) == sign(truth[t] - truth[t-1]);  15 points give the paper's k of 14.
    It compares with the previous *forecast*, so a forecast that only lags a smooth truth scores high: read it beside
    `against_last`. Equal neighbours have sign 0, which only 0 matches. NaN never hits.

    Returns: (..., n-1) bool for arrays (..., n).
    Raises: ValueError if the shapes differ or the last axis holds fewer than 2 points.
    Source: Huang, Gu, Yang 2022 (Acta Physica Sinica 71, 160501): all its accuracies are k/140 = 10 batches of 14.
    """
    if np.shape(truth) != np.shape(forecast) or np.ndim(truth) == 0 or np.shape(truth)[-1] < 2:
        raise ValueError(
            f"directions need two arrays of one shape with at least 2 points, got {np.shape(truth)} and "
            f"{np.shape(forecast)}"
        )
    with np.errstate(invalid="ignore"):  # inf - inf in a forecast that blew up is NaN: no hit
        return np.equal(np.sign(np.diff(truth)), np.sign(np.diff(forecast)))


def against_last(truth: Floats, forecast: Floats, last: Floats) -> NDArray[np.bool_]:
    """Right directions seen from the last known true value.

    sign(forecast - last) == sign(truth - last);  "no change" has sign 0, which only 0 matches. NaN never hits.

    Returns: bool of the shape of the arrays.
    Raises: ValueError if the three shapes differ.
    """
    if not np.shape(truth) == np.shape(forecast) == np.shape(last):
        raise ValueError(
            f"truth, forecast and last must have one shape, got {np.shape(truth)}, {np.shape(forecast)} and "
            f"{np.shape(last)}"
        )
    return np.equal(np.sign(np.subtract(truth, last)), np.sign(np.subtract(forecast, last)))
