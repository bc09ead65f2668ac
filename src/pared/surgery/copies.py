"""Copies of models, as `copy.deepcopy` makes them but faster: that spends most of its time on empty dictionaries."""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_UNCHANGEABLE = (type(None), bool, int, float, str, torch.dtype)


def copied(model: nn.Module, instead: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A deep copy; the parameters and buffers named in `instead` are not copied, these tensors take their places.

    Raises what `copy.deepcopy` raises.
    """
    memo: dict[int, Any] = {}
    for name, tensor in held_tensors(model).items():
        if instead and name in instead:
            new = instead[name]
            memo[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
    for module in model.modules():
        if _is_plain(module):
            _copy_plain(module, memo)
    return copy.deepcopy(model, memo)


def held_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all of their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def own_weights(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of torch's own layers: only torch computes with them, unless the model's code asks for them."""
    return {
        f"{path}.{leaf}".lstrip("."): weight
        for path, module in model.named_modules()
        if _is_torchs(module) and not module._forward_hooks and not module._forward_pre_hooks
        for leaf, weight in module._parameters.items()
        if weight is not None
    }


def blanks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zeros shaped like the tensors, to be read only: those of one kind share one memory."""
    largest: dict[tuple[torch.device, torch.dtype], int] = {}
    for tensor in tensors.values():
        kind = tensor.device, tensor.dtype
        largest[kind] = max(largest.get(kind, 0), tensor.numel())
    memory = {kind: torch.zeros(size, device=kind[0], dtype=kind[1]) for kind, size in largest.items()}
    return {name: memory[t.device, t.dtype][: t.numel()].view(t.shape) for name, t in tensors.items()}


def _is_torchs(module: nn.Module) -> bool:
    """Whether a module is one of torch's own layers, as torch wrote it."""
    return type(module).__module__.startswith("torch.nn.modules.") and "forward" not in vars(module)


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is one of torch's own layers and holds no others, nor has its own way to be copied."""
    return (
        _is_torchs(module)
        and not module._modules
        and not isinstance(module, nn.RNNBase)
        and not hasattr(type(module), "__deepcopy__")
    )


def _copy_plain(module: nn.Module, memo: dict[int, Any]) -> None:
    """Enters into the memo what `copy.deepcopy` would make of the module."""
    new = type(module).__new__(type(module))
    memo[id(module)] = new
    for buffer in module._buffers.values():
        if type(buffer) is Tensor and not buffer.requires_grad and id(buffer) not in memo:
            memo[id(buffer)] = buffer.clone()
    for key, value in vars(module).items():
        if isinstance(value, _UNCHANGEABLE) or _is_size(value):
            new.__dict__[key] = value
        elif type(value) in (dict, OrderedDict, set) and not value:
            new.__dict__[key] = type(value)()
        elif key in ("_parameters", "_buffers"):
            new.__dict__[key] = {leaf: copy.deepcopy(tensor, memo) for leaf, tensor in value.items()}
        else:
            new.__dict__[key] = copy.deepcopy(value, memo)


def _is_size(value: Any) -> bool:
    """Such as a kernel's (3, 3)."""
    return type(value) is tuple and all(isinstance(item, int) for item in value)
