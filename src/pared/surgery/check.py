"""Trying a structure out, where the graph alone does not show whether the code around the layers shrinks with them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pared.surgery.edit import cut, mask
from pared.surgery.plan import Plan
from pared.surgery.slices import StructureError
from pared.surgery.structure import Note, Structure

TOLERANCE = 1e-3


def verified(model: nn.Module, structure: Structure, inputs: Sequence[Tensor]) -> Structure:
    """The structure without the groups whose cut network crashes or computes something else than the masked one.

    Each group (with those that must stay as wide) loses first one unit, then all but one. Groups that are not exact
    need only run. Cost: two cuts and four forward passes a group.
    """
    failed: dict[str, str] = {}
    for group in structure:
        together = structure.alike(group.name)
        if group.width > 1 and group.name not in failed and (why := _failure(model, structure, together, inputs)):
            failed |= dict.fromkeys(together, why)
    groups = tuple(group for group in structure if group.name not in failed)
    equal = tuple(names for names in structure.equal if not failed.keys() & set(names))
    notes = tuple(
        Note(note.layer, note.units, None, failed[note.group]) if note.group in failed else note
        for note in structure.notes
    )
    return Structure(groups, equal, structure.projecting, notes)


def _failure(model: nn.Module, structure: Structure, names: Sequence[str], inputs: Sequence[Tensor]) -> str:
    width = structure[names[0]].width
    for kept in (width - 1, 1):
        plan = Plan({name: tuple(range(kept)) for name in names})
        try:
            small = _output(cut(model, structure, plan), inputs)
            expected = _output(mask(model, structure, plan), inputs)
        except (RuntimeError, ValueError, IndexError, TypeError, AssertionError, StructureError) as error:
            return f"the code around it does not shrink with it: {str(error).splitlines()[0]}"
        if all(structure[name].exact for name in names) and not _alike(small, expected):
            return "the network computes something else once it is cut"
    return ""


def _output(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return _tensors(model(*inputs))


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    return [t for part in value for t in _tensors(part)] if isinstance(value, (tuple, list)) else []


def _alike(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(_close(a, b) for a, b in zip(first, second, strict=True) if a.numel())


def _close(a: Tensor, b: Tensor) -> bool:
    far = TOLERANCE * float(b.abs().max())
    return a.shape == b.shape and torch.allclose(a, b, rtol=TOLERANCE, atol=far, equal_nan=True)
