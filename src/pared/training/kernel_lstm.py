"""The compiled half of the kernel: one epoch of stacked LSTMs and linear layers, all of a network's data in L2 cache.

Samples are lanes. A *tile* is 16 samples; a *row* of scratch memory is one number for each of them, and every row is one
vector in registers. Rows of a recurrent layer at one step: 4 gates a unit (i, f, g, o; the backward pass overwrites them
by their gradients), the hidden state, the cell and its tanh, and the gradient that arrives at the hidden state.
Weights of unit j: columns (inputs, hidden units, b_ih, b_hh, padding to an even number) of 4 gates each, so that the
gradient is one sum of (4 gates) x (2 columns) products: a bias is the weight of a row of ones.

Numba forgets its cache when this file changes, not when others do: what is compiled stays in this one file.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model
from numba.np.numpy_support import from_dtype

LANES = 16
HALF = 8
INTS = np.int64
LAYER = np.dtype(
    [
        (name, INTS)
        for name in (
            "inputs units columns weights source source_step hidden hidden_step gates gates_step cell tanh arriving"
            " arriving_step"
        ).split()
    ]
)
DENSE = np.dtype([(name, INTS) for name in "inputs outputs weights source target delta".split()])
PLAN = np.dtype([(name, INTS) for name in "window inputs outputs tile_size tiles ones zeros".split()])
ADAM = np.dtype([(name, np.float64) for name in "lr beta1 beta2 eps decay decoupled clip step".split()])

_VECTOR_MATHS = ("contract", "nsz")


def compiled(*signature: Any) -> Callable[[Any], Any]:
    """`numba.njit` with a cache on disk, or without one where none can be written."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}

    def wrap(function: Any) -> Any:
        if not signature:
            return njit(**options, forceinline=True)(function)
        try:
            return njit(*signature, cache=True, **options)(function)
        except (OSError, RuntimeError):
            return njit(*signature, **options)(function)

    return wrap


# --- a vector of float32 as a number in compiled code ---------------------------------------------------------------


class Vector(types.Type):  # type: ignore[misc]
    """So many float32 in registers."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"float32x{lanes}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(ir.FloatType(), kind.lanes))


def _pointer(context: Any, builder: Any, signature: Any, args: Any, kind: Any) -> Any:
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.bitcast(builder.gep(data, [args[1]]), kind.as_pointer())


def _splatted(context: Any, builder: Any, scalar: Any, lanes: int) -> Any:
    kind = ir.VectorType(ir.FloatType(), lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


def _loader(lanes: int) -> Any:
    @intrinsic  # type: ignore[misc, untyped-decorator]
    def load(typingctx: Any, array: Any, index: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = context.get_value_type(signature.return_type)
            return builder.load(_pointer(context, builder, signature, args, kind), align=4)

        return Vector(lanes)(array, types.intp), build

    return load


load = _loader(LANES)
load_half = _loader(HALF)


@intrinsic  # type: ignore[misc, untyped-decorator]
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(context, builder, signature, args, args[2].type), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), build


@intrinsic  # type: ignore[misc, untyped-decorator]
def broadcast(typingctx: Any, array: Any, index: Any) -> Any:
    """array[index] in every lane."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar = builder.load(_pointer(context, builder, signature, args, ir.FloatType()))
        return _splatted(context, builder, scalar, LANES)

    return Vector(LANES)(array, types.intp), build


def _constant(lanes: int) -> Any:
    @intrinsic  # type: ignore[misc, untyped-decorator]
    def constant(typingctx: Any, value: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _splatted(context, builder, args[0], lanes)

        return Vector(lanes)(types.float32), build

    return constant


constant = _constant(LANES)
constant_half = _constant(HALF)


def _operation(name: str) -> Any:
    @intrinsic  # type: ignore[misc, untyped-decorator]
    def operation(typingctx: Any, left: Any, right: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, name)(*args, flags=_VECTOR_MATHS)

        return left(left, right), build

    return operation


def _overload(python: Any, name: str) -> None:
    operation = _operation(name)

    @overload(python, inline="always")  # type: ignore[misc, untyped-decorator]
    def implement(left: Any, right: Any) -> Any:
        if isinstance(left, Vector) and left == right:
            return lambda left, right: operation(left, right)
        return None


for _python, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
    _overload(_python, _name)


@intrinsic  # type: ignore[misc, untyped-decorator]
def clamp(typingctx: Any, value: Any, bound: Any) -> Any:
    """Each lane kept within +-bound; NaN remains NaN."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        high = _splatted(context, builder, args[1], value.lanes)
        low = builder.fneg(high)
        below = builder.select(builder.fcmp_ordered(">", args[0], high), high, args[0])
        return builder.select(builder.fcmp_ordered("<", below, low), low, below)

    return value(value, types.float32), build


@intrinsic  # type: ignore[misc, untyped-decorator]
def sums(typingctx: Any, vectors: Any) -> Any:
    """The sums over lanes of 8 half vectors, as one half vector."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def folded(a: Any, b: Any, low: list[int], high: list[int]) -> Any:
            masks = (ir.Constant(ir.VectorType(ir.IntType(32), HALF), lanes) for lanes in (low, high))
            return builder.fadd(*(builder.shuffle_vector(a, b, mask) for mask in masks))

        rows = cgutils.unpack_tuple(builder, args[0])
        for low, high in (
            ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
            ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
            ([0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15]),
        ):
            middle = len(rows) // 2
            rows = [folded(rows[i], rows[i + middle], low, high) for i in range(middle)]
        return rows[0]

    return Vector(HALF)(vectors), build


@intrinsic  # type: ignore[misc, untyped-decorator]
def total(typingctx: Any, vector: Any) -> Any:
    """The sum over lanes."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, lanes = args[0], vector.lanes
        while lanes > 1:
            lanes //= 2
            low, high = (
                ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(start, start + lanes)))
                for start in (0, lanes)
            )
            value = builder.fadd(builder.shuffle_vector(value, value, low), builder.shuffle_vector(value, value, high))
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return types.float32(vector), build


# --- the network ----------------------------------------------------------------------------------------------------


@inlined
def tanh(x):  # type: ignore[no-untyped-def]
    """An odd rational function of degree 9 over 8, our own fit on [-8, 8]: error at most 4e-7, |tanh| < 1, NaN is kept."""
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
def sigmoid(x):  # type: ignore[no-untyped-def]
    half = constant(0.5)
    return tanh(x * half) * half + half


@plain
def _read_tile(x, order, first, count, memory, start):  # type: ignore[no-untyped-def]
    """Transposes rows `order[first : first + count]` of x to lanes; lanes that remain are zero."""
    width = x.shape[1]
    for lane in range(LANES):
        if lane < count:
            row = x[order[first + lane]]
            for r in range(width):
                memory[start + r * LANES + lane] = row[r]
        else:
            for r in range(width):
                memory[start + r * LANES + lane] = 0.0


@plain
def _forward_layer(weights, memory, tile, layer, window):  # type: ignore[no-untyped-def]
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
def _pull_back(weights, memory, delta, first, units, width, count, target):  # type: ignore[no-untyped-def]
    """target[k] = sum over units and gates of weight * delta, for columns k in fours (rows past `count` hold nothing)."""
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
def _backward_layer(weights, memory, tile, layer, window, below):  # type: ignore[no-untyped-def]
    """Overwrites the gates by their gradients; `below` = (where gradients of the input go, step) or a step of 0."""
    inputs, units, width = layer.inputs, layer.units, 4 * layer.columns
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
            _pull_back(weights, memory, gates, layer.weights + 4 * inputs, units, width, units, recurrent)
        if below[1] > 0:
            _pull_back(weights, memory, gates, layer.weights, units, width, inputs, tile + below[0] + t * below[1])


@inlined
def _column(layer, plan, k):  # type: ignore[no-untyped-def]
    """Where the row that weight column k multiplies is, and how far it moves a step."""
    if k < layer.inputs:
        return layer.source + k * LANES, layer.source_step
    if k < layer.inputs + layer.units:
        return layer.hidden + (k - layer.inputs) * LANES, layer.hidden_step
    if k < layer.inputs + layer.units + 2:
        return plan.ones, INTS(0)
    return plan.zeros, INTS(0)


@plain
def _layer_gradient(gradient, memory, layer, plan, tiles):  # type: ignore[no-untyped-def]
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
def _forward_head(weights, memory, tile, dense):  # type: ignore[no-untyped-def]
    for n in range(len(dense)):
        layer = dense[n]
        for o in range(layer.outputs):
            w = layer.weights + o * (layer.inputs + 1)
            a = broadcast(weights, w + layer.inputs)
            for k in range(layer.inputs):
                a = a + broadcast(weights, w + k) * load(memory, tile + layer.source + k * LANES)
            store(memory, tile + layer.target + o * LANES, a)


@plain
def _backward_head(weights, memory, tile, dense, arriving):  # type: ignore[no-untyped-def]
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
def _head_gradient(gradient, memory, layer, plan, tiles):  # type: ignore[no-untyped-def]
    for o in range(layer.outputs):
        for k in range(layer.inputs + 1):
            a = constant(0.0)
            for tile in range(tiles):
                start = tile * plan.tile_size
                row = start + (layer.source + k * LANES if k < layer.inputs else plan.ones)
                a = a + load(memory, start + layer.delta + o * LANES) * load(memory, row)
            gradient[layer.weights + o * (layer.inputs + 1) + k] += total(a)


@plain
def _forward(weights, memory, tile, layers, dense, plan):  # type: ignore[no-untyped-def]
    for n in range(len(layers)):
        _forward_layer(weights, memory, tile, layers[n], plan.window)
    _forward_head(weights, memory, tile, dense)


@plain
def _errors(y, order, first, count, memory, tile, output, delta, scale):  # type: ignore[no-untyped-def]
    """The sum of squared errors of a tile; rows at `delta` become its gradient, times `scale`."""
    squares = 0.0
    for lane in range(LANES):
        for o in range(y.shape[1]):
            error = np.float32(0.0)
            if lane < count:
                error = memory[tile + output + o * LANES + lane] - y[order[first + lane], o]
            squares += error * error
            memory[tile + delta + o * LANES + lane] = scale * error
    return squares


