"""How far a forecast is from the truth. Arrays are values in scaled units (decoded), float64."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rmse(truth: Floats, forecast: Floats) -> float:
    """Root mean squared error.

    sqrt(mean((forecast - truth)^2))

    Returns: a number >= 0 in the unit of the arrays; NaN where a forecast is NaN.
    Raises: ValueError if the shapes differ or the arrays are empty.
    """
    truth, forecast = _pair(truth, forecast)
    return float(np.sqrt(np.mean((forecast - truth) ** 2)))


def nrmse(truth: Floats, forecast: Floats, sd: float) -> float:
    """Root mean squared error over the standard deviation of the training target.

    rmse(truth, forecast) / sd

    Returns: a number >= 0 without unit; 1 is about what forecasting the training mean reaches.
    Raises: ValueError if `sd` is not positive, the shapes differ or the arrays are empty.
    """
    return rmse(truth, forecast) / _positive(sd)


def valid_prediction_time(truth: Floats, forecast: Floats, sd: float, threshold: float = 0.4) -> NDArray[np.int64]:
    """How many steps a free-running forecast stays close to the truth.

    The first i with |forecast[i] - truth[i]| > threshold * sd; the number of steps where there is none, so the
    result is cut off at the length of the run. A NaN forecast counts as exceeded.

    Returns: (starts,) whole steps, for arrays (starts, steps); times the Lyapunov exponent = Lyapunov times.
    Raises: ValueError if `sd` is not positive or the arrays are not two equal (starts, steps) arrays.
    Source: the usual measure of forecasts of chaos, for instance Vlachas et al. 2020 (Neural Networks 126).
    """
    truth, forecast = _pair(truth, forecast)
    if truth.ndim != 2:
        raise ValueError(f"valid prediction time needs arrays of shape (starts, steps), got {truth.shape}")
    # Written as "not within" because a comparison with NaN is false.
    exceeded = ~(np.abs(forecast - truth) <= threshold * _positive(sd))
    first: NDArray[np.int64] = exceeded.argmax(axis=1)
    first[~exceeded.any(axis=1)] = truth.shape[1]
    return first


def _pair(truth: Floats, forecast: Floats) -> tuple[Floats, Floats]:
    """Both as float64 of one shape: broadcasting (n,) against (n, 1) would give a wrong number silently."""
    first, second = np.asarray(truth, dtype=np.float64), np.asarray(forecast, dtype=np.float64)
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"truth and forecast must have one shape and hold data, got {first.shape} and {second.shape}")
    return first, second


def _positive(sd: float) -> float:
    if not sd > 0:
        raise ValueError(f"the standard deviation of the training target must be positive, got {sd}")
    return sd
