"""Curriculum dropout, stochastic depth and snapshots on digits, each against its control at as many training steps.

Paired by seed: 300 rows to train on, dealt out anew for each seed, the other 1497 looked at once after the last epoch.
Rates are set beforehand, the same in method and control.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from growth_paired import ACCURACY, accuracy, compared, measured
from growth_rows import Row, write_rows
from torch import nn

from pared.data import classic
from pared.models import MLP, StochasticDepth, survivals
from pared.schedules import Constant, Decay
from pared.training import Bound, Ensemble, TrainConfig, fit, snapshots
from pared.types import Batch, Schedule

SEEDS, ROWS = 10, 300
Training = Callable[["Digits", int], nn.Module]


class Digits:
    """Digits dealt out by a seed: `rows` to train on, the rest to test on; nothing to choose on."""

    def __init__(self, seed: int, rows: int) -> None:
        table = classic("digits")
        order = np.random.default_rng(seed).permutation(len(table.target))
        whole = Batch(
            torch.tensor(table.inputs[order] / 16, dtype=torch.float32),
            torch.tensor(table.target[order], dtype=torch.int64),
        )
        self.train, self.test = Batch(whole.x[:rows], whole.y[:rows]), Batch(whole.x[rows:], whole.y[rows:])
        self.validation = Batch(whole.x[:0], whole.y[:0])


def dropped(data: Digits, seed: int, rate: Schedule) -> nn.Module:
    """An MLP of 256 and 256 units whose dropout follows `rate`."""
    model = MLP(64, (256, 256), 10, "relu", seed, dropout=0.5)
    config = TrainConfig(epochs=60, lr=1e-3, batch_size=50, seed=seed, bound=(Bound("*.p", rate),))
    return fit(model, data, config, nn.functional.cross_entropy).model


def deep(data: Digits, seed: int, last: float) -> nn.Module:
    """Twelve residual blocks of 64 units, whose survival falls to `last`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks = [
            StochasticDepth(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)), survival)
            for survival in survivals(12, last)
        ]
        model = nn.Sequential(*blocks, nn.Linear(64, 10))
    config = TrainConfig(epochs=60, lr=1e-3, batch_size=50, seed=seed)
    return fit(model, data, config, nn.functional.cross_entropy).model


def snapped(data: Digits, seed: int, cycles: int) -> nn.Module:
    """The ensemble of `cycles` snapshots of one training; with one cycle plain training with a cosine."""
    config = TrainConfig(epochs=60, lr=1e-2, batch_size=50, seed=seed)
    fits = snapshots(MLP(64, (64,), 10, "relu", seed), data, config, cycles, nn.functional.cross_entropy)
    return Ensemble([each.model for each in fits], classes=True)


def row(method: str, source: str, arm: Training, against: str, control: Training, rows: int = ROWS) -> Row:
    """Both arms on all seeds."""
    ours, theirs = (
        measured(name, partial(tested, train=train, rows=rows), range(SEEDS))
        for name, train in ((method, arm), (against, control))
    )
    return compared(ours, source, "digits", theirs, ACCURACY, f"{rows} training rows")


def tested(seed: int, train: Training, rows: int) -> float:
    """Test accuracy after one training."""
    data = Digits(seed, rows)
    return accuracy(train(data, seed), data.test)


def main() -> None:
    """The three studies."""
    write_rows(
        [
            row(
                "curriculum dropout, 0 to 0.5",
                "Morerio et al. 2017",
                partial(dropped, rate=Decay(0.5)),
                "dropout fixed at 0.5, as many steps",
                partial(dropped, rate=Constant(0.5)),
            ),
            row(
                "stochastic depth, 12 blocks, survival 1 to 0.5",
                "Huang et al. 2016",
                partial(deep, last=0.5),
                "the same blocks always there, as many steps",
                partial(deep, last=1.0),
            ),
            row(
                "snapshot ensemble, 5 cycles",
                "Huang et al. 2017",
                partial(snapped, cycles=5),
                "one network, one cosine, as many steps",
                partial(snapped, cycles=1),
            ),
        ],
        "schedules",
    )


if __name__ == "__main__":
    main()
