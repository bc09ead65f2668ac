"""A large network that saw 1,000 labels teaches a small one of your own, which has 100 of its own; a few seconds."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pared import MLP, TrainConfig, distill, fit
from pared.data import classic
from pared.types import Batch


class Student(nn.Module):
    """A logit a class from 64 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x):
        return self.last(torch.relu(self.hidden(x)))


class Data:
    """Digits of some rows to train on, the last 697 to look at the result."""

    def __init__(self, first: int, stop: int) -> None:
        table = classic("digits")
        order = torch.randperm(len(table.target), generator=torch.Generator().manual_seed(0))
        x, y = torch.tensor(table.inputs / 16).float()[order], torch.tensor(table.target).long()[order]
        self.train, self.validation = Batch(x[first:stop], y[first:stop]), Batch(x[1100:], y[1100:])


def accuracy(model: nn.Module) -> float:
    """On what nobody was trained on."""
    return (model.eval()(few.validation.x).argmax(1) == few.validation.y).double().mean().item()


torch.manual_seed(0)
few, many, student = Data(0, 100), Data(100, 1100), Student()
teacher = fit(MLP(64, (256,), 10, "relu", seed=0), many, TrainConfig(20, 3e-3, 50), cross_entropy).model
taught = distill(student, teacher, few, TrainConfig(250, 3e-3, 50)).model
pooled = distill(student, teacher, few, TrainConfig(23, 3e-3, 50), unlabelled=many.train.x).model  # as many steps
alone = fit(student, few, TrainConfig(250, 3e-3, 50), cross_entropy).model
print(f"teacher {accuracy(teacher):.1%}, student alone {accuracy(alone):.1%}")
print(f"taught on its 100 inputs {accuracy(taught):.1%}, on 1,000 without a label as well {accuracy(pooled):.1%}")
