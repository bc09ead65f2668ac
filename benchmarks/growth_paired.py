"""Two arms measured on the same seeds as a row of "What works"."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from growth_rows import Row, Verdict
from scipy.stats import t as student
from torch import nn
from torch.nn.functional import mse_loss

from pared.types import Batch

Result = TypeVar("Result")


@dataclass(frozen=True)
class Arm:
    """What was measured, one number a seed, and mean seconds of a training."""

    name: str
    values: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Measure:
    """What a number is, in words that name its unit and say which way is better; the margin of no effect."""

    words: str
    margin: float
    lower: bool


LOG_ERROR = Measure("ln of the test MSE, lower is better", float(np.log(1.05)), True)
ACCURACY = Measure("test accuracy, points, higher is better", 1.0, False)
"""Margins of the project: 5 % of an error, one point of accuracy."""


def timed(runs: Callable[[int], Result], seeds: Sequence[int]) -> tuple[list[Result], float]:
    """Results of all seeds, and mean processor seconds of one: other work on the machine lengthens the wall clock."""
    started = time.process_time()
    return [runs(seed) for seed in seeds], (time.process_time() - started) / len(seeds)


def measured(name: str, run: Callable[[int], float], seeds: Sequence[int]) -> Arm:
    """A number a seed."""
    values, seconds = timed(run, seeds)
    return Arm(name, tuple(values), seconds)


@torch.no_grad()
def accuracy(model: nn.Module, test: Batch) -> float:
    """Points of a batch put into the right class, in evaluation mode."""
    return 100 * (model.eval()(test.x).argmax(1) == test.y).double().mean().item()


@torch.no_grad()
def log_error(model: nn.Module, test: Batch) -> float:
    """The ln of a batch's mean squared error, in evaluation mode."""
    return float(np.log(mse_loss(model.eval()(test.x), test.y).item()))


def compared(ours: Arm, source: str, data: str, theirs: Arm, measure: Measure, note: str = "") -> Row:
    """Ours minus theirs with its 95 % interval."""
    d = np.array(ours.values) - np.array(theirs.values)
    half = float(student.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5)
    effect = float(d.mean())
    means = f"{np.mean(ours.values):.3f} against {np.mean(theirs.values):.3f}"
    said = verdict(effect - half, effect + half, measure)
    return Row(
        ours.name, source, data, len(d), measure.words, effect, effect - half, effect + half, theirs.name,
        ours.seconds, theirs.seconds, said, f"{means}; {note}" if note else means,
    )  # fmt: skip


def verdict(low: float, high: float, measure: Measure) -> Verdict:
    """What an interval says; no effect: it holds 0 and stays within the margin."""
    if measure.lower:
        low, high = -high, -low
    if low > 0:
        return "better"
    if high < 0:
        return "inferior"
    if -measure.margin < low and high < measure.margin:
        return "no effect"
    return "not inferior" if low > -measure.margin else "inconclusive"
