"""Whether anything changed: every column's distribution, and the loss of the model in use."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pared.data import Series
from pared.evaluation.metrics import Floats
from pared.retune.deployed import Data, Deployed, Rows
from pared.tuning.losses import Mean, lasting, mean_of

LEVEL = 0.01
"""Where a corrected p value lies below this, a column's distribution has changed."""


@dataclass(frozen=True)
class Shift:
    """A column in the old data and in the new rows: the largest distance of their distribution functions.

    `p_value` is that of equal distributions, times the number of columns. Of a series every `step`-th row counts.
    """

    column: str
    before: float
    now: float
    distance: float
    p_value: float
    step: int


@dataclass(frozen=True)
class Change:
    """What changed: the columns, and the old model's loss where it was tested at first (`before`) and on new rows."""

    shifts: tuple[Shift, ...]
    before: Mean
    now: Mean

    @property
    def shifted(self) -> tuple[Shift, ...]:
        """The columns whose distribution has changed."""
        return tuple(shift for shift in self.shifts if shift.p_value < LEVEL)

    @property
    def worse(self) -> bool:
        """Whether the loss has risen by more than two standard errors."""
        error = math.hypot(self.before.error, self.now.error)
        return not math.isfinite(self.now.value) or Mean(self.now.value - self.before.value, error).positive

    @property
    def found(self) -> bool:
        """Whether there is a reason to tune again."""
        return self.worse or bool(self.shifted)


def change(deployed: Deployed, former: Data, new: Data, rows: Rows) -> Change:
    """Compares `rows` of the new data with the data that the model was made from.

    Columns: the two-sample Kolmogorov-Smirnov test, p values times the number of columns (Bonferroni). Rows of a series
    follow each other too closely to count one by one: only every ceil(tau)-th counts, tau = 1 + 2 (r_1 + r_2 + ...) as
    in `mean_of`, of the old column. Loss: the mean on `rows` against the mean where the model was tested when it was
    made, each with the standard error of its blocks.

    Source: Massey 1951 (Journal of the American Statistical Association 46) for the test.
    """
    ordered = isinstance(new, Series)
    names, old, now = _columns(former)[0], _columns(former)[1], _columns(new)[1][rows]
    shifts = tuple(_shift(name, old[:, place], now[:, place], len(names), ordered) for place, name in enumerate(names))
    before = deployed.model.losses(former)[deployed.tested_rows(former)]
    fresh = deployed.model.losses(new)[rows]
    return Change(shifts, mean_of(before[~np.isnan(before)]), mean_of(fresh[~np.isnan(fresh)]))


def _shift(name: str, old: Floats, now: Floats, columns: int, ordered: bool) -> Shift:
    step = min(math.ceil(lasting(old)), max(1, len(now) // 8)) if ordered else 1
    found = stats.ks_2samp(old[::step], now[::step])
    p_value = min(1.0, columns * float(found.pvalue))
    return Shift(name, float(old.mean()), float(now.mean()), float(found.statistic), p_value, step)


def _columns(data: Data) -> tuple[tuple[str, ...], Floats]:
    """Names and values of every column, the target first."""
    if isinstance(data, Series):
        return data.columns, data.values
    return (data.encoding.target, *data.encoding.names), np.column_stack([data.target, data.inputs])
