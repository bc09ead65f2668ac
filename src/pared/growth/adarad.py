"""AdaRad: each fan's length follows the gradient as it is, its direction turns by normalised steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pared.growth.fans import Fans

BETA, EPS = 0.1, 1e-8
"""How fast running means follow, and what keeps still fans from turning by rounding; the paper leaves both open."""


@dataclass(frozen=True)
class AdaRad:
    """What is remembered: running means of ||phi||^2 and their weights, (fans,), and the largest ever seen of both."""

    means: Tensor
    weights: Tensor
    top_mean: float = 0.0
    top_weight: float = 0.0

    @staticmethod
    def fresh(of: Fans, dtype: torch.dtype = torch.float32) -> "AdaRad":
        """Nothing seen yet."""
        return AdaRad(torch.zeros(of.count, dtype=dtype), torch.zeros(of.count, dtype=dtype))


def adarad(
    state: AdaRad, weights: Tensor, gradient: Tensor, of: Fans, radial: float, angular: float
) -> tuple[Tensor, AdaRad]:  # fmt: skip
    """One step of all fans' weights (weights,), given the loss gradient there; weights of no fan stay.

    For each fan w = n u (||u|| = 1), with gradient g, r = (g . u) u and phi = g - r:

        m <- (1 - beta) m + beta ||phi||^2,     c <- (1 - beta) c + beta
        theta = angular ||phi|| sqrt(max m / max c) / sqrt(m / c + eps)       maxima over all fans and steps
        w <- (n - radial g . u) (cos(theta) u - sin(theta) phi / ||phi||)

    so that directions learn alike whatever their gradients' size, while lengths keep the scale of the penalty that
    shrinks them (`shrink`, by radial lambda). A fan of zeros stays one. Cost: some 20 operations a weight.
    Source: Philipp & Carbonell (2017), section 3.1; beta = 0.1 and eps = 1e-8 are ours.
    """
    size = of.norms(weights)
    u = weights / _each(size.clamp_min(torch.finfo(size.dtype).tiny), of)
    along = of.total(gradient * u)[:-1]
    phi = gradient - _each(along, of) * u
    phi = phi - _each(of.total(phi * u)[:-1], of) * u  # once more, for rounding
    square = torch.where(size > 0, of.total(phi.square())[:-1], 0)
    means, seen = (1 - BETA) * state.means + BETA * square, (1 - BETA) * state.weights + BETA
    top = max(state.top_mean, float(means.max())), max(state.top_weight, float(seen.max()))
    angle = angular * (square * (top[0] / top[1]) / (means / seen + EPS)).sqrt()
    turn = angle.sin() / square.sqrt().clamp_min(torch.finfo(size.dtype).tiny)
    turned = _each(size - radial * along, of) * (_each(angle.cos(), of) * u - _each(turn, of) * phi)
    return torch.where(of.inside, turned, weights), AdaRad(means, seen, *top)


def _each(values: Tensor, of: Fans) -> Tensor:
    """(weights,): the value of each weight's fan; 1 for weights of none."""
    return torch.cat([values, values.new_ones(1)])[of.owner]


def rearranged(state: AdaRad, before: Fans, kept: Mapping[str, Sequence[int]], gained: Mapping[str, int]) -> AdaRad:
    """The state after some units of groups went and others came, at the end of their groups and with nothing seen."""
    fresh = len(state.means)
    order: list[int] = []
    for name, own in before.units.items():
        order += [own[unit] for unit in kept.get(name, range(len(own)))] + [fresh] * gained.get(name, 0)
    order += range(sum(map(len, before.units.values())), before.count)
    means, weights = (torch.cat([part, part.new_zeros(1)])[order] for part in (state.means, state.weights))
    return AdaRad(means, weights, state.top_mean, state.top_weight)
