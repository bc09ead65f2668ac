"""A second column learns a new task with the help of the first one, which stays as it is to the bit; a few seconds."""

import torch
from torch import nn

from pared import Forecaster, TrainConfig, fit
from pared.growth import Progressive, add_column
from pared.types import Batch


class Data:
    """A sine whose pace changes, 3 steps ahead."""

    def __init__(self, pace: float, rows: int) -> None:
        t = torch.linspace(0, 60, 620)
        windows = (pace * t + 2 * (0.3 * t).sin()).sin().unfold(0, 15, 1)[..., None]
        batch = Batch(windows[:, :12], windows[:, -1])
        self.train, self.validation = Batch(*(part[:rows] for part in batch)), Batch(*(part[400:] for part in batch))


old, new, config = Data(1.0, 400), Data(1.5, 60), TrainConfig(epochs=25)
first = fit(Forecaster(1, (8, 8), (4,), seed=0), old, config).model
both = Progressive(first, layers=("recurrent.1", "head.0"))  # any module of yours, by the names of its layers
grown = fit(add_column(both, Forecaster(1, (8, 8), (4,), seed=1), new.train.x), new, config)
scratch = fit(Forecaster(1, (8, 8), (4,), seed=1), new, config)
kept = torch.equal(grown.model(old.validation.x, column=0), first(old.validation.x))
errors = [nn.functional.mse_loss(each.model(new.validation.x), new.validation.y).item() for each in (grown, scratch)]
print(f"new task: {errors[0]:.4f} with the first column, {errors[1]:.4f} alone; old task kept to the bit: {kept}")
