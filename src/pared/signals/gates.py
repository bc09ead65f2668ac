"""Gates on units: the output as a function of one factor a unit."""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pared.signals.private import private, tensor_of
from pared.types import Inputs

Gates = dict[str, Tensor]
"""Group name -> one factor per unit; 1 leaves the unit as it is, 0 removes it."""


class SliceLike(Protocol):
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


class GroupLike(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def slices(self) -> Iterable[SliceLike]: ...


def reading_slices(groups: Iterable[GroupLike]) -> list[tuple[GroupLike, SliceLike]]:
    """The (group, slice) pairs through which units are read."""
    return [(group, s) for group in groups for s in group.slices if s.role == "out"]


def open_gates(model: nn.Module, groups: Iterable[GroupLike]) -> Gates:
    """Gates of one for every unit, on the model's device and in its type."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    return {group.name: torch.ones(group.width, device=like.device, dtype=like.dtype) for group in groups}


def gated(model: nn.Module, groups: Iterable[GroupLike]) -> Callable[[Gates, Inputs], Tensor]:
    """`call(gates, x)`: the model's output when unit j's value h_j is read as gates[group][j] * h_j everywhere.

    The same gate holds at every time step and in the unit's own recurrence, because it multiplies the reading weights;
    where no weight reads a unit by itself, what makes it (queries of attention). `x` is a tensor or a tuple of the
    model's inputs. The output is the first tensor of what the model returns; in half precision it comes as float32,
    so that differences of losses are not lost in rounding.
    """
    return gated_copy(private(model), groups)


def gated_copy(model: nn.Module, groups: Iterable[GroupLike]) -> Callable[[Gates, Inputs], Tensor]:
    """As `gated`, of a model that is private already."""
    tensors = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    rows = [
        (group.name, s, torch.tensor(s.indices(group.width, range(group.width)))) for group, s in reading_slices(groups)
    ]

    def call(gates: Gates, x: Inputs) -> Tensor:
        changed: dict[str, Tensor] = {}
        for group, s, index in rows:
            weight = changed.get(s.parameter, tensors[s.parameter])
            factor = torch.ones(weight.shape[s.axis], device=weight.device, dtype=weight.dtype)
            own = gates[group].to(weight).repeat_interleave(s.inner).repeat(s.blocks)
            factor = factor.index_put((index.to(weight.device),), own)
            changed[s.parameter] = weight * factor.reshape(-1, *(1,) * (weight.dim() - s.axis - 1))
        out = tensor_of(functional_call(model, tensors | changed, (x,) if isinstance(x, Tensor) else tuple(x)))
        return widened(out)

    return call


def widened(out: Tensor) -> Tensor:
    """Half precision as float32."""
    return out.float() if out.dtype in (torch.bfloat16, torch.float16) else out


def each(x: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    """A function of every input."""
    return function(x) if isinstance(x, Tensor) else tuple(function(part) for part in x)
