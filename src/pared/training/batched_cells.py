"""Layers of many networks of one shape at once, forward and backward by hand, on plain tensors.

A sequence is (steps, networks, rows, samples), weights are (networks, gates * units, inputs). tanh(x) is
2 sigmoid(2 x) - 1, which PyTorch computes in a third of the time: rows of weights that feed a tanh are doubled on their
way in, and so are their gradients on the way out.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Weights = list[Tensor]
Backward = Callable[[Tensor], tuple[Tensor, Weights]]
"""Gradient of the output sequence -> gradient of the input sequence, gradients of the weights."""


class Pass(NamedTuple):
    """A layer's output sequence and the way back."""

    output: Tensor
    backward: Backward


def lstm(weights: Weights, x: Tensor) -> Pass:
    """`nn.LSTM`: C = 2 c and h / 2 are carried: C = f C + 4 i (sigmoid(2 a_g) - 1/2), h / 2 = o (sigmoid(C) - 1/2).

    All that belongs to a step is done at once, while it is in the cache.
    """
    steps, networks, _, samples = x.shape
    units = weights[1].shape[2]
    double = _doubled(x, 4 * units, slice(2 * units, 3 * units))
    w_ih, w_hh, bias = weights[0] * double, weights[1] * double * 2, (weights[2] + weights[3])[..., None] * double
    gates = x.new_empty(steps, networks, 4, units, samples)
    cell, half = (x.new_zeros(steps + 1, networks, units, samples) for _ in range(2))
    squashed = torch.empty_like(cell[1:])
    for t, flat in enumerate(gates.flatten(2, 3)):
        torch.baddbmm(bias, w_ih, x[t], out=flat)
        if t:
            flat.baddbmm_(w_hh, half[t])
        i, f, g, o = flat.sigmoid_().view_as(gates[t]).unbind(1)
        torch.mul(f, cell[t], out=cell[t + 1]).addcmul_(i, g, value=4).sub_(i, alpha=2)
        torch.sigmoid(cell[t + 1], out=squashed[t])
        torch.mul(o, squashed[t], out=half[t + 1]).sub_(o, alpha=0.5)

    def backward(arriving: Tensor) -> tuple[Tensor, Weights]:
        found = [torch.zeros_like(part) for part in (w_ih, w_hh, bias)]
        below, slopes, part = torch.empty_like(x), torch.empty_like(gates[0]), torch.empty_like(cell[0])
        d_cell, recurrent = torch.zeros_like(part), torch.zeros_like(part)
        for t in range(steps - 1, -1, -1):
            (i, f, g, o), q = gates[t].unbind(1), squashed[t]
            d_half = recurrent.add_(arriving[t], alpha=2)
            torch.addcmul(gates[t], gates[t], gates[t], value=-1, out=slopes)
            d_cell.addcmul_(d_half, torch.addcmul(q, q, q, value=-1, out=part).mul_(o))
            slopes[:, 0].mul_(torch.mul(g, 4, out=part).sub_(2))
            slopes[:, 1].mul_(cell[t])
            slopes[:, 2].mul_(torch.mul(i, 4, out=part))
            slopes[:, :3].mul_(d_cell[:, None])
            slopes[:, 3].mul_(torch.sub(q, 0.5, out=part)).mul_(d_half)
            d_cell.mul_(f)
            deltas = slopes.flatten(1, 2)
            torch.bmm(w_ih.transpose(1, 2), deltas, out=below[t])
            found[0].baddbmm_(deltas, x[t].transpose(1, 2))
            found[2].add_(deltas.sum(2, keepdim=True))
            if t:
                found[1].baddbmm_(deltas, half[t].transpose(1, 2))
                torch.bmm(w_hh.transpose(1, 2), deltas, out=recurrent)
        biases = (found[2] * double)[..., 0]
        return below, [found[0] * double, found[1] * double * 2, biases, biases]

    return Pass(2 * half[1:], backward)


def gru(weights: Weights, x: Tensor) -> Pass:
    """`nn.GRU`: n = tanh(a + r m), m from the hidden state alone, and h becomes n + z (h - n)."""
    steps, networks, _, samples = x.shape
    units = weights[1].shape[2]
    double = _doubled(x, 3 * units, slice(2 * units, 3 * units))
    w_ih, w_hh, b_hh = weights[0] * double, weights[1] * double, weights[3][..., None] * double
    flat = _products(w_ih, x, weights[2][..., None] * double)
    own = flat.new_empty(flat.shape)
    gates = flat.view(steps, networks, 3, units, samples)
    hidden = x.new_zeros(steps + 1, networks, units, samples)
    for t in range(steps):
        torch.baddbmm(b_hh, w_hh, hidden[t], out=own[t])
        flat[t, :, : 2 * units].add_(own[t, :, : 2 * units]).sigmoid_()
        r, z, n = gates[t].unbind(1)
        n.addcmul_(r, own[t, :, 2 * units :]).sigmoid_().mul_(2).sub_(1)
        torch.lerp(n, hidden[t], z, out=hidden[t + 1])

    def backward(arriving: Tensor) -> tuple[Tensor, Weights]:
        r, z, n = gates.unbind(2)
        slopes = gates * (1 - gates)
        slopes[:, :, 0] *= own[:, :, 2 * units :]
        slopes[:, :, 1] *= hidden[:-1] - n
        slopes[:, :, 2] = (1 - z) * (1 - n * n) / 2
        deltas, back = slopes.flatten(2, 3), w_hh.transpose(1, 2)
        inner = torch.empty_like(deltas)  # what arrives at W_hh h + b_hh
        d_hidden = arriving[-1]
        for t in range(steps - 1, -1, -1):
            slopes[t, :, 1:].mul_(d_hidden[:, None])
            slopes[t, :, 0].mul_(slopes[t, :, 2])
            inner[t, :, : 2 * units] = deltas[t, :, : 2 * units]
            torch.mul(slopes[t, :, 2], r[t], out=inner[t, :, 2 * units :])
            if t:
                d_hidden = torch.addcmul(arriving[t - 1], d_hidden, z[t]).baddbmm_(back, inner[t])
        matrices = _outer(deltas, x) * double, _outer(inner, hidden[:-1]) * double
        return _pulled(w_ih, deltas), [*matrices, *(d.sum((0, 3)) * double[..., 0] for d in (deltas, inner))]

    return Pass(hidden[1:], backward)


def rnn(weights: Weights, x: Tensor, activation: str) -> Pass:
    """`nn.RNN`; with one matrix and one bias a dense layer with its activation, which reads one step."""
    weight, *recurrent, bias = weights if len(weights) == 2 else (*weights[:2], weights[2] + weights[3])
    hidden = _products(weight, x, bias[..., None])
    for t in range(len(x)):
        if t:
            hidden[t].baddbmm_(recurrent[0], hidden[t - 1])
        if activation == "relu":
            hidden[t].relu_()
        elif activation == "tanh":
            hidden[t].mul_(2).sigmoid_().mul_(2).sub_(1)
        else:
            hidden[t].sigmoid_()

    def backward(arriving: Tensor) -> tuple[Tensor, Weights]:
        slopes = {"relu": lambda: (hidden > 0).to(x), "tanh": lambda: 1 - hidden * hidden}
        deltas = slopes.get(activation, lambda: hidden * (1 - hidden))()
        d_hidden = arriving[-1]
        for t in range(len(x) - 1, -1, -1):
            deltas[t].mul_(d_hidden)
            if t:
                d_hidden = torch.baddbmm(arriving[t - 1], recurrent[0].transpose(1, 2), deltas[t])
        biases, matrices = deltas.sum((0, 3)), [_outer(deltas, x)]
        if recurrent:
            matrices += [_outer(deltas[1:], hidden[:-1])]
        return _pulled(weight, deltas), [*matrices, *([biases] * len(matrices))]

    return Pass(hidden, backward)


def linear(weights: Weights, x: Tensor) -> Pass:
    """`nn.Linear` over every step."""

    def backward(arriving: Tensor) -> tuple[Tensor, Weights]:
        return _pulled(weights[0], arriving), [_outer(arriving, x), arriving.sum((0, 3))]

    return Pass(_products(weights[0], x, weights[1][..., None]), backward)


def _doubled(like: Tensor, rows: int, which: slice) -> Tensor:
    double = like.new_ones(1, rows, 1)
    double[:, which] = 2
    return double


def _products(weight: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """weight x + bias for every step."""
    return torch.matmul(weight, x).add_(bias)


def _outer(deltas: Tensor, x: Tensor) -> Tensor:
    """The weights' gradient: delta x', summed over steps and samples."""
    return torch.matmul(deltas, x.transpose(2, 3)).sum(0)


def _pulled(weight: Tensor, deltas: Tensor) -> Tensor:
    return torch.matmul(weight.transpose(1, 2), deltas)
