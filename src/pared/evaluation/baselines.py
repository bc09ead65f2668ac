"""Naive forecasters, fitted on the training windows: what any network has to beat."""

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from pared.data.splits import Block
from pared.evaluation.forecast import Predictor, floats
from pared.evaluation.metrics import Floats, rmse


def baselines(split: Block) -> dict[str, Predictor]:
    """The naive forecasters of a split, from the simplest on.

    With x[t] the newest target value of the window, in scaled units:
        persistence  x[t]
        flip         x[t-1]: the direction flips
        same         2 x[t] - x[t-1]: it goes on
        mean         mean of the training targets
        ar           least squares with intercept on the whole window, extra columns included
        analog       what followed the most similar training window
    In a window of one point flip and same have no x[t-1] and fall back to persistence.

    Returns: name -> Predictor.
    Cost: one least-squares solution and two k-d trees over the training windows.
    """
    mean = float(_targets(split).mean())
    wide = split.train.x.shape[1] > 1
    return {
        "persistence": persistence,
        "flip": flip if wide else persistence,
        "same": same if wide else persistence,
        "mean": lambda x: x.new_full((len(x),), mean),
        "ar": autoregression(split),
        "analog": analog(split),
    }


def persistence(x: Tensor) -> Tensor:
    """Nothing changes: x[t]."""
    return x[:, -1, 0]


def flip(x: Tensor) -> Tensor:
    """The last step is taken back: x[t-1]."""
    return x[:, -2, 0]


def same(x: Tensor) -> Tensor:
    """The last step is taken again: 2 x[t] - x[t-1]."""
    return 2 * x[:, -1, 0] - x[:, -2, 0]


def autoregression(split: Block) -> Predictor:
    """Linear autoregression: min_c sum_i (y_i - [window_i, 1] c)^2, in float64.

    Returns: a Predictor.
    Cost: one SVD of (n, window * columns + 1); rank-deficient windows take the smallest solution.
    """
    coefficients = np.linalg.lstsq(_with_one(split.train.x), _targets(split), rcond=None)[0]

    def predict(x: Tensor) -> Tensor:
        return torch.as_tensor(_with_one(x) @ coefficients).to(x)

    return predict


def analog(split: Block) -> Predictor:
    """Nearest neighbour: the training window whose last `lags` points are closest tells what follows.

    forecast = y_j with j = argmin_i |window_i[-lags:] - window[-lags:]|, or x[t] + (y_j - x_j[t]) when the split
    predicts increments. `lags` is 2 or the whole window, whichever errs less on the validation windows; 2 where there
    are none.

    Returns: a Predictor.
    Source: Lorenz 1969 (J. Atmos. Sci. 26), the method of analogues.
    """
    window = split.train.x.shape[1]
    candidates = [_neighbour(split, lags) for lags in sorted({min(2, window), window})]
    if len(candidates) == 1 or len(split.validation.x) == 0:
        return candidates[0]
    truth = floats(split.scaler.value(split.validation.y, split.validation.x))
    return min(candidates, key=lambda predict: rmse(truth, floats(predict(split.validation.x))))


def _neighbour(split: Block, lags: int) -> Predictor:
    def recent(x: Tensor) -> Floats:
        return floats(x[:, -lags:]).reshape(len(x), -1)

    increments = split.scaler.increment is not None
    followed = _targets(split) - (floats(persistence(split.train.x)) if increments else 0.0)
    tree = cKDTree(recent(split.train.x))

    def predict(x: Tensor) -> Tensor:
        found = torch.as_tensor(followed[tree.query(recent(x))[1]]).to(x)
        return persistence(x) + found if increments else found

    return predict


def _targets(split: Block) -> Floats:
    return floats(split.scaler.value(split.train.y, split.train.x))


def _with_one(x: Tensor) -> Floats:
    return np.column_stack([floats(x).reshape(len(x), -1), np.ones(len(x))])
