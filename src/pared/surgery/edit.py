"""Cut and mask: a model in, a new model out. `cut(model, s, plan)(x) == mask(model, s, plan)(x)`: the third law."""

import copy
from collections import defaultdict

import torch
from torch import Tensor, nn

from pared.surgery.rules import resize
from pared.surgery.structure import Plan, Slice, Structure, StructureError, check_fits


def cut(model: nn.Module, structure: Structure, plan: Plan) -> nn.Module:
    """A physically smaller copy: every entry that makes or reads a removed unit is gone.

    Cost: one copy of the model. Raises StructureError when the plan does not fit the structure or the structure not the
    model; the model passed in stays as it is, whatever happens.
    """
    small = _copy(model, structure, plan)
    gone: dict[tuple[str, int], set[int]] = defaultdict(set)
    for s, indices in _touched(structure, plan):
        gone[s.parameter, s.axis].update(indices)
    for (parameter, axis), lost in gone.items():
        tensor = _tensor(small, parameter)
        kept = [i for i in range(tensor.shape[axis]) if i not in lost]
        _replace(small, parameter, tensor.detach().index_select(axis, torch.tensor(kept, device=tensor.device)))
    for path in {parameter.rpartition(".")[0] for parameter, _ in gone}:
        resize(small.get_submodule(path))
    return small


def mask(model: nn.Module, structure: Structure, plan: Plan) -> nn.Module:
    """A copy of the same shape in which nothing reads a removed unit: its outgoing entries are zero.

    Raises as `cut` does.
    """
    masked = _copy(model, structure, plan)
    with torch.no_grad():
        for s, indices in _touched(structure, plan):
            if s.role == "out":
                tensor = _tensor(masked, s.parameter)
                tensor.index_fill_(s.axis, torch.tensor(indices, device=tensor.device), 0.0)
    return masked


def replay(plan: Plan, fresh_model: nn.Module) -> nn.Module:
    """Cuts an uncut model of the same architecture as the plan says, without tracing it.

    Raises StructureError when the plan carries no slices (bind it to a structure first) or belongs to another network.
    """
    missing = set(plan.keep) - {group.name for group in plan.groups}
    if missing:
        raise StructureError(
            f"the plan does not say where the units of {', '.join(sorted(missing))} lie; "
            "use structure.bind(plan), or a plan made by select"
        )
    return cut(fresh_model, Structure(plan.groups), plan)


def _copy(model: nn.Module, structure: Structure, plan: Plan) -> nn.Module:
    structure.bind(plan)
    check_fits(model, structure)
    return copy.deepcopy(model)


def _touched(structure: Structure, plan: Plan) -> list[tuple[Slice, list[int]]]:
    return [
        (s, s.indices(structure[name].width, units))
        for name, units in structure.removed(plan).items()
        for s in structure[name].slices
    ]


def _tensor(model: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    tensor = getattr(model.get_submodule(path), leaf)
    assert isinstance(tensor, Tensor)
    return tensor


def _replace(model: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    old = getattr(module, leaf)
    new = nn.Parameter(tensor, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else tensor
    setattr(module, leaf, new)
