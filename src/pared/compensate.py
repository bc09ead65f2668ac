"""Least-squares repair: what reads a removed unit learns to read it from the units that stay."""

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pared.data.batches import Data, batches, suited
from pared.moments import Moments
from pared.signals import Reading, Watched, forked
from pared.surgery import Plan, Structure, StructureError
from pared.surgery.edit import tensor_of
from pared.surgery.structure import check_fits

Key = tuple[str, int]
"""A parameter and the axis along which it reads."""


def compensate(
    model: nn.Module, structure: Structure, plan: Plan, data: Tensor | Data, ridge: float = 1e-6
) -> nn.Module:
    """A copy of the same shape whose reading weights make up for the units that `plan` removes; cut it afterwards.

    For every weight W that reads values h (rows = samples, time steps, places), with D removed and K kept:

        h_D ~ A h_K + a,   W_K <- W_K + W_D A,   b <- b + W_D a,   A = S_DK (S_KK + r I)^-1

    where S holds second moments (centred where there is an intercept) and r = ridge * mean diag S_KK. Recurrent
    weights are fitted without an intercept over all steps but the last; layers without a bias likewise. Moments are
    those of the uncut network on the inputs, summed in float64. Where rows are fewer than values the ridge decides,
    with a warning; units that do not vary (below 1e-12 of the mean square) explain nothing.

    A convolution reads channels: one A for all places of its kernel, and b takes W_D a summed over the kernel (at a
    zero-padded border that is an approximation); a transposed one is fitted without an intercept. Attention's last
    projection and, where queries, keys and values are one tensor, its first one are linear layers like any other. What
    keeps its weights: grouped convolutions, query rows, normalisation, weights that both make and read (tied ones) or
    are used transposed, weights computed by a parametrisation that has no inverse.

    `data` is a tensor of inputs, a Batch, an (x, y) pair or an iterable of those such as a DataLoader; several inputs
    are a tuple x within a Batch or pair. Inputs are moved to the model's device and type. A DataLoader is gone through
    once, batch by batch, all of it: memory does not grow with the data.

    Cost: one forward pass, and for each reading weight O(rows k^2 + k^3) with k values read.
    Raises: StructureError when the plan does not fit the structure or the structure not the model.
    Source: linear compensation as in optimal brain surgery's grouped form and He, Zhang & Sun (2017), for recurrent
    weights by the pilot study of this project.
    """
    structure.bind(plan)
    check_fits(model, structure)
    copied, removed = _copied(model), structure.removed(plan)
    return _changed(copied, refits(model, structure, data, ridge, removed)(plan)) if removed else copied


class Refit(NamedTuple):
    """New values of a weight that reads removed units, and of the biases that take over intercepts."""

    parameter: str
    weight: Tensor
    biases: dict[str, Tensor]


def refitted_copy(model: nn.Module, changes: Iterable[Refit]) -> nn.Module:
    """A copy of the model with what `refits` would change."""
    return _changed(_copied(model), changes)


def _changed(model: nn.Module, changes: Iterable[Refit]) -> nn.Module:
    for refit in changes:
        if put(model, refit.parameter, refit.weight):
            for name, bias in refit.biases.items():
                put(model, name, bias)
    return model


def refits(
    model: nn.Module, structure: Structure, data: Tensor | Data, ridge: float = 1e-6, groups: Collection[str] = ()
) -> Callable[[Plan], list[Refit]]:
    """`compensate` for many plans on one look at the data: `refits(...)(plan)` is what it would change.

    `groups` are those of which plans may remove units (none: all of them). The entries of removed units stay as they
    are. Cost: one forward pass; a plan then costs O(k^3) for each reading weight.
    """
    found = reading_moments(model, structure, data, groups)

    def refitted(plan: Plan) -> list[Refit]:
        new: dict[str, Tensor] = {}
        changed = []
        for (parameter, axis), lost in lost_entries(structure, structure.removed(plan)).items():
            if (parameter, axis) in found:
                old = new.get(parameter, tensor_of(model, parameter))
                refit = _refitted(model, parameter, old.detach(), axis, sorted(lost), found[parameter, axis], ridge)
                new[parameter] = refit.weight
                changed.append(refit)
        return changed

    return refitted


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise StructureError(
            f"{type(model).__name__} cannot be copied, because it holds tensors that carry gradients; detach them first"
        ) from error


def lost_entries(structure: Structure, removed: Mapping[str, Sequence[int]]) -> dict[Key, set[int]]:
    """(parameter, axis) -> entries that read removed units, where the axis makes none."""
    makes = {(s.parameter, s.axis) for group in structure for s in group.slices if s.role == "in"}
    gone: dict[Key, set[int]] = defaultdict(set)
    for name, units in removed.items():
        for s in structure[name].slices:
            if s.role == "out" and (s.parameter, s.axis) not in makes:
                gone[s.parameter, s.axis].update(s.indices(structure[name].width, units))
    return gone


def reading_moments(
    model: nn.Module, structure: Structure, data: Tensor | Data, groups: Collection[str] = ()
) -> dict[Key, Moments]:
    """Moments of what each weight reads of the groups (none named: of all), of those weights that can be refitted."""
    of = [structure[name] for name in groups] or list(structure)
    keys = lost_entries(structure, {group.name: range(group.width) for group in of}).keys()
    found: dict[Key, Moments] = {}
    unfit: set[str] = set()

    def see(reading: Reading) -> None:
        key = reading.parameter, reading.axis
        if key not in keys:
            return
        if not reading.linear:
            unfit.add(reading.parameter)
        else:
            found.setdefault(key, Moments()).add(reading.values, reading.bias)

    watched = Watched(model, of, see)
    with forked(model):  # a shuffling DataLoader draws its order from the global random state
        for batch in [(data,)] if isinstance(data, Tensor) else batches(data):
            watched(suited(batch[0], model))
    unfit |= watched.elsewhere
    owners: dict[str, set[str]] = defaultdict(set)
    for (parameter, _), moments in found.items():
        for bias in moments.biases:
            owners[bias].add(parameter)
    shared = {bias for bias, of in owners.items() if len(of) > 1 or bias in watched.elsewhere}
    for moments in found.values():
        if moments.biases & shared:
            moments.forget_means()
    fit = {key: moments for key, moments in found.items() if key[0] not in unfit}
    _warn_of_few_rows(fit)
    return fit


def _warn_of_few_rows(found: Mapping[Key, Moments]) -> None:
    sizes = [(moments.rows, len(moments.mean), name) for (name, _), moments in found.items()]
    few = [size for size in sizes if size[0] < size[1]]
    if few:
        rows, width, name = min(few)
        more = f" and {len(few) - 1} other weights" if len(few) > 1 else ""
        warnings.warn(
            f"too few data for a least-squares repair of {name!r}{more}: it reads {width} values, and there are {rows} "
            "rows (samples, steps, places); the ridge decides what they leave open; give more samples",
            stacklevel=3,
        )


@torch.no_grad()
def _refitted(
    model: nn.Module, parameter: str, old: Tensor, axis: int, lost: list[int], moments: Moments, ridge: float
) -> Refit:
    """`parameter` when it reads the lost entries from the others."""
    lost_index = torch.tensor(lost)
    kept_index = torch.tensor([i for i in range(old.shape[axis]) if i not in set(lost)])
    matrix, intercept = moments.regression(kept_index, lost_index, ridge)
    reading = old.movedim(axis, -1)[..., lost_index.to(old.device)].double().cpu()
    new = old.clone()
    new.movedim(axis, -1)[..., kept_index.to(old.device)] += (reading @ matrix).to(old)
    biases = {name: tensor_of(model, name).detach() for name in moments.biases if moments.centred}
    shift = (reading @ intercept).flatten(1).sum(dim=1) if reading.dim() > 2 else reading @ intercept
    return Refit(parameter, new, {name: bias + shift.to(bias) for name, bias in biases.items()})


@torch.no_grad()
def put(model: nn.Module, name: str, value: Tensor) -> bool:
    """Gives a weight another value; False, and nothing changed, where a parametrisation cannot."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if not parametrize.is_parametrized(module, leaf):
        tensor_of(model, name).copy_(value)
        return True
    own = cast(Any, module.parametrizations)[leaf]
    before = {key: tensor.clone() for key, tensor in own.state_dict().items()}
    try:
        setattr(module, leaf, value)
        rounding = 16 * torch.finfo(value.dtype).eps
        if torch.allclose(tensor_of(model, name), value, rtol=rounding, atol=rounding * float(value.abs().max())):
            return True
    except (NotImplementedError, RuntimeError, ValueError):
        pass
    own.load_state_dict(before)
    return False
