"""Residual blocks that training passes by at random, later ones more often; all of them answer afterwards; seconds."""

import torch
from torch import nn

from pared import Batch, TrainConfig, fit
from pared.models import StochasticDepth, survivals


class Data:
    """A noisy wave of four variables."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(400, 4, generator=generator)
        y = x.sum(1, keepdim=True).sin() + 0.3 * torch.randn(400, 1, generator=generator)
        self.train, self.validation = Batch(x[::2], y[::2]), Batch(x[1::2], y[1::2])


def deep(last):
    torch.manual_seed(0)
    blocks = [
        StochasticDepth(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)), survival)
        for survival in survivals(6, last)
    ]
    return nn.Sequential(nn.Linear(4, 16), *blocks, nn.Linear(16, 1))


for last in (1.0, 0.7):
    found = fit(deep(last), Data(), TrainConfig(epochs=80, lr=3e-3))
    print(f"the last block survives with {last}: validation error {found.curves['validation'][-1]:.3f}")
