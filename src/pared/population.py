"""Population-based training: networks trained side by side, whose losers go on from the winners with other settings."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn
from torch.nn.functional import mse_loss

from pared.schedules import Constant
from pared.training.fit import Fit, TrainConfig, TrainingData
from pared.training.fleet import fit_many
from pared.training.parts import part_of
from pared.types import DivergedError, Loss

Space = Mapping[str, tuple[float, float]]
"""Field of `TrainConfig` (lr, weight_decay, clip) -> its lowest and highest value, both above 0."""


@dataclass(frozen=True)
class Selection:
    """How members learn from each other: after every `every` epochs the worst `quantile` of them copy the best ones.

    Rounded down, but at least one member copies, unless `quantile` is 0: then nobody does, which is random search.
    A copy goes on with its parent's weights, optimiser's state and settings, each of these multiplied by one of
    `factors`, or with the probability `resample` drawn anew.
    """

    size: int = 8
    every: int = 3
    quantile: float = 0.25
    resample: float = 0.25
    factors: tuple[float, float] = (0.8, 1.2)

    def __post_init__(self) -> None:
        if self.size < 2 or self.every < 1 or not 0 <= self.quantile <= 0.5 or not 0 <= self.resample <= 1:
            raise ValueError(
                "a population has at least 2 members, rounds of at least one epoch, a quantile up to 0.5 and a share "
                f"of resampling up to 1; got {self.size}, {self.every}, {self.quantile} and {self.resample}"
            )


@dataclass(frozen=True)
class Descent:
    """A network of a population: which fresh one it came from, how it was trained round by round, and the result."""

    origin: int
    rounds: tuple[TrainConfig, ...]
    fit: Fit

    @property
    def loss(self) -> float:
        """The validation loss, infinite where training diverged."""
        return math.inf if self.fit.diverged else self.fit.curves["validation"][-1]


@dataclass(frozen=True)
class Population:
    """All members after the last round."""

    members: tuple[Descent, ...]

    @property
    def best(self) -> Descent:
        """The one of the lowest validation loss, which it was selected by: judge it on other data."""
        return min(self.members, key=lambda member: member.loss)


def train_population(
    build: Callable[[int], nn.Module],
    split: TrainingData,
    config: TrainConfig,
    space: Space,
    how: Selection = Selection(),
    loss: Loss = mse_loss,
    jobs: int = 1,
) -> Population:
    """Trains `how.size` networks for `config.epochs`, in rounds between which losers copy winners (exploit, explore).

    `build(k)` is the fresh network k. Settings in `space` are drawn log-uniformly and kept within their bounds; within
    a round the learning rate is constant whatever `config.schedule` says: a member's rounds are its schedule, which
    `pared.population.replay` repeats. What is `bound` follows its schedule through all rounds. Everything follows from
    `config.seed`.

    Returns a `Population`. Cost: `how.size` trainings. Raises: ValueError for settings that no TrainConfig has, bounds
    that are none, patience or plateau, and data without a validation part; DivergedError where no member came through
    a round.
    Source: Jaderberg et al., Population Based Training of Neural Networks (2017).
    """
    _check(space, split, config)
    draw = np.random.default_rng(config.seed)
    hypers = [{name: _drawn(draw, bounds) for name, bounds in space.items()} for _ in range(how.size)]
    members: list[Descent] = []
    for start in range(0, config.epochs, how.every):
        if members:
            members, hypers = _selected(members, hypers, how, space, draw)
        part = replace(part_of(config, start, min(start + how.every, config.epochs)), schedule=Constant())
        seeds = np.random.SeedSequence([config.seed, start]).generate_state(how.size)
        configs = [_settings(part, int(seed), own) for seed, own in zip(seeds, hypers, strict=True)]
        models = [member.fit.model for member in members] or [build(k) for k in range(how.size)]
        earlier = [member.fit for member in members] or None
        fits = fit_many(models, [split] * how.size, configs, loss, earlier, jobs)
        before = [(member.origin, member.rounds) for member in members] or [(k, ()) for k in range(how.size)]
        members = [
            Descent(origin, (*rounds, own), fit)
            for (origin, rounds), own, fit in zip(before, configs, fits, strict=True)
        ]
    if all(member.fit.diverged for member in members):
        raise DivergedError("all members of the population ended in a loss that is not finite; lower the bounds of lr")
    return Population(tuple(members))


def replay(model: nn.Module, split: TrainingData, rounds: Sequence[TrainConfig], loss: Loss = mse_loss) -> Fit:
    """Trains a copy of `model` round by round, as a member of a population was: the same model gives the same network.

    Raises: ValueError for no rounds, and as `fit` does.
    """
    if not rounds:
        raise ValueError("there are no rounds to replay")
    found: list[Fit] = []
    for config in rounds:
        found = fit_many([model], [split], [config], loss, found or None)
    return found[0]


def _settings(part: TrainConfig, seed: int, hypers: dict[str, Any]) -> TrainConfig:
    return replace(part, seed=seed, **hypers)


def _selected(
    members: list[Descent], hypers: list[dict[str, float]], how: Selection, space: Space, draw: np.random.Generator
) -> tuple[list[Descent], list[dict[str, float]]]:
    """The members and settings of the next round."""
    order = sorted(range(how.size), key=lambda k: members[k].loss)
    count = max(1, math.floor(how.quantile * how.size)) if how.quantile else 0
    members, hypers = list(members), list(hypers)
    for loser in order[how.size - count :]:
        parent = order[int(draw.integers(count))]
        members[loser] = members[parent]
        hypers[loser] = {name: _explored(draw, hypers[parent][name], space[name], how) for name in space}
    return members, hypers


def _drawn(draw: np.random.Generator, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return float(min(high, max(low, math.exp(draw.uniform(math.log(low), math.log(high))))))


def _explored(draw: np.random.Generator, value: float, bounds: tuple[float, float], how: Selection) -> float:
    if draw.uniform() < how.resample:
        return _drawn(draw, bounds)
    return float(min(bounds[1], max(bounds[0], value * how.factors[int(draw.integers(2))])))


def _check(space: Space, split: TrainingData, config: TrainConfig) -> None:
    if not space:
        raise ValueError("there is nothing to search; name at least one setting, such as lr, and its bounds")
    if config.patience is not None or config.plateau is not None:
        raise ValueError("the rounds decide how long and at which rates members train; leave patience and plateau out")
    for name, bounds in space.items():
        if name not in ("lr", "weight_decay", "clip"):
            raise ValueError(f"{name!r} cannot change while a network is trained; choose among lr, weight_decay, clip")
        if not isinstance(bounds, Sequence) or len(bounds) != 2:
            raise ValueError(f"the bounds of {name} are a pair (lowest, highest), such as (1e-4, 1e-1); got {bounds!r}")
        low, high = bounds
        if not 0 < low <= high < math.inf:
            raise ValueError(f"the bounds of {name} must be positive, finite and in order, got {low} and {high}")
    if not len(split.validation.x):
        raise ValueError("members are ranked by their validation loss; the split needs a validation part")
