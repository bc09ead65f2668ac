"""Repair at the output: what reads removed units is refitted until the small network gives what the whole one gave."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared.compensate import put
from pared.data.batches import Data, first_batch
from pared.signals import Layout, plain_parameters
from pared.signals.curvature import check_dense, damped
from pared.signals.layout import OfWeights
from pared.surgery import Plan, StructureError
from pared.surgery.copies import copied
from pared.types import Batch

SAMPLES = 1024
"""How many samples of a loader are looked at."""
TRIES, LEAST = 8, 1e-12
"""How many dampings a step is tried with; what is less is none, in float64."""


def match_outputs(
    small: nn.Module, model: nn.Module, plan: Plan, data: Tensor | Data, *, steps: int = 4, ridge: float = 1e-4
) -> nn.Module:
    """A copy of a cut network, its reading weights refitted by nonlinear least squares to what the uncut one gives.

    With f the uncut network, f_w the small one as a function of w, the weights that read groups which lost units and
    the biases beside them, and J = d f_w(x) / d w over samples and outputs:

        w <- w + (J'J + r I)^-1 J' (f(x) - f_w(x)),   r = ridge * mean diag J'J

    No target is read: it is `compensate` carried from each layer to the output, and starts best from a network that
    `compensate` has repaired. A step that brings the outputs no nearer is tried again with ten times the ridge; after
    one that does the ridge is a tenth (Levenberg-Marquardt). It pays where errors are small beside the signal, as in
    forecasting; classes seldom change by it. `plan` must carry its slices, as `select` makes it. Of a tensor of inputs
    all samples are looked at, of batches and loaders the first 1,024.

    Cost: `steps` Jacobians and O(samples outputs n^2 + n^3) for n weights.
    Raises: StructureError where the plan fits not or reads nothing, CurvatureError for too many weights.
    Source: Marquardt (1963); for recurrent forecasters this project.
    """
    shapes = {name: tuple(plain_parameters(small)[name].shape) for name in _readers(small, plan)}
    layout = Layout(shapes)
    check_dense(layout.size, "compensate alone, or a plan that cuts fewer groups")
    x = data if isinstance(data, Tensor) else first_batch(data, SAMPLES).x
    nothing = torch.zeros(len(x) if isinstance(x, Tensor) else len(x[0]), 1)
    target = OfWeights(model, Batch(x, nothing), mse_loss).outputs()
    of = OfWeights(small, Batch(x, nothing), mse_loss, layout=layout)
    matched = copied(small)
    for name, weight in layout.named(_fitted(of, target, steps, ridge)).items():
        put(matched, name, weight.to(plain_parameters(small)[name]))
    return matched


def _readers(small: nn.Module, plan: Plan) -> Sequence[str]:
    """Weights that read a group which lost units, and the biases beside them."""
    held = plain_parameters(small)
    lost = [group for group in plan.groups if len(plan.keep.get(group.name, range(group.width))) < group.width]
    names: dict[str, None] = {}
    for s in (s for group in lost for s in group.slices if s.role == "out"):
        names |= dict.fromkeys([s.parameter, s.parameter.replace("weight", "bias")])
    found = [name for name in held if name in names]
    if not found:
        raise StructureError(
            "no weight of this network reads a group that lost units by this plan; give the network that was cut by "
            "it, and a plan that carries its slices (structure.bind adds them)"
        )
    return found


def _fitted(of: OfWeights, target: Tensor, steps: int, ridge: float) -> Tensor:
    """The flat vector of weights after `steps` steps, or fewer where none helps any more."""
    with torch.no_grad():
        residual = (target - of.outputs()).flatten()
    for _ in range(steps):
        gram, slope = _normal(of, residual)
        if not slope.any():
            break
        start = of.weights
        for _ in range(TRIES):
            factor, failed = torch.linalg.cholesky_ex(damped(gram, ridge))
            of.weights = start + torch.cholesky_solve(slope[:, None], factor)[:, 0]
            now = (target - of.outputs()).flatten()
            if not failed and now.square().sum() < residual.square().sum():  # False for NaN
                residual, ridge = now, ridge / 10
                break
            ridge = 10 * max(ridge, LEAST)
        else:
            of.weights = start
            break
    return of.weights


def _normal(of: OfWeights, residual: Tensor) -> tuple[Tensor, Tensor]:
    """J'J and J' residual, as the Jacobian comes."""
    size, done = of.layout.size, 0
    gram, slope = torch.zeros(size, size).to(of.weights), torch.zeros(size).to(of.weights)
    for _, part in of.jacobian():
        rows = part.flatten(0, 1)
        gram.addmm_(rows.T, rows)
        slope.addmv_(rows.T, residual[done : done + len(rows)])
        done += len(rows)
    return gram, slope
