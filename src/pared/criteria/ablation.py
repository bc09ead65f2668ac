"""Brute force: remove each unit in turn and look."""

import torch
from torch import Tensor, nn

from pared.data.batches import example, suited_batch
from pared.signals import Gates, forked, gated, open_gates
from pared.surgery import trace
from pared.types import Batch, Loss, Scores


@torch.no_grad()
def ablation(model: nn.Module, batch: Batch, loss: Loss) -> Scores:
    """The loss that removing one unit adds: s_j = L(h_j = 0 wherever it is read) - L.

    A network or loss that draws random numbers draws the same ones for every unit.

    Scores: group -> (units,), unit of the loss, any sign (negative: the network does better without the unit);
    comparable between groups. Cost: one forward pass a unit.
    Source: Mozer & Smolensky, Skeletonization (1989), exactly.
    """
    batch = suited_batch(batch, model)
    structure = trace(model, example(batch.x))
    call = gated(model, structure)
    gates = open_gates(model, structure)

    def value(gates: Gates) -> Tensor:
        with forked(model):
            return loss(call(gates, batch.x), batch.y)

    whole = value(gates)
    scores: Scores = {}
    for group in structure:
        losses = []
        for j in range(group.width):
            closed = gates[group.name].clone()
            closed[j] = 0.0
            losses.append(value(gates | {group.name: closed}) - whole)
        scores[group.name] = torch.stack(losses)
    return scores
