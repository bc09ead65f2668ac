"""A network that finds its own size on handwritten digits: units come and go while it trains; some ten seconds."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from pared import Batch, TrainConfig
from pared.data import classic
from pared.growth import Nonparametric, fit_nonparametric
from pared.models import CapNorm


class Digits:
    """Two thirds to train on, a third to look at."""

    def __init__(self) -> None:
        table = classic("digits")
        x, y = torch.tensor(table.inputs / 16, dtype=torch.float32), torch.tensor(table.target, dtype=torch.int64)
        held = torch.arange(len(y)) % 3 == 0
        self.train, self.validation = Batch(x[~held], y[~held]), Batch(x[held], y[held])


layers = [nn.Linear(64, 10, bias=False), CapNorm(10), nn.ReLU(), nn.Linear(10, 10)]
data, config = Digits(), TrainConfig(epochs=100, lr=1e-2)
found = fit_nonparametric(nn.Sequential(*layers), data, config, Nonparametric(penalty=3e-4, until=0.5), cross_entropy)

right = found.model.eval()(data.validation.x).argmax(1) == data.validation.y
most = max(widths["0"] for widths in found.widths)
print(f"10 units grew to {most}, {found.structure['0'].width} were left: {right.double().mean():.1%} right")
