"""Snapshot ensembles: one training, several networks."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared.schedules import Cosine
from pared.training.fit import Fit, TrainConfig, TrainingData, fit
from pared.types import Loss


class Ensemble(nn.Module):
    """The mean prediction of networks; with `classes` the log of their mean softmax, which is itself logits."""

    def __init__(self, members: Sequence[nn.Module], classes: bool = False) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble has at least one member, got none")
        self.members = nn.ModuleList(copy.deepcopy(member) for member in members)
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        out = torch.stack([member(x) for member in self.members])
        return out.softmax(-1).mean(0).log() if self.classes else out.mean(0)


def snapshots(
    model: nn.Module, split: TrainingData, config: TrainConfig, cycles: int = 5, loss: Loss = mse_loss
) -> tuple[Fit, ...]:
    """Trains in `cycles` parts, the learning rate falling by a cosine to 0 in each, and keeps each part's network.

    Each part trains for config.epochs / cycles epochs and goes on from the one before with its optimiser's state; cost:
    one training of `config`. The ensemble: `Ensemble([fit.model for fit in snapshots(...)])`.
    Raises ValueError where the epochs do not divide, and for bound hyperparameters. Source: Huang et al., Snapshot
    Ensembles (2017).
    """
    if cycles < 1 or config.epochs % cycles:
        raise ValueError(f"{config.epochs} epochs cannot be cut in {cycles} equal cycles; give a multiple")
    if config.bound or config.plateau:
        raise ValueError("snapshots train in parts, each of its own schedule; leave bound and plateau out")
    fits: list[Fit] = []
    for cycle in range(cycles):
        part = replace(config, epochs=config.epochs // cycles, schedule=Cosine(), seed=config.seed + cycle)
        fits.append(fit(model, split, part, loss, fits[-1] if fits else None))
    return tuple(fits)
