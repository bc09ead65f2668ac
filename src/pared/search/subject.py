"""What is searched for: how a point becomes networks, and what their errors are on data that the test never shares.

Of a series, trials are judged on the older half of its rolling blocks, and the winner is tested on the newer half. Of a
table, a fifth of the rows is set aside, and the rest is dealt out to folds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from torch import nn

from pared import evaluation
from pared.data import Block, Fold, Framing, Series, Split, Table, folds, protocol_for, rolling_origin
from pared.data import Protocol as Parts
from pared.data.folds import FEWEST_ROWS, FOLDS, deal, table_batch
from pared.data.splits import check_range
from pared.evaluation.paired import Scale
from pared.outcomes import predictor
from pared.search.checkpoints import Course, course_of
from pared.search.defaults import configured
from pared.search.space import Conditional, Space
from pared.search.trials import Evaluation, Task
from pared.seeds import seed_of
from pared.settings import Predict, RunConfig, Settings, TableConfig
from pared.study import member_seed
from pared.training import Fit, TrainConfig
from pared.training.parts import part_of
from pared.types import DataError

Objective = Literal["error", "parameters", "latency"]
BLOCKS = 3
"""Blocks that a trial is judged on."""
TESTED = 5
"""Blocks, or parts of a table's rows, that the winner is tested on."""
TIMED = 100
"""Forward passes that a latency is the median of."""


class Subject(Protocol):
    """Data that a search is about; called with a task, it trains and measures."""

    @property
    def base(self) -> RunConfig | TableConfig: ...
    @property
    def objectives(self) -> tuple[str, ...]: ...
    def blocks(self, config: Any, tested: bool) -> Sequence[Block]: ...
    def build(self, config: Any, seed: int) -> nn.Module: ...


@dataclass(frozen=True)
class OfSeries:
    """A series: `judged` are the blocks that trials are compared on, `tested` the newer ones for the winner."""

    series: Series
    base: RunConfig
    objectives: tuple[str, ...]
    parts: Parts
    judged: tuple[int, ...]
    tested: tuple[int, ...]

    def __call__(self, task: Task) -> Evaluation:
        return evaluated(self, task)

    def blocks(self, config: RunConfig, tested: bool) -> Sequence[Split]:
        """Blocks with the window of these settings; the rows that are forecast are the same for all windows."""
        splits = _splits(self.series, self.parts, config.framing(self.series))
        return [splits[block] for block in (self.tested if tested else self.judged)]

    def build(self, config: RunConfig, seed: int) -> nn.Module:
        """A fresh forecaster."""
        return config.network(len(self.series.columns), {}, seed)


@dataclass(frozen=True)
class OfTable:
    """A table without the rows set aside, and those, in parts: network k of the test is tested on part k."""

    table: Table
    rest: Table
    base: TableConfig
    objectives: tuple[str, ...]
    aside: tuple[tuple[int, ...], ...]

    def __call__(self, task: Task) -> Evaluation:
        return evaluated(self, task)

    def blocks(self, config: TableConfig, tested: bool) -> Sequence[Fold]:
        """Folds of the rest; for the test their test rows give way to rows set aside."""
        found = _folds(self.rest)
        if not tested:
            return _spread(found, BLOCKS)
        own = [found[part % len(found)] for part in range(len(self.aside))]
        kept = np.delete(np.arange(len(self.table.target)), [row for rows in self.aside for row in rows])
        return [
            replace(
                fold,
                test=table_batch(self.table, fold.scaler, np.array(rows)),
                block=part,
                rows={name: tuple(kept[list(of_rest)].tolist()) for name, of_rest in fold.rows.items()}
                | {"test": rows},
            )
            for part, (fold, rows) in enumerate(zip(own, self.aside, strict=True))
        ]

    def build(self, config: TableConfig, seed: int) -> nn.Module:
        """A fresh dense network."""
        return config.network(len(self.table.encoding.names), self.table.encoding.outputs, {}, seed)


def subject_of(
    data: Series | Table, base: RunConfig | TableConfig, objectives: tuple[str, ...], space: Space
) -> OfSeries | OfTable:
    """The search of a series or of a table. Raises DataError as `of_series` and `of_table` do."""
    if isinstance(data, Series) and isinstance(base, RunConfig):
        return of_series(data, base, objectives, space)
    if isinstance(data, Table) and isinstance(base, TableConfig):
        return of_table(data, base, objectives)
    raise DataError(f"a {type(data).__name__} cannot be searched with a {type(base).__name__}")


def base_from_dict(data: Series | Table, content: Mapping[str, Any]) -> RunConfig | TableConfig:
    """Settings of a network for these data, from what JSON holds of them."""
    own: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    return RunConfig(**own) if isinstance(data, Series) else TableConfig(**own)


@dataclass(frozen=True)
class Kept:
    """A subject whose long evaluations keep checkpoints in a folder."""

    subject: OfSeries | OfTable
    folder: Path

    def __call__(self, task: Task) -> Evaluation:
        return evaluated(self.subject, task, self.folder)


def of_series(series: Series, base: RunConfig, objectives: tuple[str, ...], space: Space) -> OfSeries:
    """The search of a series. Raises DataError for one that is too short for the widest window of the space."""
    check_objectives(objectives)
    framing = base.framing(series)
    widest = Framing(max(framing.window, _widest(space)), framing.horizon, framing.predict)
    parts = protocol_for(len(series.values), widest)
    half = max(1, parts.blocks // 2)
    judged = _spread(range(half), BLOCKS)
    tested = _spread(range(half, parts.blocks) if parts.blocks > 1 else range(1), TESTED)
    predict: Predict = "values" if framing.predict == "values" else "increments"
    base = replace(base, window=framing.window, predict=predict)
    subject = OfSeries(series, base, objectives, parts, tuple(judged), tuple(tested))
    for split in (*subject.blocks(base, False), *subject.blocks(base, True)):
        check_range(series, split)
    return subject


def of_table(table: Table, base: TableConfig, objectives: tuple[str, ...]) -> OfTable:
    """The search of a table. Raises DataError as `folds` does."""
    check_objectives(objectives)
    count = max(1, min(TESTED, len(table.target) // (5 * FEWEST_ROWS)))
    part = deal(table, 5 * count, seed=0)
    aside = tuple(tuple(np.flatnonzero(part == each).tolist()) for each in range(count))
    kept = part >= count
    rest = Table(table.name, table.inputs[kept], table.target[kept], table.encoding, table.source)
    _folds(rest)
    return OfTable(table, rest, base, objectives, aside)


def check_objectives(objectives: tuple[str, ...]) -> None:
    """Raises DataError for objectives that cannot be."""
    known = get_args(Objective)
    if not objectives or objectives[0] != "error" or len(set(objectives)) < len(objectives):
        raise DataError(
            f"objectives are error, and perhaps {' and '.join(known[1:])} after it, each once; "
            f"got {', '.join(objectives)!r}"
        )
    if unknown := [name for name in objectives if name not in known]:
        raise DataError(f"unknown objective {unknown[0]!r}; choose from {', '.join(known)}")


def fingerprint(data: Series | Table) -> dict[str, Any]:
    """What tells data apart, as JSON holds it."""
    arrays = [data.values] if isinstance(data, Series) else [data.inputs, data.target]
    columns = data.columns if isinstance(data, Series) else (data.encoding.target, *data.encoding.names)
    digest = sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()
    return {"name": data.name, "rows": len(arrays[0]), "columns": list(columns), "sha256": digest}


def evaluated(subject: Subject, task: Task, folder: Path | None = None) -> Evaluation:
    """Trains one network a block at a task's point and measures them: on validation parts, or for the test on those.

    Networks of all trials start from the same seeds, block by block. Cost: the training of as many networks as there
    are blocks. A long evaluation keeps its state in `folder`, and goes on from there.
    Raises DataError, ValueError for a point that makes no network.
    """
    config = configured(subject.base, task.point)
    blocks = subject.blocks(config, task.key.stage == "test")
    seeds = [member_seed(block.block, task.key.seed) for block in blocks]
    models = [subject.build(config, seed) for seed in seeds]
    with course_of(task, models, folder) as course:
        return _measured(subject, task, config, course, models, [replace(config.training, seed=seed) for seed in seeds])


def _measured(
    subject: Subject,
    task: Task,
    config: Settings,
    course: Course,
    models: Sequence[nn.Module],
    configs: Sequence[TrainConfig],
) -> Evaluation:
    """Trains the networks, stretch by stretch, and measures them."""
    tested = task.key.stage == "test"
    blocks = subject.blocks(config, tested)
    course.curves = course.curves or [{"train": (), "validation": ()} for _ in blocks]
    stopped = False
    for start, end, bar in _segments(task, config.epochs)[course.stretch :]:
        parts = [_segment(each, start, end) for each in configs]
        fits = course.trained(models, blocks, parts, config.task.loss)
        course.curves = [_joined(curve, fit) for curve, fit in zip(course.curves, fits, strict=True)]
        errors = [_error(config, fit, block, tested) for fit, block in zip(fits, blocks, strict=True)]
        if end < config.epochs:
            course.rungs[end] = combined(errors, config.task.scale)
            stopped = not course.rungs[end] <= bar
        if stopped or any(map(math.isinf, errors)):
            break
    values = [combined(errors, config.task.scale)]
    values += [_cost(name, fits[0].model, blocks[0]) for name in subject.objectives[1:]]
    return Evaluation(tuple(values), tuple(errors), course.rungs, stopped, tuple(course.curves))


def combined(errors: Sequence[float], scale: Scale) -> float:
    """The mean over blocks, on the log scale the geometric one; infinite where one is."""
    if any(map(math.isinf, errors)):
        return math.inf
    if scale == "linear":
        return math.fsum(errors) / len(errors)
    return math.exp(math.fsum(math.log(max(error, 1e-300)) for error in errors) / len(errors))


def _segments(task: Task, epochs: int) -> list[tuple[int, int, float]]:
    """(first epoch, last epoch + 1, bar) of every stretch of the training."""
    ends = [epoch for epoch, _ in task.milestones]
    bars = [bar for _, bar in task.milestones]
    return list(zip([0, *ends], [*ends, epochs], [*bars, math.inf], strict=True))


def _segment(config: TrainConfig, start: int, end: int) -> TrainConfig:
    """A stretch of a training; only the last one goes back to its best epoch, the others are to be gone on from."""
    if (start, end) == (0, config.epochs):
        return config
    patience = config.patience if end == config.epochs else None
    return replace(part_of(config, start, end), patience=patience, seed=seed_of(config.seed, start))


def _joined(curve: Mapping[str, tuple[float, ...]], fit: Fit) -> dict[str, tuple[float, ...]]:
    return {name: (*line, *fit.curves[name]) for name, line in curve.items()}


def _error(config: Settings, fit: Fit, block: Block, tested: bool) -> float:
    """A network's error on the test or the validation part, infinite where it diverged."""
    if fit.diverged:
        return math.inf
    batch = block.test if tested else block.validation
    found = config.task.measure(predictor(config.task, fit.model, block), block, batch, False)[config.task.error]
    return found if math.isfinite(found) else math.inf


def _cost(objective: str, model: nn.Module, block: Block) -> float:
    if objective == "parameters":
        return float(evaluation.parameters(model))
    return evaluation.latency(model, block.train.x[:1], TIMED)


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, evenly from the first to the last."""
    count = min(most, len(items))
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, count)]


def _widest(space: Space) -> int:
    window = space.parameters.get("window")
    own = window.domain if isinstance(window, Conditional) else window
    return max((int(value) for value in own.values(2) if isinstance(value, int)), default=1) if own else 1


@lru_cache(maxsize=8)
def _splits(series: Series, parts: Parts, framing: Framing) -> list[Split]:
    return rolling_origin(series, parts, framing)


@lru_cache(maxsize=2)
def _folds(table: Table) -> list[Fold]:
    fewest = min((int((table.target == place).sum()) for place in range(len(table.encoding.classes))), default=FOLDS)
    return folds(table, max(2, min(FOLDS, fewest)))
