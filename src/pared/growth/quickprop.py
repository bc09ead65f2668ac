"""Quickprop: each weight on its own jumps to the minimum of a parabola through its last two slopes."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Quickprop:
    """What one weight tensor remembers: its last step and slope, shaped like it."""

    step: Tensor
    slope: Tensor

    @staticmethod
    def fresh(weights: Tensor) -> "Quickprop":
        """No step yet."""
        return Quickprop(torch.zeros_like(weights), torch.zeros_like(weights))


def quickprop(state: Quickprop, slope: Tensor, rate: float, mu: float = 2.0) -> Quickprop:
    """The next step, to be added to the weights, from the slope dE/dw (weight decay included).

    With last step d, last slope p, slope s and shrink = mu / (1 + mu), for d > 0 (d < 0 mirrored):

        (-rate s if s < 0 else 0) + (mu d if s <= shrink p else d s / (p - s)),    and -rate s where d = 0.

    Source: Fahlman (1988); signs as in cascor1.c of CMU. Cost: a few operations a weight.
    """
    d, p = state.step, state.slope
    way = d.sign()
    ahead = slope * way  # negative while the error still falls in the direction of the last step
    accelerates = ahead <= mu / (1 + mu) * p * way
    gap = torch.where(accelerates, torch.ones_like(p), p - slope)
    jump = torch.where(accelerates, mu * d, d * slope / gap)
    downhill = torch.where((ahead < 0) | (d == 0), -rate * slope, torch.zeros_like(slope))
    return Quickprop(downhill + jump, slope)
