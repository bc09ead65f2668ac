"""Growing: `insert` adds units that change nothing yet, `widen` copies units that are there (Net2Wider)."""

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Generator, Tensor, nn

from pared.models.attention import Attention
from pared.surgery.edit import replace_all, resize_all, tensor_of
from pared.surgery.origins import Origin, along, moved, origins, settled, templates
from pared.surgery.resize import Loss
from pared.surgery.slices import Group, StructureError
from pared.surgery.structure import Structure, check_fits

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
READERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase)
NEUTRAL = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}

Fill = Callable[[str, Tensor, Mapping[int, Origin]], Tensor]


def insert(model: nn.Module, structure: Structure, counts: Mapping[str, int], seed: int = 0) -> nn.Module:
    """A copy with `counts[group]` new units in each named group, which computes what the model computes.

    New units stand at the end of their group (of every gate, of every block). What reads them is zero, so that
    `insert(model, structure, counts)(x) == model(x)` to rounding, and gets a gradient from the first step on. What
    makes them is drawn: weights from N(0, mean square of the weights that make the group's other units), biases and
    other vectors from N(mean, variance) of theirs, gate by gate; normalisation starts neutral. Weights that make one
    new unit and read another are zero. Where the same weights make and read a unit, as in a tied autoencoder, the new
    ones are zero, its bias is positive so that it learns, and a warning says so where there is none.

    `nn.MultiheadAttention` that grows heads or their width becomes `pared.models.Attention`; its scale stays. The draws
    follow from `seed` alone. Cost: one copy of the model. Raises StructureError for groups that are not exact (their
    units are mixed, so that even a silent one would be heard), for unequal layers of one module, and for counts that do
    not fit. Source: Philipp & Carbonell (2018), zero units; exact in LSTM, GRU and RNN as well.
    """
    units = templates(structure, counts)
    check_fits(model, structure)
    _refuse_inexact(structure, units)
    starved = {s.parameter for name in units if _starved(model, structure[name]) for s in structure[name].slices}
    generator = Generator().manual_seed(seed)

    def fill(name: str, old: Tensor, axes: Mapping[int, Origin]) -> Tensor:
        new = _drawn(old, axes, *_holder(model, name), generator)
        if name in starved and old.dim() == 1:
            for axis, origin in axes.items():
                fresh = along(origin.new, axis, new)
                new = torch.where(fresh, new.abs().clamp_min(0.1), new)
        for axis, origin in axes.items():
            new = new.masked_fill(along(origin.silent, axis, new), 0.0)
        return new

    return _rebuilt(model, structure, units, fill)


def widen(
    model: nn.Module, structure: Structure, copies: Mapping[str, Sequence[int]], noise: float = 0.0, seed: int = 0
) -> nn.Module:
    """A copy in which new unit k of a group is a copy of unit `copies[group][k]`, and which computes the same.

    What reads a unit of which there are now c is divided by c, in the original and in its copies; what makes it is
    copied. For an LSTM: W_hh'[a, b] = W_hh[g(a), g(b)] / count(g(b)) in every gate. Without `noise` the outputs agree
    to rounding, but copies learn alike for ever; `noise` adds to the weights that make a copy N(0, (noise * r)^2), r
    the root mean square of the weight's entries, from `seed` alone.

    Cost: one copy of the model. Raises StructureError as `insert` does, where the same weights make and read a unit (a
    tied autoencoder), because they cannot be whole and divided at once (the keys of attention can), and where another
    than a linear, convolutional or recurrent layer reads it. ValueError for copies that are not lists of units.
    Source: Chen, Goodfellow & Shlens (2016), Net2Net, section 2.2.
    """
    if noise < 0:
        raise ValueError(f"noise is a relative standard deviation and cannot be negative, got {noise}")
    if numbers := {name: each for name, each in copies.items() if isinstance(each, int)}:
        raise ValueError(f"name the units that are to be copied, such as {{'0': [0, 2]}}; got {numbers}, see insert")
    units = templates(structure, copies)
    check_fits(model, structure)
    _refuse_inexact(structure, units)
    for name in units:
        _refuse_indivisible(model, structure[name])
    generator = Generator().manual_seed(seed)

    def fill(name: str, old: Tensor, axes: Mapping[int, Origin]) -> Tensor:
        new = moved(old, axes)
        for axis, origin in axes.items():
            share = along(origin.share, axis, new)
            new = new * share.to(new.dtype) if (origin.share != 1).any() else new
        owner, _ = _holder(model, name)
        return _noisy(new, old, axes, noise, generator) if noise and not isinstance(owner, NORMS) else new

    return _rebuilt(model, structure, units, fill)


def _rebuilt(model: nn.Module, structure: Structure, units: Mapping[str, Sequence[int]], fill: Fill) -> nn.Module:
    """A copy whose tensors `fill` made larger, in layers of the right sizes."""
    large = copy.deepcopy(model)
    tensors = {}
    for name, axes in origins(structure, units).items():
        old = tensor_of(large, name).detach()
        whole = {axis: origin.over(old.shape[axis]) for axis, origin in axes.items()}
        tensors[name] = fill(name, old, whole)
    replace_all(large, tensors)
    gains = [Loss(s, structure[name].width, -len(new)) for name, new in units.items() for s in structure[name].slices]
    return resize_all(large, gains)


def _drawn(old: Tensor, axes: Mapping[int, Origin], owner: nn.Module, leaf: str, generator: Generator) -> Tensor:
    """The tensor with new entries drawn in the manner of those that do the same for other units."""
    new = moved(old, axes).clone()
    for axis, origin in axes.items():
        for number, like in enumerate(origin.like):
            places = torch.as_tensor(np.flatnonzero(origin.peers == number), device=old.device)
            peers = old.index_select(axis, torch.as_tensor(like, device=old.device))
            shape = list(new.shape)
            shape[axis] = len(places)
            new.index_copy_(axis, places, _fresh(peers, shape, owner, leaf, generator))
    if isinstance(owner, nn.Embedding) and owner.padding_idx is not None and not old[owner.padding_idx].any():
        new[owner.padding_idx] = 0.0
    return new


def _fresh(peers: Tensor, shape: Sequence[int], owner: nn.Module, leaf: str, generator: Generator) -> Tensor:
    values = peers.double()
    if isinstance(owner, NORMS):
        return peers.new_full(shape, NEUTRAL[leaf])
    if leaf in owner._buffers:
        return peers.new_full(shape, values.mean().to(peers.dtype).item())
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64).to(peers.device)
    if peers.dim() == 1:
        drawn = drawn * values.std(correction=0) + values.mean()
    else:
        size = values.square().mean().sqrt()
        drawn = drawn * (size if size > 0 else math.sqrt(peers.shape[0] / peers.numel()))
    return drawn.to(peers.dtype)


def _noisy(new: Tensor, old: Tensor, axes: Mapping[int, Origin], noise: float, generator: Generator) -> Tensor:
    size = old.double().square().mean().sqrt().item()
    made = torch.zeros(new.shape, dtype=torch.bool, device=new.device)
    for axis, origin in axes.items():
        made |= along(origin.new & ~origin.silent, axis, new)
    drawn = torch.randn(new.shape, generator=generator, dtype=torch.float64).to(new)
    return torch.where(made, new + noise * size * drawn, new)


def _holder(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter or buffer, and its name there."""
    path, _, leaf = name.rpartition(".")
    return model.get_submodule(path), leaf


def _refuse_inexact(structure: Structure, units: Mapping[str, Sequence[int]]) -> None:
    for name in units:
        if not structure[name].exact:
            raise StructureError(
                f"group {name!r} cannot grow exactly: something mixes its units, as a normalisation over them or a "
                "softmax does, so that even units that nothing reads would change the others; grow other groups "
                "(structure.explain() names the place)"
            )


def _both(group: Group) -> set[tuple[str, int, int]]:
    """The places whose entries make units and read them."""
    found: dict[tuple[str, int, int], set[str]] = {}
    for s in group.slices:
        found.setdefault((s.parameter, s.axis, s.offset), set()).add(s.role)
    return {place for place, roles in found.items() if len(roles) > 1}


def _starved(model: nn.Module, group: Group) -> bool:
    """Whether all weights that make the units read them too, so that new ones start at zero; warns if all do."""
    both = _both(group)
    shapes = dict(model.named_parameters(remove_duplicate=False))
    makers = {
        (s.parameter, s.axis, s.offset): shapes[s.parameter].dim() if s.parameter in shapes else 2
        for s in settled(group).slices
        if s.role == "in"
    }
    if not both or any(dims > 1 and place not in both for place, dims in makers.items()):
        return False
    if not makers.keys() - both:
        biased = any(s.role == "out" and s.parameter in shapes and shapes[s.parameter].dim() == 1 for s in group.slices)
        other = "leave the units to layers" if biased else "add a bias"
        warnings.warn(
            f"the weights that make the units of {group.name!r} are those that silence them: new units start at zero "
            f"and may never learn; let another group grow, or {other}",
            stacklevel=4,
        )
    return True


def _refuse_indivisible(model: nn.Module, group: Group) -> None:
    """What reads a unit can be shared out among copies only where it is multiplied and summed, as in a linear layer."""
    both = _both(group)
    for s in group.slices:
        owner, _ = _holder(model, s.parameter)
        if s.role == "in" or isinstance(owner, (nn.MultiheadAttention, Attention)):
            continue
        if (s.parameter, s.axis, s.offset) in both:
            raise StructureError(
                f"axis {s.axis} of {s.parameter!r} both makes the units of {group.name!r} and reads them, so a copy's "
                "weights would have to be whole and divided at once; use insert, or untie the weights"
            )
        if not isinstance(owner, READERS):
            raise StructureError(
                f"{s.parameter!r}, which silences the units of {group.name!r}, belongs to a {type(owner).__name__}, "
                "and pared cannot tell whether its half would make half of a unit; use insert, or let a linear layer, "
                "a convolution or a recurrent layer read them"
            )
