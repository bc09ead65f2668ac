"""Stochastic depth: residual blocks that training skips at random."""

import torch
from torch import Tensor, nn


def survivals(count: int, last: float = 0.5) -> tuple[float, ...]:
    """The linear rule: block l of `count` survives with probability 1 - (l / count) (1 - last).

    Source: Huang et al., Deep Networks with Stochastic Depth (2016).
    """
    if count < 1 or not 0 <= last <= 1:
        raise ValueError(f"at least one block and a probability from 0 to 1, got {count} and {last}")
    return tuple(1 - (block / count) * (1 - last) for block in range(1, count + 1))


class StochasticDepth(nn.Module):
    """A residual block that a training batch passes by with probability 1 - survival: h = x + b block(x).

    b ~ Bernoulli(survival) for the whole batch, so that a skipped block costs nothing; else h = x + survival block(x).
    `block` keeps its input's shape. Source: Huang et al., Deep Networks with Stochastic Depth (2016).
    """

    def __init__(self, block: nn.Module, survival: float = 0.5) -> None:
        super().__init__()
        if not 0 <= survival <= 1:
            raise ValueError(f"survival is a probability from 0 to 1, got {survival}")
        self.block, self.survival = block, survival

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            out: Tensor = x + self.survival * self.block(x)
            return out
        return x + self.block(x) if torch.rand(()).item() < self.survival else x
