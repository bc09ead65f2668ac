"""Growth by splitting: units of a trained network split where that helps, or make room for new ones; a few seconds."""

import torch
from torch import nn

from pared import Batch, Growing, TrainConfig, grow
from pared.growth import firefly, splits


class Data:
    """A product of sines."""

    def __init__(self) -> None:
        x = torch.rand(400, 2, generator=torch.Generator().manual_seed(0)) * 6 - 3
        y = x.sin().prod(1, keepdim=True)
        self.train, self.validation = Batch(x[::2], y[::2]), Batch(x[1::2], y[1::2])


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
for rule in (splits, firefly):
    grown = grow(model, Data(), TrainConfig(epochs=100), rule, Growing({"0": 2}, every=20, up_to={"0": 12}))
    print(f"{rule.__name__}: {grown.structure['0'].width} units, loss {grown.fits[-1].curves['validation'][-1]:.4f}")
