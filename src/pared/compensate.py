"""Least-squares repair: what reads a removed unit learns to read it from the units that stay."""

import copy
from collections import defaultdict

import torch
from torch import Tensor, nn

from pared.signals import read_values
from pared.surgery import Plan, Structure


def compensate(model: nn.Module, structure: Structure, plan: Plan, x: Tensor, ridge: float = 1e-6) -> nn.Module:
    """A copy of the same shape whose reading weights make up for the units that `plan` removes; cut it afterwards.

    For every weight W that reads values h (rows = samples and time steps), with D removed and K kept:

        h_D ~ A h_K + a,   W_K <- W_K + W_D A,   b <- b + W_D a,   A = S_DK (S_KK + r I)^-1

    where S holds second moments (centred where there is an intercept) and r = ridge * mean diag S_KK. Recurrent
    weights are fitted without an intercept over all steps but the last; layers without a bias likewise. Moments are
    those of the uncut network on the inputs `x`, summed in float64. Where the samples are fewer than the kept units
    the ridge decides; units that do not vary (below 1e-12 of the mean square) explain nothing.

    Cost: two forward passes, and for each reading weight O(rows k^2 + k^3) with k values read.
    Raises StructureError when the plan does not fit the structure.
    Source: linear compensation as in optimal brain surgery's grouped form and He, Zhang & Sun (2017), for recurrent
    weights by the pilot study of this project.
    """
    structure.bind(plan)
    repaired = copy.deepcopy(model)
    removed = structure.removed(plan)
    gone: dict[tuple[str, int], set[int]] = defaultdict(set)
    for name, units in removed.items():
        for s in structure[name].slices:
            if s.role == "out":
                gone[s.parameter, s.axis].update(s.indices(structure[name].width, units))
    if not gone:
        return repaired
    values = read_values(model, [structure[name] for name in removed], x)
    tensors = dict(repaired.named_parameters())
    for (parameter, axis), lost in gone.items():
        bias = tensors.get(_bias_of(parameter))
        lost_index = torch.tensor(sorted(lost))
        kept_index = torch.tensor([i for i in range(tensors[parameter].shape[axis]) if i not in lost])
        matrix, intercept = _regression(
            values[parameter].double().cpu(), kept_index, lost_index, ridge, bias is not None
        )
        with torch.no_grad():
            weight = tensors[parameter].movedim(axis, -1)
            reading = weight[..., lost_index].double().cpu()
            weight[..., kept_index] += (reading @ matrix).to(weight)
            if bias is not None:
                bias.add_((reading @ intercept).to(bias))
    return repaired


def _bias_of(parameter: str) -> str:
    """The bias added to what a reading weight yields; a recurrent weight's repair has no intercept, hence none."""
    path, _, leaf = parameter.rpartition(".")
    return "" if leaf.startswith("weight_hh") else f"{path}.{leaf.replace('weight', 'bias', 1)}"


def _regression(values: Tensor, kept: Tensor, lost: Tensor, ridge: float, intercept: bool) -> tuple[Tensor, Tensor]:
    """Ridge regression of the lost columns on the kept ones: (A (lost, kept), a (lost,))."""
    mean = values.mean(dim=0) if intercept and len(values) else torch.zeros(values.shape[1], dtype=values.dtype)
    centred = values - mean
    moments = centred.T @ centred / max(len(values), 1)
    within = moments[kept][:, kept]
    constant = 1e-12 * values.square().mean() if len(values) else 0.0  # variances below this are rounding
    scale = within.diagonal().mean().clamp_min(constant)
    if scale == 0:  # nothing to repair from: no rows, or every unit dead
        return torch.zeros(len(lost), len(kept), dtype=values.dtype), torch.zeros(len(lost), dtype=values.dtype)
    damped = within + ridge * scale * torch.eye(len(kept), dtype=values.dtype)
    matrix = torch.linalg.solve(damped, moments[kept][:, lost]).T
    return matrix, mean[lost] - matrix @ mean[kept]
