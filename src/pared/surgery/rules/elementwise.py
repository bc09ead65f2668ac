"""What acts on every entry by itself, and what mixes the entries of an axis."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from pared.surgery.atoms import Atoms, Layout, Traced, still
from pared.surgery.rules.layouts import labelled, layout_of, module_parameter, together


def _tensors(arguments: Sequence[Any]) -> list[Traced]:
    return [a for a in arguments if isinstance(a, Traced) and isinstance(a.value, Tensor)]


def through_zero(atoms: Atoms, out: Tensor, input: Traced, *more: Any, **options: Any) -> Layout:
    """f(0) = 0: what silences the input silences the output."""
    others = [t for t in _tensors((*more, *options.values())) if labelled(t.layout)]
    return together(atoms, out.shape, (input, *others)) if others else layout_of(atoms, input)


def pointwise(atoms: Atoms, out: Tensor, input: Traced, *more: Any, **options: Any) -> Layout:
    """f(0) may be anything."""
    return through_zero(atoms, out, input, *more, **options).loud()


def module_through_zero(atoms: Atoms, out: Tensor, name: str, module: nn.Module, input: Traced) -> Layout:
    """Acts on every unit by itself; zero stays zero."""
    return layout_of(atoms, input)


def module_pointwise(atoms: Atoms, out: Tensor, name: str, module: nn.Module, input: Traced) -> Layout:
    """Acts on every unit by itself."""
    return layout_of(atoms, input).loud()


def added(atoms: Atoms, out: Tensor, input: Any, other: Any, **options: Any) -> Layout:
    """Sums and differences; a number added is heard where a unit is silent."""
    tensors = _tensors((input, other))
    layout = together(atoms, out.shape, tensors, sum_of=True)
    return layout if len(tensors) == 2 else layout.loud()


def multiplied(atoms: Atoms, out: Tensor, input: Any, other: Any, **options: Any) -> Layout:
    """Products."""
    return together(atoms, out.shape, _tensors((input, other)))


def divided(atoms: Atoms, out: Tensor, input: Any, other: Any, **options: Any) -> Layout:
    """Quotients: silent where the numerator is."""
    tensors = _tensors((input, other))
    layout = together(atoms, out.shape, tensors)
    if not isinstance(other, Traced) or not isinstance(other.value, Tensor):
        return layout
    return layout.loud()


def met(atoms: Atoms, out: Tensor, *arguments: Any, **options: Any) -> Layout:
    """Comparisons, maxima, choices: entries that meet are coupled, and nothing is silent."""
    return together(atoms, out.shape, _tensors((*arguments, *options.values()))).loud()


def softmax(atoms: Atoms, out: Tensor, input: Traced, dim: int | None = None, *more: Any, **options: Any) -> Layout:
    """Each entry depends on all along the axis."""
    layout = layout_of(atoms, input)
    axes = layout.axes if dim is None else (layout.axes[dim],)
    for axis in axes:
        atoms.mix(axis, f"{atoms.place} mixes its units")
    return layout.loud()


def normalised(
    atoms: Atoms, out: Tensor, input: Traced, p: float = 2.0, dim: int = 1, *more: Any, **options: Any
) -> Layout:
    """`F.normalize`: divided by the norm along an axis."""
    return softmax(atoms, out, input, dim)


def softmax_module(atoms: Atoms, out: Tensor, name: str, module: nn.Module, input: Traced) -> Layout:
    """Mixes the units along its axis: they can be cut, but not exactly."""
    return softmax(atoms, out, input, getattr(module, "dim", None))


def reduced(atoms: Atoms, out: Any, input: Traced, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:
    """Mean, maximum, variance over axes; over units it would change with their number, so they stay."""
    return _reduced(atoms, input, dim, keepdim, summed=False, out=out)


def summed(atoms: Atoms, out: Any, input: Traced, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:
    """Sums over axes; a unit summed over must be silenced in what makes it."""
    return _reduced(atoms, input, dim, keepdim, summed=True, out=out)


def _reduced(atoms: Atoms, input: Traced, dim: Any, keepdim: bool, summed: bool, out: Any) -> Any:
    layout = layout_of(atoms, input)
    count = len(layout.axes)
    dims = range(count) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    gone = {d % count for d in dims} if count else set()
    kept = []
    for d, (axis, rows) in enumerate(zip(layout.axes, layout.silent, strict=True)):
        if d not in gone:
            kept.append((axis, rows))
            continue
        if summed:
            atoms.reads(rows, axis)
        else:
            atoms.fix(axis, f"{atoms.place} reduces over its units")
        if keepdim:
            kept.append((np.zeros(1, np.int64), None))
    result = Layout(tuple(axis for axis, _ in kept), tuple(rows for _, rows in kept))
    return result if isinstance(out, Tensor) else tuple(result for _ in out)


def glu(atoms: Atoms, out: Tensor, input: Traced, dim: int = -1) -> Layout:
    """a sigmoid(b) of the two halves of an axis."""
    layout = layout_of(atoms, input)
    first, second = np.split(layout.axes[dim], 2)
    return layout.replaced(dim % len(layout.axes), atoms.couple(first, second), layout.silent[dim])


def glu_module(atoms: Atoms, out: Tensor, name: str, module: nn.GLU, input: Traced) -> Layout:
    """The two halves of an axis lose the same units."""
    return glu(atoms, out, input, module.dim)


def prelu(atoms: Atoms, out: Tensor, input: Traced, weight: Traced) -> Layout:
    """One slope for all, or one for each channel."""
    layout, slopes = layout_of(atoms, input), layout_of(atoms, weight)
    if weight.value.numel() == 1:
        return layout
    axis = 1 if len(layout.axes) > 1 else 0
    return layout.replaced(axis, atoms.couple(layout.axes[axis], slopes.axes[0]), layout.silent[axis])


def prelu_module(atoms: Atoms, out: Tensor, name: str, module: nn.PReLU, input: Traced) -> Layout:
    """One slope for all, or one for each channel, which goes with it."""
    weight = module_parameter(atoms, name, module, "weight")
    assert weight is not None
    return prelu(atoms, out, input, weight)


def random_like(atoms: Atoms, out: Tensor, input: Traced, *more: Any, **options: Any) -> Layout:
    """A tensor as large as another: as wide, too."""
    return layout_of(atoms, input).loud()


def nothing(atoms: Atoms, out: Any, *arguments: Any, **options: Any) -> Any:
    """What carries no units, whatever went in: shapes and types that are asked for."""
    return still(out.shape) if isinstance(out, Tensor) else None
