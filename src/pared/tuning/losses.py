"""Losses example by example, their mean and its standard error, and what a change of the recipe does to them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from pared.evaluation.metrics import Floats
from pared.types import Loss

SURE = 2.0
"""How many standard errors a difference must exceed."""


class Mean(NamedTuple):
    """A mean and its standard error."""

    value: float
    error: float

    @property
    def positive(self) -> bool:
        """Whether it exceeds zero by more than two standard errors."""
        return self.value > SURE * self.error


def example_losses(out: Tensor, y: Tensor, loss: Loss) -> Floats:
    """(examples,): the loss of each example alone. Cost: one vectorised call, or one call an example."""

    def of_one(out: Tensor, y: Tensor) -> Tensor:
        return loss(out[None], y[None])

    try:
        found = vmap(of_one)(out, y)
    except (RuntimeError, TypeError, ValueError):  # what torch.func says of operations it cannot follow
        found = torch.stack([of_one(*pair) for pair in zip(out, y, strict=True)])
    return np.asarray(found.detach().double().numpy())


def mean_of(values: Floats) -> Mean:
    """The mean of values in a row and its standard error, sd of block means / sqrt(blocks).

    Blocks are as long as the values' correlation lasts: tau = 1 + 2 (r_1 + r_2 + ...), up to the first autocorrelation
    below 2 / sqrt(n), at most an eighth of the values. For values in no order that is the usual sd / sqrt(n).
    """
    count = len(values)
    if not np.isfinite(values).all():
        return Mean(float("inf"), float("inf"))
    if count < 2:
        return Mean(float(values.mean()) if count else float("nan"), float("inf"))
    length = min(int(np.ceil(lasting(values))), max(1, count // 8))
    blocks = values[: count // length * length].reshape(-1, length).mean(axis=1)
    return Mean(float(values.mean()), float(blocks.std(ddof=1) / np.sqrt(len(blocks))))


def lasting(values: Floats) -> float:
    """How many values in a row are as good as one that is independent of the others: tau of `mean_of`."""
    centred = values - values.mean()
    power = float(centred @ centred)
    tau, limit = 1.0, 2 / np.sqrt(len(values))
    for lag in range(1, len(values) // 4):
        correlation = float(centred[:-lag] @ centred[lag:]) / power if power > 0 else 0.0
        if correlation < limit:
            break
        tau += 2 * correlation
    return tau


class Effect(NamedTuple):
    """What a change does to a loss, averaged over seeds: `loss` without it, `gain` = how much less it is with it.

    `error` is the larger of two standard errors of the gain: over the examples, and over the seeds.
    """

    loss: float
    gain: float
    error: float

    @property
    def share(self) -> float:
        """The gain as a share of the loss."""
        return self.gain / abs(self.loss) if self.loss and np.isfinite(self.loss) else self.gain

    def helps(self, least: float) -> bool:
        """Whether the gain is beyond chance and no less than a share `least` of the loss."""
        return self.gain > SURE * self.error and self.share >= least

    @property
    def harms(self) -> bool:
        """Whether the loss rises beyond chance."""
        return -self.gain > SURE * self.error


def effect(before: Sequence[Floats], after: Sequence[Floats]) -> Effect:
    """Losses example by example of one seed after another, without a change and with it; the seeds in one order.

    Where training with the change diverged the gain is minus infinity, where only training without it did, infinity.
    """
    if not all(np.isfinite(losses).all() for losses in (*before, *after)):
        worse = not all(np.isfinite(losses).all() for losses in after)
        return Effect(float("inf"), float("-inf" if worse else "inf"), 0.0)
    gains = np.array([a - b for a, b in zip(before, after, strict=True)])
    mean, over_examples = mean_of(gains.mean(axis=0))
    seeds = gains.mean(axis=1)
    over_seeds = float(seeds.std(ddof=1) / np.sqrt(len(seeds))) if len(seeds) > 1 else 0.0
    return Effect(float(np.mean([losses.mean() for losses in before])), mean, max(over_examples, over_seeds))
