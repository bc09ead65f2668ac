"""Random plans for the groups that can be cut exactly, and units in another order."""

import copy
import random

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from pared.surgery import Plan, Structure


def exact_plan(structure: Structure, seed: int) -> Plan:
    """Some units of most groups go; layers that must be equally wide lose equally many. Inexact groups stay whole."""
    source = random.Random(seed)
    inexact = {group.name for group in structure if not group.exact}
    whole = inexact | {name for names in structure.equal if inexact & set(names) for name in names}
    counts: dict[str, int] = {}
    for names in structure.equal:
        count = source.randint(1, structure[names[0]].width)
        counts |= dict.fromkeys(names, count)
    keep = {}
    for group in structure:
        if group.name in whole or (group.name not in counts and source.random() < 0.2):
            continue
        count = counts.get(group.name, source.randint(1, max(1, group.width - 1)))
        keep[group.name] = tuple(source.sample(range(group.width), count))
    return Plan(keep)


def orders(structure: Structure, seed: int) -> dict[str, list[int]]:
    """A new order of the units of each group: unit k of the new network is unit order[k] of the old."""
    source = random.Random(seed)
    return {group.name: source.sample(range(group.width), group.width) for group in structure}


def reordered(model: nn.Module, structure: Structure, order: dict[str, list[int]]) -> nn.Module:
    """A copy of the model whose units stand in another order, in every slice of their groups."""
    moved = copy.deepcopy(model)
    for group in structure:  # one after the other, as heads and their widths lie along one axis
        places: dict[tuple[str, int], dict[int, int]] = {}
        for s in group.slices:
            old, new = (s.indices(group.width, units) for units in (order[group.name], range(group.width)))
            places.setdefault((s.parameter, s.axis), {}).update(zip(new, old, strict=True))
        for (name, axis), found in places.items():
            path, _, leaf = name.rpartition(".")
            _reorder(moved.get_submodule(path), leaf, axis, found)
    return moved


@torch.no_grad()
def _reorder(module: nn.Module, leaf: str, axis: int, found: dict[int, int]) -> None:
    tensor: Tensor = getattr(module, leaf)
    index = torch.tensor([found.get(k, k) for k in range(tensor.shape[axis])])
    chosen = tensor.index_select(axis, index)
    if is_parametrized(module, leaf):
        setattr(module, leaf, chosen)
    else:
        tensor.copy_(chosen)
