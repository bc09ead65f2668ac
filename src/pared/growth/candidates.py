"""Candidate units of a cascade, all in one matrix product: what they answer, how good they are, their slopes."""

from typing import Literal

import torch
from torch import Tensor

Activation = Literal["sigmoid", "gaussian"]
Objective = Literal["covariance", "residual"]


def respond(seen: Tensor, weights: Tensor, activation: Activation, recurrent: bool) -> Tensor:
    """Values of units (..., units) that read `seen` (..., incoming) by `weights` (incoming, and a loop, units)."""
    if not recurrent:
        return activate(seen @ weights, activation)
    net, loop = seen @ weights[:-1], weights[-1]
    value, values = torch.zeros_like(net[:, 0]), []
    for t in range(net.shape[1]):
        value = activate(net[:, t] + value * loop, activation)
        values.append(value)
    return torch.stack(values, 1)


def activate(net: Tensor, activation: Activation) -> Tensor:
    """A sigmoid from -0.5 to 0.5, or a Gaussian."""
    return net.sigmoid() - 0.5 if activation == "sigmoid" else (-net.square() / 2).exp()


def slopes(value: Tensor, net: Tensor, activation: Activation) -> Tensor:
    """The derivative of `activate` at `net`, where it is `value`."""
    return 0.25 - value.square() if activation == "sigmoid" else -net * value


def pulled(seen: Tensor, weights: Tensor, wish: Tensor, activation: Activation, recurrent: bool) -> Tensor:
    """d sum(wish * values) / d weights of units, (incoming, units), `wish` (..., units).

    Without loops sum_p I_p f'_p wish_p. With them d(t) = f'(t) (wish(t) + w_s d(t + 1)) backwards in time, which sums
    to what Fahlman's forward recursion of dV(t)/dw does, at a cost that does not grow with the weights.
    """
    values = respond(seen, weights, activation, recurrent)
    if not recurrent:
        along = wish * slopes(values, seen @ weights, activation)
        return seen.T @ along
    before = torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], 1)
    slope = slopes(values, seen @ weights[:-1] + before * weights[-1], activation)
    later, back = torch.zeros_like(wish[:, 0]), []
    for t in reversed(range(wish.shape[1])):
        later = slope[:, t] * (wish[:, t] + weights[-1] * later)
        back.append(later)
    along = torch.stack(back[::-1], 1)
    loops = (along * before).sum((0, 1))
    return torch.cat([torch.einsum("nti,ntu->iu", seen, along), loops[None]])


def score(values: Tensor, errors: Tensor, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    """How well units (cases, units) follow errors (cases, outputs): S (units), output weights, dS/dvalues.

    With cov = sum_p (v - mean v)(E - mean E): "covariance" S = sum_o |cov_o| / sum E^2, weights -cov / sum E^2;
    "residual" is what a unit takes away with its best output weights (Cascade-2, these solved instead of trained),
    S = sum_o cov_o^2 / sum_p (v - mean v)^2 / sum E^2, weights -cov / sum (v - mean v)^2.
    Sources: Fahlman & Lebiere (1990); Prechelt (1997) for Cascade-2.
    """
    left, v = errors - errors.mean(0), values - values.mean(0)
    total, cov = errors.square().sum().clamp_min(1e-300), v.T @ left
    if objective == "covariance":
        return cov.abs().sum(1) / total, -cov / total, left @ cov.sign().T / total
    spread = v.square().sum(0).clamp_min(1e-12)
    taken = cov.square().sum(1) / spread
    wish = 2 * (left @ cov.T - v * taken) / spread / total
    return taken / total, -cov / spread[:, None], wish
