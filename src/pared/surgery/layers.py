"""Layers put in without changing anything, and modules of several layers split into single ones."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from pared.models.stacked import Stacked
from pared.surgery.drop import PASSED
from pared.surgery.edit import replace_module, submodule
from pared.surgery.plan import Deepen, Plan, Split
from pared.surgery.slices import StructureError


def split_layers(model: nn.Module) -> tuple[nn.Module, Plan]:
    """A copy in which each recurrent module of several layers is a `pared.models.Stacked` of modules of one layer.

    Its layers may be cut to unequal widths, which one `nn.LSTM` cannot have; outputs are equal. Returns the model and
    the plan to put before the cut: `plan.then(cut_plan)`. A forward that reads h_n other than by index (`h_n[-1]`) does
    not run on what it returns. Raises StructureError where there is nothing to split.
    """
    names = [name for name, m in model.named_modules() if isinstance(m, nn.RNNBase) and m.num_layers > 1]
    if not names:
        raise StructureError("no recurrent module has several layers; there is nothing to split")
    plan, new = Plan({}), copy.deepcopy(model)
    for name in names:
        new = split(new, Split(name))
        plan = plan.then(Split(name))
    return new, plan


def split(model: nn.Module, edit: Split) -> nn.Module:
    """Splits one module in place."""
    module = submodule(model, edit.module)
    if not isinstance(module, nn.RNNBase):
        raise StructureError(f"{edit.module!r} is a {type(module).__name__}, not a recurrent module; nothing to split")
    return replace_module(model, edit.module, Stacked(module))


def deepen(model: nn.Module, module: str, width: int, kind: str = "linear") -> tuple[nn.Module, Plan]:
    """A copy with a new layer after `module` that passes on what it gets, until it is trained: Net2Deeper.

    `kind`: "linear" is an identity matrix; "relu" an identity matrix and a ReLU, exact where `module` is a ReLU itself,
    as max(max(x, 0), 0) = max(x, 0); "lstm", "gru", "rnn" add a recurrent layer through a projection that starts at
    zero: y = x + P h(x), P = 0. Tanh and sigmoid are not idempotent: use "linear" after them. `width` is that of what
    `module` returns (last axis). It is checked where `module` is a linear or recurrent layer, or follows one in an
    nn.Sequential with only activations and normalisations between; elsewhere a wrong one fails at the first call.

    Returns the model and the plan that replays it. Raises StructureError for an unknown module or kind and for a width
    that is not the module's, ValueError for one that is no whole number above 0.
    Source: Chen, Goodfellow & Shlens, Net2Net (2016); recurrent layers as residual ones.
    """
    edit = Deepen(module, width, kind)
    return deepened(copy.deepcopy(model), edit), Plan({}).then(edit)


def deepened(model: nn.Module, edit: Deepen) -> nn.Module:
    """Deepens a model in place."""
    before = submodule(model, edit.module)
    if not isinstance(edit.width, int) or edit.width < 1:
        raise ValueError(f"the width of a new layer is a whole number above 0, got {edit.width!r}")
    if (width := _width(model, edit.module)) not in (None, edit.width):
        raise StructureError(
            f"{edit.module!r} returns {width} values, so that a layer after it must be as wide; got {edit.width}"
        )
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if edit.kind in ("linear", "relu"):
            identity = nn.Linear(edit.width, edit.width).to(like)
            nn.init.eye_(identity.weight)
            nn.init.zeros_(identity.bias)
            more: list[nn.Module] = [identity] if edit.kind == "linear" else [identity, nn.ReLU()]
            if edit.kind == "relu" and not isinstance(before, nn.ReLU):
                raise StructureError(
                    f"a ReLU after {edit.module!r}, which is no ReLU, would change it; use kind='linear'"
                )
        elif edit.kind in ("lstm", "gru", "rnn"):
            more = [Residual(edit.kind, edit.width).to(like)]
        else:
            raise StructureError(f"unknown kind {edit.kind!r}; choose linear, relu, lstm, gru or rnn")
    if isinstance(before, nn.RNNBase):
        return replace_module(model, edit.module, Followed(before, nn.Sequential(*more)))
    return replace_module(model, edit.module, nn.Sequential(before, *more))


def _width(model: nn.Module, name: str) -> int | None:
    """How many values a module returns along the last axis; None where its type and its place do not tell."""
    module = submodule(model, name)
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.RNNBase):
        return (module.proj_size or module.hidden_size) * (2 if module.bidirectional else 1)
    if isinstance(module, nn.Sequential) and len(module):
        return _width(model, f"{name}.{list(module._modules)[-1]}".lstrip("."))
    path, _, leaf = name.rpartition(".")
    around = model.get_submodule(path)
    if not isinstance(module, PASSED) or not isinstance(around, nn.Sequential):
        return None
    leaves = list(around._modules)
    place = leaves.index(leaf)
    return _width(model, f"{path}.{leaves[place - 1]}".lstrip(".")) if place else None


class Residual(nn.Module):
    """y = x + P h(x) with a recurrent layer h and a projection P that starts at zero."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.recurrent = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind](width, width, batch_first=True)
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.projection.weight)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.projection(self.recurrent(x)[0])
        return x + change


class Followed(nn.Module):
    """A recurrent module whose outputs go through more layers; its states stay as they are."""

    def __init__(self, first: nn.RNNBase, rest: nn.Sequential) -> None:
        super().__init__()
        self.first, self.rest = first, rest

    def forward(self, x: Any, hx: Any = None) -> tuple[Any, Any]:
        out, state = self.first(x, hx)
        return self.rest(out), state
