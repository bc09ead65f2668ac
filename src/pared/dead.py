"""Units that pruned weights have left without readers or without inputs, and networks without them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pared.evaluation.cost import inputs_of
from pared.signals.blind import Key, Known, known_readings, same
from pared.surgery import Group, Plan, Slice, Structure, cut, trace
from pared.surgery.copies import copied, held_tensors
from pared.surgery.edit import tensor_of
from pared.surgery.structure import named_tensors
from pared.surgery.trace import without_autocast
from pared.types import Inputs

CHANGING = "its state changes with time, reads other states, or is seen for fewer than three steps"


@dataclass(frozen=True)
class DeadUnits:
    """Group -> its dead units, by what they die of; groups without any are left out.

    `unread`: nothing that reaches an output reads them. `constant`: they are a constant, which the biases of what reads
    them take over. `stays`: they depend on no input, but cannot go; unit -> why.
    """

    unread: Mapping[str, tuple[int, ...]]
    constant: Mapping[str, tuple[int, ...]]
    stays: Mapping[str, Mapping[int, str]]


def dead_units(model: nn.Module, example: Inputs) -> DeadUnits:
    """The units that `shed_dead_units` finds dead. Cost and Raises: as there."""
    return _examined(model, trace(model, example), example)[0]


def shed_dead_units(model: nn.Module, example: Inputs) -> tuple[nn.Module, Plan]:
    """A smaller network that computes the same, without the units that zeros in the weights have made useless.

    A unit goes where all weights that read it are zero, but for those of units that go as well; and where no input
    reaches it, so that it is a constant c, once the biases of what reads it have taken that over: b <- b + W c, summed
    over the kernel of a convolution. In evaluation mode the outputs stay as they are, to rounding, for inputs shaped
    like the example (of any number of samples; recurrent networks: of any length). A constant other than 0 stays where
    a reader has no bias of its own, pads with zeros, or is the recurrence (a state starts at zero); so does a recurrent
    unit whose state changes with time, as that of an LSTM or GRU does with any bias, and every unit of a group that is
    not exact. Each group keeps a unit. `dead_units(model, example).stays` says which stay and why. Chains of units go
    at once; where a cut lets a layer be followed better (a grouped convolution left with one channel), another call may
    find more.

    Returns the network and the plan of its cut, bound: empty where nothing goes. Masks come along by
    `carry_tensors(masks, model, small, Structure(plan.groups), plan)`.
    Cost: one trace, about three forward passes, two copies.
    Raises: StructureError as `trace`, for a network that cannot be followed or has no units.
    Source: Grabovoy, Bakhteev & Strijov (2019) leave them behind; the reference, section 0.
    """
    structure = trace(model, example)
    _, folded, dead = _examined(model, structure, example)
    plan = structure.bind(_plan(structure, dead))
    return cut(folded, structure, plan), plan


Tensors = dict[str, Tensor]
Units = dict[str, Tensor]
"""Group -> (width,) booleans."""


def _examined(model: nn.Module, structure: Structure, example: Inputs) -> tuple[DeadUnits, nn.Module, Units]:
    """What is dead, a copy in which constants are where their readers have them, and the dead units of that."""
    with without_autocast(model, inputs_of(example)):
        readings = _movable(model, known_readings(model, example))
    before = {name: tensor.detach() for name, tensor in named_tensors(model).items()}
    weights = dict(before)
    unread = dead = _unread(structure, weights)
    while True:
        live = _living(structure, weights, dead)
        found = {g.name: _constants(g, live, weights, readings, dead[g.name]) for g in structure if g.exact}
        moving = [structure[name] for name, (moves, _) in found.items() if moves.any()]
        if not moving:
            break
        for group in moving:
            weights |= _moved(group, weights, readings, found[group.name][0])
        dead = _unread(structure, weights)
    folded = copied(model)
    with torch.no_grad():
        for name in held_tensors(folded).keys() & weights.keys():
            if weights[name] is not before[name]:
                tensor_of(folded, name).copy_(weights[name])
    constant = {name: dead[name] & ~unread[name] for name in dead}
    stays = {name: why for name, (_, why) in found.items() if why}
    return DeadUnits(_numbers(unread), _numbers(constant), stays), folded, dead


def _numbers(units: Units) -> dict[str, tuple[int, ...]]:
    return {name: tuple(mine.nonzero().flatten().tolist()) for name, mine in units.items() if mine.any()}


def _movable(model: nn.Module, readings: Mapping[Key, Known]) -> dict[Key, Known]:
    """The readings; a weight that a parametrisation computes, or its bias, takes no constant over."""
    held = held_tensors(model)
    return {
        key: known
        if known.bias is None or {key[0], known.bias} <= held.keys()
        else replace(known, bias=None, why="with weights that are computed")
        for key, known in readings.items()
    }


def _unread(structure: Structure, weights: Mapping[str, Tensor]) -> Units:
    """The largest set of units that only units of the set read: a mask of all of them would change no output."""
    dead = {group.name: torch.full((group.width,), group.exact) for group in structure}
    while True:
        live, now = _living(structure, weights, dead), {}
        for group in structure:
            read = [_of_units(s, group, live[s.parameter]) for s in _readers(group)]
            now[group.name] = dead[group.name] & ~torch.stack([*read, torch.zeros_like(dead[group.name])]).any(dim=0)
        if all(torch.equal(now[name], mine) for name, mine in dead.items()):
            return dead
        dead = now


def _readers(group: Group) -> list[Slice]:
    return [s for s in group.slices if s.role == "out"]


def _living(structure: Structure, weights: Mapping[str, Tensor], dead: Units) -> Tensors:
    """The entries of the weights that read units: those that are not zero and not there to make a dead unit."""
    roles: dict[Key, set[str]] = defaultdict(set)
    for s in (s for group in structure for s in group.slices):
        roles[s.parameter, s.axis].add(s.role)
    live = {name: weights[name] != 0 for name in {s.parameter for group in structure for s in _readers(group)}}
    for group in structure:
        units = dead[group.name].nonzero().flatten().tolist()
        for s in group.slices:
            if units and s.parameter in live and roles[s.parameter, s.axis] == {"in"}:
                live[s.parameter].index_fill_(s.axis, _index(s, group, units, live[s.parameter]), False)
    return live


def _index(s: Slice, group: Group, units: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(s.indices(group.width, units), dtype=torch.long, device=like.device)


def _of_units(s: Slice, group: Group, entries: Tensor) -> Tensor:
    """(width,): whether any of the entries that a slice gives to a unit is True."""
    along = entries.movedim(s.axis, 0).flatten(1) if entries.dim() > 1 else entries[:, None]
    return _by_unit(s, group, along.any(dim=1)).any(dim=1)


def _by_unit(s: Slice, group: Group, values: Tensor) -> Tensor:
    """(width, blocks * inner) from values along the slice's axis."""
    mine = values[s.offset : s.offset + s.blocks * group.width * s.inner].reshape(s.blocks, group.width, s.inner)
    return mine.transpose(0, 1).flatten(1).cpu()


def _constants(
    group: Group, live: Tensors, weights: Mapping[str, Tensor], readings: Mapping[Key, Known], dead: Tensor
) -> tuple[Tensor, dict[int, str]]:
    """The units that are constants which their readers can take over, and why others that see no input cannot go."""
    seen, varies, reasons = torch.zeros_like(dead), torch.zeros_like(dead), dict[int, str]()

    def stay(units: Tensor, why: str) -> None:
        reasons.update(dict.fromkeys(units.nonzero().flatten().tolist(), why))

    for s in _readers(group):
        reads, known = _of_units(s, group, live[s.parameter]), readings.get((s.parameter, s.axis))
        seen |= reads
        if known is None:
            varies |= reads
            continue
        lowest, highest = _by_unit(s, group, known.lowest), _by_unit(s, group, known.highest)
        varies |= reads & lowest.isnan().any(dim=1)
        still, silent = same(lowest, highest).all(dim=1), ((lowest == 0) & (highest == 0)).all(dim=1)
        stay(reads & ~still, f"{s.parameter!r} reads it, and it is not the same at all steps and places")
        if known.bias is None:
            stay(reads & still & ~silent, f"{s.parameter!r} reads it {known.why}")
        if known.settled is not None:
            stay(~_by_unit(s, group, known.settled).all(dim=1), CHANGING)
    stay(_recurring(group, weights, readings), CHANGING)
    without_inputs = seen & ~varies & ~dead
    reasons = {unit: why for unit, why in reasons.items() if without_inputs[unit]}
    moves = without_inputs.clone()
    moves[torch.tensor(list(reasons), dtype=torch.long)] = False
    return moves, reasons


def _recurring(group: Group, weights: Mapping[str, Tensor], readings: Mapping[Key, Known]) -> Tensor:
    """(width,): whether a unit reads states, but for those of units that start at zero and so stay there for ever."""
    own = [s for s in group.slices if s.role == "in" and s.parameter.rpartition(".")[2].startswith("weight_hh")]
    resting = torch.full((group.width,), bool(own))
    for s in _readers(group):
        known = readings.get((s.parameter, s.axis))
        if known is not None and known.settled is not None:
            silent = known.settled & (known.lowest == 0) & (known.highest == 0)
            resting &= _by_unit(s, group, silent).all(dim=1)
    while True:
        reads = torch.zeros_like(resting)
        for s in own:
            entries = weights[s.parameter] != 0
            for r in (r for r in _readers(group) if r.parameter == s.parameter):
                index = _index(r, group, resting.nonzero().flatten().tolist(), entries)
                entries = entries.index_fill(r.axis, index, False)
            reads |= _of_units(s, group, entries)
        if not (resting & reads).any():
            return reads
        resting &= ~reads


def _moved(group: Group, weights: Mapping[str, Tensor], readings: Mapping[Key, Known], moves: Tensor) -> Tensors:
    """New weights that do not read these units, and biases that have taken over what they read of them."""
    new: Tensors = {}
    for s in _readers(group):
        weight = new.get(s.parameter, weights[s.parameter])
        index = _index(s, group, moves.nonzero().flatten().tolist(), weight)
        known = readings.get((s.parameter, s.axis))
        if known is not None and known.bias is not None:
            constants = known.lowest[index].double().nan_to_num(0.0)  # unknown only where the weight is zero
            added = (weight.movedim(s.axis, -1)[..., index].double() @ constants).reshape(len(weight), -1).sum(dim=1)
            bias = new.get(known.bias, weights[known.bias])
            new[known.bias] = (bias.double() + added).to(bias.dtype)
        new[s.parameter] = weight.index_fill(s.axis, index, 0.0)
    return new


def _plan(structure: Structure, dead: Units) -> Plan:
    """Keeps what is not dead, a unit of each group, and as many as PyTorch needs."""
    counts = {name: max(1, int((~mine).sum())) for name, mine in dead.items()}
    for names in structure.equal:
        counts |= dict.fromkeys(names, max(counts[name] for name in names))
    for cells, projected in structure.projections():
        if cells.left(counts) == projected.left(counts):
            one = next(name for name in cells.each if counts[name] < structure[name].width)
            counts |= dict.fromkeys(structure.alike(one), counts[one] + 1)
    order = {
        name: mine.to(torch.int8).argsort(stable=True).tolist() for name, mine in dead.items()
    }  # living ones first
    return Plan({name: tuple(order[name][:count]) for name, count in counts.items() if count < structure[name].width})
