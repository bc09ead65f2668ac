"""The story: train, score, cut, repair, refit, choose on validation data, test once beside the controls."""

import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared import criteria, evaluation
from pared.compensate import compensate as repair
from pared.cutting import Build, Cutting, Scored, Subject, Units, unit_scores
from pared.data import Block, first_batch
from pared.data.batches import evenly, example, suited_batch
from pared.distill import Lessons, distill, lessons
from pared.evaluation import FORECASTING, Task
from pared.outcomes import (
    CONTROLS,
    Candidate,
    Evidence,
    Key,
    Metrics,
    Networks,
    Outcome,
    Removal,
    Trained,
    Yardstick,
    baseline_outcomes,
    candidate,
    hit_tests,
    label,
    network_metrics,
    network_outcomes,
    test_comparisons,
)
from pared.seeds import seed_of
from pared.selection import Rule, select
from pared.sizes import Bisection, Search, proposed
from pared.surgery import Structure, cut, trace
from pared.targets import Teaching
from pared.training import Fit, TrainConfig, fit
from pared.training.fleet import fit_each
from pared.types import Batch, Criterion, DivergedError, Loss, Masks, Progress

SCORING_SAMPLES = 512


@dataclass(frozen=True)
class Refit:
    """How a cut network is trained on: from the truth alone or, as `teach` says, from what the uncut one gives."""

    config: TrainConfig = TrainConfig(epochs=30, lr=3e-3)
    teach: Teaching | None = None


def prune(  # noqa: PLR0913
    model: nn.Module,
    data: Any,
    criterion: Criterion = criteria.taylor,
    ratio: float | Rule = 0.5,
    loss: Loss = mse_loss,
    compensate: bool = True,
    keep: Collection[str] = (),
    refit: Refit | None = None,
) -> nn.Module:
    """A smaller copy of a trained model: scores its units, removes the lowest, repairs what read them.

    `data` is a Batch, an (x, y) pair or a DataLoader; its first 512 samples are looked at, moved to the model's device
    and type. Samples lie along the first axis; a network with several inputs takes a tuple of tensors as x. Of several
    outputs the first tensor is the one that counts. `ratio` is the fraction of
    units removed from every layer, or any rule of `select`; `keep` protects groups by name or pattern. With
    `compensate` the weights that read removed units are refitted by least squares. Nothing is trained
    unless `refit` says how: then all of the data are looked at, as one input tensor.

    The short form of `trace`, a criterion, `select`, `compensate` and `cut`; use these to look at the plan or save it.
    Returns a new module; the one passed in stays as it is. Raises StructureError, ValueError as those do.
    """
    batch = suited_batch(first_batch(data, SCORING_SAMPLES), model)
    structure = trace(model, example(batch.x))
    scores = unit_scores(Subject(model, structure, batch, loss), criterion)
    plan = select(scores, structure, ratio, keep=keep)
    repaired = repair(model, structure, plan, batch) if compensate else model
    small = cut(repaired, structure, plan)
    return (
        small
        if refit is None
        else _refitted(small, model, suited_batch(first_batch(data, sys.maxsize), model), loss, refit)
    )


def _refitted(small: nn.Module, model: nn.Module, batch: Batch, loss: Loss, refit: Refit) -> nn.Module:
    if not isinstance(batch.x, Tensor):
        raise ValueError("a network of several inputs cannot be refitted here; leave refit out and train what is left")
    split = Lessons(batch, Batch(batch.x[:0], batch.y[:0]))
    if refit.teach is None:
        return fit(small, split, refit.config, loss).model
    return distill(small, model, split, refit.config, refit.teach).model


Member = tuple[int, int]
"""(block, seed)."""


@dataclass(frozen=True)
class StudySettings:
    """What a study does: pure data but for criterion and task; margin and level are fixed before any result is seen.

    `cutting` says what networks lose: `Units`, `Weights` or `Layers`, each with its criterion. `rules` are tried in
    their order; a search among them proposes one after another, by what passed on validation data. With `teach` cut
    networks are refitted on what the uncut ones give, those cut at random alike. `margin` None is the one of the task.
    """

    train: TrainConfig = TrainConfig()
    refit: TrainConfig = TrainConfig(epochs=30, lr=3e-3)
    rules: tuple[Rule | Search, ...] = (Bisection(),)
    cutting: Cutting = Units()
    margin: float | None = None
    level: float = 0.95
    task: Task = FORECASTING
    teach: Teaching | None = None

    @property
    def yardstick(self) -> Yardstick:
        """What networks are compared by."""
        margin = self.task.margin if self.margin is None else self.margin
        return Yardstick(self.task.error, self.task.scale, margin, self.level)


def study(
    build: Build,
    splits: Sequence[Block],
    seeds: Sequence[int],
    settings: StudySettings,
    name: str = "data",
    jobs: int = 1,
) -> list[Outcome]:
    """Trains, cuts, chooses and tests; returns one outcome a network, the naive ones included. See `Investigation`."""
    return list(Investigation(build, splits, seeds, settings, name, jobs).run().outcomes)


@dataclass(frozen=True)
class Investigation:
    """The whole comparison on every block and seed; `run` tells the story.

    `networks` fills as trainings finish and `validated` as they are measured on validation data, so that whoever
    interrupts `run` still has them (see `finished`).
    """

    build: Build
    splits: Sequence[Block]
    seeds: Sequence[int]
    settings: StudySettings
    name: str = "data"
    jobs: int = 1
    progress: Progress = lambda stage, done, total: None
    networks: Networks = field(default_factory=dict)
    validated: dict[Key, Metrics] = field(default_factory=dict)

    def run(self) -> Evidence:
        """Trains, cuts, chooses, trains the controls, tests once.

        1. trains the full network on every block and seed; 2. cuts it by one rule after the other, repairs by least
        squares, refits, and compares it with the full one on validation data, which a search goes by; 3. chooses the
        leanest of all that were tried and are not inferior there, whatever the order; 4. trains the controls: as much
        taken out at random, a network of that size from scratch with equal training multiply-adds, the full network
        with the refit's epochs; 5. tests the chosen networks once beside all of them and the naive predictors. Raises
        DivergedError when no full network came through.
        """
        settings = self.settings
        self._train("training the full networks", self._full())
        if not self._sound():
            raise DivergedError(
                f"all {len(self.networks)} trainings of the full network ended in a loss that is not finite; "
                "lower the learning rate, or look for outliers in the data"
            )
        self._measure("validation", list(self.networks))
        candidates = self._candidates()
        chosen = min((c for c in candidates if c.eligible), key=lambda c: c.parameters, default=None)
        if chosen is not None:
            self._train("training the controls", self._controls(chosen))
        first = chosen.label if chosen else "full"
        tested = self._measure("test", [key for key in self.networks if key[0] in (first, "full", *CONTROLS)])
        measured = {key: self.validated.get(key, {}) | tested.get(key, {}) for key in self.networks}
        outcomes = (*self._outcomes(measured), *baseline_outcomes(self.name, self.splits, settings.task))
        arm = "cut" if chosen else "full"
        return Evidence(
            networks=self.networks,
            measured=measured,
            candidates=candidates,
            chosen=chosen,
            outcomes=outcomes,
            comparisons=test_comparisons(outcomes, arm, settings.yardstick),
            hits=hit_tests(settings.task, self.networks, first, self.blocks),
        )

    def check(self) -> None:
        """Raises before the training what the settings would raise after it: no layer to score, unknown names."""
        cutting, subject = self.settings.cutting, self._subject(self.build(0, {}), self.splits[0])
        scores, tried = cutting.scores(subject), list[tuple[Rule, bool]]()
        while (rule := proposed(self.settings.rules, cutting.pools(scores), tried)) is not None:
            cutting.ways(subject, scores, rule)
            tried.append((rule, False))

    def finished(self) -> tuple[Outcome, ...]:
        """Outcomes of the networks trained so far, on validation data: what an interrupted study still knows.

        Networks that were not measured before are measured in short: free runs of all would take a minute.
        """
        measured = {
            key: self.validated.get(key)
            or network_metrics(self.settings.task, trained, self.blocks[key[1]], "validation", False)
            for key, trained in self.networks.items()
        }
        return self._outcomes(measured)

    @cached_property
    def structure(self) -> Structure:
        """The structure of the full network."""
        return trace(self.build(0, {}), self.splits[0].train.x[:1])

    @property
    def blocks(self) -> dict[int, Block]:
        """Block number -> its data."""
        return {split.block: split for split in self.splits}

    def _outcomes(self, measured: Mapping[Key, Metrics]) -> tuple[Outcome, ...]:
        return tuple(network_outcomes(self.name, self.networks, measured, self.blocks, self.structure))

    def _measure(self, part: str, keys: Collection[Key]) -> dict[Key, Metrics]:
        measured, total = (self.validated, len(self.networks)) if part == "validation" else ({}, len(keys))
        for key in keys:
            measured[key] = network_metrics(self.settings.task, self.networks[key], self.blocks[key[1]], part)
            self.progress(f"measuring on {part} data", len(measured), total)
        return measured

    def _candidates(self) -> tuple[Candidate, ...]:
        cutting, scored, found = self.settings.cutting, self._scored(), list[Candidate]()
        pools = cutting.pools(next(iter(scored.values())))
        while (rule := proposed(self.settings.rules, pools, [(c.rule, c.eligible) for c in found])) is not None:
            self._try(f"cutting and refitting, {label(rule)}", self._cuts(rule, scored))
            self._measure("validation", [key for key in self.networks if key[0] == label(rule)])
            found.append(candidate(rule, self.networks, self.validated, cutting.size, self.settings.yardstick))
        return tuple(found)

    def _sound(self) -> list[Member]:
        return [key[1:] for key, t in self.networks.items() if key[0] == "full" and not t.fit.diverged]

    def _train(self, stage: str, todo: Mapping[Key, "Untrained"]) -> None:
        keys, untrained = list(todo), list(todo.values())
        self.progress(stage, 0, len(keys))
        blocks = [self.blocks[block] for _, block, _ in keys]
        for done, (index, found) in enumerate(self._fits(untrained, blocks), 1):
            trained = Trained(found, untrained[index].removal)
            self.networks[keys[index]] = self.settings.cutting.finished(trained, blocks[index].train.x[:1])
            self.progress(stage, done, len(keys))
        for key in keys:  # members finish in any order; results must not depend on it
            self.networks[key] = self.networks.pop(key)

    def _fits(self, untrained: Sequence["Untrained"], blocks: Sequence[Block]) -> Iterator[tuple[int, Fit]]:
        """Trainings as they finish: first of the networks that have no teacher, then of those that have."""
        teach, loss = self.settings.teach, self.settings.task.loss
        for taught in (False, True):
            places = [place for place, u in enumerate(untrained) if (u.teacher is not None) == taught]
            some, splits = [untrained[place] for place in places], list[Any](blocks[place] for place in places)
            if taught and teach is not None:
                loss = teach.loss
                splits = [lessons(u.teacher, b, teach) for u, b in zip(some, splits, strict=True) if u.teacher]
            models, configs, masks = [u.model for u in some], [u.config for u in some], [u.masks for u in some]
            for place, found in fit_each(models, splits, configs, loss, jobs=self.jobs, masks=masks):
                yield places[place], found

    def _full(self) -> dict[Key, "Untrained"]:
        todo = {}
        for split in self.splits:
            for seed in self.seeds:
                own = member_seed(split.block, seed)
                todo["full", split.block, seed] = Untrained(self.build(own, {}), replace(self.settings.train, seed=own))
        return todo

    def _scored(self) -> dict[Member, Scored]:
        found, members = {}, self._sound()
        for done, member in enumerate(members, 1):
            found[member] = self.settings.cutting.scores(self._trained_subject(member))
            self.progress(f"scoring {self.settings.cutting.what}", done, len(members))
        return found

    def _try(self, stage: str, ways: Sequence[Mapping[Key, "Untrained"]]) -> None:
        """Trains every way to the same; of each network that one stays which errs least on validation data."""
        for way in ways:
            before = {key: self.networks[key] for key in way if key in self.networks}
            self._train(stage, way)
            for key, other in before.items():
                if self._validation_error(key, other) <= self._validation_error(key, self.networks[key]):
                    self.networks[key] = other

    def _validation_error(self, key: Key, trained: Trained) -> float:
        task = self.settings.task
        metrics = network_metrics(task, trained, self.blocks[key[1]], "validation", False)
        return metrics.get(f"validation.{task.error}", math.inf)

    def _cuts(self, rule: Rule, scored: Mapping[Member, Scored]) -> list[dict[Key, "Untrained"]]:
        """Every network without what the rule removes, a way at a time."""
        ways = [dict[Key, Untrained]() for _ in range(self.settings.cutting.tries)]
        for member, scores in scored.items():
            found = self.settings.cutting.ways(self._trained_subject(member), scores, rule)
            refit = replace(self.settings.refit, seed=member_seed(*member))
            for way, (small, removal) in zip(ways, found, strict=False):
                way[label(rule), *member] = Untrained(small, refit, removal, self._teacher(member))
        return [way for way in ways if way]

    def _controls(self, chosen: Candidate) -> dict[Key, "Untrained"]:
        todo, settings = {}, self.settings
        for member in self._sound():
            subject, removal = self._trained_subject(member), self.networks[chosen.label, *member].removal
            assert removal is not None
            own = member_seed(*member)
            refit = replace(settings.refit, seed=own)
            at_random, alike = settings.cutting.at_random(subject, removal, own)
            todo["random", *member] = Untrained(at_random, refit, alike, self._teacher(member))
            todo["trained_on", *member] = Untrained(subject.model, refit)
            fresh = settings.cutting.fresh(self.build, own + 1, self.structure, removal)
            epochs = equal_compute_epochs(subject.model, fresh, settings, subject.batch)
            todo["scratch", *member] = Untrained(fresh, replace(settings.train, epochs=epochs, seed=own + 1), removal)
        return todo

    def _teacher(self, member: Member) -> nn.Module | None:
        return self.networks["full", *member].fit.model if self.settings.teach else None

    def _trained_subject(self, member: Member) -> Subject:
        return self._subject(self.networks["full", *member].fit.model, self.blocks[member[0]])

    def _subject(self, model: nn.Module, block: Block) -> Subject:
        return Subject(model, self.structure, scoring_batch(block), self.settings.task.loss)


@dataclass(frozen=True)
class Untrained:
    """A network about to be trained, what it lost, and who teaches it."""

    model: nn.Module
    config: TrainConfig
    removal: Removal | None = None
    teacher: nn.Module | None = None

    @property
    def masks(self) -> Masks | None:
        """The weights that stay, where others are silent."""
        return self.removal.masks if self.removal else None


def member_seed(block: int, seed: int) -> int:
    """Each block and seed starts from weights and an order of samples of its own."""
    return seed_of(block, seed)


def scoring_batch(split: Block) -> Batch:
    """Training examples spread evenly over the block, for criteria and repair."""
    return evenly(split.train, SCORING_SAMPLES)


def equal_compute_epochs(full: nn.Module, small: nn.Module, settings: StudySettings, batch: Batch) -> int:
    """Epochs that the small network can train from scratch for the multiply-adds of training, cutting and refitting.

    What is cut in several ways is refitted as often. A teacher's answers cost one forward pass, a third of an epoch of
    the full network. Weights that are masked cost what they cost: training multiplies by their zeros.
    """
    large, little = evaluation.macs(full, batch.x[:1]), evaluation.macs(small, batch.x[:1])
    taught = large / 3 if settings.teach else 0
    refits = settings.cutting.tries * settings.refit.epochs * little
    return math.ceil((settings.train.epochs * large + refits + taught) / little)
