"""Net2Net: a trained network made wider and deeper that starts from what it knows; about a second."""

import dataclasses

import torch
from torch import nn

from pared import TrainConfig, carry, deepen, fit, trace, widen
from pared.types import Batch


class Data:
    """A product of sines."""

    def __init__(self) -> None:
        x = torch.rand(400, 2, generator=torch.Generator().manual_seed(0)) * 6 - 3
        y = x.sin().prod(1, keepdim=True)
        self.train, self.validation = Batch(x[::2], y[::2]), Batch(x[1::2], y[1::2])


data, config = Data(), TrainConfig(epochs=40)
small = fit(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)), data, config)

structure, copies = trace(small.model, data.train.x), {"0": range(8)}
wide = widen(small.model, structure, copies, noise=0.01)  # every unit twice; what reads them halved
state = carry(small.optimiser_state, small.model, wide, structure, copies)
wider = fit(wide, data, config, resume=dataclasses.replace(small, model=wide, optimiser_state=state))

deep, _ = deepen(wider.model, "1", 16, "relu")  # an identity after the ReLU: nothing changes until it learns
deeper = fit(deep, data, config)
for name, one in {"small": small, "wider": wider, "deeper": deeper}.items():
    print(f"{name}: validation loss {one.curves['validation'][-1]:.5f}")
