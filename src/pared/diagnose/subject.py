"""What is diagnosed: the full network of a run or of data, on one block, as a problem and a recipe."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from pared import run, run_table, store
from pared.data import TABLES, Block, Series, Table, builtin, classic, load, read_table
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
class Subject:
    """A problem and a recipe, and the settings that they come from.

    `seeds` are those of the networks on this block. `stored` is the validation curve of the first of them, where a run
    left one.
    """

    name: str
    settings: RunConfig | TableConfig
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


def of_series(series: Series, config: RunConfig, seeds: int, block: int | None = None) -> Subject:
    """The network of a series on a block, by default the newest. Raises DataError as `run.prepare` does."""
    columns = len(series.columns)

    def build(recipe: Recipe, seed: int) -> nn.Module:
        return configured(config, recipe).network(columns, {}, seed)

    return _subject(series.name, run.prepare(series, config), config, build, seeds, block)


def of_table(table: Table, config: TableConfig, seeds: int, block: int | None = None) -> Subject:
    """The network of a table on a fold, by default the last. Raises DataError as `run_table.job` does."""
    inputs, outputs = len(table.encoding.names), table.encoding.outputs

    def build(recipe: Recipe, seed: int) -> nn.Module:
        return configured(config, recipe).network(inputs, outputs, {}, seed)

    return _subject(table.name, run_table.job(table, config).blocks, config, build, seeds, block)


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
        curve = [
            np.nan if value is None else float(value) for value in record["figures"]["curves"]["full"]["validation"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise store.damaged(folder / store.RECORD, error) from error
    settings = replace(settings, seed=seed)
    if isinstance(settings, TableConfig):
        built_in = data is None and name in TABLES
        read = (
            read_table(_file(folder, name, data), columns[0], columns[1:], settings.predicts) if not built_in else None
        )
        found = of_table(read or classic(name), settings, seeds, block)
    else:
        found = of_series(_series(folder, name, data, columns), settings, seeds, block)
    return replace(found, stored=tuple(curve))


def _series(folder: Path, name: str, data: str | None, columns: Sequence[str]) -> Series:
    if data is None:
        try:
            return builtin(name)
        except DataError:  # a file's name
            pass
    return load(_file(folder, name, data), columns[0], columns[1:])


def _file(folder: Path, name: str, data: str | None) -> Path:
    path = Path(data or name)
    if not path.is_file():
        raise DataError(f"{folder} was made from {name}, and {path} is no file here; say where it is with --data")
    return path


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
    name: str,
    blocks: Sequence[Block],
    config: RunConfig | TableConfig,
    build: Callable[[Recipe, int], nn.Module],
    seeds: int,
    block: int | None,
) -> Subject:
    numbers = [each.block for each in blocks]
    if block is not None and block not in numbers:
        raise DataError(f"{name} has the blocks {numbers[0]} to {numbers[-1]}, got {block}")
    own = blocks[-1] if block is None else blocks[numbers.index(block)]
    shared = {name: getattr(config, name) for name in FIELDS - FIXED if hasattr(config, name)}
    shared["hidden"] = getattr(config, _layers(config))
    recipe = Recipe(warm=WARM, stop="best", **shared)
    problem = Problem(build, own, config.task.loss, frozenset(shared))
    members = tuple(member_seed(own.block, config.seed + k) for k in range(seeds))
    return Subject(name, config, problem, recipe, own.block, members)
