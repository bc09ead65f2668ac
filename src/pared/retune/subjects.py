"""The new data as what a search is about: one block, with parts in their order in time or by lot."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pared.data import Fold, Protocol, Series, Table
from pared.data.folds import fold_of
from pared.data.splits import FEWEST, check_range
from pared.models import MLP
from pared.retune.deployed import Data
from pared.retune.rows import Shares
from pared.search.subject import OfSeries, evaluated
from pared.search.trials import Evaluation, Task
from pared.settings import RunConfig, TableConfig
from pared.source import Config
from pared.types import DataError

History = Literal["all rows", "new rows"]
"""What networks learn from: as many of the newest rows as the old one was trained on, or new rows alone."""


@dataclass(frozen=True)
class OfRows:
    """A table whose rows are dealt out beforehand."""

    table: Table
    base: TableConfig
    objectives: tuple[str, ...]
    fold: Fold

    def __call__(self, task: Task) -> Evaluation:
        return evaluated(self, task)

    def blocks(self, config: TableConfig, tested: bool) -> Sequence[Fold]:
        """The one fold; what is tested on is asked for by nobody."""
        return [self.fold]

    def build(self, config: TableConfig, seed: int) -> MLP:
        """A fresh dense network."""
        return config.network(len(self.table.encoding.names), self.table.encoding.outputs, {}, seed)


Subject = OfSeries | OfRows


def subject(new: Data, base: Config, shares: Shares, history: History, trained: int) -> Subject:
    """The search on new data whose networks learn from this history; `trained`: rows that the old one learnt from.

    Raises DataError where the history is too short for a window, or holds one value or class only.
    """
    if isinstance(new, Series) and isinstance(base, RunConfig):
        return _of_series(new, base, shares, history, trained)
    assert isinstance(new, Table)
    assert isinstance(base, TableConfig)
    train = np.sort(np.concatenate([shares.known, shares.train])) if history == "all rows" else shares.train
    rows = {"train": train, "validation": shares.validation, "test": shares.tested}
    return OfRows(new, base, ("error",), fold_of(new, rows, 0))


def _of_series(series: Series, base: RunConfig, shares: Shares, history: History, trained: int) -> OfSeries:
    first, test = int(shares.validation[0]), len(shares.tested)
    rows = len(shares.train)
    if history == "all rows":
        rows = min(first, max(trained, rows))
    framing = base.framing(series)
    parts = Protocol(rows, len(shares.validation), test, stride=test, blocks=1, start=first - rows)
    own = OfSeries(series, base, ("error",), parts, (0,), (0,))
    if rows < framing.window + framing.horizon + FEWEST:
        raise DataError(
            f"{series.name}: {rows} rows to learn from are too few for a window of {framing.window} and a horizon of "
            f"{framing.horizon}"
        )
    for split in own.blocks(base, False):
        check_range(series, split)
    return own
