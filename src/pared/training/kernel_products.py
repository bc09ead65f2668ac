"""Compiled parts that cells are made of: activations, and products of tables of weights with rows of samples.

A table is (first entry, groups of 4 weights, columns); see `kernel_layout`. Functions that go over the weights of a
column exist for its first 3 or all 4 of them.
"""
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

import numpy as np

from pared.training.kernel_layout import LANES
from pared.training.kernel_vector import (
    HALF,
    broadcast,
    clamp,
    constant,
    constant_half,
    inlined,
    load,
    load_half,
    store,
    sums,
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


@inlined
def weigh_3(weights, w, memory, source, count, results):
    """results + the first 3 weights of each of `count` columns, from w on, times the column's row, from `source` on."""
    a, b, c = results
    for k in range(count):
        z = load(memory, source + k * LANES)
        a = a + broadcast(weights, w) * z
        b = b + broadcast(weights, w + 1) * z
        c = c + broadcast(weights, w + 2) * z
        w += 4
    return a, b, c


@inlined
def weigh_4(weights, w, memory, source, count, results):
    """As `weigh_3` with all of the 4 weights of a column."""
    a, b, c, d = results
    for k in range(count):
        z = load(memory, source + k * LANES)
        a = a + broadcast(weights, w) * z
        b = b + broadcast(weights, w + 1) * z
        c = c + broadcast(weights, w + 2) * z
        d = d + broadcast(weights, w + 3) * z
        w += 4
    return a, b, c, d


def _pull_back(gates):
    @inlined
    def pull_back(weights, memory, table, delta, column, count, target):
        """target[k] = sum over groups, gates of weight * delta, columns in fours; rows past `count` are of no use."""
        first, groups, columns = table
        for k in range(0, count, 4):
            a, b, c, d = constant(0.0), constant(0.0), constant(0.0), constant(0.0)
            for j in range(groups):
                w = first + 4 * (j * columns + column + k)
                row = delta + 4 * j * LANES
                for gate in range(gates):
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

    return pull_back


pull_back_3, pull_back_4 = _pull_back(3), _pull_back(4)


@inlined
def _column(rows, plan, k):
    """Where the row that weight column k multiplies is, and how far it moves a step."""
    (first, first_step, first_count), (second, second_step, second_count), biases = rows
    if k < first_count:
        return first + k * LANES, first_step
    k -= first_count
    if k < second_count:
        return second + k * LANES, second_step
    if k < second_count + biases:
        return plan.ones, np.int64(0)
    return plan.zeros, np.int64(0)


def _gradient(gates):
    @inlined
    def products(memory, delta, first, second, window, steps, results):
        """results + the gates' gradients times each of two rows, summed over the steps of a tile."""
        a0, a1, a2, a3, b0, b1, b2, b3 = results
        for _ in range(window):
            for half in range(0, LANES, HALF):
                x, y = load_half(memory, first + half), load_half(memory, second + half)
                d = load_half(memory, delta + half)
                a0, b0 = a0 + d * x, b0 + d * y
                d = load_half(memory, delta + LANES + half)
                a1, b1 = a1 + d * x, b1 + d * y
                d = load_half(memory, delta + 2 * LANES + half)
                a2, b2 = a2 + d * x, b2 + d * y
                if gates > 3:
                    d = load_half(memory, delta + 3 * LANES + half)
                    a3, b3 = a3 + d * x, b3 + d * y
            delta += steps[0]
            first += steps[1]
            second += steps[2]
        return a0, a1, a2, a3, b0, b1, b2, b3

    @inlined
    def table_gradient(gradient, memory, table, delta, rows, plan, tiles):
        """Adds to a table's gradient; delta = (first row of gates, step).

        rows = what the columns multiply: twice (first row, step, how many), then the number of biases.
        """
        start, groups, columns = table
        for j in range(groups):
            for k in range(0, columns, 2):
                left, left_step = _column(rows, plan, k)
                right, right_step = _column(rows, plan, k + 1)
                o = constant_half(0.0)
                results = (o, o, o, o, o, o, o, o)
                for tile in range(tiles):
                    base = tile * plan.tile_size
                    row = base + delta[0] + 4 * j * LANES
                    steps = (delta[1], left_step, right_step)
                    results = products(memory, row, base + left, base + right, plan.window, steps, results)
                w = start + 4 * (j * columns + k)
                store(gradient, w, load_half(gradient, w) + sums(results))

    return table_gradient


gradient_3, gradient_4 = _gradient(3), _gradient(4)
