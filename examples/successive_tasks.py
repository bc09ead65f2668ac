"""Two tasks in turn on a shared GRU: the second one may not pull the trunk far from what the first one needs."""

import torch
from torch import nn
from torch.nn.functional import mse_loss

from pared import TrainConfig, successive
from pared.types import Batch


class Trunk(nn.Module):
    """Reads a window."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(1, 8, batch_first=True)

    def forward(self, x):
        return self.gru(x)[0][:, -1]


class Data:
    """A sine whose pace changes, so many steps ahead."""

    def __init__(self, ahead: int) -> None:
        t = torch.linspace(0, 60, 620)
        rows = (t + 2 * (0.3 * t).sin()).sin().unfold(0, 12 + ahead, 1)[..., None]
        batch = Batch(rows[:, :12], rows[:, -1])
        self.train, self.validation = Batch(*(part[:400] for part in batch)), Batch(*(part[400:] for part in batch))


torch.manual_seed(0)
trunk, heads = Trunk(), {"near": nn.Linear(8, 1), "far": nn.Linear(8, 1)}
tasks = {"near": Data(1), "far": Data(8)}
for delta in (0.0, 0.1):
    found = successive(trunk, heads, tasks, TrainConfig(epochs=20), delta=delta)
    errors = {name: mse_loss(found.network(name)(data.validation.x), data.validation.y) for name, data in tasks.items()}
    print(f"delta {delta}: near {errors['near']:.4f}, far {errors['far']:.4f}")
