"""A GRU that grows where its readers want most, by TINY, on a module of your own; a few seconds."""

import torch
from torch import nn

from pared import Growing, TrainConfig, grow
from pared.growth import tiny
from pared.types import Batch


class Forecast(nn.Module):
    """The next value of a series."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(1, 2, batch_first=True)
        self.dense, self.last = nn.Linear(2, 2), nn.Linear(2, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.dense(self.gru(x)[0][:, -1])))


class Data:
    """A sine whose pace changes."""

    def __init__(self) -> None:
        t = torch.linspace(0, 60, 612)
        windows = (t + 2 * (0.3 * t).sin()).sin().unfold(0, 13, 1)[..., None]
        batch = Batch(windows[:, :-1], windows[:, -1])
        self.train, self.validation = Batch(*(part[:400] for part in batch)), Batch(*(part[400:] for part in batch))


how = Growing({"gru.l0": 2, "dense": 2}, every=10, neediest=True)
grown = grow(Forecast(), Data(), TrainConfig(epochs=60), tiny, how)
print(f"added {grown.added}, validation loss {grown.fits[-1].curves['validation'][-1]:.5f}")
