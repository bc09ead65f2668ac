"""What moves entries about: views, permutations, concatenation, splitting, indexing, padding, pooling."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pared.surgery.atoms import Atoms, Axis, Layout, Rows, Size, States, Traced, still
from pared.surgery.rules.layouts import each, labelled, layout_of, together
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


def spatial(count: int) -> Callable[..., Layout]:
    """The rule of pooling and resizing over the last `count` axes; channels are left alone, zero stays zero."""

    def rule(atoms: Atoms, out: Tensor, input: Traced, *more: Any, **options: Any) -> Layout:
        """Channels are left alone; the axes that are pooled must not carry units."""
        return _resized(atoms, out, layout_of(atoms, input), count)

    return rule


def spatial_module(atoms: Atoms, out: Tensor, name: str, module: nn.Module, input: Traced) -> Layout:
    """Channels are left alone; the axes that are pooled, padded or resized must not carry units."""
    layout = layout_of(atoms, input)
    kind = type(module).__name__
    count = next((int(n) for n in "123" if f"{n}d" in kind), len(layout.axes) - 2)
    return _resized(atoms, out, layout, count)


def interpolated(atoms: Atoms, out: Tensor, input: Traced, *more: Any, **options: Any) -> Layout:
    """Channels are left alone; the axes that are resized must not carry units."""
    return _resized(atoms, out, layout_of(atoms, input), out.dim() - 2)


def _resized(atoms: Atoms, out: Tensor, layout: Layout, count: int) -> Layout:
    if not isinstance(out, Tensor):
        raise StructureError(f"{atoms.place} returns indices, which pared cannot follow")
    for d in range(len(layout.axes) - count, len(layout.axes)):
        atoms.fix(layout.axes[d], f"is pooled or resized by {atoms.place}")
        layout = layout.replaced(d, np.zeros(out.shape[d], np.int64), None)
    return layout


def pixel_shuffled(atoms: Atoms, out: Tensor, input: Traced, upscale_factor: int) -> Layout:
    """Each r^2 channels become one of r times the height and width."""
    layout = layout_of(atoms, input)
    table = layout.axes[-3].reshape(-1, upscale_factor**2)
    for column in range(1, table.shape[1]):
        atoms.couple(table[:, 0], table[:, column])
    made = still(out.shape)
    return made.replaced(len(made.axes) - 3, table[:, 0], layout.silent[-3])


def pixel_shuffle_module(atoms: Atoms, out: Tensor, name: str, module: nn.PixelShuffle, input: Traced) -> Layout:
    """Each r^2 channels become one unit of r times the height and width."""
    return pixel_shuffled(atoms, out, input, module.upscale_factor)


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
