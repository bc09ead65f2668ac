"""Outputs, losses and gradients of many networks of one shape at once, from one row of weights a network."""

import copy
from collections.abc import Callable
from itertools import accumulate, pairwise
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.functional import mse_loss

from pared.training.batched_cells import Pass, gru, linear, lstm, rnn
from pared.training.stacks import Stack
from pared.types import Loss


class Networks(NamedTuple):
    """outputs(weights, x) and gradient(weights, x, y) -> losses (networks,), gradients like the weights.

    weights are (networks, weights of one), in the order of a network's parameters; x and y (networks, samples, ...).
    """

    outputs: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def of_stack(stack: Stack, loss: Loss) -> Networks:
    """By hand, for plain stacks of layers."""
    shapes = [parameter.shape for parameter in stack.parameters]

    def forward(weights: Tensor, x: Tensor) -> list[Pass]:
        own = iter(_parts(weights, shapes))
        if stack.kind == "mlp":
            sequence = x.flatten(2).transpose(1, 2)[None].contiguous()
        else:
            sequence = x.permute(2, 0, 3, 1).contiguous()
        passes: list[Pass] = []
        for n, _ in enumerate(stack.layers):
            some = [next(own) for _ in range(2 if stack.kind == "mlp" else 4)]
            passes.append(_layer(stack, n, some, sequence))
            sequence = passes[-1].output
        sequence = sequence[-1:]
        for _ in stack.head:
            passes.append(linear([next(own), next(own)], sequence))
            sequence = passes[-1].output
        return passes

    def outputs(weights: Tensor, x: Tensor) -> Tensor:
        return forward(weights, x)[-1].output[0].transpose(1, 2)

    def gradient(weights: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        passes = forward(weights, x)
        slopes, losses = _loss_slopes(loss, passes[-1].output[0].transpose(1, 2), y)
        arriving, found = slopes.transpose(1, 2)[None].contiguous(), list[Tensor]()
        for n in range(len(passes) - 1, -1, -1):
            if n == len(stack.layers) - 1:  # only the last step went on
                steps = arriving.new_zeros(passes[n].output.shape)
                steps[-1:] = arriving
                arriving = steps
            arriving, own = passes[n].backward(arriving)
            found[:0] = own
        return losses, torch.cat([part.flatten(1) for part in found], 1)

    return Networks(outputs, gradient)


def _layer(stack: Stack, n: int, weights: list[Tensor], x: Tensor) -> Pass:
    if stack.kind in ("lstm", "gru"):
        return (lstm if stack.kind == "lstm" else gru)(weights, x)
    return rnn(weights, x, stack.activations[n])


def _loss_slopes(loss: Loss, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient at each network's outputs (networks, samples, outputs), and each network's loss."""
    if loss is mse_loss:
        errors = outputs - y
        return errors * (2 / errors[0].numel()), errors.square().mean((1, 2))
    slopes, losses = vmap(grad_and_value(loss))(outputs, y)
    return slopes, losses


def of_module(model: nn.Module, loss: Loss) -> Networks:
    """By `torch.func`, for any module that it can follow."""
    training, watched = copy.deepcopy(model).train(), copy.deepcopy(model).eval()
    names, parameters = zip(*model.named_parameters(), strict=True)
    shapes = [parameter.shape for parameter in parameters]

    def value(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        return loss(functional_call(training, dict(zip(names, weights, strict=True)), (x,)), y)

    def watch(weights: list[Tensor], x: Tensor) -> Tensor:
        out: Tensor = functional_call(watched, dict(zip(names, weights, strict=True)), (x,))
        return out

    batched, slopes = vmap(watch), vmap(grad_and_value(value))

    def outputs(weights: Tensor, x: Tensor) -> Tensor:
        return batched(_parts(weights, shapes), x)

    def gradient(weights: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        found, losses = slopes(_parts(weights, shapes), x, y)
        return losses, torch.cat([part.flatten(1) for part in found], 1)

    return Networks(outputs, gradient)


def _parts(weights: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """Views of the rows of weights as tensors, one a parameter."""
    ends = accumulate(map(prod, shapes), initial=0)
    return [
        weights[:, start:end].reshape(-1, *shape) for (start, end), shape in zip(pairwise(ends), shapes, strict=True)
    ]
