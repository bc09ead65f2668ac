"""A network of your own that reads upright digits learns turned ones from pairs, without a label; seconds."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pared import TrainConfig, adapt, fit
from pared.data import classic
from pared.types import Batch


class Reader(nn.Module):
    """A small convolutional network."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.last = nn.Conv2d(1, 8, 3), nn.Linear(8 * 36, 10)

    def forward(self, x):
        return self.last(torch.relu(self.convolution(x)).flatten(1))


class Data:
    """Upright images: 400 to train on, the last 797 to look at the result."""

    def __init__(self) -> None:
        table = classic("digits")
        order = torch.randperm(len(table.target), generator=torch.Generator().manual_seed(0))
        x, y = torch.tensor(table.inputs / 16).float()[order], torch.tensor(table.target).long()[order]
        self.images = x.reshape(-1, 1, 8, 8)
        self.train, self.validation = Batch(self.images[:400], y[:400]), Batch(self.images[1000:], y[1000:])


def accuracy(model: nn.Module, x: torch.Tensor) -> float:
    """On digits that nobody was trained on."""
    return (model.eval()(x).argmax(1) == data.validation.y).double().mean().item()


torch.manual_seed(0)
data = Data()
turned = data.images.rot90(1, (2, 3))
teacher = fit(Reader(), data, TrainConfig(20, 3e-3, 50), cross_entropy).model
student = adapt(teacher, data.images[400:1000], turned[400:1000], TrainConfig(40, 3e-3, 50)).model
upright = accuracy(teacher, data.validation.x)
print(f"teacher on upright digits {upright:.1%}, on turned ones {accuracy(teacher, turned[1000:]):.1%}")
print(f"student on turned ones {accuracy(student, turned[1000:]):.1%}")
