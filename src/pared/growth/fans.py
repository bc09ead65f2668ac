"""Fans: all the weights that make a unit, or all that read it, as one vector; their norms, and their shrinkage."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pared.growth.entries import places_of
from pared.surgery import Structure, StructureError
from pared.surgery.slices import Role, check_role


@dataclass(frozen=True)
class Fans:
    """Which fan each weight belongs to.

    `owner` (weights,), in the order of `model.parameters()`, numbers the fans; weights of no fan have the number
    `count`. The fans `units[group]` are those of a group's units, in order; the others belong to outputs (fan-in) or
    inputs (fan-out) of the network, which stay.
    """

    owner: Tensor
    units: Mapping[str, range]
    count: int

    @property
    def inside(self) -> Tensor:
        """(weights,): whether a weight belongs to any fan."""
        return self.owner < self.count

    def total(self, values: Tensor) -> Tensor:
        """(count + 1,): the sums of (weights,) over fans; the last is that of weights of none."""
        return values.new_zeros(self.count + 1).index_add_(0, self.owner, values)

    def norms(self, weights: Tensor, p: float = 2.0) -> Tensor:
        """(count,): ||w||_p of each fan."""
        return self.total(weights.abs() ** p)[:-1] ** (1 / p)


def fans(model: nn.Module, structure: Structure, side: Role = "in") -> Fans:
    """The fan-ins ("in") or fan-outs ("out") of all exact groups, and those of outputs or inputs.

    The fan-in of a unit is all that makes it: its rows and biases, of all gates of a recurrent layer and of all layers
    that move together; the fan-out is all that reads it. Outputs have fan-ins in weights that read units and make none
    of a group, inputs fan-outs in weights that make units and read none: all entries at one place of the first axis
    that is not the units'. Frozen weights belong to no fan. Raises StructureError for weights that a parametrisation
    computes. Cost: linear in the weights.
    """
    check_role(side)
    named = dict(model.named_parameters(remove_duplicate=False))
    starts, whole = dict[int, int](), 0
    for parameter in model.parameters():
        starts[id(parameter)], whole = whole, whole + parameter.numel()
    owner, units, count = torch.full((whole,), -1), dict[str, range](), 0
    for group in structure:
        if group.exact:
            for name, where in places_of(model, group, range(group.width), side).items():
                if name not in named:
                    raise StructureError(f"{name!r} is computed by a parametrisation; remove that to give it a fan")
                numbers = torch.arange(count, count + group.width)[:, None].expand_as(where)
                owner[starts[id(named[name])] + where] = numbers
            units[group.name] = range(count, count := count + group.width)
    for name, axis in _ends(structure, side).items():
        if name in named and named[name].dim() > axis:
            part = owner[starts[id(named[name])] :][: named[name].numel()].view(named[name].shape).movedim(axis, 0)
            part.copy_(torch.arange(count, count := count + len(part)).view(-1, *(1,) * (part.dim() - 1)))
    for parameter in model.parameters():
        if not parameter.requires_grad:
            owner[starts[id(parameter)] :][: parameter.numel()] = -1
    return Fans(torch.where(owner < 0, count, owner), units, count)


def _ends(structure: Structure, side: Role) -> dict[str, int]:
    """Parameters on the other side alone of units, and their first axis that is not the units'."""
    sliced = [(s, group.exact) for group in structure for s in group.slices]
    own = {s.parameter for s, exact in sliced if s.role == side and exact}
    axes: dict[str, set[int]] = {}
    for s, exact in sliced:
        if s.role != side and exact and s.parameter not in own:
            axes.setdefault(s.parameter, set()).add(s.axis)
    return {name: 0 if 0 not in taken else 1 for name, taken in axes.items()}


def fan_penalty(model: nn.Module, structure: Structure, side: Role = "in", p: float = 2.0) -> Tensor:
    """Omega = sum over fans ||w||_p, a scalar with its gradient: what nonparametric networks add to the loss, times
    lambda; 1 <= p < infinity.

    With p = 2 whole fans become zero, with p = 1 single weights, by `shrink` and not by its gradient, which never
    arrives there. Raises ValueError for p below 1. Source: Philipp & Carbonell (2017), section 2.
    """
    check_norm(p)
    found, weights = fans(model, structure, side), nn.utils.parameters_to_vector(model.parameters())
    sums = found.total(weights.abs() ** p)[:-1]
    return (sums[sums > 0] ** (1 / p)).sum()


def shrink(weights: Tensor, of: Fans, step: float, p: float = 2.0) -> Tensor:
    """argmin_v ||v - w||^2 / 2 + step ||v||_p for each fan; weights (weights,) of no fan stay.

    p = 2: w max(0, 1 - step / ||w||); p = 1: sign(w) max(0, |w| - step). Other p: zero where ||w||_q <= step,
    1/p + 1/q = 1, else v with v_i + step (v_i / ||v||_p)^(p - 1) = w_i for w_i > 0, by bisection. Cost: a few
    operations a weight, for other p a thousand times more. Source: Parikh & Boyd, Proximal algorithms
    (2014), section 6.5.
    """
    check_norm(p)
    if p == 1:
        smaller = weights.sign() * (weights.abs() - step).clamp_min(0)
    elif p == 2:
        sizes = torch.cat([of.norms(weights), weights.new_ones(1)])
        smaller = weights * (1 - step / sizes.clamp_min(torch.finfo(weights.dtype).tiny)).clamp_min(0)[of.owner]
    else:
        smaller = weights.sign() * _shrunk(weights.abs(), of, step, p)
    return torch.where(of.inside, smaller, weights)


def _shrunk(sizes: Tensor, of: Fans, step: float, p: float) -> Tensor:
    """`shrink` of weights that are not negative: bisection for the norm r of v, and for v within it."""
    stays = of.norms(sizes, p / (p - 1)) > step
    low, high = torch.zeros_like(stays, dtype=sizes.dtype), of.norms(sizes, p)
    for _ in range(HALVINGS):
        r = (low + high) / 2
        v = _balanced(sizes, torch.cat([step / r ** (p - 1), r.new_zeros(1)])[of.owner], p)
        above = of.norms(v, p) > r
        low, high = torch.where(above, r, low), torch.where(above, high, r)
    return torch.where(torch.cat([stays, stays.new_ones(1)])[of.owner], v, torch.zeros_like(v))


def _balanced(sizes: Tensor, pull: Tensor, p: float) -> Tensor:
    """v with v + pull v^(p - 1) = sizes, by bisection."""
    low, high = torch.zeros_like(sizes), sizes
    for _ in range(HALVINGS):
        v = (low + high) / 2
        above = v + pull * v ** (p - 1) > sizes
        low, high = torch.where(above, low, v), torch.where(above, v, high)
    return (low + high) / 2


HALVINGS = 40


def check_norm(p: float) -> None:
    """Raises ValueError for what is not the p of a norm that nonparametric networks may be penalised by."""
    if not 1 <= p < math.inf:
        raise ValueError(f"the p of the norm must be at least 1 and finite, got {p}; take 2 for whole units")
