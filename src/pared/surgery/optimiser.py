"""Training goes on after surgery: what an optimiser, an averaged copy and masks remember moves with the weights."""

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pared.surgery.origins import Change, Origin, along, fresh_entries, moved, origins
from pared.surgery.slices import StructureError
from pared.surgery.structure import Structure, check_fits

Policy = Literal["mean_v", "pad_zero", "reset"]

SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")
"""What Adam, RMSprop and Adagrad call their sums of squared gradients."""


def carry(
    optimiser_state: Mapping[str, Any],
    model: nn.Module,
    new_model: nn.Module,
    structure: Structure,
    change: Change,
    policy: Policy = "mean_v",
) -> dict[str, Any]:
    """`optimizer.state_dict()` of a model as that of the model after a cut, an insertion or a widening.

    `change` is what was done: the plan of the cut, the counts of `insert`, the copies of `widen`; `structure` is that
    of `model`. Kept entries keep their moments, the step and the parameter groups (learning rates, weight decay) stay.
    New entries follow the policy: "mean_v" gives them no momentum and the mean squared gradient of the tensor's entries
    that ever had one (a parameter without any starts afresh), so that under steady gradients of one size none of Adam's
    steps is longer than the learning rate; "pad_zero" gives zeros, with which its first steps are 3.2 to 6.6 times too
    long; "reset" starts a parameter that has new entries afresh.

        small = pared.cut(model, structure, plan)
        optimiser = torch.optim.Adam(small.parameters())
        optimiser.load_state_dict(pared.carry(old.state_dict(), model, small, structure, plan))

    A learning-rate scheduler goes on when it is made on the new optimiser and given its old `state_dict()`, before the
    optimiser's state is loaded. A `pared.Fit` goes on as

        state = pared.carry(fit.optimiser_state, fit.model, small, structure, plan)
        pared.fit(small, split, config, resume=dataclasses.replace(fit, model=small, optimiser_state=state))

    Works for any optimiser whose state has the shape of its parameters (Adam, AdamW, SGD with momentum, RMSprop). The
    optimiser must hold all of `model.parameters()`, or all that are trained, in order; with parameter groups of another
    order make it from `named_parameters()`, so that its state holds their names. Cost: a copy of the state. Raises
    ValueError where the state is another model's, StructureError where the models do not belong to the change.
    """
    if policy not in get_args(Policy):
        raise ValueError(f"unknown policy {policy!r}; choose one of {', '.join(get_args(Policy))}")
    tables = _tables(model, structure, change)
    names = _names(optimiser_state, model)
    old, new = dict(model.named_parameters()), dict(new_model.named_parameters())
    groups = _regrouped(optimiser_state["param_groups"], names, old, list(new))
    order = [name for group in groups for name in group["params"]]
    state: dict[int, Any] = {}
    for number, name in names.items():
        if name in new and number in optimiser_state["state"]:
            axes = _matching(tables.get(_weight_of(name), {}), old[name], new[name], name)
            grows = any(origin.new.any() for origin in axes.values())
            held = optimiser_state["state"][number]
            if not (grows and (policy == "reset" or (policy == "mean_v" and _untouched(held)))):
                state[order.index(name)] = {
                    key: _carried(key, value, axes, policy, old[name].shape) for key, value in held.items()
                }
    counted = iter(range(len(order)))
    for group in groups:
        group["params"] = [next(counted) for _ in group["params"]]
    return {**copy.deepcopy({k: v for k, v in optimiser_state.items() if k not in ("state", "param_groups")}),
            "state": state, "param_groups": groups}  # fmt: skip


def carry_tensors(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    new_model: nn.Module,
    structure: Structure,
    change: Change,
) -> dict[str, Tensor]:
    """Tensors named and shaped like the model's, after the change: averaged weights, or masks of weights.

    Takes a plain state dict, that of a `torch.optim.swa_utils.AveragedModel`, or {parameter: bool}. Kept entries stay.
    After an insertion new averages start at the new model's weights and new masks at True; after a widening copies are
    copied, and averages that read a copied unit are divided as its weights are, so that the averaged network computes
    what it did. Names of nothing that changed are copied. Cost: a copy. Raises StructureError as `carry` does.
    """
    tables = _tables(model, structure, change)
    now = dict(new_model.named_parameters(remove_duplicate=False)) | dict(
        new_model.named_buffers(remove_duplicate=False)
    )
    copied = isinstance(change, Mapping) and any(isinstance(value, Sequence) for value in change.values())
    carried: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        own = name if _weight_of(name) in tables else name.removeprefix("module.")
        target = now.get(own)
        if target is None or not (table := tables.get(_weight_of(own))):
            carried[name] = tensor.detach().clone()
            continue
        axes = _matching(table, tensor, target, name)
        after = moved(tensor.detach(), axes)
        if copied and tensor.is_floating_point():
            for axis, origin in axes.items():
                after = after * along(origin.share, axis, after).to(after.dtype)
        elif not copied:
            begin = torch.ones_like(after) if after.dtype == torch.bool else target.detach().to(after)
            after = torch.where(fresh_entries(after, axes), begin, after)
        carried[name] = after
    return carried


def _tables(model: nn.Module, structure: Structure, change: Change) -> dict[str, dict[int, Origin]]:
    """Parameter or buffer, under every name that it has -> its changed axes."""
    check_fits(model, structure)
    found = origins(structure, change)
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    by_tensor = {id(tensor): found[name] for name, tensor in named if name in found}
    return found | {name: by_tensor[id(tensor)] for name, tensor in named if id(tensor) in by_tensor}


def _weight_of(name: str) -> str:
    """A parameter that a parametrisation computes a weight from moves as the weight does."""
    return re.sub(r"(^|\.)parametrizations\.(.+)\.original\d*$", r"\1\2", name)


def _matching(table: Mapping[int, Origin], old: Tensor, new: Tensor, name: str) -> dict[int, Origin]:
    """The axes along which a tensor changes its size, after checking that they do as the change says."""
    axes = dict(table)
    if name != _weight_of(name):  # such as the norms of a weight's rows, which have no columns
        axes = {a: origin for a, origin in table.items() if a < old.dim() and old.shape[a] != new.shape[a]}
    sizes = list(old.shape)
    for axis, origin in axes.items():
        sizes[axis] += len(origin.source) - origin.length
    if sizes != list(new.shape):
        raise StructureError(
            f"{name!r} is shaped {tuple(old.shape)} before the change and should be {tuple(sizes)} after it, but the "
            f"new model's is {tuple(new.shape)}; give the model, the structure and the change that made the new model"
        )
    return axes


def _names(state: Mapping[str, Any], model: nn.Module) -> dict[int, str]:
    """Number of a parameter in the optimiser's state -> its name in the model."""
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    given = [name for group in state["param_groups"] for name in group.get("param_names", ())]
    shapes = {name: p.shape for name, p in model.named_parameters()}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    names = next((c for c in (given, list(shapes), trained) if len(c) == len(numbers)), None)
    if names is None or not shapes.keys() >= set(names):
        raise ValueError(
            f"the optimiser holds {len(numbers)} parameters, the model has {len(shapes)}, of which {len(trained)} are "
            "trained; give the optimiser model.parameters(), or model.named_parameters() for groups of some of them"
        )
    found = dict(zip(numbers, names, strict=True))
    for number, held in state["state"].items():
        for key, value in held.items():
            if isinstance(value, Tensor) and value.dim() and value.shape != shapes[found[number]]:
                raise ValueError(
                    f"the optimiser's {key} for {found[number]!r} is shaped {tuple(value.shape)}, the parameter "
                    f"{tuple(shapes[found[number]])}; the state belongs to another model, or its parameters stand in "
                    "another order: make the optimiser from model.named_parameters()"
                )
    return found


def _regrouped(
    groups: Sequence[Mapping[str, Any]], names: Mapping[int, str], old: Mapping[str, Tensor], new: Sequence[str]
) -> list[dict[str, Any]]:
    """The parameter groups with names in the place of numbers, in the new model's order where there is one group."""
    regrouped = []
    for group in groups:
        own = [names[number] for number in group["params"]]
        left = [name for name in own if name in new]
        if len(groups) == 1:
            left = [name for name in new if name in own or name not in old]
        options = copy.deepcopy({key: value for key, value in group.items() if key != "params"})
        if "param_names" in options:
            options["param_names"] = left
        regrouped.append(options | {"params": left})
    return regrouped


def _carried(key: str, value: Any, axes: Mapping[int, Origin], policy: Policy, shape: torch.Size) -> Any:
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    if not axes or value.shape != shape:
        return value.detach().clone()
    after = moved(value.detach(), axes)
    fill = _mean_square(value) if policy == "mean_v" and key in SQUARES else 0.0
    return after.masked_fill(fresh_entries(after, axes), fill)


def _mean_square(squares: Tensor) -> float:
    """The mean over entries that had a gradient: those of dead units would make it too small, the steps too long."""
    return squares[squares > 0].double().mean().item() if squares.any() else 0.0


def _untouched(held: Mapping[str, Any]) -> bool:
    """Whether no entry of a parameter has had a gradient, so that no mean square can be given to new ones."""
    squares = [held[key] for key in SQUARES if isinstance(held.get(key), Tensor)]
    return bool(squares) and not any(square.any() for square in squares)
