"""The compiled RNN and dense layer: forward and backward through a layer; `kernel_layout` says where things are.

Four units take the place of a unit's four gates. What fills up the last four has no weights, and no gradient.
"""
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

from pared.training.kernel_layout import ACTIVATIONS, LANES, RNN
from pared.training.kernel_products import gradient_4, pull_back_4, sigmoid, tanh, weigh_4
from pared.training.kernel_shared import Cell, compiled
from pared.training.kernel_vector import broadcast, constant, inlined, load, store, where_positive

RELU, SIGMOID = ACTIVATIONS["relu"], ACTIVATIONS["sigmoid"]


@inlined
def _activate(memory, start, count, activation):
    for row in range(start, start + count * LANES, LANES):
        x = load(memory, row)
        if activation == RELU:
            store(memory, row, where_positive(x, x))
        elif activation == SIGMOID:
            store(memory, row, sigmoid(x))
        else:
            store(memory, row, tanh(x))


@inlined
def _slope(h, dh, activation):
    """dh times the activation's slope where it gave h."""
    one = constant(1.0)
    if activation == RELU:
        return where_positive(h, dh)
    if activation == SIGMOID:
        return dh * h * (one - h)
    return dh * (one - h * h)


@inlined
def _forward(weights, memory, tile, layer, window):
    inputs, units = layer.inputs, layer.hidden_units
    for t in range(window):
        source = tile + layer.source + t * layer.source_step
        hidden = tile + layer.hidden + t * layer.hidden_step
        after = hidden + layer.hidden_step
        for j in range(layer.fours):
            w = layer.weights + 4 * j * layer.columns
            bias = w + 4 * (inputs + units)
            a = broadcast(weights, bias) + broadcast(weights, bias + 4)
            b = broadcast(weights, bias + 1) + broadcast(weights, bias + 5)
            c = broadcast(weights, bias + 2) + broadcast(weights, bias + 6)
            d = broadcast(weights, bias + 3) + broadcast(weights, bias + 7)
            a, b, c, d = weigh_4(weights, w, memory, source, inputs, (a, b, c, d))
            a, b, c, d = weigh_4(weights, w + 4 * inputs, memory, hidden, units, (a, b, c, d))
            row = after + 4 * j * LANES
            store(memory, row, a)
            store(memory, row + LANES, b)
            store(memory, row + 2 * LANES, c)
            store(memory, row + 3 * LANES, d)
        _activate(memory, after, layer.units, layer.activation)


@inlined
def _backward(weights, memory, tile, layer, window, below):
    inputs, units = layer.inputs, layer.units
    table = (layer.weights, layer.fours, layer.columns)
    recurrent = tile + layer.recurrent  # gradient of the hidden state from the step after
    for j in range(units):
        store(memory, recurrent + j * LANES, constant(0.0))
    for t in range(window - 1, -1, -1):
        after = tile + layer.hidden + (t + 1) * layer.hidden_step
        gates = tile + layer.gates + t * layer.gates_step
        arriving = tile + layer.arriving + t * layer.arriving_step
        for j in range(units):
            h = load(memory, after + j * LANES)
            dh = load(memory, arriving + j * LANES) + load(memory, recurrent + j * LANES)
            store(memory, gates + j * LANES, _slope(h, dh, layer.activation))
        for j in range(units, 4 * layer.fours):
            store(memory, gates + j * LANES, constant(0.0))
        if t > 0:
            pull_back_4(weights, memory, table, gates, inputs, units, recurrent)
        if below[1] > 0:
            pull_back_4(weights, memory, table, gates, 0, inputs, tile + below[0] + t * below[1])


@inlined
def _gradient(gradient, memory, layer, plan, tiles):
    hidden = (layer.hidden, layer.hidden_step, layer.hidden_units)
    rows = (layer.source, layer.source_step, layer.inputs), hidden, layer.biases
    table, delta = (layer.weights, layer.fours, layer.columns), (layer.gates, layer.gates_step)
    gradient_4(gradient, memory, table, delta, rows, plan, tiles)


train_epoch, predict = compiled("rnn", RNN, Cell(_forward, _backward, _gradient))
