"""The compiled RNN, tanh or relu: forward and backward through a layer; `kernel_layout` says where things are.

Four units take the place of a unit's four gates; those that fill up the last four stay at zero.
"""
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

from pared.training.kernel_layout import LANES, RNN
from pared.training.kernel_products import gradient_4, pull_back_4, tanh, weigh_4
from pared.training.kernel_shared import Cell, compiled
from pared.training.kernel_vector import broadcast, constant, inlined, load, plain, store, where_positive


@inlined
def _activated(x, relu):
    if relu:
        return where_positive(x, x)
    return tanh(x)


@plain
def _forward(weights, memory, tile, layer, window):
    inputs, units, relu = layer.inputs, layer.units, layer.relu != 0
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
            store(memory, row, _activated(a, relu))
            store(memory, row + LANES, _activated(b, relu))
            store(memory, row + 2 * LANES, _activated(c, relu))
            store(memory, row + 3 * LANES, _activated(d, relu))


@plain
def _backward(weights, memory, tile, layer, window, below):
    inputs, units, relu = layer.inputs, layer.units, layer.relu != 0
    table = (layer.weights, layer.fours, layer.columns)
    recurrent = tile + layer.recurrent  # gradient of the hidden state from the step after
    for j in range(units):
        store(memory, recurrent + j * LANES, constant(0.0))
    one = constant(1.0)
    for t in range(window - 1, -1, -1):
        after = tile + layer.hidden + (t + 1) * layer.hidden_step
        gates = tile + layer.gates + t * layer.gates_step
        arriving = tile + layer.arriving + t * layer.arriving_step
        for j in range(units):
            h = load(memory, after + j * LANES)
            dh = load(memory, arriving + j * LANES) + load(memory, recurrent + j * LANES)
            store(memory, gates + j * LANES, where_positive(h, dh) if relu else dh * (one - h * h))
        for j in range(units, 4 * layer.fours):
            store(memory, gates + j * LANES, constant(0.0))
        if t > 0:
            pull_back_4(weights, memory, table, gates, inputs, units, recurrent)
        if below[1] > 0:
            pull_back_4(weights, memory, table, gates, 0, inputs, tile + below[0] + t * below[1])


@plain
def _gradient(gradient, memory, layer, plan, tiles):
    rows = (layer.source, layer.source_step, layer.inputs), (layer.hidden, layer.hidden_step, layer.units), 2
    table, delta = (layer.weights, layer.fours, layer.columns), (layer.gates, layer.gates_step)
    gradient_4(gradient, memory, table, delta, rows, plan, tiles)


train_epoch, predict = compiled(RNN, Cell(_forward, _backward, _gradient))
