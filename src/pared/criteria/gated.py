"""Layers behind gates: which of them a network does without, when all gates are trained together."""

import math

import torch
from torch import Tensor, nn

from pared.data.batches import suited_batch
from pared.moments import ridge_regression
from pared.signals import module_calls
from pared.signals.standins import Mixed, StandIn, aligned
from pared.surgery import StructureError
from pared.surgery.drop import droppable, is_layer, without
from pared.types import Batch, Loss, Scores

BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
"""Of the hard concrete distribution, as published."""

START = 2.0
"""log a before training: a gate that is nearly always open."""


def learned_gate(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    *,
    penalty: float = 1.0,
    steps: int = 200,
    lr: float = 0.05,
    seed: int = 0,
) -> Scores:
    """How open a gate on each layer stays when keeping layers has a price: P(z_l != 0) after training.

    Every hidden layer and residual block gets a gate, y = z phi(W x + b) + (1 - z) P x, the weights stay as they are; P
    is the identity for a residual block, else the ridge regression of what each reader reads on what enters the layer
    (its last step where a reader reads only that). That is what `drop_layer` puts in its place, but for a nonlinearity
    that is no module, which `drop_layer` leaves there. Over log a:

        E L(z) + lambda sum_l P(z_l != 0),   P(z != 0) = sigmoid(log a - beta log(-gamma / zeta)),
        z = min(1, max(0, s (zeta - gamma) + gamma)),   s = sigmoid((log u - log(1 - u) + log a) / beta)

    with beta = 2/3, gamma = -0.1, zeta = 1.1 and u uniform, one a layer and step, from the seed; `steps` steps of Adam.
    lambda is `penalty` times |L(all z = 0) - L(all z = 1)| over the number of layers: at 1, layers close that are worth
    less than the average.

    Scores: layer -> (), a probability, in (0, 1); comparable. Cost: `steps` forward and backward passes.
    Raises: StructureError where no layer can be dropped.
    Source: Louizos, Welling & Kingma, Learning sparse neural networks through L0 regularization (2018), for layers.
    """
    batch = suited_batch(batch, model)
    standins = {name: stand_ins(model, name, batch.x) for name in droppable(model, batch.x)}
    if not standins:
        raise StructureError(f"{type(model).__name__} has no hidden layer or residual block that could be dropped")
    call, names = Mixed(model, standins), list(standins)
    like = next(model.parameters())

    def value(z: Tensor) -> Tensor:
        return loss(call(dict(zip(names, z.to(like), strict=True)), batch.x), batch.y)

    with torch.no_grad():
        closed, opened = (float(value(torch.full((len(names),), z))) for z in (0.0, 1.0))
    rate = penalty * abs(closed - opened) / len(names)
    generator = torch.Generator().manual_seed(seed)
    log_a = torch.full((len(names),), START, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([log_a], lr=lr)
    with torch.enable_grad():
        for _ in range(steps):
            optimiser.zero_grad()
            u = torch.rand(len(names), generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
            (value(hard_concrete(log_a, u)) + rate * open_probability(log_a).sum()).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return {name: p.to(like) for name, p in zip(names, open_probability(log_a.detach()), strict=True)}


def hard_concrete(log_a: Tensor, u: Tensor) -> Tensor:
    """A draw z in [0, 1] from uniform u, 0 and 1 included with a probability of their own."""
    s = torch.sigmoid((u.log() - (-u).log1p() + log_a) / BETA)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)


def open_probability(log_a: Tensor) -> Tensor:
    """P(z != 0)."""
    return torch.sigmoid(log_a - BETA * math.log(-GAMMA / ZETA))


def stand_ins(model: nn.Module, layer: str, x: Tensor, ridge: float = 1e-6) -> list[StandIn]:
    """What could stand in for a layer, reader by reader; for a residual block itself, its input."""
    if not is_layer(model, layer):
        return [StandIn()]
    readers = [reader.parameter.rpartition(".") for reader in without(model, layer, x).readers]
    calls = module_calls(model, [layer, *(path for path, _, _ in readers)], x)
    (enters, _), *more = calls[layer]
    first = bool(getattr(model.get_submodule(layer), "batch_first", True))
    rows = []
    for path, _, leaf in readers:
        if more or len(calls[path]) > 1:
            raise StructureError(f"{layer!r} or its reader {path!r} is called several times; a gate takes one call")
        read = calls[path][0][0]
        biased = getattr(model.get_submodule(path), leaf.replace("weight", "bias"), None) is not None
        entering = aligned(enters, read, first)
        matrix, shift = ridge_regression(entering.double().flatten(0, -2), read.double().flatten(0, -2), ridge, biased)
        rows.append(StandIn(path, matrix.to(read), shift.to(read)))
    return rows
