"""Which rows of the new data are new, and what each of them is for."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from pared.data import Series, Table
from pared.retune.deployed import Data, Rows, size
from pared.types import DataError

FEWEST = 100
"""Fewest new rows that can be trained on, chosen on and tested on."""
SHARE = 0.2
"""New rows that are worth a look, as a share of those that the old model was trained on."""
LEARNT, CHOSEN = 0.4, 0.2
"""Shares of the new rows to learn from and to choose on; the rest, the newest, is for the test alone."""
PARTS = 5
"""Parts of the test: the fewest with which a claim may be made."""


@dataclass(frozen=True)
class Shares:
    """Rows of the new data: `known` before, and new ones to `train` on, to choose on and, in parts, to `test` on.

    Of a series the new ones follow each other in time, of a table they are dealt out by lot.
    """

    known: Rows
    train: Rows
    validation: Rows
    test: tuple[Rows, ...]

    @property
    def looked_at(self) -> Rows:
        """New rows that may be looked at before the test."""
        return np.sort(np.concatenate([self.train, self.validation]))

    @property
    def tested(self) -> Rows:
        """All rows of the test."""
        return np.sort(np.concatenate(self.test))


def new_rows(new: Data, old: Data) -> Rows:
    """The rows of the new data that are not among the old.

    Of a series those that follow the longest stretch at its beginning that the old one ends with or holds; of a table
    those that are there more often than in the old one.
    """
    if isinstance(new, Series) and isinstance(old, Series):
        return np.arange(_overlap(new, old), size(new))
    assert isinstance(new, Table)
    assert isinstance(old, Table)
    left = Counter(map(bytes, np.column_stack([old.target, old.inputs])))
    found = []
    for row, cells in enumerate(map(bytes, np.column_stack([new.target, new.inputs]))):
        left[cells] -= 1
        if left[cells] < 0:
            found.append(row)
    return np.array(found, dtype=np.int64)


def _overlap(new: Series, old: Series) -> int:
    """How many rows at the beginning of the new series are in the old one."""
    for start in np.flatnonzero((old.values == new.values[0]).all(axis=1)):
        count = min(len(old.values) - int(start), len(new.values))
        if np.array_equal(old.values[int(start) :][:count], new.values[:count]):
            return count
    return 0


def needed(trained: int) -> int:
    """How many new rows a look is worth, where the old model was trained on so many."""
    return max(FEWEST, round(SHARE * trained))


def shared(fresh: Rows, new: Data) -> Shares:
    """What each new row is for. Raises DataError for too few."""
    if len(fresh) < FEWEST:
        raise DataError(f"{new.name}: {len(fresh)} new rows are too few; at least {FEWEST} are needed")
    order = fresh if isinstance(new, Series) else np.random.default_rng(0).permutation(fresh)
    learnt, chosen = round(LEARNT * len(order)), round((LEARNT + CHOSEN) * len(order))
    train, validation, test = np.split(order, [learnt, chosen])
    return Shares(
        known=np.setdiff1d(np.arange(size(new)), fresh),
        train=np.sort(train),
        validation=np.sort(validation),
        test=tuple(np.sort(part) for part in np.array_split(test, PARTS)),
    )
