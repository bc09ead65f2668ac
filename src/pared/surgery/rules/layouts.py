"""What every rule needs: layouts of arguments, parameters of modules, elementwise meetings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pared.surgery.atoms import Atoms, Axis, Layout, Rows, Size, Spoiled, States, Traced, still, union
from pared.surgery.slices import StructureError


def layout_of(atoms: Atoms, traced: Traced) -> Layout:
    """The layout of a tensor; final states taken as one tensor lose the same units in every layer."""
    layout = traced.layout
    if isinstance(layout, Layout):
        return layout
    if isinstance(layout, States):
        first, *others = layout.layers
        axes = list(first.axes)
        for other in others:
            axes = [atoms.couple(a, b) for a, b in zip(axes, other.axes, strict=True)]
        return Layout((np.zeros(len(layout.layers), np.int64), *axes), (None,) * (1 + len(axes)))
    if isinstance(layout, Spoiled):
        atoms.fix(layout.atoms, layout.why)
        return still(traced.value.shape)
    raise StructureError(f"{atoms.place} takes a {type(traced.value).__name__}, which pared cannot follow there")


def each(tensors: Any) -> list[Traced]:
    """Several tensors, also where one operation made them all, as `split` does."""
    if isinstance(tensors, Traced):
        return [Traced(value, layout) for value, layout in zip(tensors.value, tensors.layout, strict=True)]
    return list(tensors)


def module_parameter(atoms: Atoms, name: str, module: nn.Module, leaf: str) -> Traced | None:
    """A module's weight, plain or computed by a parametrisation; None where it has none."""
    tensor = getattr(module, leaf, None)
    if tensor is None:
        return None
    full = f"{name}.{leaf}" if name else leaf
    return Traced(tensor, atoms.parameter(full, tensor))


def group_name(weight: Traced) -> str:
    """Units are named after the module whose weight makes them, a bare parameter's after itself."""
    rows = next((rows for rows in weight.layout.silent if rows), None)
    if rows is None:
        return "computed"
    parameter: str = min(rows).parameter
    path, _, leaf = parameter.rpartition(".")
    return path if path and leaf == "weight" else parameter


def labelled(layout: Any) -> bool:
    """Whether any axis carries units."""
    if isinstance(layout, Layout):
        return any((axis > 0).any() for axis in layout.axes)
    if isinstance(layout, States):
        return any(map(labelled, layout.layers))
    if isinstance(layout, dict):
        layout = tuple(layout.values())
    return isinstance(layout, (tuple, list)) and not isinstance(layout, Traced) and any(map(labelled, layout))


def together(atoms: Atoms, shape: Sequence[int], operands: Sequence[Traced], sum_of: bool = False) -> Layout:
    """Element by element: entries that meet are coupled; an axis broadcast from size 1 takes the other's units.

    A sum is silent where all its terms are, a product where one of its factors is.
    """
    layouts = [layout_of(atoms, operand) for operand in operands]
    axes: list[Axis] = []
    silent: list[Rows] = []
    for back in range(len(shape), 0, -1):
        reaching = [lay for lay in layouts if len(lay.axes) >= back and len(lay.axes[-back]) == shape[-back]]
        met = [(lay.axes[-back], lay.silent[-back]) for lay in reaching]
        axis, rows = met[0]
        for other, more in met[1:]:
            axis = atoms.couple(axis, other)
            rows = union(rows, more) if sum_of else rows if rows is not None else more
        axes.append(axis)
        silent.append(None if sum_of and len(met) < len(layouts) else rows)
    return Layout(tuple(axes), tuple(silent))


def unlabelled(value: Any) -> Any:
    """The layout of a value that carries no units."""
    if isinstance(value, Tensor):
        return still(value.shape)
    if isinstance(value, torch.Size):
        return tuple(Size(np.zeros(n, np.int64)) for n in value)
    if isinstance(value, dict):
        return {key: unlabelled(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(map(unlabelled, value))
    return None
