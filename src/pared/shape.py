"""Networks shaped while they train: grown where that helps, cut where it does no harm, until neither pays."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import nn

from pared import evaluation
from pared.criteria import taylor
from pared.cutting import Build, Subject, Units
from pared.data import Block
from pared.evaluation import FORECASTING, Comparison, Task
from pared.growth import GrowthRule, bottleneck, tiny
from pared.outcomes import Metrics, Trained, Yardstick, accepted, network_metrics
from pared.seeds import seed_of
from pared.selection import Count
from pared.study import Member, member_seed, scoring_batch
from pared.surgery import Structure, StructureError, carry, trace
from pared.training import Fit, TrainConfig, fit_many
from pared.types import Criterion, DivergedError, Progress

Kind = Literal["grow", "cut"]
_OTHER: dict[Kind, Kind] = {"grow": "cut", "cut": "grow"}

TRAINING = 3
"""Multiply-adds of a training step over those of a forward pass."""


@dataclass(frozen=True)
class ShapeSettings:
    """How networks are shaped; margin and level are fixed before any result is seen.

    `begin` is the first training, `stint` that of every proposal, `finish` the last one. Their epochs are those of the
    network that `build` gives by itself: a smaller one is trained for more, a larger one for fewer, so that all take as
    many multiply-adds, and small networks are trained out; a proposal gets as many as the network that it comes from.
    `first` is tried first; a growth adds the share `growth` of a layer's units, a cut takes the share `cut` of all
    units; a step that is refused is halved. Where another proposal would take more than `limit` multiply-adds a
    network, shaping ends.
    `margin` None is the one of the task. Raises ValueError for shares, limits and a `first` that are none.
    """

    begin: TrainConfig = TrainConfig(epochs=100)
    stint: TrainConfig = TrainConfig(epochs=50, lr=5e-3)
    finish: TrainConfig = TrainConfig(epochs=100, lr=5e-3)
    rule: GrowthRule = tiny
    criterion: Criterion = taylor
    first: Kind = "cut"
    growth: float = 0.5
    cut: float = 0.5
    limit: float = math.inf
    margin: float | None = None
    level: float = 0.95
    task: Task = FORECASTING

    def __post_init__(self) -> None:
        if self.growth <= 0 or not 0 < self.cut < 1 or self.limit <= 0:
            raise ValueError(
                "growth and limit must be positive, cut between 0 and 1, "
                f"got growth {self.growth}, limit {self.limit}, cut {self.cut}"
            )
        if self.first not in _OTHER:
            raise ValueError(f"first is one of {', '.join(_OTHER)}, got {self.first!r}")

    @property
    def yardstick(self) -> Yardstick:
        """What changed networks are compared by with those they come from."""
        margin = self.task.margin if self.margin is None else self.margin
        return Yardstick(self.task.error, self.task.scale, margin, self.level)


@dataclass(frozen=True)
class Change:
    """A proposal, what it came to on validation data, and whether it was taken.

    Every network gained `units` in `layer`, or lost so many of all; `parameters` are the means before and after.
    """

    kind: Kind
    units: int
    layer: str | None
    parameters: tuple[float, float]
    comparison: Comparison | None
    taken: bool


@dataclass(frozen=True)
class Shaped:
    """Networks by block and seed, all that was proposed, and the multiply-adds that training one of them took."""

    fits: Mapping[Member, Fit]
    changes: tuple[Change, ...]
    work: float


def shape(
    build: Build,
    splits: Sequence[Block],
    seeds: Sequence[int],
    settings: ShapeSettings = ShapeSettings(),
    widths: Mapping[str, int] | None = None,
    jobs: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> Shaped:
    """Grows and cuts networks while they train, all blocks and seeds alike, and stops when neither pays.

    1. trains a network on every block and seed; 2. proposes a change to all of them: units cut by `criterion` and
    repaired, or units grown by `rule` in the layer whose readers want most what they cannot have (`bottleneck`); trains
    the changed and the unchanged networks on, for as many epochs; 3. takes a growth that the paired test on
    validation data calls better, and a cut that it calls not inferior, to the best that was had before as well; else
    keeps the unchanged networks, trained on, halves the step and tries the other kind; 4. ends when both kinds were
    refused at their smallest step, or at `limit`, and trains what is left once more.

    All networks decide together: one alone would take the luck of a training for a gain. `widths` (group -> units) are
    those to begin with, small or large. Test data are not looked at.

    Returns `Shaped`. Cost: two trainings a proposal. Raises: DivergedError where all first trainings diverge,
    StructureError for networks that cannot be cut or grown, ValueError for no blocks or seeds, for the same one twice,
    for inputs that the task cannot read, and as `fit`.
    """
    _check(splits, seeds, settings.task)
    usual = evaluation.macs(build(0, {}), splits[0].train.x[:1])
    crew = _Crew({split.block: split for split in splits}, settings, usual, jobs, progress)
    now = _begun(crew, build, seeds, widths or {})
    steps: dict[Kind, float] = {"grow": settings.growth, "cut": settings.cut}
    best, kind, changes, refused = now, settings.first, list[Change](), set[Kind]()
    while len(refused) < 2 and _affordable(crew, now):
        proposal = _PROPOSED[kind](crew, now, steps[kind])
        if proposal is not None:
            on, found = _tried(crew, now, proposal, len(changes))
            changes.append(_judged(crew, proposal, now, on, found, best))
            now = replace(found if changes[-1].taken else on, work=on.work + found.work - now.work)
            best = now if _gain(crew, now, best) < 0 else best
            if changes[-1].taken:
                refused.clear()
                continue
        if proposal is None or proposal.units == 1:
            refused.add(kind)
        steps[kind] /= 2
        kind = kind if _OTHER[kind] in refused else _OTHER[kind]
    last = _trained(crew, now, now.fits, settings.finish, len(changes))
    return Shaped(last.fits, tuple(changes), last.work)


def _check(splits: Sequence[Block], seeds: Sequence[int], task: Task) -> None:
    for what, numbers in (("block", [split.block for split in splits]), ("seed", list(seeds))):
        if not numbers:
            raise ValueError(f"there is no {what} to train networks on; give at least one")
        if twice := {number for number in numbers if numbers.count(number) > 1}:
            raise ValueError(f"every {what} needs a number of its own, got {min(twice)} more than once")
    x = splits[0].train.x
    if task is FORECASTING and x.dim() != 3:
        raise ValueError(
            f"task=FORECASTING reads windows (examples, steps, columns), got inputs {tuple(x.shape)}; for rows of a "
            "table tell ShapeSettings task=REGRESSION or CLASSIFICATION"
        )


@dataclass(frozen=True)
class _Crew:
    """What every step knows: the blocks by number, what was told, multiply-adds of the usual network, processors, whom
    to tell."""

    blocks: Mapping[int, Block]
    settings: ShapeSettings
    usual: int
    jobs: int
    progress: Progress

    def subject(self, member: Member, fit: Fit, structure: Structure) -> Subject:
        return Subject(fit.model, structure, scoring_batch(self.blocks[member[0]]), self.settings.task.loss)

    def epochs(self, config: TrainConfig, member: Member, model: nn.Module) -> int:
        """For how many epochs a network takes what the usual one takes for those of `config`."""
        return max(1, round(config.epochs * self.usual / self.macs(member, model)))

    def macs(self, member: Member, model: nn.Module) -> int:
        return evaluation.macs(model, self.blocks[member[0]].train.x[:1])

    def work(self, member: Member, model: nn.Module, epochs: int) -> float:
        """Multiply-adds of so many epochs."""
        return float(TRAINING * epochs * self.macs(member, model) * len(self.blocks[member[0]].train.x))


@dataclass(frozen=True)
class _State:
    """All networks, their validation metrics, and the multiply-adds that training one of them took so far."""

    fits: Mapping[Member, Fit]
    metrics: Mapping[Member, Metrics]
    work: float


@dataclass(frozen=True)
class _Proposal:
    kind: Kind
    units: int
    layer: str | None
    fits: Mapping[Member, Fit]


def _begun(crew: _Crew, build: Build, seeds: Sequence[int], widths: Mapping[str, int]) -> _State:
    members = [(block, seed) for block in crew.blocks for seed in seeds]
    models = {member: build(member_seed(*member), widths) for member in members}
    begin, splits = crew.settings.begin, [crew.blocks[block] for block, _ in members]
    configs = {
        m: replace(begin, epochs=crew.epochs(begin, m, model), seed=member_seed(*m)) for m, model in models.items()
    }
    crew.progress("training the first networks", 0, len(members))
    found = fit_many(list(models.values()), splits, list(configs.values()), crew.settings.task.loss, jobs=crew.jobs)
    fits = {member: fit for member, fit in zip(members, found, strict=True) if not fit.diverged}
    if not fits:
        raise DivergedError(
            f"all {len(members)} first trainings ended in a loss that is not finite; lower the learning rate, or look "
            "for outliers in the data"
        )
    work = _mean(crew.work(member, models[member], config.epochs) for member, config in configs.items())
    return _State(fits, _measured(crew, fits), work)


def _affordable(crew: _Crew, now: _State) -> bool:
    """Whether another proposal and the last training are within the limit."""
    epochs = 2 * crew.settings.stint.epochs + crew.settings.finish.epochs
    member = next(iter(now.fits))
    whole = TRAINING * epochs * crew.usual * len(crew.blocks[member[0]].train.x)
    return now.work + whole <= crew.settings.limit


def _smaller(crew: _Crew, now: _State, step: float) -> _Proposal | None:
    """A share of all units cut from every network; None where no layer has one to lose."""
    cutting = Units(crew.settings.criterion)
    structures = _structures(crew, now)
    most = min(sum(group.width - 1 for group in structure) for structure in structures.values())
    units = min(most, max(1, round(step * _mean(sum(g.width for g in s) for s in structures.values()))))
    if not units:
        return None
    fits = {}
    for member, fit in now.fits.items():
        subject = crew.subject(member, fit, structures[member])
        ((small, removal),) = cutting.ways(subject, cutting.scores(subject), Count(units))
        fits[member] = _changed(fit, small, structures[member], removal.plan)
    return _Proposal("cut", units, None, fits)


def _larger(crew: _Crew, now: _State, step: float) -> _Proposal | None:
    """A share of the neediest layer's units added to it in every network."""
    structures = _structures(crew, now)
    needs = [_needs(crew.subject(member, fit, structures[member])) for member, fit in now.fits.items()]
    layer = max(needs[0], key=lambda name: _mean(each[name] for each in needs))
    units = max(1, round(step * _mean(structure[layer].width for structure in structures.values())))
    fits = {}
    for member, fit in now.fits.items():
        structure = structures[member]
        subject = crew.subject(member, fit, structure)
        alike = next((names for names in structure.equal if layer in names), (layer,))
        counts = dict.fromkeys(alike, units)
        model = crew.settings.rule(fit.model, structure, subject.batch, subject.loss, counts, member_seed(*member))
        fits[member] = _changed(fit, model, structure, counts)
    return _Proposal("grow", units, layer, fits)


_PROPOSED = {"grow": _larger, "cut": _smaller}


def _structures(crew: _Crew, now: _State) -> dict[Member, Structure]:
    return {member: trace(fit.model, crew.blocks[member[0]].train.x[:1]) for member, fit in now.fits.items()}


def _needs(subject: Subject) -> dict[str, float]:
    """Layer -> its share of all that the loss asks of readers in vain."""
    asked = bottleneck(subject.model, subject.structure, subject.batch, subject.loss)
    if not asked:
        raise StructureError("the network has no layer that can grow; see structure.explain()")
    return {name: value / (sum(asked.values()) or 1.0) for name, value in asked.items()}


def _changed(fit: Fit, model: nn.Module, structure: Structure, change: Any) -> Fit:
    return replace(fit, model=model, optimiser_state=carry(fit.optimiser_state, fit.model, model, structure, change))


def _tried(crew: _Crew, now: _State, proposal: _Proposal, turn: int) -> tuple[_State, _State]:
    """The networks as they are and the changed ones, both trained on for as many epochs."""
    crew.progress(f"trying to {proposal.kind} ({proposal.units})", turn, turn + 1)
    on = _trained(crew, now, now.fits, crew.settings.stint, turn)
    return on, _trained(crew, now, proposal.fits, crew.settings.stint, turn)


def _trained(crew: _Crew, now: _State, fits: Mapping[Member, Fit], config: TrainConfig, turn: int) -> _State:
    """Networks trained on, for as many epochs as what they come from is given."""
    configs = {}
    for member in fits:
        seed = seed_of(*member, turn + 1)
        configs[member] = replace(config, epochs=crew.epochs(config, member, now.fits[member].model), seed=seed)
    splits, before = [crew.blocks[block] for block, _ in fits], list(fits.values())
    models, loss = [fit.model for fit in before], crew.settings.task.loss
    found = fit_many(models, splits, list(configs.values()), loss, before, crew.jobs)
    after = dict(zip(fits, found, strict=True))
    work = _mean(crew.work(member, fit.model, configs[member].epochs) for member, fit in after.items())
    return _State(after, _measured(crew, after), now.work + work)


def _measured(crew: _Crew, fits: Mapping[Member, Fit]) -> dict[Member, Metrics]:
    task = crew.settings.task
    return {m: network_metrics(task, Trained(fit), crew.blocks[m[0]], "validation", False) for m, fit in fits.items()}


def _judged(crew: _Crew, proposal: _Proposal, now: _State, on: _State, found: _State, best: _State) -> Change:
    beside = _compared(crew, found, on)
    sound = not any("diverged" in metrics for metrics in found.metrics.values())
    if proposal.kind == "grow":
        taken = sound and beside is not None and beside.verdict == "better"
    else:
        taken = sound and all(each is not None and accepted(each) for each in (beside, _compared(crew, found, best)))
    sizes = [_mean(evaluation.parameters(fit.model) for fit in fits.values()) for fits in (now.fits, found.fits)]
    return Change(proposal.kind, proposal.units, proposal.layer, (sizes[0], sizes[1]), beside, taken)


def _compared(crew: _Crew, first: _State, second: _State) -> Comparison | None:
    pairs = [(metrics, second.metrics[member], member[0]) for member, metrics in first.metrics.items()]
    return crew.settings.yardstick.compared(pairs, "validation")


def _gain(crew: _Crew, first: _State, second: _State) -> float:
    """By how much the first networks err more than the second."""
    comparison = _compared(crew, first, second)
    return comparison.difference if comparison else math.inf


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
