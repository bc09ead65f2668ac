"""What is diagnosed: the full network of a run or of data, on one block, as a problem and a recipe."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from pared import store
from pared.data import Series, Table
from pared.settings import RunConfig, TableConfig
from pared.source import Config, Source, blocks_of, source_of
from pared.study import member_seed
from pared.training import Fit
from pared.tuning.recipe import FIELDS, Problem, Recipe
from pared.types import DataError

FIXED = {"warm", "stop", "scale", "apart"}
"""Fields of a recipe that a run decides by itself: it scales and splits its data, and keeps the best epoch."""
WARM = 0.1


@dataclass(frozen=True)
class Subject:
    """A problem and a recipe, and the data and settings that they come from.

    `usual` are the settings of a run that is told nothing; `seeds` are those of the networks on this block. `stored` is
    the validation curve of the first of them, where a run left one.
    """

    source: Source
    settings: Config
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


def of_data(
    source: Source,
    base: Config | None,
    given: Mapping[str, Any],
    seeds: int,
    block: int | None = None,
    searched: bool = False,
) -> Subject:
    """The network of a series or a table on a block, by default the newest (of a table: the last fold).

    `base` are its settings, by default a run's; `given` settings count more; `searched`: whether the blocks are those
    that a search leaves. Raises DataError as `blocks_of` does.
    """
    data = source.read()
    usual: Config = TableConfig(data.task) if isinstance(data, Table) else RunConfig()
    if base is not None and type(base) is not type(usual):
        raise DataError(f"the settings are those of a network for other data than {source.name}")
    settings = replace(base or usual, **given)
    blocks = blocks_of(data, settings, searched)
    numbers = [each.block for each in blocks]
    if block is not None and block not in numbers:
        raise DataError(f"{source.name} has the blocks {numbers[0]} to {numbers[-1]}, got {block}")
    own = blocks[-1] if block is None else blocks[numbers.index(block)]
    recipe = recipe_of(settings)
    heeded = frozenset(name for name in FIELDS - FIXED if hasattr(settings, name)) | {"hidden"}
    problem = Problem(_builder(data, settings), own, settings.task.loss, heeded)
    members = tuple(member_seed(own.block, settings.seed + k) for k in range(seeds))
    return Subject(source, settings, asdict(usual), problem, recipe, own.block, members)


def _builder(data: Series | Table, settings: Config) -> Callable[[Recipe, int], nn.Module]:
    """Recipe, seed -> the network that a run with these settings would train."""

    def build(recipe: Recipe, seed: int) -> nn.Module:
        own = configured(settings, recipe)
        if isinstance(own, RunConfig) and isinstance(data, Series):
            return own.network(len(data.columns), {}, seed)
        assert isinstance(own, TableConfig)
        assert isinstance(data, Table)
        return own.network(len(data.encoding.names), data.encoding.outputs, {}, seed)

    return build


def recipe_of(settings: Config) -> Recipe:
    """The settings as a recipe."""
    shared = {name: getattr(settings, name) for name in FIELDS - FIXED if hasattr(settings, name)}
    return Recipe(warm=WARM, stop="best", **(shared | {"hidden": getattr(settings, _layers(settings))}))


def configured(base: Config, recipe: Recipe) -> Config:
    """A run's settings with what a recipe says. Raises DataError for what makes no network."""
    values: dict[str, Any] = {
        name: value for name, value in recipe.as_dict().items() if name != "hidden" and hasattr(base, name)
    }
    return replace(base, **(values | {_layers(base): recipe.hidden}))


def _layers(settings: Config) -> str:
    """The setting that a recipe calls `hidden`."""
    return "recurrent" if isinstance(settings, RunConfig) else "hidden"


def of_folder(folder: Path, data: str | None, seeds: int) -> Subject:
    """The full network of a finished run, on the block and from the seed of the network that it shipped.

    The folder holds settings and that network's curves, not its weights: it is to be trained again. `data` says where a
    CSV file is, of which a run knows the name only. Raises DataError for a folder that is damaged or was interrupted,
    and for data that cannot be found.
    """
    record, settings = store.read_record(folder), store.read_settings(folder / store.CONFIG)
    source = source_of(folder, record, settings, data, "--data")
    try:
        block, seed = int(record["shipped"]["block"]), int(record["shipped"]["seed"])
        curve = record["figures"]["curves"]["full"]["validation"]
        stored = tuple(np.nan if value is None else float(value) for value in curve)
    except (KeyError, TypeError, ValueError) as error:
        raise store.damaged(folder / store.RECORD, error) from error
    own = of_data(source, settings, {"seed": seed}, seeds, block, searched="start" in record)
    return replace(own, stored=stored)
