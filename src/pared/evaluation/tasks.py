"""What networks predict, and how they are judged by it: what a study needs to know of its subject."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from pared.data.splits import Block, Scaler
from pared.evaluation import forecast, predictions
from pared.evaluation.baselines import baselines
from pared.evaluation.direction import against_last
from pared.evaluation.forecast import Predictor, floats
from pared.evaluation.paired import Scale
from pared.evaluation.scores import evaluate
from pared.types import Batch, Loss


@dataclass(frozen=True)
class Task:
    """A kind of prediction: functions of networks' predictions on a block, and how errors are compared.

    loss       what training minimises, and what criteria score by;
    error      the metric, smaller = better, that networks are compared by, on `scale` and with `margin` unless told
               otherwise: a share of the error on the log scale, a difference on the linear one;
    predictor  a network and the block's scaler -> what it predicts for inputs;
    measure    predictions on a batch of a block -> metrics, `error` among them, NaN where they are not finite; False
               leaves out what takes long;
    naive      a block -> naive predictors fitted on its training part, by name;
    trivial    those of them that use no input: whoever errs no less than they do learnt nothing;
    hits       predictions on a batch -> whether each is right, None where there is no right and wrong.
    """

    name: str
    loss: Loss
    error: str
    scale: Scale
    margin: float
    predictor: Callable[[Callable[[Tensor], Tensor], Scaler], Predictor]
    measure: Callable[[Predictor, Block, Batch, bool], dict[str, float]]
    naive: Callable[[Block], dict[str, Predictor]]
    trivial: tuple[str, ...]
    hits: Callable[[Predictor, Batch, Scaler], NDArray[np.bool_]] | None


def _forecast_metrics(predict: Predictor, block: Block, batch: Batch, thorough: bool) -> dict[str, float]:
    """`evaluate`, free runs where the block's forecasts can be fed back and there is time."""
    sd = float(floats(block.scaler.value(block.train.y, block.train.x)).std())
    return evaluate(predict, batch, block.scaler, sd, recursive=block.scaler.recursive and thorough)


def _direction_hits(predict: Predictor, batch: Batch, scaler: Scaler) -> NDArray[np.bool_]:
    """One-step directions from the last known value."""
    x, y = batch
    return against_last(floats(scaler.value(y, x)), floats(predict(x)), floats(x[:, -1, 0]))


FORECASTING = Task(
    name="forecasting",
    loss=mse_loss,
    error="nrmse",
    scale="log",
    margin=0.05,
    predictor=forecast.predictor,
    measure=_forecast_metrics,
    naive=baselines,
    trivial=("persistence", "mean"),
    hits=_direction_hits,
)
"""The next value of a series."""

REGRESSION = Task(
    name="regression",
    loss=mse_loss,
    error="nrmse",
    scale="log",
    margin=0.05,
    predictor=forecast.predictor,
    measure=predictions.regression_metrics,
    naive=predictions.regression_baselines,
    trivial=("mean",),
    hits=None,
)
"""A number from the other cells of its row."""

CLASSIFICATION = Task(
    name="classification",
    loss=cross_entropy,
    error="error",
    scale="linear",
    margin=0.01,
    predictor=predictions.classifier,
    measure=predictions.classification_metrics,
    naive=predictions.classification_baselines,
    trivial=("majority",),
    hits=predictions.class_hits,
)
"""A class from the other cells of its row."""
