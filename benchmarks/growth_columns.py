"""Progressive columns when Mackey-Glass changes its delay from 17 to 30: the learning curve beside that of others.

Fixed beforehand: two LSTM layers of 16 units and a dense one of 8; MLPs of 32 and 32; 6 steps ahead from a window of
20; 2,000 windows of tau 17 for 20 epochs, then 200 of tau 30 for 30 epochs; 10 seeds, each on rows of its own. The
measure is the area under the curve of the test error, as its mean over the epochs; nothing is chosen.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import numpy as np
import torch
from growth_paired import Measure, compared, measured
from growth_rows import Row, write_rows
from torch import nn

from pared.data import mackey_glass, windows
from pared.growth import Progressive, add_column
from pared.models import MLP, Forecaster
from pared.training import TrainConfig, fit
from pared.types import Batch

SEEDS, WINDOW, AHEAD, MANY, FEW, TESTED = range(10), 20, 6, 2000, 200, 1000
STRETCH = MANY + TESTED + 2 * WINDOW
VALUES = {tau: (mackey_glass(tau, length=len(SEEDS) * STRETCH).values - 0.9) / 0.25 for tau in (17.0, 30.0)}
BEFORE, AFTER = TrainConfig(epochs=20, lr=5e-3, batch_size=32), TrainConfig(epochs=30, lr=5e-3, batch_size=32)
AREA = Measure("mean over epochs of ln of the test MSE, lower is better", float(np.log(1.05)), True)


@dataclass(frozen=True)
class Task:
    """Windows to train on; what is called validation here is looked at and nothing follows from it."""

    train: Batch
    validation: Batch


def task(tau: float, seed: int, rows: int) -> Task:
    """The first windows of a stretch to train on, its last ones to test on."""
    x, _, y = windows(VALUES[tau][seed * STRETCH : (seed + 1) * STRETCH], WINDOW, AHEAD)
    whole = Batch(torch.tensor(x.copy(), dtype=torch.float32), torch.tensor(y[:, None].copy(), dtype=torch.float32))
    return Task(*(Batch(whole.x[part], whole.y[part]) for part in (slice(rows), slice(len(y) - TESTED, None))))


def lstm(width: int, seed: int) -> nn.Module:
    """A forecaster, its dense layer half as wide."""
    return Forecaster(1, (width, width), (width // 2,), seed=seed)


def mlp(width: int, seed: int) -> nn.Module:
    """Two dense layers."""
    return MLP(WINDOW, (width, width), 1, "tanh", seed)


KINDS: dict[str, tuple[Callable[[int, int], nn.Module], int, tuple[str, ...]]] = {
    "LSTM": (lstm, 16, ("recurrent.1", "head.0", "head.1")),
    "MLP": (mlp, 32, ("layers.2", "layers.4")),
}


def area(model: nn.Module, seed: int) -> float:
    """Mean ln of the test error over the epochs of the second task."""
    found = fit(model, task(30.0, seed, FEW), replace(AFTER, seed=seed))
    return float(np.log(found.curves["validation"]).mean())


def sources(kind: str) -> list[nn.Module]:
    """The networks of the first task."""
    build, width, _ = KINDS[kind]
    return [fit(build(width, seed), task(17.0, seed, MANY), replace(BEFORE, seed=seed)).model for seed in SEEDS]


def progressive(kind: str, first: nn.Module, seed: int) -> nn.Module:
    """A fresh second column beside the first."""
    build, width, layers = KINDS[kind]
    return add_column(
        Progressive(first, layers), build(width, 100 + seed), task(30.0, seed, FEW).train.x[:2], seed=seed
    )


def wider(kind: str, like: nn.Module, seed: int) -> nn.Module:
    """The first width at which a plain network has as many weights as both columns and their adapters."""
    build, width, _ = KINDS[kind]
    return next(net for net in (build(2 * n, 100 + seed) for n in count(width // 2)) if size(net) >= size(like))


def size(model: nn.Module) -> int:
    """How many weights."""
    return sum(parameter.numel() for parameter in model.parameters())


def rows_of(kind: str) -> list[Row]:
    """Progressive against every control."""
    build, width, _ = KINDS[kind]
    known = sources(kind)
    starts: dict[str, Callable[[int], nn.Module]] = {
        f"progressive columns, {kind}": lambda seed: progressive(kind, known[seed], seed),
        "a network from scratch": lambda seed: build(width, 100 + seed),
        "a wider network from scratch, as many weights as both columns": lambda seed: wider(
            kind, progressive(kind, known[seed], seed), seed
        ),
        "the network of tau 17, all of it trained on": lambda seed: copy.deepcopy(known[seed]),
        "a column beside a random one": lambda seed: progressive(kind, build(width, 200 + seed), seed),
    }
    ours, *controls = (
        measured(name, partial(lambda seed, start: area(start(seed), seed), start=start), SEEDS)
        for name, start in starts.items()
    )
    note = "all arms make as many steps on 200 windows; the first task is not counted"
    data = "Mackey-Glass, tau 17 to 30"
    return [compared(ours, "Rusu et al. 2016", data, theirs, AREA, note) for theirs in controls]


if __name__ == "__main__":
    write_rows([row for kind in KINDS for row in rows_of(kind)], "columns")
