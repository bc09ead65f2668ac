"""Pooling, resizing and pixel shuffles: channels carry units, the axes beside them must not."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from pared.surgery.atoms import Atoms, Layout, Traced, still
from pared.surgery.rules.layouts import layout_of
from pared.surgery.slices import StructureError


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
