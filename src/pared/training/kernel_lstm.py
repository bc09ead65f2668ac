"""The compiled half of the kernel: one epoch of stacked LSTMs and linear layers; `kernel_layout` says where things are.

The gradient of a unit's weights is one sum of products of 4 gates by 2 columns: a bias is the weight of a row of ones.
"""
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

import numpy as np
from numba import types
from numba.np.numpy_support import from_dtype

from pared.training.kernel_layout import ADAM, DENSE, LANES, LAYER, PLAN
from pared.training.kernel_vector import (
    HALF,
    broadcast,
    clamp,
    constant,
    constant_half,
    entry,
    inlined,
    load,
    load_half,
    plain,
    store,
    sums,
    total,
)


@inlined
def tanh(x):
    """An odd rational function of degree 9 over 8, fitted on [-8, 8]: error at most 4e-7, |tanh| < 1, NaN is kept."""
    x = clamp(x, 8.0)
    s = x * x
    p = constant(1.341982163669477e-08)
    p = p * s + constant(2.066126585104132e-05)
    p = p * s + constant(0.0034989964283106034)
    p = p * s + constant(0.133839806181011)
    p = p * s
    q = constant(7.804730290750604e-07)
    q = q * s + constant(0.00032910388403879304)
    q = q * s + constant(0.025890207871050636)
    q = q * s + constant(0.4671730210139999)
    q = q * s + constant(1.0)
    return (p * x + x) / q


@inlined
def sigmoid(x):
    half = constant(0.5)
    return tanh(x * half) * half + half


@plain
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


@plain
def _forward_layer(weights, memory, tile, layer, window):
    inputs, units, width = layer.inputs, layer.units, 4 * layer.columns
    for t in range(window):
        source = tile + layer.source + t * layer.source_step
        hidden = tile + layer.hidden + t * layer.hidden_step
        after = hidden + layer.hidden_step
        gates = tile + layer.gates + t * layer.gates_step
        cell = tile + layer.cell + t * units * LANES
        squashed = tile + layer.tanh + t * units * LANES
        for j in range(units):
            w = layer.weights + j * width
            bias = w + 4 * (inputs + units)
            i = broadcast(weights, bias) + broadcast(weights, bias + 4)
            f = broadcast(weights, bias + 1) + broadcast(weights, bias + 5)
            g = broadcast(weights, bias + 2) + broadcast(weights, bias + 6)
            o = broadcast(weights, bias + 3) + broadcast(weights, bias + 7)
            for k in range(inputs):
                z = load(memory, source + k * LANES)
                i = i + broadcast(weights, w) * z
                f = f + broadcast(weights, w + 1) * z
                g = g + broadcast(weights, w + 2) * z
                o = o + broadcast(weights, w + 3) * z
                w += 4
            for k in range(units):
                z = load(memory, hidden + k * LANES)
                i = i + broadcast(weights, w) * z
                f = f + broadcast(weights, w + 1) * z
                g = g + broadcast(weights, w + 2) * z
                o = o + broadcast(weights, w + 3) * z
                w += 4
            i = sigmoid(i)
            f = sigmoid(f)
            g = tanh(g)
            o = sigmoid(o)
            row = gates + 4 * j * LANES
            store(memory, row, i)
            store(memory, row + LANES, f)
            store(memory, row + 2 * LANES, g)
            store(memory, row + 3 * LANES, o)
            c = f * load(memory, cell + j * LANES) + i * g
            store(memory, cell + (units + j) * LANES, c)
            c = tanh(c)
            store(memory, squashed + j * LANES, c)
            store(memory, after + j * LANES, o * c)


@plain
def _pull_back(weights, memory, layer, delta, column, count, target):
    """target[k] = sum over units and gates of weight * delta, columns in fours; rows past `count` are of no use."""
    units, width, first = layer.units, 4 * layer.columns, layer.weights + 4 * column
    for k in range(0, count, 4):
        a, b, c, d = constant(0.0), constant(0.0), constant(0.0), constant(0.0)
        for j in range(units):
            w = first + j * width + 4 * k
            row = delta + 4 * j * LANES
            for gate in range(4):
                z = load(memory, row + gate * LANES)
                a = a + broadcast(weights, w + gate) * z
                b = b + broadcast(weights, w + gate + 4) * z
                c = c + broadcast(weights, w + gate + 8) * z
                d = d + broadcast(weights, w + gate + 12) * z
        row = target + k * LANES
        store(memory, row, a)
        store(memory, row + LANES, b)
        store(memory, row + 2 * LANES, c)
        store(memory, row + 3 * LANES, d)


@plain
def _backward_layer(weights, memory, tile, layer, window, below):
    """Overwrites the gates by their gradients; `below` = (where gradients of the input go, step) or a step of 0."""
    inputs, units = layer.inputs, layer.units
    recurrent = tile + layer.recurrent  # gradient of the hidden state from the step after, then that of the cell
    carried = recurrent + layer.arriving_step
    for j in range(units):
        store(memory, recurrent + j * LANES, constant(0.0))
        store(memory, carried + j * LANES, constant(0.0))
    one = constant(1.0)
    for t in range(window - 1, -1, -1):
        gates = tile + layer.gates + t * layer.gates_step
        cell = tile + layer.cell + t * units * LANES
        squashed = tile + layer.tanh + t * units * LANES
        arriving = tile + layer.arriving + t * layer.arriving_step
        for j in range(units):
            row = gates + 4 * j * LANES
            i, f = load(memory, row), load(memory, row + LANES)
            g, o = load(memory, row + 2 * LANES), load(memory, row + 3 * LANES)
            c = load(memory, squashed + j * LANES)
            dh = load(memory, arriving + j * LANES) + load(memory, recurrent + j * LANES)
            dc = dh * o * (one - c * c) + load(memory, carried + j * LANES)
            store(memory, carried + j * LANES, dc * f)
            store(memory, row, dc * g * i * (one - i))
            store(memory, row + LANES, dc * load(memory, cell + j * LANES) * f * (one - f))
            store(memory, row + 2 * LANES, dc * i * (one - g * g))
            store(memory, row + 3 * LANES, dh * c * o * (one - o))
        if t > 0:
            _pull_back(weights, memory, layer, gates, inputs, units, recurrent)
        if below[1] > 0:
            _pull_back(weights, memory, layer, gates, 0, inputs, tile + below[0] + t * below[1])


@inlined
def _column(layer, plan, k):
    """Where the row that weight column k multiplies is, and how far it moves a step."""
    if k < layer.inputs:
        return layer.source + k * LANES, layer.source_step
    if k < layer.inputs + layer.units:
        return layer.hidden + (k - layer.inputs) * LANES, layer.hidden_step
    if k < layer.inputs + layer.units + 2:
        return plan.ones, np.int64(0)
    return plan.zeros, np.int64(0)


@plain
def _layer_gradient(gradient, memory, layer, plan, tiles):
    for j in range(layer.units):
        for k in range(0, layer.columns, 2):
            left, left_step = _column(layer, plan, k)
            right, right_step = _column(layer, plan, k + 1)
            a0, a1, a2, a3 = constant_half(0.0), constant_half(0.0), constant_half(0.0), constant_half(0.0)
            b0, b1, b2, b3 = constant_half(0.0), constant_half(0.0), constant_half(0.0), constant_half(0.0)
            for tile in range(tiles):
                delta = tile * plan.tile_size + layer.gates + 4 * j * LANES
                first, second = tile * plan.tile_size + left, tile * plan.tile_size + right
                for _ in range(plan.window):
                    for half in range(0, LANES, HALF):
                        x, y = load_half(memory, first + half), load_half(memory, second + half)
                        d = load_half(memory, delta + half)
                        a0, b0 = a0 + d * x, b0 + d * y
                        d = load_half(memory, delta + LANES + half)
                        a1, b1 = a1 + d * x, b1 + d * y
                        d = load_half(memory, delta + 2 * LANES + half)
                        a2, b2 = a2 + d * x, b2 + d * y
                        d = load_half(memory, delta + 3 * LANES + half)
                        a3, b3 = a3 + d * x, b3 + d * y
                    delta += layer.gates_step
                    first += left_step
                    second += right_step
            w = layer.weights + 4 * (j * layer.columns + k)
            store(gradient, w, load_half(gradient, w) + sums((a0, a1, a2, a3, b0, b1, b2, b3)))


@plain
def _forward_head(weights, memory, tile, dense):
    for n in range(len(dense)):
        layer = dense[n]
        for o in range(layer.outputs):
            w = layer.weights + o * (layer.inputs + 1)
            a = broadcast(weights, w + layer.inputs)
            for k in range(layer.inputs):
                a = a + broadcast(weights, w + k) * load(memory, tile + layer.source + k * LANES)
            store(memory, tile + layer.target + o * LANES, a)


@plain
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


@plain
def _head_gradient(gradient, memory, layer, plan, tiles):
    for o in range(layer.outputs):
        for k in range(layer.inputs + 1):
            a = constant(0.0)
            for tile in range(tiles):
                start = tile * plan.tile_size
                row = start + (layer.source + k * LANES if k < layer.inputs else plan.ones)
                a = a + load(memory, start + layer.delta + o * LANES) * load(memory, row)
            gradient[layer.weights + o * (layer.inputs + 1) + k] += total(a)


@plain
def _forward(weights, memory, tile, network):
    layers, dense, plans = network
    for n in range(len(layers)):
        _forward_layer(weights, memory, tile, layers[n], plans[0].window)
    _forward_head(weights, memory, tile, dense)


@plain
def _backward(weights, memory, tile, network):
    layers, dense, plans = network
    window = plans[0].window
    last = layers[len(layers) - 1]
    _backward_head(weights, memory, tile, dense, last.arriving + (window - 1) * last.arriving_step)
    for n in range(len(layers) - 1, -1, -1):
        below = (layers[n - 1].arriving, layers[n - 1].arriving_step) if n > 0 else (np.int64(0), np.int64(0))
        _backward_layer(weights, memory, tile, layers[n], window, below)


@plain
def _errors(y, rows, memory, output, delta, scale):
    """The sum of squared errors of a tile; the rows at `delta` become its gradient, times `scale`."""
    squares = 0.0
    for o in range(y.shape[1]):
        for lane in range(LANES):
            error = np.float32(0.0)
            if lane < len(rows):
                error = memory[output + o * LANES + lane] - y[rows[lane], o]
            squares += error * error
            memory[delta + o * LANES + lane] = scale * error
    return squares


@plain
def _batch(examples, rows, network, weights, gradient, memory):
    """Writes the gradient of the mean squared error over `rows`; returns the sum of squared errors."""
    x, y = examples
    layers, dense, plans = network
    plan = plans[0]
    head = dense[len(dense) - 1]
    scale = np.float32(2.0 / (len(rows) * plan.outputs))
    gradient[:] = 0.0
    squares = 0.0
    for start in range(0, len(rows), plan.tiles * LANES):
        tiles = min(plan.tiles, (len(rows) - start + LANES - 1) // LANES)
        for n in range(tiles):
            tile, first = n * plan.tile_size, start + n * LANES
            these = rows[first : first + LANES]
            _read_tile(x, these, memory, tile + layers[0].source)
            _forward(weights, memory, tile, network)
            squares += _errors(y, these, memory, tile + head.target, tile + head.delta, scale)
            _backward(weights, memory, tile, network)
        for n in range(len(layers)):
            _layer_gradient(gradient, memory, layers[n], plan, tiles)
        for n in range(len(dense)):
            _head_gradient(gradient, memory, dense[n], plan, tiles)
    return squares


@plain
def _clip(gradient, bound):
    squares = 0.0
    for p in range(len(gradient)):
        squares += gradient[p] * gradient[p]
    factor = np.float32(bound / (np.sqrt(squares) + 1e-6))
    if not factor >= 1.0:
        for p in range(len(gradient)):
            gradient[p] *= factor


@plain
def _adam_step(state, adam):
    weights, gradient, first, second = state
    adam.step += 1.0
    step_size = np.float32(adam.lr / (1.0 - adam.beta1**adam.step))
    root = np.float32(np.sqrt(1.0 - adam.beta2**adam.step))
    blend1, keep2, blend2 = np.float32(1.0 - adam.beta1), np.float32(adam.beta2), np.float32(1.0 - adam.beta2)
    eps, decay = np.float32(adam.eps), np.float32(0.0 if adam.decoupled else adam.decay)
    shrink = np.float32(1.0 - adam.lr * adam.decay if adam.decoupled else 1.0)
    for p in range(len(weights)):
        weight = weights[p] * shrink
        slope = gradient[p] + decay * weight
        first[p] += blend1 * (slope - first[p])
        second[p] = keep2 * second[p] + blend2 * slope * slope
        weights[p] = weight - step_size * (first[p] / (np.sqrt(second[p]) / root + eps))


FLOATS = types.float32[::1]
EXAMPLES = types.UniTuple(types.float32[:, ::1], 2)
NETWORK = types.Tuple([from_dtype(kind)[::1] for kind in (LAYER, DENSE, PLAN)])


@entry(
    types.float64(
        EXAMPLES, types.int64[::1], types.int64, NETWORK, types.UniTuple(FLOATS, 4), from_dtype(ADAM)[::1], FLOATS
    )
)
def train_epoch(examples, order, batch_size, network, state, adam, memory):
    """One Adam step a batch, in the given order of samples; returns the mean loss over the epoch."""
    squares = 0.0
    for start in range(0, len(order), batch_size):
        squares += _batch(examples, order[start : start + batch_size], network, state[0], state[1], memory)
        if adam[0].clip > 0.0:
            _clip(state[1], adam[0].clip)
        _adam_step(state, adam[0])
    return squares / (len(order) * network[2][0].outputs)


@entry(types.float64(EXAMPLES, types.int64[::1], NETWORK, FLOATS, FLOATS))
def mean_loss(examples, order, network, weights, memory):
    """The mean squared error over the samples in `order`."""
    x, y = examples
    layers, dense, plans = network
    head = dense[len(dense) - 1]
    squares = 0.0
    for start in range(0, len(order), LANES):
        these = order[start : start + LANES]
        _read_tile(x, these, memory, layers[0].source)
        _forward(weights, memory, 0, network)
        squares += _errors(y, these, memory, head.target, head.delta, np.float32(0.0))
    return squares / (len(order) * plans[0].outputs)
