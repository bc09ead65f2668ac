"""The compiled half of the kernel that all cells share: tiles, head, losses, batches, steps; and how a cell joins in.

`kernel_layout` says where things are. A batch's gradient is found tile by tile, as many tiles as the cache holds.
"""
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

import contextlib
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.np.numpy_support import from_dtype

from pared.training.kernel_layout import DENSE, LANES, PLAN, STEPS
from pared.training.kernel_vector import broadcast, compiled_as, constant, entry, inlined, load, store, total


class Cell(NamedTuple):
    """What a kind of recurrent layer has of its own, as compiled functions.

    forward(weights, memory, tile, layer, window): writes the hidden state of every step.
    backward(weights, memory, tile, layer, window, below): overwrites the gates by their gradients; `below` = (where
    gradients of the input go, step), or a step of 0 where nobody wants them.
    gradient(gradient, memory, layer, plan, tiles): adds to the gradient of the layer's weights.
    """

    forward: Any
    backward: Any
    gradient: Any


_cells: dict[types.Type, Cell] = {}  # by the type of a layer's record


def _forward_layer(weights, memory, tile, layer, window):
    raise NotImplementedError("compiled code only")


def _backward_layer(weights, memory, tile, layer, window, below):
    raise NotImplementedError("compiled code only")


def _layer_gradient(gradient, memory, layer, plan, tiles):
    raise NotImplementedError("compiled code only")


@compiled_as(_forward_layer)
def _choose_forward(weights, memory, tile, layer, window):
    forward = _cells[layer].forward
    return lambda weights, memory, tile, layer, window: forward(weights, memory, tile, layer, window)


@compiled_as(_backward_layer)
def _choose_backward(weights, memory, tile, layer, window, below):
    backward = _cells[layer].backward
    return lambda weights, memory, tile, layer, window, below: backward(weights, memory, tile, layer, window, below)


@compiled_as(_layer_gradient)
def _choose_gradient(gradient, memory, layer, plan, tiles):
    own = _cells[layer].gradient
    return lambda gradient, memory, layer, plan, tiles: own(gradient, memory, layer, plan, tiles)


@inlined
def _read_tile(x, rows, memory, start):
    """Transposes rows of x to lanes; lanes that remain are zero."""
    width = x.shape[1]
    for lane in range(LANES):
        if lane < len(rows):
            row = x[rows[lane]]
            for r in range(width):
                memory[start + r * LANES + lane] = row[r]
        else:
            for r in range(width):
                memory[start + r * LANES + lane] = 0.0


@inlined
def _forward_head(weights, memory, tile, dense):
    for n in range(len(dense)):
        layer = dense[n]
        for o in range(layer.outputs):
            w = layer.weights + o * (layer.inputs + 1)
            a = broadcast(weights, w + layer.inputs)
            for k in range(layer.inputs):
                a = a + broadcast(weights, w + k) * load(memory, tile + layer.source + k * LANES)
            store(memory, tile + layer.target + o * LANES, a)


@inlined
def _backward_head(weights, memory, tile, dense, arriving):
    for n in range(len(dense) - 1, -1, -1):
        layer = dense[n]
        target = tile + (dense[n - 1].delta if n > 0 else arriving)
        for k in range(layer.inputs):
            a = constant(0.0)
            for o in range(layer.outputs):
                w = layer.weights + o * (layer.inputs + 1) + k
                a = a + broadcast(weights, w) * load(memory, tile + layer.delta + o * LANES)
            store(memory, target + k * LANES, a)


@inlined
def _head_gradient(gradient, memory, layer, plan, tiles):
    for o in range(layer.outputs):
        for k in range(layer.inputs + 1):
            a = constant(0.0)
            for tile in range(tiles):
                start = tile * plan.tile_size
                row = start + (layer.source + k * LANES if k < layer.inputs else plan.ones)
                a = a + load(memory, start + layer.delta + o * LANES) * load(memory, row)
            gradient[layer.weights + o * (layer.inputs + 1) + k] += total(a)


@inlined
def _forward(weights, memory, tile, network):
    layers, dense, plans = network
    for n in range(len(layers)):
        _forward_layer(weights, memory, tile, layers[n], plans[0].window)
    _forward_head(weights, memory, tile, dense)


@inlined
def _backward(weights, memory, tile, network):
    layers, dense, plans = network
    window = plans[0].window
    last = layers[len(layers) - 1]
    _backward_head(weights, memory, tile, dense, last.arriving + (window - 1) * last.arriving_step)
    for n in range(len(layers) - 1, -1, -1):
        below = (layers[n - 1].arriving, layers[n - 1].arriving_step) if n > 0 else (np.int64(0), np.int64(0))
        _backward_layer(weights, memory, tile, layers[n], window, below)


@inlined
def _squares(y, rows, memory, tile, head, scale):
    """The sum of squared errors of a tile; the rows at `delta` become its gradient, times `scale`."""
    squares = 0.0
    for o in range(head.outputs):
        for lane in range(LANES):
            error = np.float32(0.0)
            if lane < len(rows):
                error = memory[tile + head.target + o * LANES + lane] - y[rows[lane], o]
            squares += error * error
            memory[tile + head.delta + o * LANES + lane] = np.float32(2.0) * scale * error
    return squares


@inlined
def _entropies(y, rows, memory, tile, head, scale):
    """As `_squares` with the cross entropies of the classes y, -log softmax(outputs)[y]."""
    entropies = 0.0
    for lane in range(LANES):
        target, delta = tile + head.target + lane, tile + head.delta + lane
        highest, whole = memory[target], np.float32(0.0)
        for o in range(head.outputs):
            highest = max(highest, memory[target + o * LANES])
        for o in range(head.outputs):
            power = np.exp(memory[target + o * LANES] - highest)
            memory[delta + o * LANES] = power
            whole += power
        share = scale / whole if lane < len(rows) else np.float32(0.0)
        for o in range(head.outputs):
            memory[delta + o * LANES] *= share
        if lane < len(rows):
            right = int(y[rows[lane], 0]) * LANES
            memory[delta + right] -= scale
            entropies += np.log(whole) + highest - memory[target + right]
    return entropies


@inlined
def _terms(plan):
    """How many losses a sample has a mean of."""
    return 1 if plan.entropy else plan.outputs


@inlined
def _batch(examples, rows, network, weights, gradient, memory):
    """Writes the gradient of the mean loss over `rows`; returns the sum of losses."""
    x, y = examples
    layers, dense, plans = network
    plan = plans[0]
    head = dense[len(dense) - 1]
    scale = np.float32(1.0 / (len(rows) * _terms(plan)))
    gradient[:] = 0.0
    losses = 0.0
    for start in range(0, len(rows), plan.tiles * LANES):
        tiles = min(plan.tiles, (len(rows) - start + LANES - 1) // LANES)
        for n in range(tiles):
            tile, first = n * plan.tile_size, start + n * LANES
            these = rows[first : first + LANES]
            _read_tile(x, these, memory, tile + layers[0].source)
            _forward(weights, memory, tile, network)
            if plan.entropy:
                losses += _entropies(y, these, memory, tile, head, scale)
            else:
                losses += _squares(y, these, memory, tile, head, scale)
            _backward(weights, memory, tile, network)
        for n in range(len(layers)):
            _layer_gradient(gradient, memory, layers[n], plan, tiles)
        for n in range(len(dense)):
            _head_gradient(gradient, memory, dense[n], plan, tiles)
    return losses


@inlined
def _clip(gradient, bound):
    squares = 0.0
    for p in range(len(gradient)):
        squares += gradient[p] * gradient[p]
    factor = np.float32(bound / (np.sqrt(squares) + 1e-6))
    if not factor >= 1.0:
        for p in range(len(gradient)):
            gradient[p] *= factor


@inlined
def _step(state, rule):
    weights, gradient, first, second = state
    rule.step += 1.0
    decay = np.float32(0.0 if rule.decoupled else rule.decay)
    if not rule.adam:
        step_size = np.float32(rule.lr)
        for p in range(len(weights)):
            weights[p] -= step_size * (gradient[p] + decay * weights[p])
        return
    step_size = np.float32(rule.lr / (1.0 - rule.beta1**rule.step))
    root = np.float32(np.sqrt(1.0 - rule.beta2**rule.step))
    blend1, keep2, blend2 = np.float32(1.0 - rule.beta1), np.float32(rule.beta2), np.float32(1.0 - rule.beta2)
    eps, shrink = np.float32(rule.eps), np.float32(1.0 - rule.lr * rule.decay if rule.decoupled else 1.0)
    for p in range(len(weights)):
        weight = weights[p] * shrink
        slope = gradient[p] + decay * weight
        first[p] += blend1 * (slope - first[p])
        second[p] = keep2 * second[p] + blend2 * slope * slope
        weights[p] = weight - step_size * (first[p] / (np.sqrt(second[p]) / root + eps))


FLOATS = types.float32[::1]
SAMPLES = types.float32[:, ::1]
EXAMPLES = types.UniTuple(SAMPLES, 2)


def _entries(name, sources):
    """`train_epoch` and `predict`. They close over `sources` to tell numba's cache on disk what they depend on."""

    @entry(f"train_epoch_{name}")
    def train_epoch(examples, order, batch_size, network, state, rule, memory):
        """One step a batch, in the given order of samples; returns the mean loss over the epoch."""
        _ = sources
        losses = 0.0
        for start in range(0, len(order), batch_size):
            losses += _batch(examples, order[start : start + batch_size], network, state[0], state[1], memory)
            if rule[0].clip > 0.0:
                _clip(state[1], rule[0].clip)
            _step(state, rule[0])
        return losses / (len(order) * _terms(network[2][0]))

    @entry(f"predict_{name}")
    def predict(x, order, network, weights, memory, output):
        """Writes the network's output for the samples in `order` to the rows of `output`."""
        _ = sources
        layers, dense, plans = network
        target = dense[len(dense) - 1].target
        for start in range(0, len(order), LANES):
            these = order[start : start + LANES]
            _read_tile(x, these, memory, layers[0].source)
            _forward(weights, memory, 0, network)
            for o in range(plans[0].outputs):
                for lane in range(len(these)):
                    output[start + lane, o] = memory[target + o * LANES + lane]

    return train_epoch, predict


def _sources() -> int:
    """A number that changes with any of the kernel's files: numba looks at the one that holds an entry only."""
    number = 0
    for path in sorted(Path(__file__).parent.glob("kernel*.py")):
        number = zlib.crc32(path.read_bytes(), number)
    return number


def compiled(name: str, kind: np.dtype[Any], cell: Cell) -> tuple[Any, Any]:
    """`train_epoch` and `predict`, compiled or read from the cache for networks whose layers are of this kind."""
    _cells[from_dtype(kind)] = cell
    network = types.Tuple([from_dtype(record)[::1] for record in (kind, DENSE, PLAN)])
    order, rule = types.int64[::1], from_dtype(STEPS)[::1]
    train_epoch, predict = _entries(name, _sources())
    for function, arguments in (
        (train_epoch, (EXAMPLES, order, types.int64, network, types.UniTuple(FLOATS, 4), rule, FLOATS)),
        (predict, (SAMPLES, order, network, FLOATS, FLOATS, SAMPLES)),
    ):
        with contextlib.suppress(OSError):  # a full disk: the compiled function is there all the same
            function.compile(arguments)
    return train_epoch, predict
