"""Three networks of one size, each taught by the one before, and all together; a few seconds."""

import torch
from torch.nn.functional import cross_entropy

from pared import MLP, TrainConfig, born_again, fit
from pared.data import classic
from pared.distill import answers
from pared.types import Batch


class Data:
    """300 digits to train on, the rest to look at the result."""

    def __init__(self) -> None:
        table = classic("digits")
        order = torch.randperm(len(table.target), generator=torch.Generator().manual_seed(0))
        x, y = torch.tensor(table.inputs / 16).float()[order], torch.tensor(table.target).long()[order]
        self.train, self.validation = Batch(x[:300], y[:300]), Batch(x[300:], y[300:])


data, config = Data(), TrainConfig(40, 3e-3, 50)
fits = born_again(lambda generation: MLP(64, (64,), 10, "relu", generation), data, config)
models = [each.model for each in fits]
strangers = [fit(MLP(64, (64,), 10, "relu", seed), data, config, cross_entropy).model for seed in range(3)]
x, y = data.validation
names, rows = ("first", "second", "third", "together", "strangers together"), [*models, models, strangers]
for name, teacher in zip(names, rows, strict=True):
    print(f"{name}: {(answers(teacher, x).argmax(1) == y).double().mean():.1%}")
