"""Train, grow, train on: a plain loop over parts of one training, with the optimiser's state carried along."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn
from torch.nn.functional import mse_loss

from pared.data.batches import evenly
from pared.growth.entries import check_growth
from pared.growth.initial import GrowthRule
from pared.growth.probes import bottleneck
from pared.surgery import Structure, carry, trace
from pared.surgery.origins import grown_structure
from pared.training.fit import Fit, TrainConfig, TrainingData, fit
from pared.training.parts import part_of
from pared.types import Batch, Loss

LOOKED_AT = 1024
"""How many examples a growth rule sees, spread evenly over the training data."""

Trigger = Callable[[Sequence[float]], bool]
"""Training losses, one an epoch, since units were last added -> whether it is time to add more."""


def always(losses: Sequence[float]) -> bool:
    """A fixed schedule: at every look."""
    return True


@dataclass(frozen=True)
class Stalled:
    """When the loss falls by less than `trigger` of what it was at the last growth, within `window` epochs.

    |a_t - a_(t-w)| / a_t0 < trigger, t - w >= t0. Source: Ash, Dynamic node creation (1989).
    """

    window: int = 10
    trigger: float = 0.05

    def __post_init__(self) -> None:
        if self.window < 1 or self.trigger <= 0:
            raise ValueError(f"window and trigger must be positive, got {self.window} and {self.trigger}")

    def __call__(self, losses: Sequence[float]) -> bool:
        if len(losses) <= self.window:
            return False
        return abs(losses[-1] - losses[-1 - self.window]) < self.trigger * abs(losses[0])


@dataclass(frozen=True)
class Growing:
    """What a network gains, and when: every `every` epochs it is looked at, and grows where `when` says so.

    Each of the groups gains its number in `counts`, or with `neediest` only that one whose readers want most what they
    cannot have (`bottleneck`); a group never grows beyond its number in `up_to`. Training ends at the first look that
    finds the epoch's training loss at `goal` or below.
    """

    counts: Mapping[str, int]
    every: int = 10
    up_to: Mapping[str, int] = field(default_factory=dict)
    when: Trigger = always
    neediest: bool = False
    goal: float = -math.inf

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"a network is looked at every one or more epochs, got {self.every}")
        if strange := self.up_to.keys() - self.counts.keys():
            raise ValueError(
                f"up_to bounds {', '.join(sorted(strange))}, which do not grow; name groups of counts: "
                f"{', '.join(self.counts)}"
            )


@dataclass(frozen=True)
class Growth:
    """A network that grew while it trained: the trainings in order, and what was added after each but the last."""

    model: nn.Module
    structure: Structure
    fits: tuple[Fit, ...]
    added: tuple[Mapping[str, int], ...]

    @property
    def losses(self) -> tuple[float, ...]:
        """The training loss of every epoch."""
        return tuple(loss for fit in self.fits for loss in fit.curves["train"])


def grow(
    model: nn.Module,
    split: TrainingData,
    config: TrainConfig,
    rule: GrowthRule,
    how: Growing,
    loss: Loss = mse_loss,
) -> Growth:
    """Trains a copy of `model` for `config.epochs` and lets it grow on the way, by a rule such as `tiny` or your own.

    The parts are one training: one schedule of the learning rate, and an optimiser whose state is carried over each
    growth. The rule is tried before training, so that what cannot grow is refused at once.

    Returns a `Growth`. Cost: as `fit`, and that of the rule. Raises: ValueError with patience, which would end a part,
    for trainings that end before the first look, counts below 1, groups already wider than `up_to` and fewer than two
    examples; StructureError for groups that cannot grow.
    """
    if config.patience is not None:
        raise ValueError("patience would end a part of the training; leave it out")
    if how.every >= config.epochs:
        raise ValueError(
            f"after {how.every} of {config.epochs} epochs there are none left to grow before; "
            "choose a smaller every, or more epochs"
        )
    batch = evenly(split.train, LOOKED_AT)
    structure = trace(model, batch.x[:2])
    check_growth(structure, batch, how.counts)
    for name, most in how.up_to.items():
        if most < structure[name].width:
            raise ValueError(f"group {name!r} has {structure[name].width} units, more than its up_to of {most}")
    rule(model, structure, batch, loss, how.counts, config.seed)
    resume: Fit | None = None
    fits, added, since = list[Fit](), list[Mapping[str, int]](), list[float]()
    for start in range(0, config.epochs, how.every):
        stop = min(start + how.every, config.epochs)
        resume = fit(model, split, part_of(config, start, stop), loss, resume)
        fits.append(resume)
        since += resume.curves["train"]
        if stop == config.epochs or resume.diverged or since[-1] <= how.goal:
            break
        counts = _wanted(resume.model, structure, batch, loss, how) if how.when(since) else {}
        added.append(counts)
        if counts:
            new = rule(resume.model, structure, batch, loss, counts, config.seed + stop)
            state = carry(resume.optimiser_state, resume.model, new, structure, counts)
            structure, since = grown_structure(structure, counts), []
            resume = replace(resume, model=new, optimiser_state=state)
    return Growth(fits[-1].model, structure, tuple(fits), tuple(added))


def _wanted(model: nn.Module, structure: Structure, batch: Batch, loss: Loss, how: Growing) -> dict[str, int]:
    """What is added now: nothing to groups that are as wide as they, or those that must be as wide, may be."""
    room = {name: how.up_to.get(name, structure[name].width + count) for name, count in how.counts.items()}
    most = {name: min(count, room[name] - structure[name].width) for name, count in how.counts.items()}
    counts = {name: min(most[other] for other in structure.alike(name) if other in most) for name in most}
    counts = {name: count for name, count in counts.items() if count > 0}
    if how.neediest and counts:
        needs = bottleneck(model, structure, batch, loss)
        first = max(counts, key=lambda name: needs.get(name, 0.0))
        counts = {name: count for name, count in counts.items() if name in structure.alike(first)}
    return counts
