"""Layers of many networks of one shape at once, forward and backward by hand, on plain tensors.

A sequence is (steps, networks, rows, samples), weights are (networks, gates * units, inputs). Products that do not
depend on the step before are taken for all steps together. tanh(x) is 2 sigmoid(2 x) - 1, which PyTorch computes in a
third of the time: rows of weights that feed a tanh are doubled on their way in, and so are their gradients on the way
out.
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
    """`nn.LSTM`: C = 2 c and h / 2 are carried: C = f C + 4 i (sigmoid(2 a_g) - 1/2), h / 2 = o (sigmoid(C) - 1/2)."""
    steps, networks, _, samples = x.shape
    units = weights[1].shape[2]
    double = _doubled(x, 4 * units, slice(2 * units, 3 * units))
    w_ih, w_hh = weights[0] * double, weights[1] * double * 2
    flat = _products(w_ih, x, (weights[2] + weights[3])[..., None] * double)
    gates = flat.view(steps, networks, 4, units, samples)
    cell, half = (x.new_zeros(steps + 1, networks, units, samples) for _ in range(2))
    squashed = torch.empty_like(cell[1:])
    for t in range(steps):
        if t:
            flat[t].baddbmm_(w_hh, half[t])
        flat[t].sigmoid_()
        i, f, g, o = gates[t].unbind(1)
        g.sub_(0.5)
        torch.mul(f, cell[t], out=cell[t + 1])
        cell[t + 1].addcmul_(i, g, value=4)
        torch.sigmoid(cell[t + 1], out=squashed[t]).sub_(0.5)
        torch.mul(o, squashed[t], out=half[t + 1])

    def backward(arriving: Tensor) -> tuple[Tensor, Weights]:
        i, f, g, o = gates.unbind(2)
        slopes = gates * (1 - gates)
        slopes[:, :, 0] *= 4 * g
        slopes[:, :, 1] *= cell[:-1]
        slopes[:, :, 2] = i - 4 * i * g * g
        slopes[:, :, 3] *= squashed
        through = o * (0.25 - squashed * squashed)
        deltas, arriving, back = slopes.flatten(2, 3), 2 * arriving, w_hh.transpose(1, 2)
        d_half, d_cell = arriving[-1], torch.zeros_like(arriving[-1])
        for t in range(steps - 1, -1, -1):
            d_cell.addcmul_(d_half, through[t])
            slopes[t, :, :3].mul_(d_cell[:, None])
            slopes[t, :, 3].mul_(d_half)
            d_cell.mul_(f[t])
            if t:
                d_half = torch.baddbmm(arriving[t - 1], back, deltas[t])
        biases = deltas.sum((0, 3)) * double[..., 0]
        own = _outer(deltas, x) * double, _outer(deltas[1:], half[1:-1]) * double * 2
        return _pulled(w_ih, deltas), [*own, biases, biases]

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
