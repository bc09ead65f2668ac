"""Where the kernel keeps what: a network's weights in one vector, its intermediate values in one scratch memory.

Samples are lanes. A *tile* is 16 samples; a *row* of memory is one number for each of them. A recurrent layer has at
every step rows called gates, which the backward pass overwrites by their gradients: 4 a unit (LSTM, GRU) or 1 (RNN, and
as many as round them up to fours). And it has its hidden state, which begins with a step of zeros, and the gradient
that arrives there. LSTM: the gates are i, f, g, o; there are the cell (which begins with a step of zeros, too) and its
tanh. GRU: the gates are n, r, z and m, the part of n that comes from the hidden state.

Weights are tables: a column holds the 4 weights of a unit's gates (RNN: of 4 units). LSTM and RNN: columns for inputs,
hidden units, b_ih, b_hh. GRU: one table for inputs and b_ih (gates n, r, z, none), one for hidden units and b_hh (r, z,
m, none). Where the number of columns is odd there is one more, of zeros. What is padding stays 0 in training.

A dense layer with an activation is an RNN layer of one step that reads no hidden state and has one bias.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pared.training.stacks import Stack

LANES = 16
CACHE_BYTES = 300 * 1024  # what the tiles held at a time may take: the larger part of a 512 KiB L2 cache


def _record(kind: Any, fields: str) -> np.dtype[Any]:
    return np.dtype([(name, kind) for name in fields.split()])


_PLACES = "source source_step hidden hidden_step gates gates_step arriving arriving_step recurrent"
_ANY = f"inputs units columns weights {_PLACES}"
LSTM = _record(np.int64, f"{_ANY} cell tanh")
GRU = _record(np.int64, f"{_ANY} hidden_columns hidden_weights")
RNN = _record(np.int64, f"{_ANY} fours hidden_units biases activation")
DENSE = _record(np.int64, "inputs outputs weights source target delta")
PLAN = _record(np.int64, "window outputs tile_size tiles ones zeros entropy")  # entropy: the loss is cross entropy
STEPS = _record(np.float64, "lr beta1 beta2 eps decay decoupled clip step adam")  # adam: 0 for gradient descent
ACTIVATIONS = {"tanh": 0, "relu": 1, "sigmoid": 2}

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


def layout(stack: Stack, window: int, batch_size: int, entropy: bool = False) -> Layout:
    """The layout for windows of so many steps; as many tiles of a batch at a time as the cache holds."""
    weights, rows = _Counter(), _Counter()
    kind, place = _PLACED[stack.kind]
    layers, dense, plan = np.zeros(len(stack.layers), kind), np.zeros(len(stack.head), DENSE), np.zeros(1, PLAN)
    places: list[Ints] = []
    ones, zeros = rows.take(1) * LANES, rows.take(1) * LANES
    inputs = stack.inputs
    source, step = rows.take(window * inputs) * LANES, inputs * LANES
    for n, (row, module) in enumerate(zip(layers, stack.layers, strict=True)):
        units = int(module.out_features if isinstance(module, nn.Linear) else module.hidden_size)  # type: ignore[arg-type]
        row["inputs"], row["units"], row["source"], row["source_step"] = inputs, units, source, step
        if stack.activations:
            row["activation"] = ACTIVATIONS[stack.activations[n]]
        places += place(row, window, weights, rows)
        source, step, inputs = row["hidden"] + row["hidden_step"], row["hidden_step"], units
    source += (window - 1) * step  # the head reads the last step
    for row, module in zip(dense, stack.head, strict=True):
        outputs = module.out_features
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
    plan[0] = (window, inputs, size, tiles, ones, zeros, entropy)
    return Layout((layers, dense, plan), places, weights.used, tiles * size)


def _place_lstm(row: Any, window: int, weights: _Counter, rows: _Counter) -> list[Ints]:
    """Sets where a layer is; returns the entries of weight_ih, weight_hh, bias_ih and bias_hh."""
    inputs, units = int(row["inputs"]), int(row["units"])
    row["weights"], row["columns"], table = _table(units, inputs + units + 2, weights)
    _place_rows(row, units, 4 * units, window, rows)
    row["cell"], row["tanh"] = rows.take((window + 1) * units) * LANES, rows.take(window * units) * LANES
    return _parts(table.transpose(2, 0, 1), inputs, units)


def _place_gru(row: Any, window: int, weights: _Counter, rows: _Counter) -> list[Ints]:
    """As `_place_lstm`."""
    inputs, units = int(row["inputs"]), int(row["units"])
    row["weights"], row["columns"], outer = _table(units, inputs + 1, weights)
    row["hidden_weights"], row["hidden_columns"], inner = _table(units, units + 1, weights)
    _place_rows(row, units, 4 * units, window, rows)
    outer, inner = outer.transpose(2, 0, 1)[[1, 2, 0]], inner.transpose(2, 0, 1)[:3]  # PyTorch's r, z, n
    parts = (outer[..., :inputs], inner[..., :units], outer[..., inputs], inner[..., units])
    return [part.ravel() for part in parts]


def _place_rnn(row: Any, window: int, weights: _Counter, rows: _Counter) -> list[Ints]:
    """As `_place_lstm`."""
    row["hidden_units"], row["biases"] = row["units"], 2
    return _place_fours(row, window, weights, rows)


def _place_mlp(row: Any, window: int, weights: _Counter, rows: _Counter) -> list[Ints]:
    """Sets where a layer is; returns the entries of weight and bias."""
    row["biases"] = 1
    weight, _, bias, _ = _place_fours(row, window, weights, rows)
    return [weight, bias]


def _place_fours(row: Any, window: int, weights: _Counter, rows: _Counter) -> list[Ints]:
    inputs, units, hidden = int(row["inputs"]), int(row["units"]), int(row["hidden_units"])
    row["fours"] = -(-units // 4)
    row["weights"], row["columns"], table = _table(int(row["fours"]), inputs + hidden + 2, weights)
    padded = 4 * int(row["fours"])
    _place_rows(row, padded, padded, window, rows)
    return _parts(table.transpose(0, 2, 1).reshape(1, padded, -1)[:, :units], inputs, hidden)


_Place = Callable[[Any, int, _Counter, _Counter], list[Ints]]
_PLACED: dict[str, tuple[np.dtype[Any], _Place]] = {
    "lstm": (LSTM, _place_lstm),
    "gru": (GRU, _place_gru),
    "rnn": (RNN, _place_rnn),
    "mlp": (RNN, _place_mlp),
}


def _table(groups: int, columns: int, weights: _Counter) -> tuple[int, int, Ints]:
    """First entry, number of columns and entries (groups, columns, 4) of a new table of weights."""
    columns += columns % 2
    count = groups * columns * 4
    start = weights.take(count)
    return start, columns, start + np.arange(count).reshape(groups, columns, 4)


def _parts(table: Ints, inputs: int, hidden: int) -> list[Ints]:
    """Splits the entries (gate, unit, column) of one table by what its columns multiply."""
    ends = [inputs, inputs + hidden, inputs + hidden + 1, inputs + hidden + 2]
    return [part.ravel() for part in np.split(table, ends, axis=2)[:4]]


def _place_rows(row: Any, units: int, gates: int, window: int, rows: _Counter) -> None:
    """Sets where a layer's rows are. One spare row a step keeps steps off each other's cache sets."""
    fours = (units + 3) // 4 * 4 + 1
    row["hidden"], row["hidden_step"] = rows.take((window + 1) * (units + 1)) * LANES, (units + 1) * LANES
    row["gates"], row["gates_step"] = rows.take(window * (gates + 1)) * LANES, (gates + 1) * LANES
    row["arriving"], row["arriving_step"] = rows.take(window * fours) * LANES, fours * LANES
    row["recurrent"] = rows.take(2 * fours) * LANES
