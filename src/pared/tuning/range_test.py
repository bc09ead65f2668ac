"""The learning-rate range test: the rate grows from step to step, and the loss says where it stops being good."""

import copy
import math
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import nn
from torch.nn.functional import mse_loss

from pared.evaluation.metrics import Floats
from pared.training.fit import TrainConfig, optimiser_for
from pared.tuning.watch import paced, take_step
from pared.types import Batch, Loss

Curve = tuple[float, ...]
FALL = 0.02
"""A loss that does not fall by this share, at any rate, does not fall."""


@dataclass(frozen=True)
class RangeTest:
    """Losses at growing learning rates, and what follows from them; both rates are medians over the seeds.

    `smoothed` holds one curve a seed, which ends where the loss explodes. `steepest`: where the smoothed loss falls
    fastest; `lowest`: where it is lowest; None where it does not fall.
    """

    rates: Curve
    smoothed: tuple[Curve, ...]
    steepest: float | None
    lowest: float | None

    @property
    def suggestion(self) -> float | None:
        """What to train with: the smaller of the steepest rate and a tenth of the lowest one."""
        return None if self.steepest is None or self.lowest is None else min(self.steepest, self.lowest / 10)


def range_test(  # noqa: PLR0913
    model: nn.Module,
    train: Batch,
    config: TrainConfig,
    loss: Loss = mse_loss,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    seeds: int = 3,
    smooth: float = 0.05,
    explosion: float = 4.0,
) -> RangeTest:
    """Trains copies of a fresh network with a rate that grows by the same factor from step to step.

        rate_i = low (high / low)^(i / (steps - 1))
        d_i = loss of batch i before step i, less the fresh network's on the same batch, plus its mean over all batches
        s_i = smooth d_i + (1 - smooth) s_{i-1},   divided by 1 - (1 - smooth)^(i + 1)

    It ends where s_i exceeds `explosion` times the lowest s so far, or is no number. lowest = argmin s, steepest =
    argmin ds / dlog rate up to there. Without the fresh network's loss, differences between batches, larger than what a
    few steps change, would decide where the loss falls. `config` gives optimiser, batch size, weight decay, clipping
    and the seed of the first order of samples. The model and the global random state stay as they are.

    Returns: RangeTest. Cost: seeds * steps steps of training, and as many forward passes.
    Source: Smith, Cyclical learning rates (2017); defaults of torch-lr-finder.
    """
    if steps < 3 or seeds < 1 or not 0 < low < high:
        raise ValueError(f"a range test needs 3 steps, a seed and 0 < low < high; got {steps}, {seeds}, {low}, {high}")
    rates = tuple(np.geomspace(low, high, steps).tolist())
    curves = [_curve(model, train, replace(config, seed=config.seed + k), loss, rates) for k in range(seeds)]
    smoothed = tuple(_smoothed(curve, smooth, explosion) for curve in curves)
    found = [places for curve in smoothed if (places := _places(curve))]
    if 2 * len(found) <= seeds:
        return RangeTest(rates, smoothed, None, None)
    steepest, lowest = (math.exp(np.median([math.log(rates[k]) for k in each])) for each in zip(*found, strict=True))
    return RangeTest(rates, smoothed, steepest, lowest)


def _curve(model: nn.Module, train: Batch, config: TrainConfig, loss: Loss, rates: Curve) -> Floats:
    """The losses d before each step, until they are no finite numbers."""
    fresh, model = copy.deepcopy(model).train(), copy.deepcopy(model).train()
    config = replace(config, epochs=math.ceil(len(rates) * config.batch_size / len(train.x)) + 1)
    optimiser = optimiser_for(model, config, None)
    own, without = list[float](), list[float]()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(config.seed)
        for rate, (index, _) in zip(rates, islice(paced(len(train.x), config), len(rates)), strict=True):
            batch = Batch(train.x[index], train.y[index])
            with torch.no_grad():
                before = float(loss(fresh(batch.x), batch.y))
            value, _ = take_step(model, batch, optimiser, rate, loss, config.clip)
            if not (math.isfinite(value) and math.isfinite(before)):
                break
            own.append(value)
            without.append(before)
    return np.array(own) - without + np.mean(without) if own else np.zeros(0)


def _smoothed(losses: Floats, smooth: float, explosion: float) -> Curve:
    found, running, lowest = list[float](), 0.0, math.inf
    for i, value in enumerate(losses.tolist()):
        running = smooth * value + (1 - smooth) * running
        found.append(running / (1 - (1 - smooth) ** (i + 1)))
        lowest = min(lowest, found[-1])
        if found[-1] > explosion * lowest:
            break
    return tuple(found)


def _places(curve: Curve) -> tuple[int, int] | None:
    """Places of the steepest fall and of the lowest value; None for a curve that does not fall."""
    if len(curve) < 3 or min(curve) >= (1 - FALL) * curve[0]:
        return None
    lowest = int(np.argmin(curve))
    return int(np.argmin(np.gradient(np.array(curve))[: lowest + 1])), lowest
