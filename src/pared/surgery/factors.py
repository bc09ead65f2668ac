"""Layers of low rank: linear layers as two thinner ones, recurrent weights as products."""

from collections import defaultdict
from typing import Any, cast

import torch
from torch import nn

from pared.models.factored import Factored
from pared.surgery.edit import replace_module, submodule
from pared.surgery.plan import Factor
from pared.surgery.slices import StructureError

RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)


def thinned(model: nn.Module, edit: Factor) -> nn.Module:
    """Puts factors of zeros in the place of weights, in the model itself; returns it, or what takes its place.

    A linear layer becomes Linear(inputs, rank) without a bias, then Linear(rank, outputs); a recurrent module
    `pared.models.Factored`. Raises StructureError for what cannot be factored, and for ranks out of range.
    """
    recurrent: dict[str, dict[str, int]] = defaultdict(dict)
    modules = dict(model.named_modules())
    for name, rank in edit.ranks.items():
        path, _, leaf = name.rpartition(".")
        owner = modules.get(path)
        if name in modules and type(modules[name]) is nn.Linear:
            model = replace_module(model, name, _thin(cast(nn.Linear, modules[name]), name, rank))
        elif type(owner) in RECURRENT and leaf.startswith(("weight_ih_l", "weight_hh_l")) and hasattr(owner, leaf):
            _check(name, tuple(getattr(owner, leaf).shape), rank)
            recurrent[path][leaf] = rank
        else:
            raise StructureError(f"{name!r} is no linear layer and no weight of a recurrent module; it has no factors")
    for path, ranks in recurrent.items():
        model = replace_module(model, path, Factored(cast(nn.RNNBase, submodule(model, path)), ranks))
    return model


def _check(name: str, shape: tuple[int, ...], rank: int) -> None:
    if not isinstance(rank, int) or not 1 <= rank <= min(shape):
        raise StructureError(f"the rank of {name!r}, shaped {shape}, lies between 1 and {min(shape)}, got {rank}")


@torch.no_grad()
def _thin(layer: nn.Linear, name: str, rank: int) -> nn.Sequential:
    _check(name, tuple(layer.weight.shape), rank)
    like: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    with torch.random.fork_rng(devices=[]):
        first = nn.Linear(layer.in_features, rank, bias=False, **like)
        second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None, **like)
    first.weight.zero_()
    second.weight.zero_()
    if layer.bias is not None:
        second.bias.copy_(layer.bias)
    return nn.Sequential(first, second).train(layer.training).requires_grad_(layer.weight.requires_grad)
