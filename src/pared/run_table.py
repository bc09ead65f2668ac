"""The main job for a table: its folds, its networks, the figures of its report, its predictions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pared.data import Encoding, Fold, Scaler, Table, folds
from pared.data.folds import scaled_inputs
from pared.evaluation import CLASSIFICATION, REGRESSION
from pared.evaluation.forecast import floats
from pared.evaluation.metrics import Floats
from pared.job import Job, curves
from pared.outcomes import Evidence, Key, predictor
from pared.settings import TableConfig
from pared.types import DataError

POINTS = 600
"""Most predictions that the report's figure shows."""


def job(table: Table, config: TableConfig, own: Sequence[Fold] | None = None) -> Job[Fold]:
    """The run of a table, on all its folds or on `own`.

    Raises DataError as `folds` does, and for a task that is not the table's.
    """
    if config.predicts != table.task:
        raise DataError(f"{table.name} is a table for {table.task}, got {config.predicts}")
    blocks = folds(table) if own is None else own
    inputs, outputs = len(table.encoding.names), table.encoding.outputs
    return Job(
        name=table.name,
        blocks=blocks,
        config=config,
        build=lambda seed, widths: config.network(inputs, outputs, widths, seed),
        head=_head(table, blocks, config),
        shown=("accuracy",) if table.encoding.classes else ("r2",),
        figures=partial(_figures, table.encoding, blocks),
        saved=lambda fold: {
            "table": asdict(config),
            "encoding": asdict(table.encoding),
            "scaler": asdict(fold.scaler),
        },
        remarks=_remarks(table),
    )


def _head(table: Table, blocks: Sequence[Fold], config: TableConfig) -> dict[str, Any]:
    sizes = [{part: len(rows) for part, rows in fold.rows.items()} for fold in blocks]
    return {
        "task": table.task,
        "data": {
            "name": table.name,
            "length": len(table.target),
            "columns": [table.encoding.target, *table.encoding.columns],
            "inputs": len(table.encoding.names),
            "classes": list(table.encoding.classes),
            "source": table.source,
        },
        "settings": asdict(config) | config.resolved | {"protocol": sizes[0] | {"folds": len(blocks)}},
        "blocks": [{"block": fold.block} | size for fold, size in zip(blocks, sizes, strict=True)],
    }


def _remarks(table: Table) -> tuple[str, ...]:
    rows = np.column_stack([table.target, table.inputs])
    copies = len(rows) - len(np.unique(rows, axis=0))
    if not copies:
        return ()
    return (
        f"{copies} rows are copies of others. A copy may be tested on after the other was trained on, which makes test "
        "errors look smaller, alike for every row of the table of controls.",
    )


def _figures(encoding: Encoding, blocks: Sequence[Fold], evidence: Evidence, key: Key, _: Fold) -> dict[str, Any]:
    arms = {"full": "full"} | ({"cut": evidence.chosen.label} if evidence.chosen else {})
    if encoding.classes:
        counts = {name: _confusion(encoding, blocks, evidence, arm).tolist() for name, arm in arms.items()}
        return curves(evidence, key) | {"confusion": {"classes": list(encoding.classes)} | counts}
    found = {name: _values(blocks, evidence, arm, key[2]) for name, arm in arms.items()}
    return curves(evidence, key) | {"predictions": {"truth": _truth(blocks)} | found}


def _confusion(encoding: Encoding, blocks: Sequence[Fold], evidence: Evidence, arm: str) -> NDArray[np.int64]:
    """Test rows of all folds and seeds, counted: true class (row) by predicted class (column)."""
    counts = np.zeros((encoding.outputs, encoding.outputs), dtype=np.int64)
    for fold in blocks:
        for (name, block, _), trained in evidence.networks.items():
            if (name, block) == (arm, fold.block) and not trained.fit.diverged:
                found = predictor(CLASSIFICATION, trained.fit.model, fold)(fold.test.x)
                np.add.at(counts, (fold.test.y.numpy(), found.long().numpy()), 1)
    return counts


def _truth(blocks: Sequence[Fold]) -> list[float]:
    return _thinned(np.concatenate([fold.scaler.raw(floats(fold.test.y)[:, 0]) for fold in blocks]))


def _values(blocks: Sequence[Fold], evidence: Evidence, arm: str, seed: int) -> list[float]:
    """Predictions of every fold's test rows by the networks of one seed, in the units of the data; NaN: diverged."""
    parts = []
    for fold in blocks:
        trained = evidence.networks.get((arm, fold.block, seed))
        if trained is None or trained.fit.diverged:
            parts.append(np.full(len(fold.test.x), math.nan))
        else:
            parts.append(fold.scaler.raw(floats(predictor(REGRESSION, trained.fit.model, fold)(fold.test.x))))
    return _thinned(np.concatenate(parts))


def _thinned(values: Floats) -> list[float]:
    return list(map(float, values[np.linspace(0, len(values) - 1, min(len(values), POINTS)).astype(int)]))


def predicted_rows(
    model: torch.nn.Module, encoding: Encoding, scaler: Scaler, inputs: Floats, actual: Sequence[str]
) -> list[list[int | float | str]]:
    """[row, actual, predicted] for every row, counted from 1: a value in the units of the data, or the name of a class.

    Raises DataError for a row whose prediction is not a finite number.
    """
    task = CLASSIFICATION if encoding.classes else REGRESSION
    x = scaled_inputs(inputs, scaler)
    values = task.predictor(model, scaler)(x).double()
    found = values if encoding.classes else scaler.raw(values)
    wrong = (~(x.isfinite().all(dim=1) & found.isfinite())).nonzero()
    if len(wrong):
        raise DataError(
            f"row {int(wrong[0]) + 1}: its cells lie so far from those that the network was trained on that no finite "
            "number comes out; correct the row or leave it out"
        )
    shown: list[Any] = (
        [encoding.classes[int(value)] for value in values.tolist()] if encoding.classes else found.tolist()
    )
    return [[row, *pair] for row, pair in enumerate(zip(actual, shown, strict=True), 1)]


def actual_cells(table: Table) -> list[str]:
    """The target of a built-in table as a CSV file would hold it."""
    classes = table.encoding.classes
    return [classes[int(value)] if classes else repr(value) for value in table.target.tolist()]


def described(table: Table) -> str:
    """Its target in one line."""
    target, encoding = table.target, table.encoding
    if not encoding.classes:
        return (
            f"target {encoding.target}: min {target.min():g}, mean {target.mean():g}, max {target.max():g}, "
            f"sd {target.std():g}"
        )
    counts: Mapping[str, int] = {name: int((target == k).sum()) for k, name in enumerate(encoding.classes)}
    return f"target {encoding.target}: {', '.join(f'{name} {count}' for name, count in counts.items())} rows"
