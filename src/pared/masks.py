"""Weight-level results: which weights stay, networks in which the others are zero, and what that saves."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pared.selection import Count, Ratio, Threshold
from pared.signals import check_masks, plain_parameters
from pared.surgery import Plan, Structure
from pared.surgery.edit import replace_all
from pared.surgery.slices import Role, check_role
from pared.surgery.structure import check_fits
from pared.training.fit import Fit
from pared.types import Masks

WeightScope = Literal["global", "layer", "row"]


@dataclass(frozen=True)
class Sparse:
    """A network, which of its weights stay, and the trainings on the way (none where nothing was trained)."""

    model: nn.Module
    masks: Masks
    fits: tuple[Fit, ...] = ()


def select_weights(
    scores: Mapping[str, Tensor],
    rule: Ratio | Threshold | Count | float,
    scope: WeightScope = "global",
    masks: Masks | None = None,
) -> Masks:
    """Chooses the weights to keep: the lowest scores go first.

    The rule holds over all scored weights together ("global"), in every parameter ("layer"), or in every row of its
    first axis ("row"). A ratio counts all that is gone, `masks`' weights included, which go before all others, so that
    masks of rising ratios lie within each other; a relative threshold is in units of the mean score. Of equal
    scores the earlier goes first. A parameter may lose all of its weights.

    Returns masks for the scored parameters: True stays. Cost: one sort.
    Raises: ValueError for no scores or NaN, counts of more weights than there are, and masks that do not fit.
    """
    rule = Ratio(rule) if isinstance(rule, int | float) else rule
    if not scores:
        raise ValueError("there are no scores of weights to select by")
    check_masks(scores, {name: mask for name, mask in (masks or {}).items() if name in scores})
    for name, values in scores.items():
        if values.isnan().any():
            raise ValueError(f"the scores of {name!r} hold NaN (weight {values.isnan().nonzero()[0].tolist()})")
    parts = {name: _with_gone(values, (masks or {}).get(name)) for name, values in scores.items()}
    if scope == "global":
        rows = torch.cat([part.flatten() for part in parts.values()])[None]
        kept = torch.split(_kept(rows, rule)[0], [part.numel() for part in parts.values()])
        return {name: k.reshape(part.shape) for (name, part), k in zip(parts.items(), kept, strict=True)}
    return {
        name: _kept(part.reshape(1 if scope == "layer" else len(part), -1), rule).reshape(part.shape)
        for name, part in parts.items()
    }


def _with_gone(values: Tensor, mask: Tensor | None) -> Tensor:
    found = values.detach().cpu().double()
    return found if mask is None else found.masked_fill(~mask.cpu(), -torch.inf)


def _kept(rows: Tensor, rule: Ratio | Threshold | Count) -> Tensor:
    """(rows, weights) of booleans."""
    if isinstance(rule, Threshold):
        live = rows.where(rows > -torch.inf, torch.nan)
        limit = rule.value * (live.nanmean(dim=1, keepdim=True) if rule.relative else 1.0)
        return (rows >= limit) & (rows > -torch.inf)
    size = rows.shape[1]
    count = rule.units if isinstance(rule, Count) else round(rule.fraction * size)
    if count > size:
        raise ValueError(f"{count} weights cannot go where there are {size}")
    lowest = rows.argsort(dim=1, stable=True)[:, :count]
    return torch.ones_like(rows, dtype=torch.bool).scatter(1, lowest, False)


def mask_weights(model: nn.Module, masks: Masks) -> nn.Module:
    """A copy in which the weights that `masks` does not keep are exactly zero.

    A weight that a parametrisation computes (weight_norm) is set through its inverse. Cost: one copy.
    Raises: ValueError for masks that do not fit the model.
    """
    weights = plain_parameters(model)
    check_masks(weights, masks)
    masked = copy.deepcopy(model)
    silent = {name: ~mask.to(weights[name].device) for name, mask in masks.items()}
    replace_all(masked, {name: weights[name].masked_fill(gone, 0.0) for name, gone in silent.items()})
    return masked


def unit_masks(model: nn.Module, structure: Structure, plan: Plan, role: Role | None = "out") -> Masks:
    """Masks in which the weights that read a unit that the plan removes are closed, all others open.

    That silences the unit; `role` "in" closes the weights that make it, None both, which `reconstruct.refit_weights`
    then pays for: what makes a unit that nothing reads may be as it is. Biases, and whatever else has one axis, have no
    masks: cut the network afterwards. Raises StructureError as `cut` does.
    """
    check_role(role)
    structure.bind(plan)
    check_fits(model, structure)
    shapes = {name: weight.shape for name, weight in plain_parameters(model).items() if weight.dim() > 1}
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
    for name, units in structure.removed(plan).items():
        for s in structure[name].slices:
            if s.parameter in masks and role in (None, s.role):
                masks[s.parameter].index_fill_(s.axis, torch.tensor(s.indices(structure[name].width, units)), False)
    return masks


def density(masks: Masks) -> float:
    """The share of masked parameters' weights that stays; 1 where none are masked, as nothing is gone then."""
    total = sum(mask.numel() for mask in masks.values())
    return sum(int(mask.sum()) for mask in masks.values()) / total if total else 1.0


def adapt_dropout(model: nn.Module, masks: Masks, like: nn.Module | None = None) -> nn.Module:
    """A copy whose dropout rates suit the connections that are left: rate * sqrt(left / all).

    A dropout module follows the masked parameter that comes before it in the order of the model's modules; its full
    rate is that of `like` (default: the model itself). Fewer connections need less noise.
    Source: Han et al., Learning both Weights and Connections (2015).
    """
    adapted, share = copy.deepcopy(model), 1.0
    full = dict((model if like is None else like).named_modules())
    for path, module in adapted.named_modules():
        own = {name: mask for name, mask in masks.items() if name.rpartition(".")[0] == path}
        share = density(own) if own else share
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = float(full[path].p) * share**0.5
    return adapted
