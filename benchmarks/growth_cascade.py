"""Cascade-correlation on two spirals, 40 trials, against MLPs of as many weights."""

import time
from dataclasses import dataclass

import numpy as np
from growth_rows import Row, Verdict, write_rows
from scipy.stats import t as student

from pared.data import two_spirals
from pared.growth import CascadeConfig, fit_cascade
from pared.models import MLP
from pared.training import TrainConfig, fit_many
from pared.types import Batch

TRIALS = 40
MEASURE = "accuracy between the training points (CMU's test set), points, higher is better"


@dataclass(frozen=True)
class Spirals:
    """All 192 points, in float32."""

    train: Batch
    validation: Batch


def cascades() -> tuple[list[float], float, str]:
    """Accuracy of each trial, seconds of one, and what else is known."""
    train, test = two_spirals(), two_spirals(0.1)
    started = time.perf_counter()
    fits = [fit_cascade(train, CascadeConfig(seed=seed)) for seed in range(TRIALS)]
    seconds = (time.perf_counter() - started) / TRIALS
    units = [len(grown.model.incoming) for grown in fits]
    right = [100 * float(((grown.model(test.x) > 0) == (test.y > 0)).double().mean()) for grown in fits]
    note = (
        f"{sum(grown.solved for grown in fits)} of {TRIALS} solved with {np.mean(units):.1f} units "
        f"({min(units)} to {max(units)}) in {np.mean([grown.epochs for grown in fits]):.0f} epochs"
    )
    return right, seconds, note


def plain(epochs: int) -> tuple[list[float], float, str]:
    """The same of MLPs of two hidden layers, 2-11-11-1 (177 weights, as 15 units of a cascade have), by Adam."""
    batch = Batch(*(part.float() for part in two_spirals()))
    data = Spirals(batch, Batch(batch.x[:0], batch.y[:0]))
    configs = [TrainConfig(epochs=epochs, lr=1e-2, batch_size=192, seed=seed) for seed in range(TRIALS)]
    started = time.perf_counter()
    fits = fit_many([MLP(2, (11, 11), 1, "tanh", seed) for seed in range(TRIALS)], [data] * TRIALS, configs)
    seconds = (time.perf_counter() - started) / TRIALS
    x, y = (part.float() for part in two_spirals(0.1))
    right = [100 * float(((each.model(x) > 0) == (y > 0)).double().mean()) for each in fits]
    solved = sum(bool(((each.model(batch.x) - batch.y).abs() < 0.35).all()) for each in fits)
    return right, seconds, f"{solved} of {TRIALS} MLPs solve it"


def row(epochs: int) -> Row:
    """Cascades against MLPs that are trained for so many epochs."""
    (ours, cost, note), (theirs, control_cost, control_note) = cascades(), plain(epochs)
    d = np.array(ours) - np.array(theirs)
    half = float(student.ppf(0.975, TRIALS - 1) * d.std(ddof=1) / TRIALS**0.5)
    low, high = float(d.mean()) - half, float(d.mean()) + half
    verdict: Verdict = "better" if low > 0 else "inferior" if high < 0 else "no effect"
    return Row(
        "cascade-correlation", "Fahlman & Lebiere 1990", "two spirals", TRIALS, MEASURE, float(d.mean()), low, high,
        f"an MLP of as many weights, {epochs} epochs of Adam", cost, control_cost, verdict,
        f"{note}; {np.mean(ours):.1f} against {np.mean(theirs):.1f} points; {control_note}",
    )  # fmt: skip


if __name__ == "__main__":
    write_rows([row(1_700), row(10_000)], "cascade")
