"""Units that start where the gradient is largest: GradMax beside units drawn by chance; about a second."""

import torch
from torch import nn

from pared import Batch, Growing, TrainConfig, grow
from pared.growth import gradmax, random_in


class Data:
    """A product of sines."""

    def __init__(self) -> None:
        x = torch.rand(400, 2, generator=torch.Generator().manual_seed(0)) * 6 - 3
        y = x.sin().prod(1, keepdim=True)
        self.train, self.validation = Batch(x[::2], y[::2]), Batch(x[1::2], y[1::2])


torch.manual_seed(0)
model, how = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)), Growing({"0": 4}, every=20, up_to={"0": 16})
for rule in (gradmax, random_in):  # neither changes what the network gives
    grown = grow(model, Data(), TrainConfig(epochs=80, lr=0.01), rule, how)
    print(f"{rule.__name__}: {grown.structure['0'].width} units, training loss {grown.losses[-1]:.4f}")
