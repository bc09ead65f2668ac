"""What is trained on what: three budgets of training, fixed before any result was seen, and the paper's blocks."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

import numpy as np

from pared import evaluation
from pared.data import Framing, Protocol, Series, Split, builtin, rolling_origin, rossler
from pared.models import Forecaster
from pared.replicate.junk_neuron.published import System
from pared.schedules import Constant, Cosine
from pared.training import TrainConfig
from pared.types import Batch

View = Literal["paper", "default"]
TRAIN, TEST = 5000, 1000
"""Training and test rows of a block; the paper's 15 are the first of them."""


@dataclass(frozen=True)
class Budget:
    """How long networks are trained, on what view of the data, and how often: pure data.

    `longer` names systems that are trained for more epochs than the others. `cosine` lets the learning rate rise over
    the first tenth and fall to 0, else it is constant. `view` "paper": the paper's windows and values scaled
    to [0, 1]; "default": what `pared run` takes, values or increments, windows of 2 (Rossler: 4), [-1, 1].
    """

    name: str
    epochs: int
    lr: float
    batch_size: int
    refit_epochs: int
    refit_lr: float
    seeds: int
    longer: Mapping[str, int] = field(default_factory=dict)
    cosine: bool = False
    view: View = "paper"
    blocks: int = 10

    def training(self, system: System, seed: int) -> TrainConfig:
        """How a full network is trained."""
        epochs = self.longer.get(system.name, self.epochs)
        schedule = Cosine(warm=0.1) if self.cosine else Constant()
        return TrainConfig(epochs=epochs, lr=self.lr, batch_size=self.batch_size, schedule=schedule, seed=seed)

    def refitting(self, seed: int) -> TrainConfig:
        """How a network is trained on after a cut."""
        schedule = Cosine() if self.cosine else Constant()
        return TrainConfig(
            epochs=self.refit_epochs, lr=self.refit_lr, batch_size=self.batch_size, schedule=schedule, seed=seed
        )

    def steps(self, system: System) -> int:
        """Adam steps of a full network."""
        examples = TRAIN - window_of(system, self.view)
        return self.training(system, 0).epochs * math.ceil(examples / self.batch_size)


BUDGETS: dict[str, Budget] = {
    budget.name: budget
    for budget in (
        # Whole epochs whose weights come closest to the paper's numbers of units below its thresholds.
        Budget("paper", 1, 1e-3, 32, 1, 1e-3, seeds=20, longer={"logistic-3.99": 2, "henon": 3}),
        Budget("ten", 10, 1e-3, 32, 2, 1e-3, seeds=20),
        Budget("converged", 1000, 1e-2, 32, 50, 3e-3, seeds=5, cosine=True, view="default"),
    )
}
QUICK = {"paper": {"seeds": 1}, "ten": {"seeds": 1}, "converged": {"seeds": 1, "epochs": 20, "refit_epochs": 2}}
"""What `--quick` changes: too few seeds for any claim, and nothing that has converged."""


@cache
def series_of(system: System) -> Series:
    """The paper's series; the Rossler flow by its right equations, from the origin on as in the paper."""
    return rossler(discard=0) if system.name == "rossler" else builtin(system.name)


def window_of(system: System, view: View) -> int:
    """How many past values the networks see."""
    return series_of(system).window if view == "default" else system.window


@cache
def splits_of(system: System, view: View, blocks: int) -> tuple[Split, ...]:
    """The paper's blocks: 5,000 rows to train on, the next 1,000 to test on, 4,000 rows apart."""
    series = series_of(system)
    protocol = Protocol(train=TRAIN, validation=0, test=TEST, stride=4000, blocks=blocks, start=0)
    predict = series.predict if view == "default" else "values"
    splits = rolling_origin(series, protocol, Framing(window_of(system, view), predict=predict))
    return tuple(map(in_unit_range, splits)) if view == "paper" else tuple(splits)


def in_unit_range(split: Split) -> Split:
    """The block scaled to [0, 1] instead of [-1, 1]."""
    low = tuple(shift - scale for shift, scale in zip(split.scaler.shift, split.scaler.scale, strict=True))
    scaler = replace(split.scaler, shift=low, scale=tuple(2 * scale for scale in split.scaler.scale))
    parts = [Batch((part.x + 1) / 2, (part.y + 1) / 2) for part in (split.train, split.validation, split.test)]
    return replace(split, train=parts[0], validation=parts[1], test=parts[2], scaler=scaler)


def network(system: System, units: int, seed: int) -> Forecaster:
    """A fresh network of the paper with `units` in its first layer, initialised as Keras does."""
    return Forecaster(1, (units, *system.recurrent[1:]), system.dense, init="keras", seed=seed)


def seed_of(system: System, block: int, seed: int, purpose: int, deleted: int = 0) -> int:
    """A seed of its own for each network: 0 the full one, 1 its re-seeded twin, 2 smaller ones, 3 those trained longer.

    The budget is no part of it, so that the same networks are trained briefly and long.
    """
    parts = [zlib.crc32(system.name.encode()), block, seed, purpose, deleted]
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def parameters(system: System) -> int:
    """Parameters of the full network."""
    return evaluation.parameters(network(system, system.units, 0))
