"""Normalisation: by channel it is exact, over units it mixes them."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pared.surgery.atoms import Atoms, Layout, Rows, Traced, union
from pared.surgery.rules.dense import alike
from pared.surgery.rules.layouts import layout_of, module_parameter


def _scaled(atoms: Atoms, layout: Layout, axis: int, own: Sequence[Traced | None], affine: int) -> Layout:
    """A layout after per-channel parameters were joined to it; the first `affine` of them silence it, if all there."""
    rows: Rows = frozenset()
    for index, traced in enumerate(own):
        if traced is not None:
            parameter = layout_of(atoms, traced)
            layout = layout.replaced(axis, atoms.couple(layout.axes[axis], parameter.axes[0]), None)
            if index < affine:
                rows = union(rows, parameter.silent[0])
        elif index < affine:
            rows = None
    return layout.loud().replaced(axis, layout.axes[axis], rows)


def channels(
    atoms: Atoms,
    out: Tensor,
    input: Traced,
    running_mean: Traced | None = None,
    running_var: Traced | None = None,
    weight: Traced | None = None,
    bias: Traced | None = None,
    *more: Any,
    **options: Any,
) -> Layout:
    """Batch and instance normalisation: each channel by itself."""
    layout = layout_of(atoms, input)
    for position, axis in enumerate(layout.axes):
        if position != 1:
            atoms.fix(axis, f"is averaged over in {atoms.place}")
    return _scaled(atoms, layout, 1, (weight, bias, running_mean, running_var), affine=2)


def channels_module(atoms: Atoms, out: Tensor, name: str, module: nn.Module, input: Traced) -> Layout:
    """Each channel by itself: a unit takes its weight, bias and running statistics with it."""
    own = [module_parameter(atoms, name, module, leaf) for leaf in ("running_mean", "running_var", "weight", "bias")]
    return channels(atoms, out, input, *own)


def groups_module(atoms: Atoms, out: Tensor, name: str, module: nn.GroupNorm, input: Traced) -> Layout:
    """Whole groups of channels are exact; one group for all mixes the channels as layer normalisation does."""
    own = [module_parameter(atoms, name, module, leaf) for leaf in ("weight", "bias")]
    if own[0] is None and module.num_groups > 1:
        atoms.fix(layout_of(atoms, input).axes[1], f"{atoms.place} has no weights that could tell how many groups stay")
    return in_groups(atoms, input, module.num_groups, own)


def in_groups(atoms: Atoms, input: Traced, groups: int, own: Sequence[Traced | None]) -> Layout:
    """Group normalisation with its weight and bias."""
    layout = layout_of(atoms, input)
    if groups == 1:
        atoms.mix(layout.axes[1], f"{atoms.place} mixes its units")
    elif (layout.axes[1] > 0).all():
        alike(atoms, layout.axes[1], len(layout.axes[1]) // groups)
    else:
        atoms.fix(layout.axes[1], f"shares a group of {atoms.place} with channels that stay")
    return _scaled(atoms, layout, 1, own, affine=2)


def last_axes(
    atoms: Atoms,
    out: Tensor,
    input: Traced,
    normalized_shape: Any,
    weight: Traced | None = None,
    bias: Traced | None = None,
    *more: Any,
    **options: Any,
) -> Layout:
    """Layer and root-mean-square normalisation: each entry depends on all of the last axes."""
    layout = layout_of(atoms, input)
    count = len(normalized_shape)
    for axis in layout.axes[-count:]:
        atoms.mix(axis, f"{atoms.place} mixes its units")
    for traced in (weight, bias):
        if traced is not None:
            own = layout_of(atoms, traced)
            for place in range(1, count + 1):
                axis = atoms.couple(layout.axes[-place], own.axes[-place])
                layout = layout.replaced(len(layout.axes) - place, axis, None)
    silent: Rows = None
    if count == 1 and weight is not None:
        silent = layout_of(atoms, weight).silent[0]
        silent = union(silent, layout_of(atoms, bias).silent[0]) if bias is not None else silent
    return layout.loud().replaced(len(layout.axes) - 1, layout.axes[-1], silent)


def last_axes_function(
    atoms: Atoms, out: Tensor, input: Traced, normalized_shape: Any, *own: Any, **options: Any
) -> Layout:
    """As a function it is told the width by the code around it, which would not shrink with it."""
    layout = layout_of(atoms, input)
    if all(isinstance(size, int) for size in normalized_shape):
        for axis in layout.axes[-len(normalized_shape) :]:
            atoms.fix(axis, f"{atoms.place} is given the width {tuple(normalized_shape)} in the code; use the module")
    shape = [size.value if isinstance(size, Traced) else size for size in normalized_shape]
    return last_axes(atoms, out, input, shape, *own, **options)


def last_axes_module(atoms: Atoms, out: Tensor, name: str, module: nn.LayerNorm | nn.RMSNorm, input: Traced) -> Layout:
    """Mixes the units of the last axes: they can be cut, but not exactly."""
    own = [module_parameter(atoms, name, module, leaf) for leaf in ("weight", "bias")]
    if own[0] is None:
        for axis in layout_of(atoms, input).axes[-len(module.normalized_shape) :]:
            atoms.fix(axis, f"{atoms.place} has no weights that could tell how wide it is")
    return last_axes(atoms, out, input, module.normalized_shape, *own)
