"""Eight networks trained side by side that copy the best (population-based training): the rates that came out are a
schedule, which is replayed; beside random search; a few seconds."""

from dataclasses import replace

import torch

from pared import MLP, Batch, TrainConfig, train_population
from pared.population import Selection, replay


class Data:
    """A wave of two variables."""

    def __init__(self) -> None:
        x = torch.rand(600, 2, generator=torch.Generator().manual_seed(0)) * 6 - 3
        y = (x[:, :1] + x[:, 1:].sin()).sin()
        self.train, self.validation = Batch(x[::2], y[::2]), Batch(x[1::2], y[1::2])


def build(seed):
    return MLP(2, (16,), seed=seed)


data, config, space = Data(), TrainConfig(epochs=60, seed=1), {"lr": (1e-4, 1e-1), "weight_decay": (1e-6, 1e-2)}
how = Selection(size=8, every=5)
found = train_population(build, data, config, space, how)
alone = train_population(build, data, config, space, replace(how, quantile=0.0))
again = replay(build(found.best.origin), data, found.best.rounds)
print("learning rates", ", ".join(f"{part.lr:.4f}" for part in found.best.rounds))
print(f"best of 8: {found.best.loss:.5f}, replayed {again.curves['validation'][-1]:.5f}; random: {alone.best.loss:.5f}")
