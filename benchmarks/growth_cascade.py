"""Cascade-correlation on two spirals, 40 trials, against MLPs of as many weights.

Units with loops are measured on Reber's grammar, 10 trials.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from growth_rows import Row, Verdict, write_rows
from scipy.stats import t as student
from torch import Tensor, nn

from pared.data import reber, two_spirals
from pared.growth import CascadeConfig, fit_cascade
from pared.models import MLP
from pared.training import TrainConfig, fit, fit_many
from pared.types import Batch

TRIALS, TEN = 40, 10
Arm = Callable[[int], tuple[list[float], float, str]]
MEASURE = "accuracy between the training points (CMU's test set), points, higher is better"


@dataclass(frozen=True)
class Examples:
    """What `fit` reads."""

    train: Batch
    validation: Batch


def cascades(_: int) -> tuple[list[float], float, str]:
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
    data = Examples(batch, Batch(batch.x[:0], batch.y[:0]))
    configs = [TrainConfig(epochs=epochs, lr=1e-2, batch_size=192, seed=seed) for seed in range(TRIALS)]
    started = time.perf_counter()
    fits = fit_many([MLP(2, (11, 11), 1, "tanh", seed) for seed in range(TRIALS)], [data] * TRIALS, configs)
    seconds = (time.perf_counter() - started) / TRIALS
    x, y = (part.float() for part in two_spirals(0.1))
    right = [100 * float(((each.model(x) > 0) == (y > 0)).double().mean()) for each in fits]
    solved = sum(bool(((each.model(batch.x) - batch.y).abs() < 0.35).all()) for each in fits)
    return right, seconds, f"{solved} of {TRIALS} MLPs solve it"


def right_steps(out: Tensor, y: Tensor) -> float:
    """Percent of steps after which all seven symbols are judged rightly."""
    return 100 * float(((out > 0) == (y > 0)).all(-1).double().mean())


def recurrent_cascades(_: int) -> tuple[list[float], float, str]:
    """Cascades with loops: 32 training sequences of 40 symbols, 100 others to test on."""
    started, right, units, epochs, solved = time.perf_counter(), [], [], [], 0
    for seed in range(TEN):
        grown = fit_cascade(reber(32, 40, seed), CascadeConfig(recurrent=True, seed=seed))
        test = reber(100, 40, 1000 + seed)
        right.append(right_steps(grown.model(test.x), test.y))
        units.append(len(grown.model.incoming))
        epochs.append(grown.epochs)
        solved += grown.solved
    sizes = f"{np.mean(units):.1f} units ({min(units)} to {max(units)})"
    note = f"{solved} of {TEN} solved with {sizes} in {np.mean(epochs):.0f} epochs"
    return right, (time.perf_counter() - started) / TEN, note


class Elman(nn.Module):
    """A tanh RNN of 5 units (117 weights; a cascade of 3 units has 107) that answers after each symbol."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.rnn, self.head = nn.RNN(7, 5, batch_first=True), nn.Linear(5, 7)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.rnn(x)[0])
        return out


def elman(epochs: int) -> tuple[list[float], float, str]:
    """The same by Elman's network, the whole batch at once, Adam at 0.01."""
    started, right = time.perf_counter(), []
    for seed in range(TEN):
        train, test = (Batch(b.x.float(), b.y.float()) for b in (reber(32, 40, seed), reber(100, 40, 1000 + seed)))
        data = Examples(train, Batch(train.x[:0], train.y[:0]))
        model = fit(Elman(seed), data, TrainConfig(epochs=epochs, lr=1e-2, batch_size=32, seed=seed)).model
        right.append(right_steps(model(test.x), test.y))
    seconds, always = (time.perf_counter() - started) / TEN, sum(r == 100 for r in right)
    return right, seconds, f"{always} of {TEN} RNNs are always right"


def row(data: str, measure: str, arm: Arm, against: str, control: Arm, epochs: int) -> Row:
    """Cascades against networks that are trained for so many epochs."""
    (ours, cost, note), (theirs, control_cost, control_note) = arm(epochs), control(epochs)
    d = np.array(ours) - np.array(theirs)
    half = float(student.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5)
    low, high = float(d.mean()) - half, float(d.mean()) + half
    verdict: Verdict = "better" if low > 0 else "inferior" if high < 0 else "no effect"
    method, source = ("cascade-correlation", "Fahlman & Lebiere 1990")
    if data != "two spirals":
        method, source = ("recurrent cascade-correlation", "Fahlman 1991")
    note = f"{note}; {np.mean(ours):.1f} against {np.mean(theirs):.1f} points; {control_note}"
    return Row(
        method, source, data, len(d), measure, float(d.mean()), low, high, f"{against}, {epochs} epochs of Adam",
        cost, control_cost, verdict, note,
    )  # fmt: skip


if __name__ == "__main__":
    spirals = [row("two spirals", MEASURE, cascades, "an MLP of as many weights", plain, n) for n in (1_700, 10_000)]
    steps = "steps with all next symbols right, points, higher is better"
    grammar = [
        row("Reber's grammar", steps, recurrent_cascades, "Elman's RNN of as many weights", elman, epochs)
        for epochs in (300, 3000)
    ]
    write_rows([*spirals, *grammar], "cascade")
