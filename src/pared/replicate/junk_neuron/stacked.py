"""Forecasts of many small LSTM forecasters at once: the same numbers as one by one, in a fraction of the time."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from pared.models import Forecaster

WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
WINDOWS = 125  # windows of a network in one pass: fits the cache, no effect on the result


class Layer(NamedTuple):
    """An LSTM layer of every network: weights of its inputs and states (networks, from, to), and bias."""

    inputs: Tensor
    states: Tensor
    bias: Tensor


class Stack(NamedTuple):
    """Networks as tensors whose first axis counts them; narrower layers are padded with units of weight 0.

    A padded unit puts out 0 at every step and nothing reads it, so that forecasts stay what they are.
    """

    recurrent: list[Layer]
    head: list[tuple[Tensor, Tensor]]


def stack(models: Sequence[Forecaster]) -> Stack:
    """LSTM forecasters of one depth; their recurrent layers but the last may differ in width."""
    recurrent, head = [], []
    for depth in range(len(models[0].recurrent)):
        layers = [cast(nn.LSTM, model.recurrent[depth]) for model in models]
        units, inputs = max(layer.hidden_size for layer in layers), max(layer.input_size for layer in layers)
        each = [[layer.get_parameter(name) for layer in layers] for name in WEIGHTS]
        biases = [(a + b)[:, None] for a, b in zip(*each[2:], strict=True)]
        recurrent.append(
            Layer(_padded(each[0], units, inputs), _padded(each[1], units, units), _padded(biases, units, 1))
        )
    for depth in range(len(models[0].head)):
        dense = [cast(nn.Linear, model.head[depth]) for model in models]
        weight = torch.stack([layer.weight.detach().T for layer in dense])
        head.append((weight, torch.stack([layer.bias.detach() for layer in dense])[:, None]))
    return Stack(recurrent, head)


def _padded(weights: Sequence[Tensor], units: int, columns: int) -> Tensor:
    """Weights (4 * own units, own columns) of an LSTM as (networks, columns, 4 * units)."""
    padded = torch.zeros(len(weights), 4, units, columns)
    for own, weight in zip(padded, weights, strict=True):
        gates = weight.detach().view(4, len(weight) // 4, -1)
        own[:, : gates.shape[1], : gates.shape[2]] = gates
    return padded.flatten(1, 2).transpose(1, 2).contiguous()


@torch.no_grad()
def forecast(networks: Stack, x: Tensor) -> Tensor:
    """Outputs (networks, n) for windows x (networks, n, window) of one column."""
    return torch.cat([_forward(networks, part) for part in torch.split(x, WINDOWS, dim=1)], dim=1)


def _forward(networks: Stack, x: Tensor) -> Tensor:
    steps = [step[..., None] for step in x.unbind(2)]
    for layer in networks.recurrent:
        steps = _recurrent(layer, steps)
    out = steps[-1]
    for weight, bias in networks.head:
        out = torch.baddbmm(bias, out, weight)
    return out[..., 0]


def _recurrent(layer: Layer, steps: Sequence[Tensor]) -> list[Tensor]:
    """The states (networks, n, units) of a layer after each step."""
    states: list[Tensor] = []
    cell: Tensor | None = None
    for step in steps:
        gates = torch.baddbmm(layer.bias, step, layer.inputs)
        if states:
            gates = gates.baddbmm_(states[-1], layer.states)
        i, f, g, o = gates.chunk(4, dim=2)
        update = i.sigmoid() * g.tanh()
        cell = update if cell is None else f.sigmoid() * cell + update
        states.append(o.sigmoid() * cell.tanh())
    return states
