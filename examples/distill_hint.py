"""A thin GRU of your own first follows a wide one's states over time, then its forecasts; a few seconds."""

import torch
from torch import nn
from torch.nn.functional import mse_loss

from pared import Forecaster, TrainConfig, distill, fit, hint
from pared.targets import Mixed
from pared.types import Batch


class Thin(nn.Module):
    """The next value of a series."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.last = nn.GRU(1, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        return self.last(self.gru(x)[0][:, -1])


class Data:
    """A sine whose pace changes."""

    def __init__(self) -> None:
        t = torch.linspace(0, 60, 612)
        windows = (t + 2 * (0.3 * t).sin()).sin().unfold(0, 13, 1)[..., None]
        batch = Batch(windows[:, :-1], windows[:, -1])
        self.train, self.validation = Batch(*(part[:400] for part in batch)), Batch(*(part[400:] for part in batch))


torch.manual_seed(0)
data, student = Data(), Thin()
teacher = fit(Forecaster(1, (16,), (), cell="gru", seed=0), data, TrainConfig(40)).model
hinted = hint(student, teacher, ("gru", "recurrent.0"), data, TrainConfig(15))
found = distill(hinted.model, teacher, data, TrainConfig(45), Mixed(0.5))
alone = fit(student, data, TrainConfig(60))
x, y = data.validation
errors = [mse_loss(model.eval()(x), y).item() for model in (teacher, found.model, alone.model)]
print("validation error: teacher {:.5f}, with hints {:.5f}, alone {:.5f}".format(*errors))
