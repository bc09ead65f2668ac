"""Where the kernel keeps what: a network's weights in one vector, its intermediate values in one scratch memory.

Samples are lanes. A *tile* is 16 samples; a *row* of memory is one number for each of them. Rows of a recurrent layer
at a step: 4 gates a unit (i, f, g, o; the backward pass overwrites them by their gradients), hidden state, cell, tanh
of the cell, and the gradient that arrives at the hidden state. Hidden state and cell begin with a step of zeros.
Weights of a unit: columns (inputs, hidden units, b_ih, b_hh, one of zeros where their number is odd) of 4 gates.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pared.models.recurrent import Forecaster

LANES = 16
CACHE_BYTES = 300 * 1024  # what the tiles held at a time may take: the larger part of a 512 KiB L2 cache


def _record(kind: Any, fields: str) -> np.dtype[Any]:
    return np.dtype([(name, kind) for name in fields.split()])


LAYER = _record(
    np.int64,
    "inputs units columns weights source source_step hidden hidden_step gates gates_step cell tanh"
    " arriving arriving_step recurrent",
)
DENSE = _record(np.int64, "inputs outputs weights source target delta")
PLAN = _record(np.int64, "window outputs tile_size tiles ones zeros")
ADAM = _record(np.float64, "lr beta1 beta2 eps decay decoupled clip step")

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """Offsets of everything, in floats; `places[p]` are the entries in the weights of parameter p, in its own order."""

    network: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]  # recurrent layers, dense layers, the rest
    places: list[Ints]
    weights: int
    memory: int


class _Counter:
    """Hands out consecutive stretches."""

    def __init__(self) -> None:
        self.used = 0

    def take(self, count: int) -> int:
        self.used += count
        return self.used - count


def layout(model: Forecaster, window: int, batch_size: int) -> Layout:
    """The layout for windows of so many steps; as many tiles of a batch at a time as the cache holds."""
    weights, rows = _Counter(), _Counter()
    layers, dense, plan = np.zeros(len(model.recurrent), LAYER), np.zeros(len(model.head), DENSE), np.zeros(1, PLAN)
    places: list[Ints] = []
    ones, zeros = rows.take(1) * LANES, rows.take(1) * LANES
    inputs = int(model.recurrent[0].input_size)  # type: ignore[arg-type]
    source, step = rows.take(window * inputs) * LANES, inputs * LANES
    for row, module in zip(layers, model.recurrent, strict=True):
        units = int(module.hidden_size)  # type: ignore[arg-type]
        places += _place_layer(row, inputs, units, weights)
        row["source"], row["source_step"] = source, step
        _place_rows(row, units, window, rows)
        source, step, inputs = row["hidden"] + row["hidden_step"], row["hidden_step"], units
    source += (window - 1) * step  # the head reads the last step
    for row, module in zip(dense, model.head, strict=True):
        outputs = int(module.out_features)  # type: ignore[arg-type]
        start = weights.take(outputs * (inputs + 1))
        table = start + np.arange(outputs * (inputs + 1)).reshape(outputs, inputs + 1)
        places += [table[:, :-1].ravel(), table[:, -1].copy()]
        target, delta = rows.take(outputs) * LANES, rows.take(outputs) * LANES
        for name, value in zip(DENSE.names or (), (inputs, outputs, start, source, target, delta), strict=True):
            row[name] = value
        source, inputs = target, outputs
    weights.take(16)  # columns are read in fours
    size = rows.used * LANES
    tiles = max(1, min(-(-batch_size // LANES), CACHE_BYTES // (4 * size)))
    plan[0] = (window, inputs, size, tiles, ones, zeros)
    return Layout((layers, dense, plan), places, weights.used, tiles * size)


def _place_layer(row: Any, inputs: int, units: int, weights: _Counter) -> list[Ints]:
    """Sets a layer's sizes; returns the entries of weight_ih, weight_hh, bias_ih and bias_hh."""
    columns = (inputs + units + 3) // 2 * 2
    row["inputs"], row["units"], row["columns"] = inputs, units, columns
    row["weights"] = weights.take(4 * units * columns)
    table = row["weights"] + np.arange(4 * units * columns).reshape(units, columns, 4).transpose(
        2, 0, 1
    )  # gate, unit, column
    parts = np.split(table, [inputs, inputs + units, inputs + units + 1, inputs + units + 2], axis=2)[:4]
    return [part.ravel() for part in parts]


def _place_rows(row: Any, units: int, window: int, rows: _Counter) -> None:
    """Sets where a layer's rows are. One spare row a step keeps steps off each other's cache sets."""
    fours = (units + 3) // 4 * 4 + 1
    row["hidden"], row["hidden_step"] = rows.take((window + 1) * (units + 1)) * LANES, (units + 1) * LANES
    row["gates"], row["gates_step"] = rows.take(window * (4 * units + 1)) * LANES, (4 * units + 1) * LANES
    row["cell"], row["tanh"] = rows.take((window + 1) * units) * LANES, rows.take(window * units) * LANES
    row["arriving"], row["arriving_step"] = rows.take(window * fours) * LANES, fours * LANES
    row["recurrent"] = rows.take(2 * fours) * LANES
