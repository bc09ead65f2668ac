"""Copies of models, as `copy.deepcopy` makes them but faster: that spends most of its time on empty dictionaries."""

import copy
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

_UNCHANGEABLE = (type(None), bool, int, float, str, torch.dtype)


def copied(model: nn.Module, without: Collection[str] = ()) -> nn.Module:
    """A deep copy in which the parameters and buffers named in `without` are empty shells that have only a shape.

    The shells must be replaced: they live on the device "meta". Their entries, which would be thrown away, are not
    copied. Raises what `copy.deepcopy` raises.
    """
    memo: dict[int, Any] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in without:
            shell = torch.empty_like(tensor, device="meta")
            memo[id(tensor)] = nn.Parameter(shell, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else shell
    for module in model.modules():
        if _is_plain(module):
            _copy_plain(module, memo)
    return copy.deepcopy(model, memo)


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is one of torch's own layers and holds no others, nor has its own way to be copied."""
    kind = type(module)
    return (
        kind.__module__.startswith("torch.nn.modules.")
        and not module._modules
        and not isinstance(module, nn.RNNBase)
        and not hasattr(kind, "__deepcopy__")
    )


def _copy_plain(module: nn.Module, memo: dict[int, Any]) -> None:
    """Enters into the memo what `copy.deepcopy` would make of the module."""
    new = type(module).__new__(type(module))
    memo[id(module)] = new
    for key, value in vars(module).items():
        if isinstance(value, _UNCHANGEABLE):
            new.__dict__[key] = value
        elif type(value) in (dict, OrderedDict, set) and not value:
            new.__dict__[key] = type(value)()
        else:
            new.__dict__[key] = copy.deepcopy(value, memo)
