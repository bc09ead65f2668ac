"""Gradients of outputs with respect to gates on units, sample by sample."""

import warnings
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from pared.signals.gates import Gates, GroupLike, each, gated, gated_copy, open_gates
from pared.signals.private import forked, private
from pared.signals.unrolled import written_out
from pared.signals.values import Keep, Value, gradients_on_values
from pared.types import Inputs

BATCHED_ENTRIES = 20_000_000
"""How many gated weights and saved values vmap may hold at a time: 80 MB in float32."""


def unit_gradients(
    model: nn.Module,
    groups: Iterable[GroupLike],
    x: Inputs,
    value: Value,
    y: Tensor,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Per-sample gradients of `value(output, target)` with respect to the unit gates at one.

    `value` maps one sample's output (1, ...) and target (1, ...) to a tensor. By the chain rule the entry is
    h_j dvalue/dh_j summed over time and places. `reduce` maps one sample's (*value's shape, units) to what is kept of
    it, so that memory need not hold all of it.

    Returns group -> (samples, *value's shape, units). Cost: for groups that are read by calls of linear layers, matrix
    products and convolutions alone, one forward of the whole batch and one backward for each entry of a sample's value
    (see `gradients_on_values`); for the others one vectorised forward and backward of gated weights. Both go in chunks
    that fit into memory. Where an operation cannot be vectorised, one forward a sample and one backward an entry.
    """
    groups = list(groups)
    keep = reduce or (lambda gradient: gradient)
    with forked(model):
        found = gradients_on_values(model, groups, x, value, y, keep)
        rest = [group for group in groups if group.name not in found]
        if rest:
            found |= _on_weights(model, rest, x, value, y, keep)
    return {group.name: found[group.name] for group in groups}


def _on_weights(
    model: nn.Module, groups: list[GroupLike], x: Inputs, value: Value, y: Tensor, keep: Keep
) -> dict[str, Tensor]:
    try:
        # the fused kernels of attention have no batching rule; what else has none PyTorch loops over by itself
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            return _at_once(model, groups, x, value, y, keep)
    except (RuntimeError, TypeError, ValueError):  # what torch.func says of operations it cannot follow
        return _one_by_one(model, groups, x, value, y, keep)


def _at_once(
    model: nn.Module, groups: list[GroupLike], x: Inputs, value: Value, y: Tensor, keep: Keep
) -> dict[str, Tensor]:
    call, gates = gated_copy(written_out(private(model)), groups), open_gates(model, groups)

    def of_gates(gates: Gates, x: Inputs, y: Tensor) -> Tensor:
        return value(call(gates, each(x, lambda part: part[None])), y[None])

    outputs, size = _size(of_gates, gates, each(x, lambda part: part[0]), y[0])
    at_a_time = max(1, BATCHED_ENTRIES // size)
    rows = jacrev(of_gates, chunk_size=at_a_time if at_a_time < outputs else None)

    def kept(gates: Gates, x: Inputs, y: Tensor) -> dict[str, Tensor]:
        return {name: keep(gradient) for name, gradient in rows(gates, x, y).items()}

    chunk = max(1, min(256, at_a_time // max(1, outputs)))
    gradients = vmap(kept, in_dims=(None, 0, 0), chunk_size=chunk, randomness="different")(gates, x, y)
    return {name: gradient.detach() for name, gradient in gradients.items()}


def _size(function: Callable[[Gates, Inputs, Tensor], Tensor], gates: Gates, x: Inputs, y: Tensor) -> tuple[int, int]:
    """How many values one sample yields, and how many entries its backward pass holds."""
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel()
        return tensor

    open_ = {name: gate.clone().requires_grad_() for name, gate in gates.items()}
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        return function(open_, x, y).numel(), max(1, saved)


def _one_by_one(
    model: nn.Module, groups: list[GroupLike], x: Inputs, value: Value, y: Tensor, keep: Keep
) -> dict[str, Tensor]:
    call, found = gated(model, groups), []
    for n in range(len(y)):
        gates = {name: gate.requires_grad_() for name, gate in open_gates(model, groups).items()}
        with torch.enable_grad():
            values = value(call(gates, each(x, partial(torch.narrow, dim=0, start=n, length=1))), y[n : n + 1])
            found.append({name: keep(rows) for name, rows in _rows(values, gates).items()})
    return {group.name: torch.stack([one[group.name] for one in found]) for group in groups}


def _rows(values: Tensor, gates: Gates) -> dict[str, Tensor]:
    """Gradients of each of the values: group -> (*shape of values, units)."""
    rows: list[tuple[Tensor, ...]] = []
    for one in values.flatten():
        if one.requires_grad:
            found = torch.autograd.grad(one, list(gates.values()), retain_graph=True, allow_unused=True)
            rows.append(
                tuple(g.new_zeros(g.shape) if f is None else f for f, g in zip(found, gates.values(), strict=True))
            )
        else:
            rows.append(tuple(torch.zeros_like(g, requires_grad=False) for g in gates.values()))
    columns = zip(*rows, strict=True) if rows else ((gate.new_zeros(0),) for gate in gates.values())
    return {
        name: torch.stack(list(column)).detach().reshape(*values.shape, -1)
        for (name, _), column in zip(gates.items(), columns, strict=True)
    }
