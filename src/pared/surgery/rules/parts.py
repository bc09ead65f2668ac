"""What puts tensors together and takes them apart: concatenation, splitting, indexing, padding, turning round."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pared.surgery.atoms import Atoms, Axis, Layout, Rows, Size, States, Traced
from pared.surgery.rules.layouts import each, layout_of, together


def concatenated(atoms: Atoms, out: Tensor, tensors: Sequence[Traced], dim: int = 0) -> Layout:
    """Axis after axis."""
    layouts = [layout_of(atoms, tensor) for tensor in each(tensors)]
    layouts = [layout for layout in layouts if len(layout.axes) == out.dim()]  # an empty 1-d tensor joins anything
    dim %= out.dim()
    axes, silent = [], []
    for d in range(out.dim()):
        rows = [layout.silent[d] for layout in layouts]
        if d == dim:
            axes.append(np.concatenate([layout.axes[d] for layout in layouts]))
            carried = [r for r, layout in zip(rows, layouts, strict=True) if (layout.axes[d] > 0).any()]
        else:
            axes.append(functools.reduce(atoms.couple, (layout.axes[d] for layout in layouts)))
            carried = rows
        silent.append(None if None in carried or not carried else frozenset().union(*(r for r in carried if r)))
    return Layout(tuple(axes), tuple(silent))


def stacked(atoms: Atoms, out: Tensor, tensors: Sequence[Traced], dim: int = 0) -> Layout:
    """Tensors of one shape along a new axis: the same units go from all of them."""
    parts = each(tensors)
    layout = together(atoms, parts[0].value.shape, parts, sum_of=True)
    dim %= out.dim()
    axes, silent = list(layout.axes), list(layout.silent)
    axes.insert(dim, np.zeros(out.shape[dim], np.int64))
    silent.insert(dim, None)
    return Layout(tuple(axes), tuple(silent))


def chunked(atoms: Atoms, out: Sequence[Tensor], input: Traced, chunks: Any, dim: int = 0) -> tuple[Layout, ...]:
    """Equal parts stay equal: the same units go from each."""
    layout = layout_of(atoms, input)
    dim %= len(layout.axes)
    axis = layout.axes[dim]
    if not isinstance(chunks, int) or len(axis) % chunks:
        return divided_up(atoms, out, input, chunks, dim)
    table = axis.reshape(chunks, -1)
    for row in table[1:]:
        atoms.couple(table[0], row)
    return tuple(layout.replaced(dim, row, layout.silent[dim]) for row in table)


def divided_up(atoms: Atoms, out: Sequence[Tensor], input: Traced, sizes: Any, dim: int = 0) -> tuple[Layout, ...]:
    """Parts whose sizes are written down stay as they are."""
    layout = layout_of(atoms, input)
    dim %= len(layout.axes)
    flexible = isinstance(sizes, Traced) and isinstance(sizes.layout, Size)
    if flexible and len(layout.axes[dim]) % len(out) == 0:
        return chunked(atoms, out, input, len(out), dim)
    atoms.fix(layout.axes[dim], f"{atoms.place} writes the sizes of its parts into the code; use chunk")
    return tuple(layout.replaced(dim, np.zeros(part.shape[dim], np.int64), None) for part in out)


def unbound(atoms: Atoms, out: Sequence[Tensor], input: Traced, dim: int = 0) -> tuple[Layout, ...]:
    """Each entry of an axis by itself."""
    layout: Any = input.layout
    if isinstance(layout, States) and dim == 0:
        return layout.layers
    layout = layout_of(atoms, input)
    dim %= len(layout.axes)
    atoms.fix(layout.axes[dim], f"is taken apart by {atoms.place}")
    kept = [d for d in range(len(layout.axes)) if d != dim]
    rest = Layout(tuple(layout.axes[d] for d in kept), tuple(layout.silent[d] for d in kept))
    return (rest,) * len(out)


def selected(atoms: Atoms, out: Tensor, input: Traced, dim: int, index: Any) -> Any:
    """One entry of an axis."""
    if isinstance(input.layout, States) and dim == 0:
        return input.layout.layers[index]
    before = (slice(None),) * (dim % input.value.dim())
    return indexed(atoms, out, input, (*before, index))


def picked(atoms: Atoms, out: Tensor, input: Traced, dim: int, index: Traced, **options: Any) -> Layout:
    """`index_select`: some entries of an axis."""
    layout = layout_of(atoms, input)
    dim %= len(layout.axes)
    atoms.fix(layout.axes[dim], f"{atoms.place} picks some of its units")
    return layout.replaced(dim, np.zeros(out.shape[dim], np.int64), None)


def narrowed(atoms: Atoms, out: Tensor, input: Traced, dim: int = 0, *more: Any, **options: Any) -> Layout:
    """A stretch of an axis."""
    layout = layout_of(atoms, input)
    dim %= len(layout.axes)
    if out.shape[dim] == len(layout.axes[dim]):
        return layout
    atoms.fix(layout.axes[dim], f"{atoms.place} picks some of its units")
    return layout.replaced(dim, np.zeros(out.shape[dim], np.int64), None)


def gathered(atoms: Atoms, out: Tensor, input: Traced, dim: int, index: Traced, **options: Any) -> Layout:
    """Entries picked one by one."""
    layout = layout_of(atoms, input)
    dim %= len(layout.axes)
    narrow = [d for d in range(len(layout.axes)) if len(layout.axes[d]) != out.shape[d]]
    for d in {dim, *narrow}:
        atoms.fix(layout.axes[d], f"{atoms.place} picks some of its units")
        layout = layout.replaced(d, np.zeros(out.shape[d], np.int64), None)
    return together(atoms, out.shape, (Traced(None, layout), index)).loud()


def indexed(atoms: Atoms, out: Any, input: Traced, index: Any) -> Any:
    """`value[index]`: whole numbers, slices, None, `...` and tensors of indices."""
    layout = input.layout
    index = index.value if isinstance(index, Traced) and not isinstance(index.value, Tensor) else index
    if isinstance(layout, dict) or (isinstance(layout, tuple) and not isinstance(layout, Traced)):
        return layout[index]
    if isinstance(layout, States):
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        if isinstance(first, int):
            chosen = layout.layers[first]
            return indexed(atoms, out, Traced(input.value[first], chosen), tuple(rest)) if rest else chosen
        if isinstance(first, slice) and not rest:
            return States(layout.layers[first])
    layout = layout_of(atoms, input)
    items = list(index) if isinstance(index, tuple) else [index]
    consumed = sum(map(_consumes, items))
    if any(item is Ellipsis for item in items):
        at = next(i for i, item in enumerate(items) if item is Ellipsis)
        items[at : at + 1] = [slice(None)] * (len(layout.axes) - consumed)
    return _picked(atoms, out, layout, items)


def _consumes(item: Any) -> int:
    if item is None or item is Ellipsis:
        return 0
    value = item.value if isinstance(item, Traced) else item
    return value.dim() if isinstance(value, Tensor) and value.dtype == torch.bool else 1


def _picked(atoms: Atoms, out: Tensor, layout: Layout, items: Sequence[Any]) -> Layout:
    kept: list[tuple[Axis, Rows]] = []
    place = 0
    where: int | None = None
    for item in items:
        if item is None:
            kept.append((np.zeros(1, np.int64), None))
            continue
        axes = layout.axes[place : place + _consumes(item)]
        if isinstance(item, slice) and item == slice(None):
            kept.append((axes[0], layout.silent[place]))
        else:
            for axis in axes:
                atoms.fix(axis, f"{atoms.place} picks some of its units")
            if isinstance(item, slice):
                bounds = [b.value if isinstance(b, Traced) else b for b in (item.start, item.stop, item.step)]
                kept.append((np.zeros(len(axes[0][slice(*bounds)]), np.int64), None))
            elif not isinstance(item, int) and not (isinstance(item, Traced) and isinstance(item.value, int)):
                where = len(kept) if where is None else where
        place += len(axes)
    kept += list(zip(layout.axes[place:], layout.silent[place:], strict=True))
    if where is not None:  # tensors of indices leave their own axes, which carry no units
        own = out.dim() - len(kept)
        kept[where:where] = [(np.zeros(n, np.int64), None) for n in out.shape[where : where + own]]
    return Layout(tuple(axis for axis, _ in kept), tuple(rows for _, rows in kept))


def padded(
    atoms: Atoms, out: Tensor, input: Traced, pad: Sequence[int], mode: str = "constant", value: Any = None
) -> Layout:
    """Entries that stay come before and after."""
    layout = layout_of(atoms, input)
    for back in range(len(pad) // 2):
        before, after = pad[2 * back : 2 * back + 2]
        if before == after == 0:
            continue
        d = len(layout.axes) - 1 - back
        axis = layout.axes[d]
        if mode != "constant" or value or min(before, after) < 0:
            atoms.fix(axis, f"{atoms.place} pads it with other entries, or cuts it")
            layout = layout.replaced(d, np.zeros(out.shape[d], np.int64), None)
        else:
            layout = layout.replaced(d, np.pad(axis, (before, after)), layout.silent[d])
    return layout


def flipped(atoms: Atoms, out: Tensor, input: Traced, *dims: Any, **options: Any) -> Layout:
    """Axes turned round or rolled must not carry units."""
    layout = layout_of(atoms, input)
    named = options.get("dims", dims[-1] if dims else ())
    for d in [named] if isinstance(named, int) else named:
        atoms.fix(layout.axes[d], f"is turned round by {atoms.place}")
        layout = layout.replaced(d % len(layout.axes), np.zeros(out.shape[d], np.int64), None)
    return layout


def along(atoms: Atoms, out: Any, input: Traced, dim: int = -1, *more: Any, **options: Any) -> Any:
    """Running sums, sorting and their like: entries depend on those before them."""
    layout = layout_of(atoms, input)
    atoms.fix(layout.axes[dim], f"{atoms.place} runs along its units")
    result = layout.replaced(dim % len(layout.axes), np.zeros(len(layout.axes[dim]), np.int64), None)
    return result if isinstance(out, Tensor) else tuple(result for _ in out)
