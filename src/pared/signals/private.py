"""Private copies to look at: evaluation mode, plain weights, attention written out; and what a network returned."""

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pared.models.attention import Attention


def private(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose every weight is a tensor of its own and whose attention is plain Python.

    Backward hooks, which torch.func cannot batch, are left out. Weights that parametrisations compute (weight_norm)
    become parameters of the same name. `nn.MultiheadAttention` becomes `pared.models.Attention` with the same
    parameters, which keeps transformer layers off their fused kernels: those have no gradient and hide what is read.
    """
    copied = copy.deepcopy(model).eval()
    for module in copied.modules():
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    return exchanged(_plain(copied), _attention)


def _plain(model: nn.Module) -> nn.Module:
    """In place, but not by `remove_parametrizations`: that changes the class, which copies share with their model."""
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        leaves = list(cast(nn.ModuleDict, module.parametrizations))
        with torch.no_grad():
            computed = {leaf: getattr(module, leaf).clone() for leaf in leaves}
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module._modules["parametrizations"]
        for leaf, tensor in computed.items():
            module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=tensor.is_floating_point()))
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()
    return model


def _attention(module: nn.Module) -> nn.Module | None:
    if type(module) is not nn.MultiheadAttention or module.bias_k is not None or module.add_zero_attn:
        return None
    width = module.head_dim
    return Attention(module, module.num_heads, width, width, scale=width**-0.5)


def exchanged(model: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """The model with every module for which `make` returns another replaced by that, under all of its names."""
    made: dict[int, nn.Module] = {}

    def new(module: nn.Module) -> nn.Module:
        if id(module) not in made:
            made[id(module)] = make(module) or module
        return made[id(module)]

    for parent in list(model.modules()):
        for leaf, child in list(parent._modules.items()):
            if child is not None:
                parent._modules[leaf] = new(child)
    return new(model)


def plain_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Parameters by name; a weight that parametrisations compute stands under its own name, as `conv.weight`."""
    if any(parametrize.is_parametrized(module) for module in model.modules()):
        model = _plain(copy.deepcopy(model).eval())
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def check_masks(tensors: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Raises ValueError for masks of other names, shapes or types than the tensors'."""
    for name, mask in masks.items():
        if name not in tensors:
            raise ValueError(
                f"there is no parameter {name!r} to mask; the parameters are {', '.join(tensors)} (where a "
                "parametrisation computes a weight, torch.nn.utils.parametrize.remove_parametrizations makes it one)"
            )
        if mask.dtype != torch.bool or mask.shape != tensors[name].shape:
            raise ValueError(
                f"the mask of {name!r} must hold booleans shaped {tuple(tensors[name].shape)}, "
                f"got {mask.dtype} shaped {tuple(mask.shape)}"
            )


def forked(model: nn.Module) -> AbstractContextManager[None]:
    """A block after which the global random states, those of the model's devices included, are as before."""
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.device.type == "cuda"}
    return torch.random.fork_rng(devices=sorted(device.index for device in devices))


def tensor_of(output: Any) -> Tensor:
    """What a network returned, or the first tensor in it where it is a tuple, a list or a dict.

    Raises: TypeError where there is none.
    """
    found = _first(output)
    if found is None:
        raise TypeError(
            f"the network returned a {type(output).__name__} without a tensor; pared scores the first tensor of what "
            "forward returns: return a tensor, or a tuple, list or dict that holds one"
        )
    return found


def _first(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        return next((found for found in map(_first, output) if found is not None), None)
    return None
