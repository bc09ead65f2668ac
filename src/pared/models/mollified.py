"""Mollified layers: easy to train while `p` is 1, the plain layer once `p` is 0; bind `p` to a falling schedule."""

import torch
from torch import Tensor, nn


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a probability from 0 to 1, got {value}")
    return value


class Mollified(nn.Module):
    """A layer that lets each unit pass its input instead with probability p: h = pi x + (1 - pi) layer(x).

    pi ~ Bernoulli(p) for each sample and unit in training; else h = p x + (1 - p) layer(x). p = 1 is the identity,
    p = 0 the layer alone. `layer` keeps its input's shape, such as a square `nn.Linear` and its activation;
    another shape is a ValueError at the first call. Source: Gulcehre et al., Mollifying Networks (2017), without its
    noise on activations.
    """

    def __init__(self, layer: nn.Module, p: float = 1.0) -> None:
        super().__init__()
        self.layer, self.p = layer, _share("p", p)

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 1:
            return x
        out: Tensor = self.layer(x)
        if out.shape != x.shape:
            raise ValueError(
                f"a mollified layer keeps the shape {tuple(x.shape)}, got {tuple(out.shape)}; make it square"
            )
        if self.p == 0:
            return out
        if self.training:
            return torch.where(torch.rand_like(x) < self.p, x, out)
        return self.p * x + (1 - self.p) * out


class MollifiedLSTM(nn.Module):
    """An LSTM layer whose gates are mixed with those of a running mean, in proportion p.

    At step t = 1, 2, ... of the sequence: i = (1 - p) sig(.) + p / t, f = (1 - p) sig(.) + p (1 - 1 / t),
    o = (1 - p) sig(.) + p. So at p = 1 the cell is c_t = mean(g_1 ... g_t); at p = 0 it is `lstm`, and as fast.
    x (samples, steps, inputs) -> all h (samples, steps, hidden) and the last c (samples, hidden).
    Source: Gulcehre et al. (2017), by its expectation instead of noise in the gates.
    """

    def __init__(self, inputs: int, hidden: int, p: float = 1.0) -> None:
        super().__init__()
        self.lstm, self.p = nn.LSTM(inputs, hidden, batch_first=True), _share("p", p)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.p == 0:
            out, (_, cell) = self.lstm(x)
            return out, cell[0]
        w, own = dict(self.lstm.named_parameters()), 1 - self.p
        arriving = x @ w["weight_ih_l0"].T + w["bias_ih_l0"] + w["bias_hh_l0"]
        h = c = x.new_zeros(len(x), self.lstm.hidden_size)
        states = []
        for t in range(1, x.shape[1] + 1):
            i, f, g, o = (arriving[:, t - 1] + h @ w["weight_hh_l0"].T).chunk(4, 1)
            c = (own * f.sigmoid() + self.p * (1 - 1 / t)) * c + (own * i.sigmoid() + self.p / t) * g.tanh()
            h = (own * o.sigmoid() + self.p) * c.tanh()
            states.append(h)
        return torch.stack(states, 1), c


class MollifiedGRU(nn.Module):
    """A GRU layer whose gates are mixed with those of a running mean, in proportion p.

    At step t = 1, 2, ...: reset r = (1 - p) sig(.) + p, keep z = (1 - p) sig(.) + p (1 - 1 / t), h = (1 - z) n + z h.
    At p = 1 h_t is the mean of the candidates n_1 ... n_t; at p = 0 it is `gru`, and as fast.
    x (samples, steps, inputs) -> all h (samples, steps, hidden) and the last. Source: as `MollifiedLSTM`.
    """

    def __init__(self, inputs: int, hidden: int, p: float = 1.0) -> None:
        super().__init__()
        self.gru, self.p = nn.GRU(inputs, hidden, batch_first=True), _share("p", p)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.p == 0:
            out, last = self.gru(x)
            return out, last[0]
        w, own = dict(self.gru.named_parameters()), 1 - self.p
        arriving = x @ w["weight_ih_l0"].T + w["bias_ih_l0"]
        h = x.new_zeros(len(x), self.gru.hidden_size)
        states = []
        for t in range(1, x.shape[1] + 1):
            from_x = arriving[:, t - 1].chunk(3, 1)
            from_h = (h @ w["weight_hh_l0"].T + w["bias_hh_l0"]).chunk(3, 1)
            r = own * (from_x[0] + from_h[0]).sigmoid() + self.p
            z = own * (from_x[1] + from_h[1]).sigmoid() + self.p * (1 - 1 / t)
            h = (1 - z) * (from_x[2] + r * from_h[2]).tanh() + z * h
            states.append(h)
        return torch.stack(states, 1), h
