"""LSTMs that find their size on Mackey-Glass, against LSTMs of the sizes found and of the size at the start.

Paired by seed: windows of 20, tau 17, 6 steps ahead; 500 to train on, 500 to test on, each seed's from a stretch of its
own. One layer that starts with 4 units, 100 epochs of 50 windows, units until 60 % of them. Lengths learn at the rate
1 / (horizon penalty), which must not be large where errors are squared: horizon x penalty is about 0.5; it diverged
at 0.02 and less. The penalty was chosen between 1e-2 and 3e-3, the angular rate between 3 and 0.3, on the last 100
training windows of a stretch that no seed has. Controls by Adam at 1e-2 with a cosine, for as many epochs as cost the
same multiply-adds: the sum over epochs of each epoch's width. They are trained by a compiled kernel. Since the penalty
keeps errors up, the networks found are also trained on without it, as the controls are, for `MORE` epochs.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from growth_paired import LOG_ERROR, Arm, compared, log_error
from growth_rows import Row, write_rows
from torch import nn

from pared import Batch, Forecaster, TrainConfig, fit_many
from pared.data import mackey_glass, windows
from pared.growth import Nonparametric, fit_nonparametric

SEEDS, WINDOW, AHEAD, ROWS, START, GROUP = range(10), 20, 6, 500, 4, "recurrent.0.l0"
STRETCH = 2 * ROWS + 2 * (WINDOW + AHEAD)
VALUES = (mackey_glass(17.0, length=(len(SEEDS) + 1) * STRETCH).values - 0.9) / 0.25
CONFIG = TrainConfig(epochs=100, lr=1e-2, batch_size=50)
MORE = 300
HOW = Nonparametric(1e-2, until=0.6, horizon=50.0, angular=0.3)


@dataclass(frozen=True)
class Parts:
    """Windows to train on and to test on; nothing is chosen."""

    train: Batch
    test: Batch
    validation: Batch


@dataclass(frozen=True)
class Trained:
    """What became of one network."""

    error: float
    units: int
    products: float
    seconds: float


def parts(seed: int) -> Parts:
    """A stretch's first windows and its last, which share no value."""
    x, _, y = windows(VALUES[seed * STRETCH : (seed + 1) * STRETCH], WINDOW, AHEAD)
    whole = Batch(torch.tensor(x.copy(), dtype=torch.float32), torch.tensor(y[:, None].copy(), dtype=torch.float32))
    return Parts(*(Batch(whole.x[rows], whole.y[rows]) for rows in (slice(ROWS), slice(len(y) - ROWS, None), slice(0))))


def build(units: int, seed: int) -> nn.Module:
    """One LSTM layer whose last step is read."""
    return Forecaster(1, (units,), (), seed=seed)


def products(units: int) -> int:
    """Multiply-adds of one window, which training does three times."""
    return 4 * WINDOW * units * (units + 1) + units


def found(seed: int) -> tuple[Trained, Trained]:
    """A network that finds its size, as it comes and after `MORE` epochs of Adam without the penalty."""
    data, started = parts(seed), time.process_time()
    fit = fit_nonparametric(build(START, seed), data, replace(CONFIG, seed=seed), HOW)
    between = time.process_time()
    sizes = [widths[GROUP] for widths in fit.widths]
    spent, units = sum(map(products, sizes)), sizes[-1]
    after = fit_many([fit.model], [data], [replace(CONFIG, epochs=MORE, seed=seed)])[0].model
    return (
        Trained(log_error(fit.model, data.test), units, spent, between - started),
        Trained(log_error(after, data.test), units, spent + MORE * products(units), time.process_time() - started),
    )


def fixed(seed: int, units: int, spent: float) -> Trained:
    """A plain LSTM that spends as many multiply-adds."""
    data, config = parts(seed), replace(CONFIG, epochs=round(spent / products(units)), seed=seed)
    started = time.process_time()
    model = fit_many([build(units, seed)], [data], [config])[0].model
    return Trained(log_error(model, data.test), units, spent, time.process_time() - started)


def row(ours: list[Trained], theirs: list[Trained], name: str, against: str) -> Row:
    """Both arms on all seeds."""
    sizes = [each.units for each in ours]
    mine, control = (
        Arm(name, tuple(each.error for each in arm), float(np.mean([each.seconds for each in arm])))
        for name, arm in ((name, ours), (against, theirs))
    )
    note = (
        f"from {START} units to {np.mean(sizes):.0f} ({min(sizes)} to {max(sizes)}); "
        "the control's seconds are a compiled kernel's"
    )
    return compared(mine, "Philipp & Carbonell 2017", "Mackey-Glass, windows of 20, 6 ahead", control, LOG_ERROR, note)


def rows_of(ours: list[Trained], name: str) -> list[Row]:
    """Against plain networks of the sizes found and of the size at the start."""
    as_wide = [fixed(seed, each.units, each.products) for seed, each in zip(SEEDS, ours, strict=True)]
    as_narrow = [fixed(seed, START, each.products) for seed, each in zip(SEEDS, ours, strict=True)]
    return [
        row(ours, as_wide, name, "LSTMs of the sizes found, as many multiply-adds"),
        row(ours, as_narrow, name, f"LSTMs of {START} units, as many multiply-adds"),
    ]


def main() -> None:
    """All arms on all seeds."""
    penalised, trained_on = zip(*map(found, SEEDS), strict=True)
    name = f"nonparametric LSTM, lambda {HOW.penalty:g}"
    rows = rows_of([*penalised], name) + rows_of([*trained_on], f"{name}, then {MORE} epochs without the penalty")
    write_rows(rows, "lstm_size")


if __name__ == "__main__":
    main()
