"""Vectors of float32 in registers as numbers in compiled code: what numba lacks to write a fast kernel by hand.

LLVM splits or widens them to what the processor has.
"""

import operator
import zlib
from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name  # type: ignore[import-untyped]
from numba import extending, njit, types
from numba.core import cgutils

from pared.training.kernel_layout import LANES

HALF = LANES // 2
FLAGS = ("contract", "nsz")  # none that would let NaN go unnoticed
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(FLAGS)}
INLINED = OPTIONS | {"forceinline": True}


def intrinsic(build: Any) -> Any:
    return extending.intrinsic(build)


def inlined(function: Any) -> Any:
    """A compiled function for use inside others, that leaves no symbol of its own.

    Numba names a symbol by the function, numbers that count what this process has compiled and typed, and its options.
    Of two equal names in code from the cache the linker takes the first; code that two processes had compiled then
    called the other's functions, which wrote where they must not (numba, issue 10486).
    """
    return njit(**INLINED)(function)


def compiled_as(function: Any) -> Any:
    """What takes the function's place in compiled code: to be given the types, and to return what suits them."""
    return extending.overload(function, jit_options=cast(Any, INLINED))


def entry(name: str) -> Callable[[Any], Any]:
    """Makes a compiled function that Python calls, with a cache on disk where one can be written.

    The name, this processor's with it, names the cache. Two processes that compile different code for one cache at
    once may leave the one's code under the other's signature: numba numbers its files without a lock. So nothing but
    one function for one kind of arguments may bear a name.
    """
    processor = zlib.crc32(f"{get_host_cpu_name()} {get_host_cpu_features().flatten()}".encode())

    def decorated(function: Any) -> Any:
        function.__qualname__ = f"{name}_{processor:08x}"
        jit: Any = njit
        try:
            return jit(cache=True, **OPTIONS)(function)
        except (OSError, RuntimeError):
            return jit(**OPTIONS)(function)

    return decorated


class Vector(types.Type):
    """So many float32 in registers."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        super().__init__(name=f"float32x{lanes}")


@extending.register_model(Vector)
class _VectorModel(extending.models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(ir.FloatType(), kind.lanes))  # type: ignore[no-untyped-call]


def _pointer(context: Any, builder: Any, signature: Any, args: Any, kind: Any) -> Any:
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.bitcast(builder.gep(data, [args[1]]), kind.as_pointer())


def _splatted(context: Any, builder: Any, scalar: Any, lanes: int) -> Any:
    kind = ir.VectorType(ir.FloatType(), lanes)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))


def _loader(lanes: int) -> Any:
    @intrinsic
    def load(typingctx: Any, array: Any, index: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = context.get_value_type(signature.return_type)
            return builder.load(_pointer(context, builder, signature, args, kind), align=4)

        return Vector(lanes)(array, types.intp), build

    return load


load = _loader(LANES)
load_half = _loader(HALF)


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(context, builder, signature, args, args[2].type), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), build


@intrinsic
def broadcast(typingctx: Any, array: Any, index: Any) -> Any:
    """array[index] in every lane."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scalar = builder.load(_pointer(context, builder, signature, args, ir.FloatType()))
        return _splatted(context, builder, scalar, LANES)

    return Vector(LANES)(array, types.intp), build


def _constant(lanes: int) -> Any:
    @intrinsic
    def constant(typingctx: Any, value: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _splatted(context, builder, args[0], lanes)

        return Vector(lanes)(types.float32), build

    return constant


constant = _constant(LANES)
constant_half = _constant(HALF)


def _operation(name: str) -> Any:
    @intrinsic
    def operation(typingctx: Any, left: Any, right: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, name)(*args, flags=FLAGS)

        return left(left, right), build

    return operation


def _overload(python: Any, name: str) -> None:
    operation = _operation(name)

    @extending.overload(python, jit_options={"forceinline": True})
    def implement(left, right):  # type: ignore[no-untyped-def]
        if isinstance(left, Vector) and left == right:
            return lambda left, right: operation(left, right)
        return None


for _python, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _overload(_python, _name)


@intrinsic
def clamp(typingctx: Any, value: Any, bound: Any) -> Any:
    """Each lane kept within +-bound; NaN remains NaN."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        high = _splatted(context, builder, args[1], value.lanes)
        low = builder.fneg(high)
        below = builder.select(builder.fcmp_ordered(">", args[0], high), high, args[0])
        return builder.select(builder.fcmp_ordered("<", below, low), low, below)

    return value(value, types.float32), build


@intrinsic
def where_positive(typingctx: Any, sign: Any, value: Any) -> Any:
    """Each lane of `value` where that of `sign` is positive or NaN, else 0."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nothing = ir.Constant(args[1].type, None)
        return builder.select(builder.fcmp_ordered("<=", args[0], nothing), nothing, args[1])

    return value(sign, value), build


@intrinsic
def sums(typingctx: Any, vectors: Any) -> Any:
    """The sums over lanes of 8 half vectors, as one half vector."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def folded(a: Any, b: Any, low: list[int], high: list[int]) -> Any:
            masks = (ir.Constant(ir.VectorType(ir.IntType(32), HALF), lanes) for lanes in (low, high))
            return builder.fadd(*(builder.shuffle_vector(a, b, mask) for mask in masks))

        rows = cgutils.unpack_tuple(builder, args[0])  # type: ignore[no-untyped-call]
        for low, high in (
            ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
            ([0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
            ([0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15]),
        ):
            middle = len(rows) // 2
            rows = [folded(rows[i], rows[i + middle], low, high) for i in range(middle)]
        return rows[0]

    return Vector(HALF)(vectors), build


@intrinsic
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
