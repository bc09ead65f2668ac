"""Repair without data: units that are made alike are read for each other."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from pared.compensate import lost_entries, put
from pared.signals import plain_parameters
from pared.surgery import Group, Plan, Slice, Structure
from pared.surgery.copies import copied
from pared.surgery.slices import Role
from pared.surgery.structure import check_fits


def merge(model: nn.Module, structure: Structure, plan: Plan) -> nn.Module:
    """A copy of the same shape in which the units left are read for those that `plan` removes; cut it afterwards.

    The repair without data: the removed unit made most like another (least s_ij, see `criteria.similarity`) goes first,
    and that one is read with a_i + a_j; and so on. Exact where the two are made the same. Weights that both make and
    read units, or that a parametrisation without inverse computes, stay as they are.

    Cost: O(u^2 d) a group. Raises StructureError as `compensate` does.
    Source: Srinivas & Babu (2015), the surgery step.
    """
    structure.bind(plan)
    check_fits(model, structure)
    merged, weights = copied(model), plain_parameters(model)
    for name, units in structure.removed(plan).items():
        group = structure[name]
        keys = lost_entries(structure, {name: units})
        slices = [s for s in group.slices if s.role == "out" and (s.parameter, s.axis) in keys]
        made, read = entries(group, weights, "in"), entries(group, weights, "out")
        for j, i, _ in merging(made, read, units):
            for s in slices:
                weights[s.parameter] = _added(weights[s.parameter], s, group.width, j, i)
        for parameter in {s.parameter for s in slices}:
            put(merged, parameter, weights[parameter])
    return merged


def _added(weight: Tensor, s: Slice, width: int, j: int, i: int) -> Tensor:
    """The weight with what reads unit j added to what reads unit i."""
    new = weight.clone()
    along = new.movedim(s.axis, 0)
    along[s.indices(width, [i])] += along[s.indices(width, [j])]
    return new


def merging(made: Tensor, read: Tensor, gone: Sequence[int] | None = None) -> Iterator[tuple[int, int, float]]:
    """(j, i, s_ij) of one deletion after another of `similarity`: j goes, and i is read with a_i + a_j.

    `made` and `read` (units, entries) hold what makes and what reads each unit; `gone` restricts what may go.
    """
    made, read = made.double(), read.double().clone()
    distance = torch.cdist(made, made).square().fill_diagonal_(torch.inf)
    may_go = torch.zeros(len(made), dtype=torch.bool)
    may_go[list(range(len(made)) if gone is None else gone)] = True
    for _ in range(min(int(may_go.sum()), len(made) - 1)):
        saliency = distance * read.square().mean(dim=1)
        saliency = saliency.nan_to_num(torch.inf).masked_fill(~may_go, torch.inf)  # inf * 0: itself or gone
        i, j = divmod(int(saliency.argmin()), len(made))
        yield j, i, float(saliency[i, j])
        read[i] += read[j]
        may_go[j] = False
        distance[j], distance[:, j] = torch.inf, torch.inf


def entries(group: Group, weights: Mapping[str, Tensor], role: Role) -> Tensor:
    """All that makes ("in") or reads ("out") each unit of a group, side by side: (units, entries)."""
    rows = [
        torch.unflatten(
            weights[s.parameter].narrow(s.axis, s.offset, s.blocks * group.width * s.inner),
            s.axis,
            (s.blocks, group.width, s.inner),
        )
        .movedim(s.axis + 1, 0)
        .reshape(group.width, -1)
        for s in group.slices
        if s.role == role and s.parameter in weights
    ]
    return torch.cat(rows, dim=1) if rows else torch.zeros(group.width, 0)
