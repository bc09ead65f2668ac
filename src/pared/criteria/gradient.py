"""Criteria from gradients with respect to units."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pared.data.batches import example, suited_batch
from pared.signals import gated, unit_gradients
from pared.surgery import trace
from pared.types import Batch, Loss, Scores

SUMS = 512
"""How many random sums stand for many outputs, over all samples."""


def taylor(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    *,
    of: Literal["output", "loss"] = "output",
    power: Literal[1, 2] = 2,
    most_outputs: int = 64,
) -> Scores:
    """How much the output, to first order, moves when a unit goes.

    With a gate m_j = 1 on unit j, the same at every time step: s_j = mean over samples of sum_o |d y_o / d m_j|^power,
    where d y / d m_j = sum_t h_j dy/dh_j. For a squared error and power 2 this is the Gauss-Newton estimate of the loss
    that removal adds. `of="loss"` differentiates each sample's loss instead, which vanishes where the fit is perfect.

    Scores: group -> (units,), output (or loss) units to the power, >= 0; comparable between groups.
    Where a sample has more than `most_outputs` outputs (power 2), sums of all of them with random signs stand for them,
    whose mean square is the sum above: at least 512 over all samples, hence 6 % off; the same signs at every call.
    Cost: one forward pass of all samples, in chunks that fit into memory, and one backward pass of them an output (or
    random sum); a vectorised pass with gates on weights, which is slower, for groups that not only calls of linear
    layers, matrix products and convolutions read (tied weights, packed sequences).
    Source: Molchanov et al. (2017), eq. 8, with the gate of Michel et al. (2019) and the output form of Gauss-Newton;
    per-sample values, as sums over the batch would cancel. The random sums are Hutchinson's (1990).
    """
    batch = suited_batch(batch, model)
    structure = trace(model, example(batch.x))

    signs = _signs(model, batch, most_outputs) if of == "output" and power == 2 else None

    def output(out: Tensor, target: Tensor) -> Tensor:
        return out.flatten() if signs is None else target[0].to(out) @ out.flatten() / math.sqrt(target.shape[1])

    def sample_loss(out: Tensor, target: Tensor) -> Tensor:
        return loss(out, target).reshape(1)

    def size(gradient: Tensor) -> Tensor:
        return (gradient.abs() ** power).sum(dim=0)

    value = output if of == "output" else sample_loss
    gradients = unit_gradients(model, structure, batch.x, value, batch.y if signs is None else signs, size)
    return {name: each.mean(dim=0) for name, each in gradients.items()}


@torch.no_grad()
def _signs(model: nn.Module, batch: Batch, most: int) -> Tensor | None:
    """Random signs (samples, sums, outputs) that give SUMS sums over all samples; None where outputs are few."""
    outputs = gated(model, ())({}, example(batch.x)).numel()
    if outputs <= most:
        return None
    sums = min(outputs, math.ceil(SUMS / len(batch.y)))
    generator = torch.Generator().manual_seed(0)
    shape = (len(batch.y), sums, outputs)
    return (2 * torch.randint(2, shape, generator=generator, dtype=torch.int8) - 1).to(batch.y.device)
