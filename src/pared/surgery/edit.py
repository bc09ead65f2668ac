"""Cut and mask: a model in, a new model out. `cut(model, s, plan)(x) == mask(model, s, plan)(x)`: the third law."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pared.models.attention import Attention
from pared.surgery.copies import copied, held_tensors
from pared.surgery.plan import Plan
from pared.surgery.resize import Loss, resized
from pared.surgery.slices import Slice, StructureError
from pared.surgery.structure import Structure, check_fits, named_tensors


class Touched(NamedTuple):
    """A slice, the width of its group, and the units that go."""

    slice: Slice
    width: int
    units: NDArray[np.int64]


def cut(model: nn.Module, structure: Structure, plan: Plan) -> nn.Module:
    """A physically smaller copy: every entry that makes or reads a removed unit is gone.

    A layer that cannot hold its new sizes is exchanged for one that can: `nn.MultiheadAttention` becomes
    `pared.models.Attention`. Cost: one copy of the model. Raises StructureError when the plan does not fit the
    structure or the structure not the model; the model passed in stays as it is, whatever happens.
    """
    structure.bind(plan)
    check_fits(model, structure)
    touched = _touched(structure, plan)
    kept = _kept(named_tensors(model), touched)
    small = copied(model, instead=kept)
    held = held_tensors(small)  # a copy of the user's own making may not have taken them
    replace_all(small, {name: t for name, t in kept.items() if name not in held or not _is_the_same(t, held[name])})
    return resize_all(small, [Loss(s, width, len(units)) for s, width, units in touched])


def _is_the_same(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and one.data_ptr() == two.data_ptr()


def _kept(tensors: Mapping[str, Tensor], touched: Sequence[Touched]) -> dict[str, Tensor]:
    """What is left of every tensor that loses entries, by name."""
    stays: dict[str, dict[int, NDArray[np.bool_]]] = defaultdict(dict)
    for s, width, units in touched:
        mine = stays[s.parameter].setdefault(s.axis, np.ones(tensors[s.parameter].shape[s.axis], bool))
        own = mine[s.offset : s.offset + s.blocks * width * s.inner]
        own.reshape(s.blocks, width, s.inner)[:, units] = False
    return {
        name: _picked(tensors[name].detach(), {axis: np.flatnonzero(stay) for axis, stay in sorted(axes.items())})
        for name, axes in stays.items()
    }


def _picked(tensor: Tensor, places: Mapping[int, NDArray[np.int64]]) -> Tensor:
    """A tensor of its own with the entries at these places along each axis; stretches are copied fastest."""
    scattered = []
    for axis, where in places.items():
        if where[-1] - where[0] + 1 == len(where):
            tensor = tensor.narrow(axis, int(where[0]), len(where))
        else:
            scattered.append((axis, torch.from_numpy(where).to(tensor.device)))
    for axis, index in scattered:  # whole rows first: they are copied fastest
        tensor = tensor.index_select(axis, index)
    return tensor if scattered else tensor.clone(memory_format=torch.contiguous_format)


def resize_all(model: nn.Module, losses: list[Loss]) -> nn.Module:
    """Lets every layer whose entries changed follow its parameters; returns the model, which may be a new one."""
    by_module: dict[str, list[Loss]] = defaultdict(list)
    for loss in losses:
        by_module[loss.slice.parameter.rpartition(".")[0]].append(loss)
    for path, module in list(model.named_modules()):
        own = by_module.get(path, [])
        if isinstance(module, (nn.MultiheadAttention, Attention)):  # its last projection is a layer of its own
            own = own + by_module.get(f"{path}.out_proj".lstrip("."), [])
        if own:
            model = replace_module(model, path, resized(module, own))
    return model


def mask(model: nn.Module, structure: Structure, plan: Plan) -> nn.Module:
    """A copy of the same shape in which nothing reads a removed unit: its outgoing entries are zero.

    Raises as `cut` does.
    """
    structure.bind(plan)
    check_fits(model, structure)
    masked = copied(model)
    zeroed: dict[str, Tensor] = {}
    for s, width, units in _touched(structure, plan):
        if s.role == "out":
            tensor = zeroed.get(s.parameter)
            tensor = tensor_of(masked, s.parameter).detach().clone() if tensor is None else tensor
            indices = torch.tensor(s.indices(width, units.tolist()), device=tensor.device)
            zeroed[s.parameter] = tensor.index_fill_(s.axis, indices, 0.0)
    replace_all(masked, zeroed)
    return masked


def _touched(structure: Structure, plan: Plan) -> list[Touched]:
    """All slices of the groups that lose any units."""
    return [
        Touched(s, group.width, units)
        for group, units in ((structure[name], np.array(gone)) for name, gone in structure.removed(plan).items())
        for s in group.slices
    ]


def tensor_of(model: nn.Module, name: str) -> Tensor:
    """A parameter, a buffer, or a weight computed by a parametrisation."""
    path, _, leaf = name.rpartition(".")
    tensor = getattr(model.get_submodule(path), leaf)
    assert isinstance(tensor, Tensor)
    return tensor


def replace_module(model: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """Puts a module in the place of another, wherever that one is used; returns the model, which may be the new one."""
    old = model.get_submodule(path)
    if old is new:
        return model
    if not path:
        return new
    for module in list(model.modules()):
        for leaf, child in module._modules.items():
            if child is old:
                setattr(module, leaf, new)
    return model


def replace_all(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts new tensors in the places of parameters and buffers, of tied ones in all of their places."""
    places: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    for module in model.modules():
        for leaf, held in (*module._parameters.items(), *module._buffers.items()):
            if held is not None:
                places[id(held)].append((module, leaf))
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        if parametrize.is_parametrized(module, leaf):
            _parametrise(module, leaf, tensor, name)
            continue
        old = getattr(module, leaf)
        new = nn.Parameter(tensor, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else tensor
        for holder, own in places[id(old)]:
            setattr(holder, own, new)
    for recurrent in model.modules():
        if isinstance(recurrent, nn.RNNBase):
            recurrent._init_flat_weights()


def _parametrise(module: nn.Module, leaf: str, tensor: Tensor, name: str) -> None:
    """Gives a computed weight a new value through the inverse of its parametrisation, as weight_norm has one."""
    try:
        setattr(module, leaf, tensor)
        eps = torch.finfo(tensor.dtype).eps
        largest = float(tensor.detach().abs().max())
        alike = bool(torch.allclose(getattr(module, leaf), tensor, rtol=8 * eps, atol=eps * largest))
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise StructureError(
            f"{name!r} is computed by a parametrisation that cannot take another shape ({error}); remove it first with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        ) from error
    if not alike:
        raise StructureError(
            f"{name!r} is computed by a parametrisation that cannot hold the cut weight; remove it first with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )


def submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        known = [n for n, _ in model.named_modules() if n]
        raise StructureError(f"there is no module {name!r}; the modules are {', '.join(known)}") from error
