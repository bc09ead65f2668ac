"""Mixtures of recurrent experts on a series whose law changes: grown by splits, beside one LSTM of as many weights.

Fixed beforehand: LSTMs of 6 units as experts and gate, grown from 1 to 4 experts at 10, 20 and 30 of 50 epochs, noise
0.1, Adam at 0.02; 1,500 windows of 4 steps, one step ahead; 10 seeds, each on a series of its own. A law's first step
cannot be foreseen, by which the MSE has a floor; the median error has none. On another seed, tried before for longer,
mixtures with noises of 0.1, 0.4, infinity and one that falls from 1 to 0.1 all stayed behind one LSTM.
"""

from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import numpy as np
import torch
from growth_paired import LOG_ERROR, Arm, Measure, compared, timed
from growth_rows import write_rows
from torch import nn

from pared.data import switching, windows
from pared.growth import MixtureLoss, grow_experts
from pared.models import Experts, Forecaster
from pared.training import TrainConfig, fit, fit_many
from pared.types import Batch

SEEDS, WINDOW, ROWS, TESTED = range(10), 4, 1500, 4000
CONFIG, EVERY, MOST = TrainConfig(epochs=50, lr=2e-2, batch_size=250), 10, 4
MEDIAN = Measure("ln of the median squared test error, lower is better", float(np.log(1.05)), True)
DATA = "three chaotic maps in turn, 100 steps each on average"


@dataclass(frozen=True)
class Task:
    """What `fit` reads, and the test."""

    train: Batch
    validation: Batch
    test: Batch


def task(seed: int) -> Task:
    """A series of its own, in [-1, 1]."""
    x, _, y = windows(2 * switching(ROWS + TESTED + WINDOW, seed=seed).values - 1, WINDOW)
    whole = Batch(torch.tensor(x.copy(), dtype=torch.float32), torch.tensor(y[:, None].copy(), dtype=torch.float32))
    train, none, test = (Batch(whole.x[part], whole.y[part]) for part in (slice(ROWS), slice(0), slice(ROWS, None)))
    return Task(train, none, test)


def mixture(experts: int, seed: int) -> Experts:
    """Experts and a gate of one LSTM layer of 6 units each."""
    parts = [Forecaster(1, (6,), (), seed=100 * seed + k) for k in range(experts)]
    return Experts(parts, Forecaster(1, (6,), (), 6, seed=100 * seed + 99), 6, seed)


def single(seed: int) -> nn.Module:
    """One LSTM, of the first width at which it has as many weights as the mixture."""
    goal = size(mixture(MOST, seed))
    return next(net for net in (Forecaster(1, (n,), (), seed=seed) for n in count(6)) if size(net) >= goal)


def size(model: nn.Module) -> int:
    """How many weights."""
    return sum(parameter.numel() for parameter in model.parameters())


def measured(seed: int, kind: str) -> tuple[float, float, float]:
    """ln of the mean and of the median squared test error, and the largest mean share of an expert."""
    data, config = task(seed), replace(CONFIG, seed=seed)
    if kind == "grown":
        model: nn.Module = grow_experts(mixture(1, seed), data, config, MOST, EVERY, MixtureLoss()).model
    elif kind == "fixed":
        model = fit(mixture(MOST, seed), data, config, MixtureLoss()).model
    else:
        model = fit_many([single(seed)], [data], [config])[0].model
    with torch.no_grad():
        errors = (model.eval()(data.test.x) - data.test.y).square()
        share = model.parts(data.test.x)[1].exp().mean(0).max() if isinstance(model, Experts) else torch.ones(())
    return float(errors.mean().log()), float(errors.median().log()), float(share)


NAMES = {
    "grown": "mixture of LSTM experts, grown from 1 to 4 by splits",
    "fixed": "mixture of 4 LSTM experts from the start",
    "single": "one LSTM of as many weights, as many steps",
}


def main() -> None:
    """All arms on all seeds."""
    found = {kind: timed(partial(measured, kind=kind), SEEDS) for kind in NAMES}
    rows = []
    for one, two in (("grown", "single"), ("grown", "fixed"), ("fixed", "single")):
        alone = sum(share > 0.9 for _, _, share in found[one][0])
        note = f"one expert has more than 90 % of the shares in {alone} of {len(SEEDS)} seeds; one LSTM by the kernel"
        for place, measure in enumerate((LOG_ERROR, MEDIAN)):
            ours, theirs = (
                Arm(NAMES[kind], tuple(value[place] for value in found[kind][0]), found[kind][1]) for kind in (one, two)
            )
            rows.append(compared(ours, "Chazan et al. 2017", DATA, theirs, measure, note))
    write_rows(rows, "experts")


if __name__ == "__main__":
    main()
