"""RigL on a module of your own: a fifth of the weights from the first step on, which move to where the loss asks for
them; beside masks that never move; a second or two."""

import torch
from torch import nn

from pared import Batch, Rewiring, TrainConfig, density, fit_sparse, rigl


class Squares(nn.Module):
    """Two numbers of a window of ten matter."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(10, 32), nn.Linear(32, 1)

    def forward(self, x):
        return self.outer(self.inner(x).tanh())


class Data:
    """The product of the first two of ten inputs."""

    def __init__(self) -> None:
        x = torch.rand(600, 10, generator=torch.Generator().manual_seed(0)) * 2 - 1
        y = x[:, :2].prod(1, keepdim=True)
        self.train, self.validation = Batch(x[::2], y[::2]), Batch(x[1::2], y[1::2])


torch.manual_seed(0)
model, data, config = Squares(), Data(), TrainConfig(epochs=60)
share = 0.2
for name, how in {"RigL": rigl(share, every=3), "fixed masks": Rewiring(share, until=0.0)}.items():
    found = fit_sparse(model, data, config, how)
    used = found.masks["inner.weight"][:, :2].double().mean()
    error = found.fits[-1].curves["validation"][-1]
    print(f"{name}: {density(found.masks):.0%} of the weights, {used:.0%} of those that matter; error {error:.4f}")
