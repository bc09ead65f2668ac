"""Networks that find their size on digits, against plain networks of the sizes found and at the start.

Paired by seed: 1258 rows (70 %) to train on, dealt out anew for each seed, the other 539 looked at once after the last
epoch. Every number was set beforehand (a look at one training on another seed showed that it runs): 64-10-10-10 with
CapNorm and ReLU, lambda 3e-4, 220 epochs of 64 rows, units until 70 % of them. Controls are MLPs by Adam at 1e-3 with a
cosine, for as many epochs as cost the same multiply-adds: sum over epochs of each epoch's widths. They are trained by a
compiled kernel, so that seconds say more of the two programs than of the methods.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from growth_paired import ACCURACY, Arm, accuracy, compared
from growth_rows import Row, write_rows
from growth_schedules import Digits
from torch import nn
from torch.nn.functional import cross_entropy

from pared.growth import Nonparametric, fit_nonparametric
from pared.models import MLP, CapNorm
from pared.training import TrainConfig, fit_many

SEEDS, ROWS, START = 10, 1258, (10, 10)
CONFIG = TrainConfig(epochs=220, lr=1e-2, batch_size=64)


@dataclass(frozen=True)
class Trained:
    """What became of one network."""

    right: float
    widths: tuple[int, int]
    products: float
    seconds: float


def start(seed: int) -> nn.Module:
    """64-10-10-10, normalised by CapNorm, without biases but for the outputs'."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, second = ([nn.Linear(n, m, bias=False), CapNorm(m), nn.ReLU()] for n, m in ((64, 10), (10, 10)))
        return nn.Sequential(*first, *second, nn.Linear(10, 10))


def products(widths: tuple[int, int]) -> int:
    """Multiply-adds of one example, which training does three times."""
    return 64 * widths[0] + widths[0] * widths[1] + widths[1] * 10


def found(seed: int) -> Trained:
    """A network that finds its size."""
    data = Digits(seed, ROWS)
    config = TrainConfig(CONFIG.epochs, CONFIG.lr, CONFIG.batch_size, seed=seed)
    started = time.process_time()
    fit = fit_nonparametric(start(seed), data, config, Nonparametric(3e-4), cross_entropy)
    spent = time.process_time() - started
    sizes = [(widths["0"], widths["3"]) for widths in fit.widths]
    return Trained(accuracy(fit.model, data.test), sizes[-1], sum(map(products, sizes)), spent)


def fixed(seed: int, widths: tuple[int, int], spent: float) -> Trained:
    """A plain MLP that spends as many multiply-adds."""
    data = Digits(seed, ROWS)
    config = TrainConfig(round(spent / products(widths)), 1e-3, 64, seed=seed)
    started = time.process_time()
    model = fit_many([MLP(64, widths, 10, "relu", seed)], [data], [config], cross_entropy)[0].model
    return Trained(accuracy(model, data.test), widths, spent, time.process_time() - started)


def row(ours: list[Trained], theirs: list[Trained], against: str) -> Row:
    """Both arms on all seeds."""
    mine, control = (
        Arm(name, tuple(each.right for each in arm), float(np.mean([each.seconds for each in arm])))
        for name, arm in (("nonparametric network, lambda 3e-4", ours), (against, theirs))
    )
    first, second = ([each.widths[layer] for each in ours] for layer in (0, 1))
    note = (
        f"from 10 and 10 units to {np.mean(first):.0f} ({min(first)} to {max(first)}) and {np.mean(second):.0f} "
        f"({min(second)} to {max(second)}); the control's seconds are a compiled kernel's"
    )
    return compared(mine, "Philipp & Carbonell 2017", "digits", control, ACCURACY, note)


def main() -> None:
    """All arms on all seeds."""
    ours = [found(seed) for seed in range(SEEDS)]
    as_wide = [fixed(seed, each.widths, each.products) for seed, each in enumerate(ours)]
    as_narrow = [fixed(seed, START, each.products) for seed, each in enumerate(ours)]
    write_rows(
        [
            row(ours, as_wide, "MLPs of the sizes found, as many multiply-adds"),
            row(ours, as_narrow, "MLPs of 10 and 10 units, as many multiply-adds"),
        ],
        "nonparametric",
    )


if __name__ == "__main__":
    main()
