"""What is diagnosed: the full network of a run or of data, on one block, as a problem and a recipe."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from pared import run, run_table, store
from pared.data import TABLES, Block, Series, Table, builtin, load
from pared.options import Kind, table_of
from pared.settings import RunConfig, TableConfig
from pared.study import member_seed
from pared.training import Fit
from pared.tuning.recipe import FIELDS, Problem, Recipe
from pared.types import DataError

FIXED = {"optimiser", "warm", "stop", "scale", "apart"}
"""Fields of a recipe that a run decides by itself: it scales and splits its data, and keeps the best epoch."""
WARM = 0.1

C = TypeVar("C", bound=RunConfig | TableConfig)


@dataclass(frozen=True)
class Source:
    """Where data come from, as the command line says it."""

    data: str
    column: str | None = None
    features: tuple[str, ...] = ()
    task: Kind | None = None

    @property
    def name(self) -> str:
        """The name without its folder."""
        return Path(self.data).name

    @property
    def words(self) -> str:
        """What follows `pared run`."""
        options = {"column": self.column, "features": ",".join(self.features), "task": self.task}
        return " ".join([shlex.quote(self.data), *(f"--{k} {shlex.quote(v)}" for k, v in options.items() if v)])

    def series(self) -> Series:
        """Raises DataError where it cannot be read as one."""
        return load(self.data, self.column, self.features)

    def table(self) -> Table:
        """Raises DataError where it cannot be read as one."""
        return table_of(self.data, self.column, self.features, self.task)


@dataclass(frozen=True)
class Subject:
    """A problem and a recipe, and the data and settings that they come from.

    `usual` are the settings of a run that is told nothing; `seeds` are those of the networks on this block. `stored` is
    the validation curve of the first of them, where a run left one.
    """

    source: Source
    settings: RunConfig | TableConfig
    usual: dict[str, Any]
    problem: Problem
    recipe: Recipe
    block: int
    seeds: tuple[int, ...]
    stored: tuple[float, ...] | None = None

    def configuration(self, recipe: Recipe) -> dict[str, Any]:
        """The run's settings with what a recipe says, as a plain configuration."""
        return asdict(configured(self.settings, recipe))

    def repeats(self, fit: Fit) -> bool:
        """Whether a training gave the stored curve again, to rounding."""
        own = fit.curves["validation"]
        return self.stored is not None and len(own) == len(self.stored) and np.allclose(own, self.stored, rtol=1e-3)


def of_series(source: Source, config: RunConfig, seeds: int, block: int | None = None) -> Subject:
    """The network of a series on a block, by default the newest. Raises DataError as `run.prepare` does."""
    series = source.series()
    columns = len(series.columns)

    def build(recipe: Recipe, seed: int) -> nn.Module:
        return configured(config, recipe).network(columns, {}, seed)

    usual = asdict(RunConfig())
    return _subject(source, run.prepare(series, config), (config, usual), build, seeds, block)


def of_table(source: Source, told: dict[str, Any], seeds: int, block: int | None = None) -> Subject:
    """The network of a table on a fold, by default the last; `told`: settings. Raises DataError as `run_table.job`."""
    table = source.table()
    config, usual = TableConfig(**({"predicts": table.task} | told)), asdict(TableConfig(table.task))
    inputs, outputs = len(table.encoding.names), table.encoding.outputs

    def build(recipe: Recipe, seed: int) -> nn.Module:
        return configured(config, recipe).network(inputs, outputs, {}, seed)

    return _subject(source, run_table.job(table, config).blocks, (config, usual), build, seeds, block)


def of_folder(folder: Path, data: str | None, seeds: int) -> Subject:
    """The full network of a finished run, on the block and from the seed of the network that it shipped.

    The folder holds settings and that network's curves, not its weights: it is to be trained again. `data` says where a
    CSV file is, of which a run knows the name only. Raises DataError for a folder that is damaged or was interrupted,
    and for data that cannot be found.
    """
    record, settings = store.read_record(folder), store.read_settings(folder / store.CONFIG)
    try:
        name, columns = str(record["data"]["name"]), tuple(map(str, record["data"]["columns"]))
        block, seed = int(record["shipped"]["block"]), int(record["shipped"]["seed"])
        curve = record["figures"]["curves"]["full"]["validation"]
        stored = tuple(np.nan if value is None else float(value) for value in curve)
    except (KeyError, TypeError, ValueError) as error:
        raise store.damaged(folder / store.RECORD, error) from error
    settings = replace(settings, seed=seed)
    built_in = data is None and _is_builtin(name)
    if not built_in and not Path(data or name).is_file():
        raise DataError(f"{folder} was made from {name}, and {data or name} is no file here; say where with --data")
    source = Source(name) if built_in else Source(data or name, columns[0], columns[1:])
    if isinstance(settings, TableConfig):
        task = None if built_in else settings.predicts
        found = of_table(replace(source, task=task), asdict(settings), seeds, block)
    else:
        found = of_series(source, settings, seeds, block)
    return replace(found, stored=stored)


def _is_builtin(name: str) -> bool:
    try:
        return name in TABLES or bool(builtin(name))
    except DataError:  # a file's name
        return False


def configured(base: C, recipe: Recipe) -> C:
    """A run's settings with what a recipe says. Raises DataError for what makes no network."""
    values: dict[str, Any] = {
        name: value for name, value in recipe.as_dict().items() if name != "hidden" and hasattr(base, name)
    }
    return replace(base, **(values | {_layers(base): recipe.hidden}))


def _layers(config: RunConfig | TableConfig) -> str:
    """The setting that a recipe calls `hidden`."""
    return "recurrent" if isinstance(config, RunConfig) else "hidden"


def _subject(
    source: Source,
    blocks: Sequence[Block],
    settings: tuple[RunConfig | TableConfig, dict[str, Any]],
    build: Callable[[Recipe, int], nn.Module],
    seeds: int,
    block: int | None,
) -> Subject:
    config, usual = settings
    numbers = [each.block for each in blocks]
    if block is not None and block not in numbers:
        raise DataError(f"{source.name} has the blocks {numbers[0]} to {numbers[-1]}, got {block}")
    own = blocks[-1] if block is None else blocks[numbers.index(block)]
    shared = {name: getattr(config, name) for name in FIELDS - FIXED if hasattr(config, name)}
    shared["hidden"] = getattr(config, _layers(config))
    recipe = Recipe(warm=WARM, stop="best", **shared)
    problem = Problem(build, own, config.task.loss, frozenset(shared))
    members = tuple(member_seed(own.block, config.seed + k) for k in range(seeds))
    return Subject(source, config, usual, problem, recipe, own.block, members)
