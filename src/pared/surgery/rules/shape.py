"""What gives a tensor another shape: views, permutations, repetition; shapes asked for, and tensors made from them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pared.surgery.atoms import Atoms, Axis, Layout, Rows, Size, States, Traced, still
from pared.surgery.rules.layouts import labelled, layout_of, together
from pared.surgery.slices import StructureError

FLEXIBLE = -1
"""A size that follows from the others, as -1 in a view."""


def view(atoms: Atoms, out: Tensor, input: Traced, *shape: Any) -> Layout:
    """`view` and `reshape`; a size written as a number holds its axis fast."""
    sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    if isinstance(sizes, torch.dtype):
        raise StructureError(f"{atoms.place} reads numbers as another type, which pared cannot follow")
    if isinstance(sizes, Traced):
        if isinstance(sizes.value, int):
            sizes = (sizes,)
        else:
            pairs = zip(sizes.value, sizes.layout, strict=True)
            sizes = tuple(Traced(value, layout) for value, layout in pairs)
    return _reshaped(atoms, layout_of(atoms, input), out.shape, sizes)


def view_like(atoms: Atoms, out: Tensor, input: Traced, other: Traced) -> Layout:
    """`view_as` and `reshape_as`."""
    sizes = [Traced(len(axis), Size(axis)) for axis in layout_of(atoms, other).axes]
    return _reshaped(atoms, layout_of(atoms, input), out.shape, sizes)


def flatten(atoms: Atoms, out: Tensor, input: Traced, start_dim: int = 0, end_dim: int = -1) -> Layout:
    """Adjacent axes become one."""
    layout = layout_of(atoms, input)
    count = len(layout.axes)
    if not count:
        return still(out.shape)
    parts = list(zip(layout.axes, layout.silent, strict=True))
    start, end = start_dim % count, end_dim % count + 1
    kept = [*parts[:start], _merged(atoms, parts[start:end]), *parts[end:]]
    return Layout(tuple(axis for axis, _ in kept), tuple(rows for _, rows in kept))


def flatten_module(atoms: Atoms, out: Tensor, name: str, module: nn.Flatten, input: Traced) -> Layout:
    """Adjacent axes become one, in which each unit keeps its entries together."""
    return flatten(atoms, out, input, module.start_dim, module.end_dim)


def unflatten(atoms: Atoms, out: Tensor, input: Traced, dim: int, sizes: Sequence[Any]) -> Layout:
    """One axis becomes several."""
    layout = layout_of(atoms, input)
    dim %= len(layout.axes)
    apart = _split(atoms, layout.axes[dim], out.shape[dim : dim + len(sizes)], sizes)
    rows = [layout.silent[dim] if (axis > 0).any() else None for axis in apart]
    axes = (*layout.axes[:dim], *apart, *layout.axes[dim + 1 :])
    return Layout(axes, (*layout.silent[:dim], *rows, *layout.silent[dim + 1 :]))


def unflatten_module(atoms: Atoms, out: Tensor, name: str, module: nn.Unflatten, input: Traced) -> Layout:
    """One axis becomes several; the size given as -1 is the one that can shrink."""
    return unflatten(atoms, out, input, int(module.dim), tuple(module.unflattened_size))


def _reshaped(atoms: Atoms, layout: Layout, shape: Sequence[int], spec: Sequence[Any]) -> Layout:
    axes: list[Axis] = []
    silent: list[Rows] = []
    for entering, leaving in _stretches([len(axis) for axis in layout.axes], list(shape)):
        merged, rows = _merged(atoms, [(layout.axes[d], layout.silent[d]) for d in entering])
        parts = [shape[d] for d in leaving]
        for axis in _split(atoms, merged, parts, [spec[d] for d in leaving]):
            axes.append(axis)
            silent.append(rows if (axis > 0).any() else None)
    return Layout(tuple(axes), tuple(silent))


def _stretches(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Pairs of stretches of old and new axes that hold the same entries, as short as can be.

    An axis of one entry, which may be a unit, goes with the axes after it, at the end with those before it.
    """
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        entering, leaving, held, given = [i], [j], old[i], new[j]
        i, j = i + 1, j + 1
        while held != given:
            if held < given:
                held, i = held * old[i], i + 1
                entering.append(i - 1)
            else:
                given, j = given * new[j], j + 1
                leaving.append(j - 1)
        found.append((entering, leaving))
    entering, leaving = found.pop() if found else ([], [])
    return [*found, ([*entering, *range(i, len(old))], [*leaving, *range(j, len(new))])]


def _merged(atoms: Atoms, parts: list[tuple[Axis, Rows]]) -> tuple[Axis, Rows]:
    """Several axes as one: the units of one of them, each with a stretch or a comb of entries."""
    carrying = [index for index, (axis, _) in enumerate(parts) if (axis > 0).any()]
    if not carrying:
        return np.zeros(math.prod(len(axis) for axis, _ in parts), np.int64), None
    chosen = next((index for index in carrying if len(parts[index][0]) > 1), carrying[0])
    for index in carrying:
        if index != chosen:
            atoms.fix(parts[index][0], f"is merged with another layer's units by {atoms.place}")
    before = math.prod(len(axis) for axis, _ in parts[:chosen])
    after = math.prod(len(axis) for axis, _ in parts[chosen + 1 :])
    axis, rows = parts[chosen]
    return np.tile(np.repeat(axis, after), before), rows


def _split(atoms: Atoms, merged: Axis, parts: Sequence[int], spec: Sequence[Any]) -> list[Axis]:
    """An axis as several: the part whose size follows carries the units, the others hold a number of them together."""
    if not (merged > 0).any() or not parts:
        atoms.fix(merged, f"loses its axis in {atoms.place}")
        return [np.zeros(size, np.int64) for size in parts]
    table = merged.reshape(*parts)
    wide = [place for place, size in enumerate(parts) if size > 1]
    able = [place for place, size in enumerate(spec) if _follows(size)]
    if atoms.literal and len(wide) <= 1:
        able = wide or able[:1] or [0]
    able = able if len(able) == 1 else [place for place in able if place in wide]
    if len(able) != 1:
        atoms.fix(merged, f"{atoms.place} writes its size into the code; use -1, flatten or a size read from a shape")
        return [np.zeros(size, np.int64) for size in parts]
    place = able[0]
    table = np.moveaxis(table, place, -1).reshape(-1, parts[place])
    for row in table[1:]:
        atoms.couple(table[0], row)
    if isinstance(spec[place], Traced) and len(spec[place].layout.atoms) in (len(merged), parts[place]):
        counted = spec[place].layout.atoms
        atoms.couple(counted, merged if len(counted) == len(merged) else table[0])
    return [table[0] if p == place else np.zeros(size, np.int64) for p, size in enumerate(parts)]


def _follows(size: Any) -> bool:
    """Whether a size shrinks with the units: -1, or counted from an axis that carries some."""
    if isinstance(size, Traced):
        return isinstance(size.layout, Size) and bool((size.layout.atoms > 0).any())
    return bool(size == FLEXIBLE)


def permuted(operation: Callable[..., Tensor]) -> Callable[..., Layout]:
    """The rule of an operation that only moves axes: it is asked where they go."""

    def rule(atoms: Atoms, out: Tensor, input: Traced, *arguments: Any, **options: Any) -> Layout:
        """Axes change places and take their units with them."""
        layout = layout_of(atoms, input)
        marked = torch.empty(tuple(range(2, 2 + len(layout.axes))), device="meta")
        order = [size - 2 for size in operation(marked, *arguments, **options).shape]
        return Layout(tuple(layout.axes[d] for d in order), tuple(layout.silent[d] for d in order))

    return rule


turned = permuted(lambda x: x.permute(*range(x.dim())[::-1]))
"""All axes the other way round."""


def squeeze(atoms: Atoms, out: Tensor, input: Traced, dim: Any = None) -> Layout:
    """Axes of size 1 go."""
    layout = layout_of(atoms, input)
    count = len(layout.axes)
    dims = range(count) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {d % count for d in dims if len(layout.axes[d % count]) == 1}
    kept = [d for d in range(count) if d not in gone]
    return Layout(tuple(layout.axes[d] for d in kept), tuple(layout.silent[d] for d in kept))


def unsqueeze(atoms: Atoms, out: Tensor, input: Traced, dim: int) -> Layout:
    """An axis of size 1 comes."""
    layout = layout_of(atoms, input)
    dim %= len(layout.axes) + 1
    axes, silent = list(layout.axes), list(layout.silent)
    axes.insert(dim, np.zeros(1, np.int64))
    silent.insert(dim, None)
    return Layout(tuple(axes), tuple(silent))


def expand(atoms: Atoms, out: Tensor, input: Traced, *sizes: Any) -> Layout:
    """Axes of size 1 are repeated; the others must not be given as numbers."""
    spec = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
    layout = layout_of(atoms, input)
    added = out.dim() - len(layout.axes)
    axes = [np.zeros(size, np.int64) for size in out.shape[:added]]
    silent: list[Rows] = [None] * added
    for axis, rows, size in zip(layout.axes, layout.silent, spec[added:], strict=True):
        new = out.shape[len(axes)]
        held = isinstance(size, int) and size != FLEXIBLE and not atoms.literal
        if held and len(axis) == new:
            atoms.fix(axis, f"{atoms.place} writes its size into the code; use -1")
        axes.append(axis if len(axis) == new else np.zeros(new, np.int64))
        silent.append(rows if len(axis) == new else None)
    return Layout(tuple(axes), tuple(silent))


def expand_like(atoms: Atoms, out: Tensor, input: Traced, other: Traced) -> Layout:
    """Axes of size 1 are repeated; the others are coupled."""
    return together(atoms, out.shape, (input, other))


def repeat(atoms: Atoms, out: Tensor, input: Traced, *counts: Any) -> Layout:
    """The whole axis again and again."""
    layout = layout_of(atoms, input)
    axes = [np.zeros(1, np.int64)] * (out.dim() - len(layout.axes)) + list(layout.axes)
    silent = [None] * (out.dim() - len(layout.axes)) + list(layout.silent)
    tiled = tuple(np.tile(axis, size // len(axis)) for axis, size in zip(axes, out.shape, strict=True))
    return Layout(tiled, tuple(silent))


def repeat_interleave(atoms: Atoms, out: Tensor, input: Traced, repeats: int, dim: int | None = None) -> Layout:
    """Each entry of an axis several times."""
    layout = layout_of(atoms, input)
    if dim is None or not isinstance(repeats, int):
        raise StructureError(f"{atoms.place} repeats unequally or without a dim, which pared cannot follow")
    dim %= len(layout.axes)
    return layout.replaced(dim, np.repeat(layout.axes[dim], repeats), layout.silent[dim])


def size(atoms: Atoms, out: Any, input: Traced, dim: int | None = None) -> Any:
    """`x.size()` and `x.shape`: numbers that remember what they count."""
    if not isinstance(input.value, Tensor) or (isinstance(input.layout, States) and not labelled(input.layout)):
        return None
    axes = layout_of(atoms, input).axes
    return tuple(map(Size, axes)) if dim is None else Size(axes[dim])


def created(atoms: Atoms, out: Tensor, *arguments: Any, **options: Any) -> Layout:
    """`zeros` and its like; a size counted from an axis gives the new axis its units."""
    sizes = [a for a in _flat(arguments) if isinstance(a, int) or (isinstance(a, Traced) and isinstance(a.value, int))]
    layout = still(out.shape)
    if len(sizes) == out.dim():
        for d, given in enumerate(sizes):
            if isinstance(given, Traced) and isinstance(given.layout, Size) and len(given.layout.atoms) == out.shape[d]:
                layout = layout.replaced(d, given.layout.atoms, None)
    return layout


def _flat(arguments: Any) -> list[Any]:
    if isinstance(arguments, (tuple, list)) and not isinstance(arguments, Traced):
        return [item for part in arguments for item in _flat(part)]
    return [arguments]
