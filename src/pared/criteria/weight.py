"""Criteria that look at the weights alone."""

from typing import Literal

import torch
from torch import Tensor, nn

from pared.criteria.activation import activation
from pared.data.batches import example, suited_batch
from pared.signals import plain_parameters, prunable
from pared.surgery import Group, StructureError, by_unit, trace
from pared.types import Batch, Loss, Scores

GATES = {4: ("i", "f", "g", "o"), 3: ("r", "z", "n"), 1: ("h",)}
"""The gates of LSTM, GRU and RNN in the order in which PyTorch stacks them."""


def magnitude(model: nn.Module, batch: Batch, loss: Loss) -> Scores:
    """|w| of every weight.

    Scores: parameter -> its shape, unit of the weight, >= 0. `by_unit` reduces them to units. A weight computed by a
    parametrisation (weight_norm) is scored under its own name, as `conv.weight`.
    Cost: O(parameters), no forward pass. Source: Han et al., Learning both Weights and Connections (2015).
    """
    return {name: parameter.abs() for name, parameter in plain_parameters(model).items()}


def deviation(model: nn.Module, batch: Batch, loss: Loss) -> Scores:
    """|w| / std of its layer's weights: `Threshold(s)` then removes what lies within s standard deviations of zero.

    Scores: weight parameter -> its shape, no unit, >= 0. A layer whose weights are all equal scores 0.
    Cost: O(parameters). Source: Han et al., Learning both Weights and Connections (2015).
    """
    scores: Scores = {}
    found = plain_parameters(model)
    for name in prunable(model).shapes:
        spread = found[name].double().std(correction=0)
        scores[name] = torch.where(spread > 0, found[name].abs() / spread, 0.0)
    return scores


def norm(
    model: nn.Module, batch: Batch, loss: Loss, *, side: Literal["out", "in"] = "out", spread: bool = False
) -> Scores:
    """Mean |w| of the weights that read a unit (onorm, "out") or make it (inorm, "in"); biases do not count.

    onorm_j = (1/m) sum_k |W[k, j]| over all m weights that multiply h_j. A ReLU layer may hand a factor from its
    weights on to the next one's and compute the same: `spread` makes up for it, |W[k, j]| * std(h_j).

    Scores: group -> (units,), unit of the weight (with `spread` that of what is read), >= 0; of layers alike in width
    and scale comparable. A group that no weight matrix makes or reads is left out. Cost: O(parameters), with `spread`
    one forward pass. Source: He, Fan, Qian, Tan & Yu (2014), whose best of three was onorm.
    """
    batch = suited_batch(batch, model)
    structure = trace(model, example(batch.x))
    sizes = {name: weight.detach().abs() for name, weight in plain_parameters(model).items() if weight.dim() > 1}
    scores = by_unit(sizes, structure, side)
    if spread:
        spreads = activation(model, batch, loss, statistic="std")
        scores = {name: values * spreads[name] for name, values in scores.items()}
    return scores


def junk(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    *,
    gate: str | None = None,
    direction: Literal["out", "in"] = "out",
    row_normalise: bool = False,
) -> Scores:
    """Mean |w| of one gate's recurrent block: the junk-neuron index.

    With W = weight_hh's block of the gate, (u, u), row = target, column = source:
    s_out[k] = (1/u) sum_j |W[j, k]| (the paper's words), s_in[j] = (1/u) sum_k |W[j, k]| (the other reading of its
    table, had it been printed in Keras' transposed layout). `row_normalise` first divides each row of |W| by its sum,
    as the paper's table 3 does, though its thresholds cannot refer to that. `gate` defaults to the LSTM's output gate;
    a GRU has none, so its candidate "n" stands in, and an RNN's only block "h".

    Scores: recurrent group -> (units,), unit of the weight, >= 0; other groups are not scored. A threshold on it
    depends on width, initialiser and training length (an untrained orthogonal 16-unit layer has 0.100): prefer ratios.
    Cost: O(u^2) a layer.
    Raises: StructureError for a network without recurrent layers (those with projections have no square block),
    ValueError for an unknown gate.
    Source: Huang, Gu & Yang, Acta Phys. Sin. 71, 160501 (2022), table 3 and section 4.3.
    """
    scores: Scores = {}
    for group in trace(model, example(suited_batch(batch, model).x)):
        block = gate_block(model, group, gate)
        if block is None:
            continue
        size = block.detach().abs()
        if row_normalise:
            size = size / size.sum(dim=1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)
        scores[group.name] = size.mean(dim=0 if direction == "out" else 1)
    if not scores:
        raise StructureError(
            "the junk criterion scores recurrent layers (without projections), this network has none; "
            "use taylor or magnitude"
        )
    return scores


def gate_block(model: nn.Module, group: Group, gate: str | None = None) -> Tensor | None:
    """The (units, units) recurrent block of one gate, or None for a group that is not a whole recurrent layer.

    `gate` None is the output gate of an LSTM, the candidate of a GRU, the only block of an RNN.
    """
    own = next((s for s in group.slices if s.role == "in" and ".weight_hh" in f".{s.parameter}"), None)
    weights = plain_parameters(model)
    if (
        own is None
        or own.blocks not in GATES
        or weights[own.parameter].shape != (own.blocks * group.width, group.width)
    ):
        return None  # a layer with projections has no square block
    gates = GATES[own.blocks]
    gate = gates[-1] if gate is None else gate
    if gate not in gates:
        raise ValueError(f"{group.name!r} has the gates {', '.join(gates)}, not {gate!r}")
    start = gates.index(gate) * group.width
    return weights[own.parameter][start : start + group.width]
