"""Doing again what was done to a network, on a fresh one of the same architecture, without tracing it."""

import copy

from torch import nn

from pared.surgery.drop import dropped
from pared.surgery.edit import cut
from pared.surgery.factors import thinned
from pared.surgery.grow import insert
from pared.surgery.layers import deepened, split
from pared.surgery.plan import Deepen, Drop, Edit, Factor, Insert, Plan
from pared.surgery.slices import StructureError
from pared.surgery.structure import Structure


def replay(plan: Edit, fresh_model: nn.Module) -> nn.Module:
    """Cuts an uncut model of the same architecture as the plan says, after all that the plan has `before` it.

    The shapes become those of the planned network; weights that were fitted or drawn come with its state. Raises
    StructureError when the plan carries no slices (bind it to a structure first) or belongs to another network.
    """
    if not isinstance(plan, Plan):
        return _redone(plan, copy.deepcopy(fresh_model))
    if plan.unbound:
        raise StructureError(
            f"the plan does not say where the units of {', '.join(plan.unbound)} lie; "
            "use structure.bind(plan), or a plan made by select"
        )
    model = fresh_model
    for edit in plan.before:
        model = replay(edit, model)
    return cut(model, Structure(plan.groups), plan)


def _redone(edit: Edit, model: nn.Module) -> nn.Module:
    if isinstance(edit, Drop):
        return dropped(model, edit)
    if isinstance(edit, Deepen):
        return deepened(model, edit)
    if isinstance(edit, Insert):
        return insert(model, Structure(edit.groups), edit.counts)
    if isinstance(edit, Factor):
        return thinned(model, edit)
    assert not isinstance(edit, Plan)
    return split(model, edit)
