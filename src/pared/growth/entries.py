"""Which weights make units and which read them, as places: so that growth rules can say what new units start with."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pared.signals import forked, private, prunable
from pared.signals import tensor_of as tensor_in
from pared.signals.layout import OfWeights, gradient_of
from pared.surgery import Structure, StructureError
from pared.surgery.copies import copied
from pared.surgery.edit import replace_all, tensor_of
from pared.surgery.grow import NORMS
from pared.surgery.slices import Group, Role, Slice
from pared.types import Batch, Inputs, Loss

Places = dict[str, Tensor]
"""Parameter -> (units, entries): where in the flattened parameter the entries of each unit lie."""


def newest(structure: Structure, counts: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The last `counts[name]` units of each group of a grown network: those that a growth rule has just added."""
    return {name: tuple(range(structure[name].width - count, structure[name].width)) for name, count in counts.items()}


def makers(model: nn.Module, structure: Structure, units: Mapping[str, Sequence[int]], name: str) -> Places:
    """The weights and biases that make the units `units[name]`, but for those that read a unit of `units`.

    Factors of normalisations, slopes of PReLU and buffers are not among them. Raises StructureError where nothing is
    left: all of them silence the units too, as in a tied autoencoder without biases or where the model adds units up.
    """
    found = _apart(model, structure, units, name, "in")
    if not found:
        raise StructureError(
            f"all weights that make the units of {name!r} have to be zero for silent ones, so new ones can have no "
            "inputs; untie the weights, leave the units to layers, or let another group grow"
        )
    return found


def readers(model: nn.Module, structure: Structure, units: Mapping[str, Sequence[int]], name: str) -> Places:
    """The weights that read the units `units[name]`, but for those that make a unit of `units`.

    Raises StructureError where nothing is left, as in a tied autoencoder, whose weights do both.
    """
    found = _apart(model, structure, units, name, "out")
    if not found:
        raise StructureError(
            f"the weights that make the units of {name!r} are those that read them, so they cannot start with unlike "
            "values; untie them, or let another group grow"
        )
    return found


def places_of(model: nn.Module, group: Group, units: Sequence[int], role: Role) -> Places:
    """All weights that make the units (role "in") or read them ("out"), those that do both included."""
    found: dict[str, list[Tensor]] = {}
    for s in group.slices:
        if s.role == role and _counts(model, s):
            shape = tensor_of(model, s.parameter).shape
            found.setdefault(s.parameter, []).append(_flat_places(shape, s, group.width, units))
    return {parameter: torch.cat(parts, dim=1) for parameter, parts in found.items()}


def values_at(model: nn.Module, places: Places) -> Tensor:
    """(units, entries): the weights at these places, parameter after parameter."""
    return torch.cat([tensor_of(model, name).detach().flatten()[where] for name, where in places.items()], dim=1)


def with_values(model: nn.Module, changes: Sequence[tuple[Places, Tensor]]) -> nn.Module:
    """A copy with other weights at some places; values are (units, entries), as `values_at` returns them."""
    new, tensors = copied(model), dict[str, Tensor]()
    for places, values in changes:
        widths = [where.shape[1] for where in places.values()]
        for (name, where), part in zip(places.items(), torch.split(values, widths, dim=1), strict=True):
            tensor = tensors.setdefault(name, tensor_of(new, name).detach().clone())
            tensor.view(-1)[where.flatten()] = part.flatten().to(tensor)
    replace_all(new, tensors)
    return new


@torch.no_grad()
def answer(model: nn.Module, x: Inputs) -> Tensor:
    """What the model gives in evaluation mode: its first tensor. The model and the random state stay as they are."""
    looked = private(model)
    with forked(looked):
        return tensor_in(looked(*((x,) if isinstance(x, Tensor) else x)))


def gradients_at(model: nn.Module, batch: Batch, loss: Loss, places: Places) -> tuple[Tensor, float]:
    """(units, entries): the loss gradient at these places in float64, and the norm of the whole gradient.

    Raises ValueError for gradients that are not finite, as those of NaN among the data.
    """
    of = OfWeights(model, batch, loss, layout=prunable(model, biases=True))
    with of.looking():
        weights = of.weights.clone().requires_grad_()
        whole = gradient_of(of.loss(weights), weights)
    check_finite(whole)
    found = of.layout.named(whole)
    return torch.cat([found[name].flatten()[where] for name, where in places.items()], dim=1), whole.norm().item()


def check_finite(values: Tensor) -> None:
    """Raises ValueError where inputs or gradients, from which growth rules learn, are not all finite numbers."""
    if not values.isfinite().all():
        raise ValueError(
            "what the layers read, or the loss's gradients there, are not all finite numbers; look at the inputs and "
            "targets, or train the model again"
        )


def check_growth(structure: Structure, batch: Batch, counts: Mapping[str, int]) -> None:
    """Raises StructureError for layers that cannot grow, ValueError for counts below 1 and fewer than two examples."""
    for name, count in counts.items():
        note = next((note for note in structure.notes if note.layer == name), None)
        if name not in structure and note is not None:
            why = f"it moves with {note.group!r}, let that grow" if note.group else note.why
            raise StructureError(f"layer {name!r} cannot grow by itself: {why}")
        if structure[name].width < 1 or isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"group {name!r} must gain at least one unit, a whole number; got {count!r}")
    if not counts:
        raise ValueError("no group is named that should gain units; give counts such as {'0': 4}")
    if len(batch.y) < 2:
        raise ValueError(f"what new units start with is learnt from at least two examples, got {len(batch.y)}")


def _apart(model: nn.Module, structure: Structure, units: Mapping[str, Sequence[int]], name: str, role: Role) -> Places:
    others: dict[str, list[Tensor]] = {}
    for other, own in units.items():
        for parameter, where in places_of(model, structure[other], own, "out" if role == "in" else "in").items():
            others.setdefault(parameter, []).append(where.flatten())
    found = places_of(model, structure[name], units[name], role)
    for parameter in found.keys() & others.keys():
        where = found[parameter]
        alone = ~torch.isin(where, torch.cat(others[parameter]))
        found[parameter] = where[alone].reshape(len(where), int(alone.sum()) // len(where))
    return {parameter: where for parameter, where in found.items() if where.shape[1]}


def _counts(model: nn.Module, s: Slice) -> bool:
    path, _, leaf = s.parameter.rpartition(".")
    owner = model.get_submodule(path)
    return leaf not in owner._buffers and not isinstance(owner, (*NORMS, nn.PReLU))


def _flat_places(shape: torch.Size, s: Slice, width: int, units: Sequence[int]) -> Tensor:
    flat = torch.arange(shape.numel()).view(shape)
    own: Tensor = torch.unflatten(
        flat.narrow(s.axis, s.offset, s.blocks * width * s.inner), s.axis, (s.blocks, width, s.inner)
    )
    return own.movedim(s.axis + 1, 0)[torch.as_tensor(list(units), dtype=torch.long)].flatten(1)
