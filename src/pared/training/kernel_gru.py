"""The compiled GRU: forward and backward through a layer; `kernel_layout` says where things are.

r, z = sigmoid(W_i x + b_i + W_h h + b_h), m = W_hn h + b_hn, n = tanh(W_in x + b_in + r m), and h becomes
n + z (h - n). Inputs meet n, r and z, hidden units r, z and m: with the rows of gates in the order n, r, z, m each of
the two tables of weights reads three neighbours.
"""
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

from pared.training.kernel_layout import GRU, LANES
from pared.training.kernel_products import gradient_3, pull_back_3, sigmoid, tanh, weigh_3
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
        for j in range(units):
            outer = layer.weights + 4 * j * layer.columns
            inner = layer.hidden_weights + 4 * j * layer.hidden_columns
            bias, hidden_bias = outer + 4 * inputs, inner + 4 * units
            n = broadcast(weights, bias)
            r = broadcast(weights, bias + 1) + broadcast(weights, hidden_bias)
            z = broadcast(weights, bias + 2) + broadcast(weights, hidden_bias + 1)
            m = broadcast(weights, hidden_bias + 2)
            n, r, z = weigh_3(weights, outer, memory, source, inputs, (n, r, z))
            r, z, m = weigh_3(weights, inner, memory, hidden, units, (r, z, m))
            r, z = sigmoid(r), sigmoid(z)
            n = tanh(n + r * m)
            row = gates + 4 * j * LANES
            store(memory, row, n)
            store(memory, row + LANES, r)
            store(memory, row + 2 * LANES, z)
            store(memory, row + 3 * LANES, m)
            store(memory, after + j * LANES, n + z * (load(memory, hidden + j * LANES) - n))


@inlined
def _backward(weights, memory, tile, layer, window, below):
    inputs, units = layer.inputs, layer.units
    outer = (layer.weights, units, layer.columns)
    inner = (layer.hidden_weights, units, layer.hidden_columns)
    recurrent = tile + layer.recurrent  # gradient of the hidden state from the step after: through the gates
    carried = recurrent + layer.arriving_step  # and past them
    for j in range(units):
        store(memory, recurrent + j * LANES, constant(0.0))
        store(memory, carried + j * LANES, constant(0.0))
    one = constant(1.0)
    for t in range(window - 1, -1, -1):
        hidden = tile + layer.hidden + t * layer.hidden_step
        gates = tile + layer.gates + t * layer.gates_step
        arriving = tile + layer.arriving + t * layer.arriving_step
        for j in range(units):
            row = gates + 4 * j * LANES
            n, r = load(memory, row), load(memory, row + LANES)
            z, m = load(memory, row + 2 * LANES), load(memory, row + 3 * LANES)
            dh = load(memory, arriving + j * LANES) + load(memory, recurrent + j * LANES)
            dh = dh + load(memory, carried + j * LANES)
            dn = dh * (one - z) * (one - n * n)
            store(memory, carried + j * LANES, dh * z)
            store(memory, row, dn)
            store(memory, row + LANES, dn * m * r * (one - r))
            store(memory, row + 2 * LANES, dh * (load(memory, hidden + j * LANES) - n) * z * (one - z))
            store(memory, row + 3 * LANES, dn * r)
        if t > 0:
            pull_back_3(weights, memory, inner, gates + LANES, 0, units, recurrent)
        if below[1] > 0:
            pull_back_3(weights, memory, outer, gates, 0, inputs, tile + below[0] + t * below[1])


@inlined
def _gradient(gradient, memory, layer, plan, tiles):
    none = (layer.source, 0, 0)
    rows = (layer.source, layer.source_step, layer.inputs), none, 1
    table, delta = (layer.weights, layer.units, layer.columns), (layer.gates, layer.gates_step)
    gradient_3(gradient, memory, table, delta, rows, plan, tiles)
    rows = (layer.hidden, layer.hidden_step, layer.units), none, 1
    table = (layer.hidden_weights, layer.units, layer.hidden_columns)
    gradient_3(gradient, memory, table, (layer.gates + LANES, layer.gates_step), rows, plan, tiles)


train_epoch, predict = compiled("gru", GRU, Cell(_forward, _backward, _gradient))
