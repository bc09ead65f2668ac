"""Gates on units: the output as a function of one factor a unit, and its gradients."""

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from pared.signals.private import forked, private, tensor_of
from pared.signals.unrolled import written_out
from pared.types import Inputs

Gates = dict[str, Tensor]
"""Group name -> one factor per unit; 1 leaves the unit as it is, 0 removes it."""

Value = Callable[[Tensor, Tensor], Tensor]

BATCHED_ENTRIES = 20_000_000
"""How many gated weights and saved values vmap may hold at a time: 80 MB in float32."""


class _Slice(Protocol):
    @property
    def parameter(self) -> str: ...
    @property
    def axis(self) -> int: ...
    @property
    def role(self) -> str: ...
    @property
    def blocks(self) -> int: ...
    @property
    def inner(self) -> int: ...
    def indices(self, width: int, units: range) -> list[int]: ...


class _Group(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def slices(self) -> Iterable[_Slice]: ...


def reading_slices(groups: Iterable[_Group]) -> list[tuple[_Group, _Slice]]:
    """The (group, slice) pairs through which units are read."""
    return [(group, s) for group in groups for s in group.slices if s.role == "out"]


def open_gates(model: nn.Module, groups: Iterable[_Group]) -> Gates:
    """Gates of one for every unit, on the model's device and in its type."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return {group.name: torch.ones(group.width, device=like.device, dtype=like.dtype) for group in groups}


def gated(model: nn.Module, groups: Iterable[_Group]) -> Callable[[Gates, Inputs], Tensor]:
    """`call(gates, x)`: the model's output when unit j's value h_j is read as gates[group][j] * h_j everywhere.

    The same gate holds at every time step and in the unit's own recurrence, because it multiplies the reading weights;
    where no weight reads a unit by itself, what makes it (queries of attention). `x` is a tensor or a tuple of the
    model's inputs. The output is the first tensor of what the model returns; in half precision it comes as float32,
    so that differences of losses are not lost in rounding.
    """
    return _gated(private(model), groups)


def _gated(model: nn.Module, groups: Iterable[_Group]) -> Callable[[Gates, Inputs], Tensor]:
    tensors = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    rows = [
        (group.name, s, torch.tensor(s.indices(group.width, range(group.width)))) for group, s in reading_slices(groups)
    ]

    def call(gates: Gates, x: Inputs) -> Tensor:
        changed: dict[str, Tensor] = {}
        for group, s, index in rows:
            weight = changed.get(s.parameter, tensors[s.parameter])
            factor = torch.ones(weight.shape[s.axis], device=weight.device, dtype=weight.dtype)
            each = gates[group].to(weight).repeat_interleave(s.inner).repeat(s.blocks)
            factor = factor.index_put((index.to(weight.device),), each)
            changed[s.parameter] = weight * factor.reshape(-1, *(1,) * (weight.dim() - s.axis - 1))
        out = tensor_of(functional_call(model, tensors | changed, (x,) if isinstance(x, Tensor) else tuple(x)))
        return out.float() if out.dtype in (torch.bfloat16, torch.float16) else out

    return call


def unit_gradients(
    model: nn.Module,
    groups: Iterable[_Group],
    x: Inputs,
    value: Value,
    y: Tensor,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Per-sample gradients of `value(output, target)` with respect to the unit gates at one.

    `value` maps one sample's output (1, ...) and target (1, ...) to a tensor. By the chain rule the entry is
    h_j dvalue/dh_j summed over time and places. `reduce` maps one sample's (*value's shape, units) to what is kept of
    it, so that memory need not hold all of it.

    Returns group -> (samples, *value's shape, units). Cost: one vectorised forward and backward, in chunks that fit
    into memory; where an operation cannot be vectorised, one forward a sample and one backward an output.
    """
    groups = list(groups)
    keep = reduce or (lambda gradient: gradient)
    with forked(model):
        try:
            # the fused kernels of attention have no batching rule; what else has none PyTorch loops over by itself
            with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="There is a performance drop")
                return _at_once(model, groups, x, value, y, keep)
        except (RuntimeError, TypeError, ValueError):  # what torch.func says of operations it cannot follow
            pass
        return _one_by_one(model, groups, x, value, y, keep)


Keep = Callable[[Tensor], Tensor]


def _at_once(
    model: nn.Module, groups: list[_Group], x: Inputs, value: Value, y: Tensor, keep: Keep
) -> dict[str, Tensor]:
    call, gates = _gated(written_out(private(model)), groups), open_gates(model, groups)

    def of_gates(gates: Gates, x: Inputs, y: Tensor) -> Tensor:
        return value(call(gates, _each(x, lambda part: part[None])), y[None])

    outputs, size = _size(of_gates, gates, _each(x, lambda part: part[0]), y[0])
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
    model: nn.Module, groups: list[_Group], x: Inputs, value: Value, y: Tensor, keep: Keep
) -> dict[str, Tensor]:
    call, found = gated(model, groups), []
    for n in range(len(y)):
        gates = {name: gate.requires_grad_() for name, gate in open_gates(model, groups).items()}
        with torch.enable_grad():
            values = value(call(gates, _each(x, partial(torch.narrow, dim=0, start=n, length=1))), y[n : n + 1])
            found.append({name: keep(rows) for name, rows in _rows(values, gates).items()})
    return {group.name: torch.stack([each[group.name] for each in found]) for group in groups}


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


def _each(x: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    return function(x) if isinstance(x, Tensor) else tuple(function(part) for part in x)
