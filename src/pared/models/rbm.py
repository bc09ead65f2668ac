"""Restricted Boltzmann machines: networks of two-valued units that learn a distribution instead of an answer."""

import math

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear, softplus

STATES = 20
"""Up to how many visible units all states are gone through."""


class RBM(nn.Module):
    """P(v) = exp(-F(v)) / Z over v of zeros and ones, F(v) = -v c - sum_i softplus(W_i v + b_i) the free energy.

    E(v, h) = -v c - h (W v + b), F(v) = -log sum_h exp(-E(v, h)). v (samples, visible) -> F(v) (samples). `weight` W is
    (hidden, visible), `bias` b of the hidden units, `visible_bias` c. Weights are drawn from N(0, 0.01^2), from
    `seed`, which leaves the global random state alone; biases are 0. Raises ValueError for sizes below 1.
    Source: Smolensky (1986); Hinton, Training products of experts (2002).
    """

    def __init__(self, visible: int, hidden: int, seed: int = 0) -> None:
        super().__init__()
        if min(visible, hidden) < 1:
            raise ValueError(f"a machine has at least 1 visible and 1 hidden unit, got {visible} and {hidden}")
        generator = Generator().manual_seed(seed)
        self.weight = nn.Parameter(0.01 * torch.randn(hidden, visible, generator=generator))
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.visible_bias = nn.Parameter(torch.zeros(visible))

    def forward(self, v: Tensor) -> Tensor:
        return -v @ self.visible_bias - softplus(linear(v, self.weight, self.bias)).sum(-1)

    def sample_hidden(self, v: Tensor, generator: Generator) -> Tensor:
        """h ~ P(h | v), P(h_i = 1 | v) = sigmoid(W_i v + b_i)."""
        return _ones(linear(v, self.weight, self.bias).sigmoid(), generator)

    def sample_visible(self, h: Tensor, generator: Generator) -> Tensor:
        """v ~ P(v | h), P(v_j = 1 | h) = sigmoid(h W_.j + c_j)."""
        return _ones((h @ self.weight + self.visible_bias).sigmoid(), generator)


class OrderedRBM(RBM):
    """An RBM whose hidden units stand in a row and are paid for: of `hidden` units the first z are at work.

    E(v, h, z) = -v c - sum_(i <= z) (h_i (W_i v + b_i) - beta softplus(b_i)), z = 1, 2, ... and so
    F(v) = -v c - log sum_z exp(e_z), e_z = sum_(i <= z) (softplus(W_i v + b_i) - beta softplus(b_i)).

    With `endless` there are units for ever, those beyond the last having no weights: each adds (1 - beta) ln 2 to e, so
    that all z from the last unit on have together exp(e_last) / (1 - 2^(1 - beta)); finite for beta > 1. Otherwise z
    ends with the last unit. Where pixels are on in unlike shares, set `visible_bias` to their log-odds: the first
    unit does that work else. Raises ValueError as `RBM` and for endless units with beta up to 1.
    Source: Cote & Larochelle, An infinite restricted Boltzmann machine (2016); the gradient of b holds that of the
    penalty, which is missing in its first version.
    """

    def __init__(self, visible: int, hidden: int = 1, beta: float = 1.25, endless: bool = True, seed: int = 0) -> None:
        super().__init__(visible, hidden, seed)
        if endless and beta <= 1:
            raise ValueError(f"endless units need a penalty beta above 1, got {beta}")
        self.beta, self.endless = beta, endless

    def forward(self, v: Tensor) -> Tensor:
        return -v @ self.visible_bias - self.logits(v).logsumexp(-1)

    def logits(self, v: Tensor) -> Tensor:
        """(samples, hidden): log P(z | v) but for a constant; the last stands for all z from the last unit on."""
        gains = softplus(linear(v, self.weight, self.bias)) - self.beta * softplus(self.bias)
        e = gains.cumsum(-1)
        if not self.endless:
            return e
        rest = -math.log1p(-(2 ** (1 - self.beta)))
        return torch.cat([e[..., :-1], e[..., -1:] + rest], -1)

    def sample_hidden(self, v: Tensor, generator: Generator) -> Tensor:
        """z ~ P(z | v), then h_i ~ P(h_i | v) for i <= z, and zeros."""
        shares = self.logits(v).softmax(-1)
        z = torch.multinomial(shares, 1, generator=generator)
        return super().sample_hidden(v, generator) * (torch.arange(shares.shape[-1]) <= z)


def gibbs(model: RBM, v: Tensor, steps: int, generator: Generator) -> Tensor:
    """v after so many rounds of h ~ P(h | v), v ~ P(v | h); P(v) stays as it is under them."""
    with torch.no_grad():
        for _ in range(steps):
            v = model.sample_visible(model.sample_hidden(v, generator), generator)
    return v


def states(count: int) -> Tensor:
    """All vectors of `count` zeros and ones, (2^count, count), in float64. Raises ValueError for more than `STATES`."""
    if not 1 <= count <= STATES:
        raise ValueError(f"all states can be gone through for 1 to {STATES} units, got {count}; estimate them instead")
    places = 2 ** torch.arange(count - 1, -1, -1)
    return (torch.arange(2**count)[:, None] // places % 2).double()


def log_partition(model: RBM, chunk: int = 8192) -> Tensor:
    """log Z = log sum_v exp(-F(v)) over all v: exact and differentiable, for up to `STATES` visible units.

    Cost: 2^visible free energies. Raises ValueError for more visible units.
    """
    every = states(len(model.visible_bias)).to(model.weight)
    return torch.cat([-model(part) for part in torch.split(every, chunk)]).logsumexp(0)


def log_likelihood(model: RBM, v: Tensor) -> Tensor:
    """log P(v) (samples), in nats: -F(v) - log Z. Cost and refusals: `log_partition`."""
    out: Tensor = -model(v) - log_partition(model)
    return out


def _ones(probabilities: Tensor, generator: Generator) -> Tensor:
    return torch.bernoulli(probabilities, generator=generator)
