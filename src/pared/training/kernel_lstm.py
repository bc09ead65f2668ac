"""The compiled LSTM: forward and backward through a layer; `kernel_layout` says where things are.

The gradient of a unit's weights is one sum of products of 4 gates by 2 columns: a bias is the weight of a row of ones.
"""
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

from pared.training.kernel_layout import LANES, LSTM
from pared.training.kernel_products import gradient_4, pull_back_4, sigmoid, tanh, weigh_4
from pared.training.kernel_shared import Cell, compiled
from pared.training.kernel_vector import broadcast, constant, inlined, load, store


@inlined
def _forward(weights, memory, tile, layer, window):
    inputs, units = layer.inputs, layer.units
    for t in range(window):
        source = tile + layer.source + t * layer.source_step
        hidden = tile + layer.hidden + t * layer.hidden_step
        after = hidden + layer.hidden_step
        gates = tile + layer.gates + t * layer.gates_step
        cell = tile + layer.cell + t * units * LANES
        squashed = tile + layer.tanh + t * units * LANES
        for j in range(units):
            w = layer.weights + 4 * j * layer.columns
            bias = w + 4 * (inputs + units)
            i = broadcast(weights, bias) + broadcast(weights, bias + 4)
            f = broadcast(weights, bias + 1) + broadcast(weights, bias + 5)
            g = broadcast(weights, bias + 2) + broadcast(weights, bias + 6)
            o = broadcast(weights, bias + 3) + broadcast(weights, bias + 7)
            i, f, g, o = weigh_4(weights, w, memory, source, inputs, (i, f, g, o))
            i, f, g, o = weigh_4(weights, w + 4 * inputs, memory, hidden, units, (i, f, g, o))
            i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
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


@inlined
def _backward(weights, memory, tile, layer, window, below):
    inputs, units = layer.inputs, layer.units
    table = (layer.weights, units, layer.columns)
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
            pull_back_4(weights, memory, table, gates, inputs, units, recurrent)
        if below[1] > 0:
            pull_back_4(weights, memory, table, gates, 0, inputs, tile + below[0] + t * below[1])


@inlined
def _gradient(gradient, memory, layer, plan, tiles):
    rows = (layer.source, layer.source_step, layer.inputs), (layer.hidden, layer.hidden_step, layer.units), 2
    table, delta = (layer.weights, layer.units, layer.columns), (layer.gates, layer.gates_step)
    gradient_4(gradient, memory, table, delta, rows, plan, tiles)


train_epoch, predict = compiled("lstm", LSTM, Cell(_forward, _backward, _gradient))
