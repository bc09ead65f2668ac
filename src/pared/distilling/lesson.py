"""Who teaches whom on what: a run's network and block, a smaller student, the two trainings that are compared."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from torch import nn

from pared import evaluation, run, run_table, store
from pared.data import Block, Series, Table
from pared.diagnose.subject import of_folder
from pared.distill import Lessons, answers, lessons
from pared.evaluation import CLASSIFICATION
from pared.job import Job
from pared.outcomes import Metrics, Trained, network_metrics
from pared.settings import RunConfig, TableConfig
from pared.source import Config, check_origin
from pared.study import member_seed
from pared.surgery import Plan
from pared.surgery.files import PLAN
from pared.targets import Bounded, Mixed, Soft, Teaching
from pared.training import Fit, TrainConfig, fit
from pared.training.fit import check_batches
from pared.training.fleet import fit_each
from pared.types import DataError, Loss, Progress

Which = Literal["full", "shipped"]
Arm = Literal["taught", "plain"]
Key = tuple[Arm, int]
"""Arm, seed."""


@dataclass(frozen=True)
class Lesson:
    """A student's job, the block, who teaches it and how, what it is trained on then, and how long, by arm."""

    job: Job[Any]
    block: Block
    teacher: nn.Module
    how: Teaching
    told: Lessons
    trainings: Mapping[Arm, TrainConfig]
    seeds: tuple[int, ...]

    def student(self, seed: int) -> nn.Module:
        """A fresh one."""
        return self.job.build(member_seed(self.block.block, seed), {})


@dataclass(frozen=True)
class Found:
    """The students by arm and seed, and their metrics on validation and test data."""

    fits: Mapping[Key, Fit]
    metrics: Mapping[Key, Metrics]
    teacher: Metrics


@dataclass(frozen=True)
class Taken:
    """What a run left: its data, its settings, the block and seed of the network that it shipped."""

    folder: Path
    data: Series | Table
    config: Config
    block: int
    seed: int

    def job(self, config: Config) -> Job[Any]:
        """The run on these data, or one with other settings."""
        if isinstance(self.data, Table) and isinstance(config, TableConfig):
            return run_table.job(self.data, config)
        assert isinstance(self.data, Series)
        assert isinstance(config, RunConfig)
        return run.job(self.data, config)


def taken(folder: Path, data: str | None) -> Taken:
    """Raises DataError for a folder that cannot be read, and for data that are not there or not those of the run."""
    subject = of_folder(folder, data, 1)
    found = Taken(folder, subject.source.read(), subject.settings, subject.block, subject.settings.seed)
    if isinstance(found.data, Table) and store.read_table_model(folder)[1] != found.data.encoding:
        raise DataError(f"{subject.source.name} has other columns or classes than the table that {folder} came from")
    check_origin(folder, found.data)
    return found


def student_settings(taken: Taken, layers: Mapping[str, tuple[int, ...]], epochs: int = 0) -> Config:
    """The run's settings with other layers; where none are told, those of the network that it cut.

    Raises DataError where it cut none, or not by units.
    """
    own = replace(taken.config, epochs=epochs or taken.config.epochs)
    if layers:
        return _with(own, layers)
    try:
        plan = Plan.from_json((taken.folder / PLAN).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise store.damaged(taken.folder / PLAN, error) from error
    widths = {name: len(units) for name, units in plan.keep.items()}
    names = "--hidden" if isinstance(taken.config, TableConfig) else "--recurrent and --dense"
    if plan.before or not widths:
        raise DataError(f"{taken.folder} ships no network with fewer units; say how large the student is with {names}")
    if isinstance(taken.config, TableConfig):
        step = 3 if taken.config.dropout else 2
        hidden = tuple(widths.get(f"layers.{step * k}", width) for k, width in enumerate(taken.config.hidden))
        return _with(own, {"hidden": hidden})
    recurrent = tuple(widths.get(f"recurrent.{k}.l0", width) for k, width in enumerate(taken.config.recurrent))
    dense = tuple(widths.get(f"head.{k}", width) for k, width in enumerate(taken.config.dense))
    return _with(own, {"recurrent": recurrent, "dense": dense})


def _with(config: Config, layers: Mapping[str, tuple[int, ...]]) -> Config:
    changed: Config = replace(cast(Any, config), **layers)
    return changed


def teaching(classes: bool, temperature: float, alpha: float, bound: float | None) -> Teaching:
    """How classes are taught, or numbers. Raises DataError for numbers that cannot be."""
    try:
        if classes:
            return Soft(temperature, alpha)
        return Mixed(alpha) if bound is None else Bounded(bound)
    except ValueError as error:
        raise DataError(str(error)) from error


def teacher_of(taken: Taken, which: Which) -> nn.Module:
    """The network that a run shipped, as it is saved; or the full one of its block and seed, trained as it was."""
    if which == "shipped":
        is_table = isinstance(taken.config, TableConfig)
        return (store.read_table_model if is_table else store.read_model)(taken.folder)[0]
    job = taken.job(taken.config)
    own = member_seed(taken.block, taken.seed)
    return fit(
        job.build(own, {}), _block(job, taken.block), replace(job.config.training, seed=own), job.config.task.loss
    ).model


def _block(job: Job[Any], number: int) -> Block:
    found: Block = next(block for block in job.blocks if block.block == number)
    return found


def lesson(taken: Taken, config: Config, teacher: nn.Module, how: Teaching, seeds: Sequence[int]) -> Lesson:
    """The student of these settings. Raises DataError for what it cannot be taught, before it is trained.

    The student that nobody teaches is trained longer, by the multiply-adds of the teacher's answers to the training
    inputs: a forward pass, a third of an epoch of the teacher.
    """
    job = taken.job(config)
    block, student = _block(job, taken.block), job.build(0, {})
    example, training = block.train.x[:2], job.config.training
    own, goal = (tuple(answers(model, example).shape) for model in (student, teacher))
    if own != goal:
        raise DataError(f"of {len(example)} examples the teacher gives {goal}, the student {own}: they must be alike")
    ratio = evaluation.macs(teacher, example[:1]) / evaluation.macs(student, example[:1])
    try:
        told = lessons(teacher, block, how)
        check_batches(student, block.train.x, training)
    except ValueError as error:
        raise DataError(str(error)) from error
    longer = replace(training, epochs=training.epochs + math.ceil(ratio / 3))
    return Lesson(job, block, teacher, how, told, {"taught": training, "plain": longer}, tuple(seeds))


def students(lesson: Lesson, jobs: int, progress: Progress) -> Found:
    """Trains a student of every seed twice, by the teacher and without, and measures them on both kinds of data."""
    fits: dict[Key, Fit] = {}
    for key, found in _trained(lesson, jobs):
        fits[key] = found
        progress("training the students", len(fits), 2 * len(lesson.seeds))
    fits = {key: fits[key] for key in sorted(fits)}  # they finish in any order
    return Found(fits, {key: measured(lesson, found) for key, found in fits.items()}, measured(lesson, lesson.teacher))


def _trained(lesson: Lesson, jobs: int) -> Iterator[tuple[Key, Fit]]:
    loss = lesson.job.config.task.loss
    models = [lesson.student(seed) for seed in lesson.seeds]
    of_arms: tuple[tuple[Arm, Any, Loss], ...] = (
        ("taught", lesson.told, lesson.how.loss),
        ("plain", lesson.block, loss),
    )
    for arm, data, own in of_arms:
        base = lesson.trainings[arm]
        configs = [replace(base, seed=member_seed(lesson.block.block, seed)) for seed in lesson.seeds]
        for place, found in fit_each(models, [data] * len(models), configs, own, jobs=jobs):
            yield (arm, lesson.seeds[place]), found


def measured(lesson: Lesson, found: Fit | nn.Module) -> Metrics:
    """Metrics on validation and test data, those of free runs left out."""
    as_fit = found if isinstance(found, Fit) else Fit(found, {"state": {}, "param_groups": []}, {}, 0, 0.0)
    task = lesson.job.config.task
    parts = ("validation", "test")
    return {
        name: value
        for part in parts
        for name, value in network_metrics(task, Trained(as_fit), lesson.block, part, thorough=False).items()
    }


def is_classification(taken: Taken) -> bool:
    """Whether classes are taught."""
    return taken.config.task is CLASSIFICATION
