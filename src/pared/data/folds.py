"""Folds of a table: ten ways to set a tenth of its rows aside, half to choose on and half to test on."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pared.data.examples import Table
from pared.data.splits import Array, Scaler, unreadable
from pared.types import Batch, DataError

FOLDS, FEWEST_FOLDS = 10, 2
FEWEST_ROWS = 8
"""Fewest rows that a validation or test part is worth having with."""


@dataclass(frozen=True)
class Fold:
    """One block of a table: x (n, inputs) float32; y (n, 1) float32 scaled values, or (n,) places of classes.

    `scaler` is fitted on the training rows; its column 0 is the target. `rows`: part -> rows of the table, ascending.
    """

    train: Batch
    validation: Batch
    test: Batch
    scaler: Scaler
    block: int
    rows: dict[str, tuple[int, ...]]


def folds(table: Table, count: int = FOLDS, seed: int = 0) -> list[Fold]:
    """Deal the rows out to `count` folds; fold k trains on all others, chooses on half of its own, tests on the rest.

    Rows are shuffled, rows of one class brought together, and dealt out to 2 * count parts in turn: part sizes differ
    by at most one row, and so do a class's rows in them. Parts 2k and 2k + 1 are the validation and the test part of
    fold k. So no row is tested on twice, and none that is tested on was chosen on, in any fold. Fewer folds where parts
    would hold fewer than 8 rows.

    Returns: one `Fold` a block. The same table and seed give the same folds.
    Raises: DataError for a table of fewer than 32 rows, a class of fewer rows than there are folds, a target that is
    constant in the training rows of a fold, an outlier that hides the other values.
    """
    length = len(table.target)
    if length < 2 * FEWEST_ROWS * FEWEST_FOLDS:
        raise DataError(
            f"{table.name}: {length} rows are too few; at least {2 * FEWEST_ROWS * FEWEST_FOLDS} are needed"
        )
    count = min(count, length // (2 * FEWEST_ROWS))
    _check_classes(table, count)
    parts = deal(table, 2 * count, seed)
    return [_fold(table, parts, block) for block in range(count)]


def deal(table: Table, parts: int, seed: int) -> npt.NDArray[np.int64]:
    """Row -> part."""
    order = np.random.default_rng(seed).permutation(len(table.target))
    if table.encoding.classes:
        order = order[np.argsort(table.target[order], kind="stable")]
    part = np.empty(len(order), dtype=np.int64)
    part[order] = np.arange(len(order)) % parts
    return part


def table_scaler(inputs: Array, target: Array, table: Table) -> Scaler:
    """Mean and standard deviation of training rows, 1 for a constant; inputs of 0 or 1 and classes stay as they are."""
    encoding = table.encoding
    raw = np.column_stack([target, inputs])
    fixed = np.array([bool(encoding.classes), *encoding.indicators]) | (np.ptp(raw, axis=0) == 0)
    with np.errstate(over="ignore", invalid="ignore"):
        shift, scale = raw.mean(axis=0), raw.std(axis=0)
    indicator = np.array([bool(encoding.classes), *encoding.indicators])
    shift, scale = np.where(indicator, 0.0, shift), np.where(fixed, 1.0, scale)
    return Scaler((encoding.target, *encoding.names), tuple(shift.tolist()), tuple(scale.tolist()))


def scaled_inputs(inputs: Array, scaler: Scaler) -> torch.Tensor:
    """Inputs as networks read them: (n, inputs) float32."""
    padded = np.column_stack([np.zeros(len(inputs)), inputs])
    return torch.tensor(scaler.scaled(padded)[:, 1:], dtype=torch.float32).contiguous()


def _fold(table: Table, parts: npt.NDArray[np.int64], block: int) -> Fold:
    rows = {
        "train": np.flatnonzero(parts // 2 != block),
        "validation": np.flatnonzero(parts == 2 * block),
        "test": np.flatnonzero(parts == 2 * block + 1),
    }
    return fold_of(table, rows, block)


def fold_of(table: Table, rows: Mapping[str, npt.NDArray[np.int64]], block: int) -> Fold:
    """The fold of these rows, part -> rows, scaled on its training rows. Raises DataError as `folds` does."""
    own = rows["train"]
    if np.ptp(table.target[own]) == 0:
        raise DataError(
            f"{table.name}: the target {table.encoding.target!r} is constant ({table.target[own[0]]:g}) in the "
            f"training rows of fold {block}; it hardly varies, so there is nothing to learn"
        )
    scaler = table_scaler(table.inputs[own], table.target[own], table)
    _check_range(table, scaler)
    return Fold(
        train=table_batch(table, scaler, own),
        validation=table_batch(table, scaler, rows["validation"]),
        test=table_batch(table, scaler, rows["test"]),
        scaler=scaler,
        block=block,
        rows={name: tuple(found.tolist()) for name, found in rows.items()},
    )


def table_batch(table: Table, scaler: Scaler, rows: npt.NDArray[np.int64]) -> Batch:
    """Rows of a table as networks read them."""
    x, target = scaled_inputs(table.inputs[rows], scaler), table.target[rows]
    if table.encoding.classes:
        return Batch(x, torch.tensor(target, dtype=torch.int64))
    scaled = (target - scaler.shift[0]) / scaler.scale[0]
    return Batch(x, torch.tensor(scaled[:, None], dtype=torch.float32))


def _check_classes(table: Table, count: int) -> None:
    for place, name in enumerate(table.encoding.classes):
        found = int((table.target == place).sum())
        if found < count:
            raise DataError(
                f"{table.name}: class {name!r} of {table.encoding.target!r} has {found} rows, fewer than the {count} "
                "folds; leave it out, put it together with another, or predict a number (--task regression)"
            )


def _check_range(table: Table, scaler: Scaler) -> None:
    raw = np.column_stack([table.target, table.inputs])
    for column in unreadable(raw, scaler):
        row = int(np.abs(raw[:, column]).argmax())
        raise DataError(
            f"{table.name}: row {row + 1}, column {scaler.columns[column]!r}: {raw[row, column]:g} lies so far from "
            "the other values that they cannot be told apart beside it; correct it or leave its row out"
        )
