"""Successive regularisation on two horizons of Mackey-Glass: what the first task loses, beside joint training.

Fixed beforehand: an LSTM of 24 units and a linear head a task, 400 training windows, 40 epochs a task, 10 seeds, each
on rows of its own; delta is chosen among four on three other stretches of the series.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from growth_paired import LOG_ERROR, Arm, compared, timed
from growth_rows import Row, write_rows
from torch import Tensor, nn

from pared.data import mackey_glass, windows
from pared.models import Forecaster
from pared.successive import successive
from pared.training import TrainConfig, fit
from pared.types import Batch

SEEDS, OTHERS, WINDOW, ROWS = range(10), range(20, 23), 20, 400
HORIZONS = {"6 steps": 6, "18 steps": 18}
DELTAS = (1e-3, 1e-2, 1e-1, 1.0)
VALUES = (mackey_glass(length=23 * 1000).values - 0.9) / 0.25
CONFIG = TrainConfig(epochs=40, lr=5e-3, batch_size=32)
SOURCE, FREE = "Hashimoto et al. 2017", "the same without the penalty"
DATA = "Mackey-Glass, 6 and then 18 steps ahead"


@dataclass(frozen=True)
class Task:
    """What `fit` reads, and the test."""

    train: Batch
    validation: Batch
    test: Batch


def task(seed: int, *horizons: int) -> Task:
    """The windows of a stretch of 1,000 rows and what follows them, one column a horizon."""
    rows = VALUES[seed * 1000 : (seed + 1) * 1000]
    count = len(rows) - WINDOW - max(HORIZONS.values()) + 1
    x = torch.tensor(windows(rows, WINDOW)[0][:count].copy(), dtype=torch.float32)
    y = np.stack([windows(rows, WINDOW, horizon)[2][:count] for horizon in horizons], 1)
    whole = Batch(x, torch.tensor(y, dtype=torch.float32))
    train, test = (Batch(whole.x[part], whole.y[part]) for part in (slice(ROWS), slice(count - ROWS, count)))
    return Task(train, Batch(x[:0], whole.y[:0]), test)


class Heads(nn.Module):
    """Both heads on one trunk."""

    def __init__(self, trunk: nn.Module, heads: dict[str, nn.Module]) -> None:
        super().__init__()
        self.trunk, self.heads = trunk, nn.ModuleList(heads.values())

    def forward(self, x: Tensor) -> Tensor:
        features = self.trunk(x)
        return torch.cat([head(features) for head in self.heads], 1)


def fresh(seed: int) -> tuple[nn.Module, dict[str, nn.Module]]:
    """A trunk that gives its last state, and heads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = Forecaster(1, (24,), (), 24, seed=seed)
        trunk.head = nn.Identity()
        return trunk, {name: nn.Linear(24, 1) for name in HORIZONS}


@torch.no_grad()
def errors(out: Tensor, y: Tensor) -> Tensor:
    """ln MSE of each column."""
    return (out - y).square().mean(0).log()


def in_turn(seed: int, delta: float, rounds: int = 1) -> Tensor:
    """ln of both tasks' test MSE after all of the training."""
    trunk, heads = fresh(seed)
    data = {name: task(seed, horizon) for name, horizon in HORIZONS.items()}
    config = TrainConfig(CONFIG.epochs, CONFIG.lr, CONFIG.batch_size, seed=seed)
    found = successive(trunk, heads, data, config, delta=delta, rounds=rounds)
    return torch.cat([errors(found.network(name)(each.test.x), each.test.y) for name, each in data.items()])


def joint(seed: int) -> Tensor:
    """The same by both tasks at once, as many steps of the trunk."""
    data = task(seed, *HORIZONS.values())
    config = TrainConfig(len(HORIZONS) * CONFIG.epochs, CONFIG.lr, CONFIG.batch_size, seed=seed)
    return errors(fit(Heads(*fresh(seed)), data, config).model(data.test.x), data.test.y)


PARTS: dict[str, int | slice] = {"the first task": 0, "the second task": 1, "mean of both tasks": slice(2)}
Measured = tuple[list[Tensor], float]


def arm(name: str, part: str, measured: Measured) -> Arm:
    """One part of what was measured."""
    return Arm(name, tuple(float(each[PARTS[part]].mean()) for each in measured[0]), measured[1])


def rows_of(rounds: int, delta: float, free: Measured, together: Measured, note: str) -> list[Row]:
    """One delta against none on either task and on both, and against joint training on both."""
    ours = timed(partial(in_turn, delta=delta, rounds=rounds), SEEDS)
    name = f"successive regularisation, delta {delta:g}, {rounds} round{'s' * (rounds > 1)}, "
    rows = [
        compared(arm(name + part, part, ours), SOURCE, DATA, arm(FREE, part, free), LOG_ERROR, note) for part in PARTS
    ]
    both = "mean of both tasks"
    joined = arm("joint training", both, together)
    return [*rows, compared(arm(name + both, both, ours), SOURCE, DATA, joined, LOG_ERROR, note)]


def main() -> None:
    """Delta chosen by the mean of both tasks, once for each number of rounds; then the two largest for one round."""
    together, rows = timed(joint, SEEDS), []
    frees = {rounds: timed(partial(in_turn, delta=0.0, rounds=rounds), SEEDS) for rounds in (1, 8)}
    for rounds, free in frees.items():
        found = {delta: timed(partial(in_turn, delta=delta, rounds=rounds), OTHERS)[0] for delta in DELTAS}
        delta = min(DELTAS, key=lambda each: float(torch.stack(found[each]).mean()))
        note = "delta was chosen on other rows for the mean of both tasks; all arms make as many steps"
        rows += rows_of(rounds, delta, free, together, note)
    for delta in DELTAS[-2:]:
        note = "added to show what a stronger pull trades, after the rows of the delta chosen had been seen"
        rows += rows_of(1, delta, frees[1], together, note)[:3]
    write_rows(rows, "successive")


if __name__ == "__main__":
    main()
