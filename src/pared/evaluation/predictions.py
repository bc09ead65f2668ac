"""How good predictions of numbers and classes in tables are, and the naive predictors that any network has to beat."""

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pared.data.splits import Block, Scaler
from pared.evaluation.baselines import autoregression
from pared.evaluation.forecast import Predictor, decoded, floats
from pared.evaluation.metrics import nrmse
from pared.types import Batch


def regression_metrics(predict: Predictor, block: Block, batch: Batch, _thorough: bool = True) -> dict[str, float]:
    """Errors of predicted numbers on rows of a block.

    nrmse  root mean squared error over the standard deviation of the training target;
    r2     1 - sum (prediction - truth)^2 / sum (truth - mean of the rows)^2, NaN where the rows have one value.

    Returns: both, NaN where a prediction is not finite: the network diverged.
    """
    truth, found = floats(batch.y)[:, 0], floats(predict(batch.x))
    error = nrmse(truth, found, float(floats(block.train.y).std()))
    spread = float(((truth - truth.mean()) ** 2).sum())
    if not math.isfinite(error):
        return {"nrmse": math.nan, "r2": math.nan}
    return {"nrmse": error, "r2": 1 - float(((found - truth) ** 2).sum()) / spread if spread > 0 else math.nan}


def classifier(network: Callable[[Tensor], Tensor], _scaler: Scaler) -> Predictor:
    """A network as a Predictor of classes: the place of its largest logit, the first of equals.

    Returns: a function x (n, inputs) -> (n,) places of classes as floats, NaN where a logit is NaN or infinite.
    """

    def decode(logits: Tensor, _x: Tensor) -> Tensor:
        places = logits.argmax(dim=1).to(logits.dtype)
        return places.masked_fill(~logits.isfinite().all(dim=1), math.nan)

    return decoded(network, decode)


def classification_metrics(predict: Predictor, _block: Block, batch: Batch, _thorough: bool = True) -> dict[str, float]:
    """Shares of rows on which the predicted class is wrong ("error") and right ("accuracy"), and number of "rows".

    Returns: these, the shares NaN where a prediction is not finite: the network diverged.
    """
    found = floats(predict(batch.x))
    if not np.isfinite(found).all():
        return {"error": math.nan, "accuracy": math.nan, "rows": len(found)}
    right = found == floats(batch.y)
    return {"error": float((~right).mean()), "accuracy": float(right.mean()), "rows": len(found)}


def class_hits(predict: Predictor, batch: Batch, _scaler: Scaler) -> NDArray[np.bool_]:
    """Row by row, whether the predicted class is the true one."""
    return np.equal(floats(predict(batch.x)), floats(batch.y))


def regression_baselines(block: Block) -> dict[str, Predictor]:
    """Naive predictors of a number, from the simplest on.

    mean       mean of the training target
    linear     least squares with intercept on all inputs
    neighbour  the target of the nearest training row, in scaled inputs

    Returns: name -> Predictor. Cost: one SVD; as many distances as there are pairs of training and test rows.
    """
    mean = float(floats(block.train.y).mean())
    return {
        "mean": lambda x: x.new_full((len(x),), mean),
        "linear": autoregression(block),
        "neighbour": _nearest(block),
    }


def classification_baselines(block: Block) -> dict[str, Predictor]:
    """Naive predictors of a class, from the simplest on.

    majority   the most frequent class of the training rows, the first of equals
    logistic   multinomial logistic regression with scikit-learn's default penalty (C = 1)
    neighbour  the class of the nearest training row, in scaled inputs

    Returns: name -> Predictor of places of classes. Cost: up to 1,000 iterations of L-BFGS; distances as above.
    """
    most = int(np.bincount(block.train.y.numpy()).argmax())
    linear_model = import_module("sklearn.linear_model")  # here, since it takes a second to import
    return {
        "majority": lambda x: x.new_full((len(x),), float(most)),
        "logistic": _fitted(linear_model.LogisticRegression(max_iter=1000), block),
        "neighbour": _nearest(block),
    }


def _nearest(block: Block) -> Predictor:
    neighbours = import_module("sklearn.neighbors")
    kind = neighbours.KNeighborsRegressor if block.train.y.is_floating_point() else neighbours.KNeighborsClassifier
    return _fitted(kind(n_neighbors=1), block)


def _fitted(model: Any, block: Block) -> Predictor:
    """A scikit-learn model as a Predictor."""
    model.fit(floats(block.train.x), block.train.y.numpy().ravel())
    return lambda x: torch.as_tensor(model.predict(floats(x))).to(x)
