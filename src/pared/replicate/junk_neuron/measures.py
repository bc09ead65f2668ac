"""What is measured of a forecaster: one step ahead and free-running, as the paper counts and as is usual."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pared.data import Split
from pared.evaluation import Predictor, against_last, free_run, nrmse, paper_hits, starts, valid_prediction_time
from pared.evaluation.forecast import floats
from pared.evaluation.metrics import Floats
from pared.models import Forecaster
from pared.replicate.junk_neuron.stacked import Stack, forecast, stack

STEPS, LONGEST, STARTS = 15, 200, 30
"""Points of the paper's count; of the free runs that valid prediction time is read from; free runs a block."""
THRESHOLD = 0.4  # of the standard deviation: where a forecast has left the truth
TOGETHER = 32  # networks in one pass: bounds memory, no effect on the result

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
        free = paper_hits(self.runs[:, :STEPS], runs[:, :STEPS])
        last = floats(self.split.test.x[:, -1, 0])
        found = {
            "direction": float(against_last(values, one_step, last).mean()),
            "hits": float(paper_hits(values[:STEPS], one_step[:STEPS]).sum()),
            "free": float(free.mean()),
            "free_hits": float(free[0].sum()),
            "nrmse": nrmse(values, one_step, self.sd),
            "vpt": float(valid_prediction_time(self.runs[:, :steps], runs, self.sd, THRESHOLD).mean()),
        }
        return {name: float(f"{value:.6g}") if math.isfinite(value) else None for name, value in found.items()}


def measure(predict: Predictor, truth: Truth) -> Metrics:
    """The measures of one forecaster."""
    x = truth.split.test.x
    return truth.metrics(floats(predict(x)), floats(free_run(predict, x[truth.first], LONGEST)))


def measure_all(models: Sequence[Forecaster], truths: Sequence[Truth]) -> Iterator[Metrics]:
    """The measures of many networks, each on its own block; all blocks have the same number of test windows."""
    for first in range(0, len(models), TOGETHER):
        yield from _measure_some(models[first : first + TOGETHER], truths[first : first + TOGETHER])


def _measure_some(models: Sequence[Forecaster], truths: Sequence[Truth]) -> Iterator[Metrics]:
    networks = stack(models)
    x = torch.stack([truth.split.test.x[..., 0] for truth in truths])
    one_step = _values(networks, x, truths)
    runs = _free_runs(networks, torch.stack([truth.split.test.x[truth.first, :, 0] for truth in truths]), truths)
    for truth, own_step, own_runs in zip(truths, floats(one_step), floats(runs), strict=True):
        yield truth.metrics(own_step, own_runs)


def _values(networks: Stack, x: Tensor, truths: Sequence[Truth]) -> Tensor:
    """Forecasts (networks, n) of the target in scaled units."""
    outputs = forecast(networks, x)
    parts = zip(truths, outputs, x, strict=True)
    return torch.stack([truth.split.scaler.value(out[:, None], own[..., None]) for truth, out, own in parts])


def _free_runs(networks: Stack, x: Tensor, truths: Sequence[Truth]) -> Tensor:
    """Recursive forecasts (networks, starts, steps); they end once all of them have left the truth, LONGEST at most."""
    true = torch.tensor(np.stack([truth.runs for truth in truths]))
    allowed = torch.tensor([THRESHOLD * truth.sd for truth in truths], dtype=torch.float64)[:, None]
    within = torch.ones(x.shape[:2], dtype=torch.bool)
    forecasts: list[Tensor] = []
    while len(forecasts) < LONGEST and (len(forecasts) < STEPS or within.any()):
        new = _values(networks, x, truths)
        within &= (new - true[..., len(forecasts)]).abs() <= allowed
        forecasts.append(new)
        x = torch.cat([x[..., 1:], new[..., None]], dim=2)
    return torch.stack(forecasts, dim=2)
