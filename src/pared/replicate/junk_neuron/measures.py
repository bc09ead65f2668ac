"""What is measured of a forecaster: one step ahead and free-running, as the paper counts and as is usual."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pared.data import Split
from pared.evaluation import Predictor, against_last, nrmse, starts, valid_prediction_time
from pared.evaluation.forecast import floats
from pared.evaluation.metrics import Floats
from pared.training.fleet import inference

STEPS, LONGEST, STARTS = 15, 200, 30
"""Points of the paper's count; of the free runs that valid prediction time is read from; free runs a block."""
STILL = 1e-6
"""Step of a forecast, in scaled units, below which it stands still: a barely trained network soon does when it runs
freely, and the signs of its rounding errors are no forecast. Standing still is never right, as in `paper_hits`."""
THRESHOLD = 0.4  # of the standard deviation: where a forecast has left the truth

Metrics = dict[str, float | None]


@dataclass(frozen=True)
class Truth:
    """What is known of a block's test part, in scaled units."""

    split: Split

    @cached_property
    def values(self) -> Floats:
        """The true values (n,)."""
        return floats(self.split.scaler.value(self.split.test.y, self.split.test.x))

    @cached_property
    def sd(self) -> float:
        """Standard deviation of the training target."""
        return float(floats(self.split.scaler.value(self.split.train.y, self.split.train.x)).std())

    @cached_property
    def first(self) -> list[int]:
        """Where the free runs start; the first start is the first point, as in the paper."""
        return list(map(int, starts(len(self.values), LONGEST, STARTS)))

    @cached_property
    def runs(self) -> Floats:
        """What free runs should forecast (starts, LONGEST)."""
        return self.values[np.array(self.first)[:, None] + np.arange(LONGEST)]

    def metrics(self, one_step: Floats, runs: Floats) -> Metrics:
        """All measures of one-step forecasts (n,) and free runs (starts, steps up to LONGEST).

        direction: share of one-step directions right against the last true value; hits: of the paper's 14 one-step
        directions; free: share of the paper's directions right over free runs of 15 points; free_hits: those of the
        first start; nrmse: one-step error; vpt: mean valid prediction time in steps, at most 200. None: not finite.
        """
        values, steps = self.values, runs.shape[1]
        free = hits(self.runs[:, :STEPS], runs[:, :STEPS])
        last = floats(self.split.test.x[:, -1, 0])
        found = {
            "direction": float(against_last(values, one_step, last).mean()),
            "hits": float(hits(values[:STEPS], one_step[:STEPS]).sum()),
            "free": float(free.mean()),
            "free_hits": float(free[0].sum()),
            "nrmse": nrmse(values, one_step, self.sd),
            "vpt": float(valid_prediction_time(self.runs[:, :steps], runs, self.sd, THRESHOLD).mean()),
        }
        return {name: float(f"{value:.6g}") if math.isfinite(value) else None for name, value in found.items()}


def hits(truth: Floats, forecast: Floats) -> NDArray[np.bool_]:
    """`paper_hits` where steps of the forecast below STILL count as none."""
    with np.errstate(invalid="ignore"):  # inf - inf in a forecast that blew up is NaN: no hit
        steps = np.diff(forecast)
    return np.equal(np.sign(np.diff(truth)), np.sign(np.where(np.abs(steps) < STILL, 0.0, steps)))


def measure(predict: Predictor, truth: Truth) -> Metrics:
    """The measures of one forecaster."""
    return truth.metrics(floats(predict(truth.split.test.x)), _free_runs(predict, truth))


def measure_network(model: nn.Module, truth: Truth) -> Metrics:
    """The measures of a network, by the fastest forward pass there is."""
    outputs, scaler = inference(model, truth.split.test.x), truth.split.scaler
    return measure(lambda x: scaler.value(outputs(x), x), truth)


def _free_runs(predict: Predictor, truth: Truth) -> Floats:
    """Recursive forecasts (starts, steps); they end once all of them have left the truth, at LONGEST at the latest."""
    x = truth.split.test.x[truth.first]
    within = np.ones(len(x), dtype=np.bool_)
    forecasts: list[Floats] = []
    while len(forecasts) < LONGEST and (len(forecasts) < STEPS or within.any()):
        new = predict(x)
        within &= np.abs(floats(new) - truth.runs[:, len(forecasts)]) <= THRESHOLD * truth.sd
        forecasts.append(floats(new))
        x = torch.cat([x[:, 1:], new.to(x.dtype)[:, None, None]], dim=1)
    return np.stack(forecasts, axis=1)
