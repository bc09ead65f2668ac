"""A mixture of experts: several networks read the same, and a gate says how much each of them counts."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid


class Experts(nn.Module):
    """Experts f_m and a gate: y = sum over m of p_m(x) f_m(x), with p the softmax of a linear map of the gate's state.

    `experts` and `gate` are any modules, recurrent ones for sequences; the gate gives a state (samples, `features`).
    An expert may be split in two (`split`): both are then copies of it that share p_m as sigmoid(s) and sigmoid(-s),
    s a linear map of the gate's state, so that the mixture is what it was.

    x -> (samples, outputs) in evaluation; in training the parts of it that `MixtureLoss` reads: all answers (samples,
    experts, outputs) and ln p (samples, experts).
    Source: Jacobs et al., Adaptive Mixtures of Local Experts (1991); with recurrent ones Chazan et al. (2017).
    """

    def __init__(self, experts: Sequence[nn.Module], gate: nn.Module, features: int, seed: int | None = None) -> None:
        super().__init__()
        if not experts:
            raise ValueError("a mixture needs at least one expert")
        self.experts, self.gate = nn.ModuleList(experts), gate
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            self.shares = nn.Linear(features, len(experts))
        self.splits, self.parents = nn.ModuleList(), list[int]()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        answers, log_shares = self.parts(x)
        if self.training:
            return answers, log_shares
        return (log_shares.exp()[..., None] * answers).sum(1)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """All answers (samples, experts, outputs) and ln p (samples, experts)."""
        return torch.stack([expert(x) for expert in self.experts], 1), self.log_shares(self.gate(x))

    def log_shares(self, state: Tensor) -> Tensor:
        """ln p (samples, experts) from states of the gate (samples, features)."""
        shares = list(self.shares(state).log_softmax(1).unbind(1))
        for parent, split in zip(self.parents, self.splits, strict=True):
            side = split(state)[:, 0]
            shares.append(shares[parent] + logsigmoid(-side))
            shares[parent] = shares[parent] + logsigmoid(side)
        return torch.stack(shares, 1)

    def split(self, expert: int, weight: Tensor, bias: Tensor) -> "Experts":
        """A copy with one more expert: a copy of `expert`, which keeps sigmoid(weight . state + bias) of its share."""
        if not 0 <= expert < len(self.experts):
            raise ValueError(f"there are experts 0 to {len(self.experts) - 1}, got {expert}")
        new = copy.deepcopy(self)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            side = nn.Linear(self.shares.in_features, 1).to(weight)
            side.weight.copy_(weight[None])
            side.bias.copy_(bias)
        new.splits.append(side)
        new.parents.append(expert)
        new.experts.append(copy.deepcopy(self.experts[expert]))
        return new
