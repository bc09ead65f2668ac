"""Criteria that look again after every removal.

Each gives the place of a unit in the order in which units go, so that the lowest-scored ones of any number are those
that go first.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pared.compensate import refits
from pared.criteria.ablation import ablation
from pared.data.batches import example, suited_batch
from pared.signals import forked, private, tensor_of
from pared.surgery import Group, Plan, Structure, mask, trace
from pared.surgery.structure import as_units
from pared.types import Batch, Criterion, Loss, Scores


def greedy(model: nn.Module, batch: Batch, loss: Loss, *, ridge: float = 1e-6, repair: bool = True) -> Scores:
    """Removal one by one of the unit without which the loss, after the least-squares repair, is least.

    Within each group, the others whole: for every unit j left, `compensate` for D + {j} and the loss; the unit of the
    least one goes. Without `repair` it is brute force with re-ranking. A repair reads the moments of the whole network,
    taken once.

    Scores: group -> (units,), place in the order of removal from 0; not comparable between groups.
    Cost: u (u + 1) / 2 - 1 forward passes of the batch a group, with `repair` as many solutions of O(k^3).
    Source: Wolfe, Sharma, Drude & Raj (2017), algorithm II, with the repair of `compensate`.
    """
    batch = suited_batch(batch, model)
    structure = trace(model, example(batch.x))
    refitted = refits(model, structure, batch, ridge) if repair else None
    copied = private(model)

    def value(group: Group, gone: Sequence[int]) -> float:
        keep = tuple(j for j in range(group.width) if j not in gone)
        changed: dict[str, Tensor] = {}
        for refit in refitted(Plan({group.name: keep})) if refitted else ():
            changed |= {refit.parameter: refit.weight} | refit.biases
        changed |= _silent(copied, changed, group, gone)
        with forked(model):
            out = functional_call(copied, changed, batch.x if isinstance(batch.x, tuple) else (batch.x,))
            return float(loss(tensor_of(out), batch.y))

    with torch.no_grad():
        return {group.name: _in_order(group.width, partial(value, group)) for group in structure}


def _in_order(width: int, value: Callable[[Sequence[int]], float]) -> Tensor:
    """Places of units in the order in which they go: always the one whose absence, with those gone, costs least."""
    gone: list[int] = []
    for _ in range(width - 1):
        rest = [j for j in range(width) if j not in gone]
        costs = [value([*gone, j]) for j in rest]
        gone.append(rest[costs.index(min(costs))])
    return places(width, gone)


def _silent(model: nn.Module, changed: Mapping[str, Tensor], group: Group, gone: Sequence[int]) -> dict[str, Tensor]:
    """The group's reading weights with nothing in them that reads the units gone."""
    silent: dict[str, Tensor] = {}
    for s in group.slices:
        if s.role == "out":
            weight = silent.get(s.parameter, changed.get(s.parameter, model.get_parameter(s.parameter)))
            index = torch.tensor(s.indices(group.width, gone), device=weight.device)
            silent[s.parameter] = weight.detach().index_fill(s.axis, index, 0.0)
    return silent


def reranked(model: nn.Module, batch: Batch, loss: Loss, *, criterion: Criterion = ablation) -> Scores:
    """Any criterion asked again after every removal, over all groups at once.

    The unit that it scores lowest is masked, the masked network is scored anew, and so on until each group has one unit
    left. Scores of `criterion` must be comparable between groups; weights' scores are reduced by `by_unit`.

    Scores: group -> (units,), place in the order of removal over all groups, from 0; comparable between groups.
    Cost: as many calls of the criterion as there are units.
    Source: Wolfe, Sharma, Drude & Raj (2017), algorithm II.
    """
    batch = suited_batch(batch, model)
    structure = trace(model, example(batch.x))
    left = {group.name: set(range(group.width)) for group in structure}
    scores = {group.name: torch.zeros(group.width) for group in structure}
    masked, place = model, 0
    while any(len(units) > 1 for units in left.values()):
        now = as_units(criterion(masked, batch, loss), structure)
        candidates = [(float(now[n][j]), n, j) for n in now for j in sorted(left[n]) if len(left[n]) > 1]
        if not candidates:
            break
        _, name, unit = min(candidates)
        left[name].remove(unit)
        scores[name][unit] = place
        place += 1
        masked = _masked(model, structure, left)
    for name, units in left.items():
        scores[name][sorted(units)] = float(place)
    return scores


def _masked(model: nn.Module, structure: Structure, left: Mapping[str, set[int]]) -> nn.Module:
    """The model with all other units silenced, group by group: widths within one module may differ meanwhile."""
    for group in structure:
        if len(left[group.name]) < group.width:
            model = mask(model, Structure((group,)), Plan({group.name: tuple(sorted(left[group.name]))}))
    return model


def places(width: int, gone: Sequence[int]) -> Tensor:
    """Place of each unit in the order of removal; those that are left come last, in their own order."""
    order = [*gone, *(j for j in range(width) if j not in set(gone))]
    return torch.tensor(order).argsort().to(torch.get_default_dtype())
