"""How the gradient of the loss fares on its way back: its size layer by layer, and step by step in recurrent layers."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pared.signals.private import forked, private, tensor_of
from pared.signals.readings import Calls
from pared.signals.unrolled import written_out
from pared.types import Batch, Loss

READERS = {"linear", "conv1d", "conv2d", "conv3d"}


class Profile(NamedTuple):
    """Sizes ||dL/dh|| of gradients, in the order of the forward pass.

    `depth`: h is what enters each layer but the first; `time`: h is the state of the first recurrent layer before each
    step but the first. Empty where there is no such h.
    """

    depth: tuple[float, ...]
    time: tuple[float, ...]


def gradient_profile(model: nn.Module, batch: Batch, loss: Loss) -> Profile:
    """The gradient of a batch's loss with respect to what linear, convolutional and recurrent layers read.

    Ratios of the sizes are free of the loss's unit. Looks at a private copy in evaluation mode.
    Cost: one forward and one backward pass, in which recurrent layers are written out step by step.
    """
    looked = written_out(private(model)).requires_grad_()
    names = {id(parameter): name for name, parameter in looked.named_parameters()}
    depth: list[Tensor] = []
    states: dict[str, list[Tensor]] = {}

    def see(call: str, args: tuple[Any, ...], kwargs: dict[str, Any], _out: Any) -> None:
        if call not in READERS:
            return
        given = dict(zip(("input", "weight"), args, strict=False)) | kwargs
        value, name = given["input"], names.get(id(given["weight"]))
        if name is None or not value.requires_grad or value.is_leaf:
            return
        value.retain_grad()
        own = states.setdefault(name, []) if name.rpartition(".")[2].startswith("weight_hh") else depth
        own.append(value)

    with forked(looked), torch.enable_grad():
        with Calls(see):
            out = tensor_of(looked(batch.x))
        loss(out, batch.y).backward()  # type: ignore[no-untyped-call]
    time = next(iter(states.values()), [])
    return Profile(tuple(map(_size, depth)), tuple(map(_size, time)))


def _size(value: Tensor) -> float:
    return 0.0 if value.grad is None else float(value.grad.norm())
