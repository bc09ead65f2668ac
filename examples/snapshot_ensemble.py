"""One training, five networks: snapshots at the end of each cycle of the learning rate, and their mean; a second."""

import torch
from torch.nn.functional import mse_loss

from pared import MLP, Batch, TrainConfig
from pared.training import Ensemble, snapshots


class Data:
    """A noisy wave of four variables."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(400, 4, generator=generator)
        y = x.sum(1, keepdim=True).sin() + 0.3 * torch.randn(400, 1, generator=generator)
        self.train, self.validation = Batch(x[::2], y[::2]), Batch(x[1::2], y[1::2])


data = Data()
fits = snapshots(MLP(4, (32,), seed=0), data, TrainConfig(epochs=200, lr=3e-2), cycles=5)
alone = [fit.curves["validation"][-1] for fit in fits]
together = mse_loss(Ensemble([fit.model for fit in fits])(data.validation.x), data.validation.y).item()
print("validation errors alone", ", ".join(f"{error:.3f}" for error in alone), f"- together {together:.3f}")
