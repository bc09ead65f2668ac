"""Dropout that grows while a network trains (curriculum dropout), on a module of your own; about a second."""

import torch
from torch import nn

from pared.schedules import Decay
from pared.training import Bound, TrainConfig, fit
from pared.types import Batch


class Data:
    """A noisy sine."""

    def __init__(self) -> None:
        x = torch.linspace(-3, 3, 200)[:, None]
        y = x.sin() + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        self.train, self.validation = Batch(x[::2], y[::2]), Batch(x[1::2], y[1::2])


model = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Dropout(0.2), nn.Linear(64, 1))
config = TrainConfig(epochs=100, bound=(Bound("*.p", Decay(0.2)), Bound("weight_decay", Decay(1e-4))))
result = fit(model, Data(), config)
print(f"validation loss {result.curves['validation'][-1]:.4f}, dropout at the end {result.model[2].p:.4f}")
