"""Criteria from gradients with respect to units."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pared.data.batches import example, suited_batch
from pared.signals import forked, gated, open_gates, private, unit_gradients, unrolled
from pared.signals.gates import each
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


def predicted_ablation(
    model: nn.Module, batch: Batch, loss: Loss, *, order: Literal[1, 2] = 2, absolute: bool = False
) -> Scores:
    """The loss that removing one unit adds, as a Taylor series of `ablation` in the unit's gate m_j = 1 foretells it.

    order 1: s_j = -dL/dm_j = -sum h_j dL/dh_j;   order 2: s_j = -dL/dm_j + (1/2) d2L/dm_j^2

    over samples, time steps and places, all exact derivatives (the published recursion drops cross terms). Signed:
    below 0 the network is foretold to do better without the unit. `absolute` takes the mean over samples of each one's
    |s_j| instead: samples that a unit helps and samples that it harms do not cancel.

    Scores: group -> (units,), unit of the loss, any sign (>= 0 with `absolute`); comparable between groups.
    Cost: one forward and one backward pass; for order 2 another backward pass a unit; `absolute`: sample by sample.
    Raises: RuntimeError where an operation of the network has no second derivative.
    Source: Wolfe, Sharma, Drude & Raj, The Incredible Shrinking Neural Network (2017), with exact second derivatives.
    """
    batch = suited_batch(batch, model)
    structure = trace(model, example(batch.x))
    call, gates = gated(unrolled(private(model)), structure), open_gates(model, structure)
    gates = {name: gate.requires_grad_() for name, gate in gates.items()}
    parts = _samples(batch) if absolute else [batch]
    scores: Scores = {}
    for x, y in parts:
        with forked(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused kernels have one derivative
            found = _series(loss(call(gates, x), y), gates, order)
        for name, values in found.items():
            scores[name] = scores.get(name, 0.0) + (values.abs() / len(parts) if absolute else values)
    return scores


def _samples(batch: Batch) -> list[Batch]:
    """Every sample as a batch of its own."""
    one = [partial(torch.narrow, dim=0, start=n, length=1) for n in range(len(batch.y))]
    return [Batch(cast(Tensor, each(batch.x, pick)), pick(batch.y)) for pick in one]


def _series(value: Tensor, gates: Mapping[str, Tensor], order: int) -> Scores:
    """-dL/dm, and for order 2 + (1/2) d2L/dm2, of every gate m by itself."""
    slopes = torch.autograd.grad(value, list(gates.values()), create_graph=order == 2, materialize_grads=True)
    found = {name: -slope.detach() for name, slope in zip(gates, slopes, strict=True)}
    if order == 2:
        for (name, gate), slope in zip(gates.items(), slopes, strict=True):
            found[name] = found[name] + _curvature(slope, gate) / 2
    return found


def _curvature(slope: Tensor, gate: Tensor) -> Tensor:
    """d slope_j / d gate_j for every j."""
    if slope.grad_fn is None:  # linear in every gate
        return torch.zeros_like(gate)
    rows = (torch.autograd.grad(s, gate, retain_graph=True, materialize_grads=True)[0] for s in slope)
    return torch.stack([row[j] for j, row in enumerate(rows)])


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
