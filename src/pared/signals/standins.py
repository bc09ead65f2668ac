"""Networks in which a layer's values are mixed with what might stand in for the layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pared.signals.private import forked, private, tensor_of


@dataclass(frozen=True)
class StandIn:
    """P u + p, made of what enters a layer, in the place of what the module `reader` reads of it.

    Without `reader` it is u itself, in the place of what the layer returns. `matrix` (read, entering), `shift` (read,).
    """

    reader: str | None = None
    matrix: Tensor | None = None
    shift: Tensor | None = None

    def of(self, entering: Tensor) -> Tensor:
        """The value that stands in."""
        if self.matrix is None:
            return entering
        made = entering @ self.matrix.T
        return made if self.shift is None else made + self.shift


class Mixed:
    """A private copy, frozen, in which z v + (1 - z) s is read where a layer gives v and its stand-in s.

    `standins` maps layers to where and by what they are replaced, a row each; a call takes a z for every layer.
    """

    def __init__(self, model: nn.Module, standins: Mapping[str, Sequence[StandIn]]) -> None:
        self.model = private(model).requires_grad_(False)
        self.shares: Mapping[str, Tensor] = {}
        self.entered: dict[str, Tensor] = {}
        for layer, rows in standins.items():
            first = bool(getattr(self.model.get_submodule(layer), "batch_first", True))
            for row in rows:
                self._replace(layer, row, first)
        for layer in standins:  # after the others: what enters a layer has been mixed already
            source = self.model.get_submodule(layer)
            source.register_forward_pre_hook(lambda _, args, layer=layer: self._enter(layer, args[0]))

    def __call__(self, shares: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The output at these shares z (layer -> scalar), differentiable in them."""
        self.shares = shares
        with forked(self.model), torch.enable_grad():
            return tensor_of(self.model(x))

    def _enter(self, layer: str, value: Tensor) -> None:
        self.entered[layer] = value

    def _replace(self, layer: str, row: StandIn, batch_first: bool) -> None:
        def mixed(value: Tensor) -> Tensor:
            z = self.shares[layer]
            return z * value + (1 - z) * row.of(aligned(self.entered[layer], value, batch_first))

        def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return mixed(args[0]), *args[1:]

        if row.reader is None:
            self.model.get_submodule(layer).register_forward_hook(lambda _, __, out: mixed(out))
        else:
            self.model.get_submodule(row.reader).register_forward_pre_hook(before)


def aligned(entering: Tensor, read: Tensor, batch_first: bool = True) -> Tensor:
    """What enters a layer, for the rows that a reader of it reads: all of them, or those of the last step.

    Raises: ValueError where the rows are neither.
    """
    if entering.shape[:-1] == read.shape[:-1]:
        return entering
    last = entering.select(1 if batch_first else 0, -1) if entering.dim() > 2 else entering
    if last.shape[:-1] == read.shape[:-1]:
        return last
    raise ValueError(
        f"what enters the layer is shaped {tuple(entering.shape)} and what is read of it {tuple(read.shape)}: neither "
        "the same rows nor their last step"
    )
