"""What can be measured of one training, besides its losses: what the rules read."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.stats import theilslopes
from torch import Tensor, nn

from pared.data.batches import evenly
from pared.signals import forked
from pared.signals.layers import layer_values
from pared.training import predict_many
from pared.training.fit import evaluate_loss
from pared.tuning.attempts import Attempt, losses_of, some_of
from pared.tuning.checks import DataFacts
from pared.tuning.losses import Effect, Mean, mean_of
from pared.tuning.range_test import RangeTest
from pared.tuning.recipe import Prepared, Problem, Recipe
from pared.tuning.reference import Reference
from pared.tuning.watch import Watch
from pared.types import Batch, Loss

DRAWS = 8
LOOKED_AT = 512
"""Training examples on which units are looked at."""


@dataclass(frozen=True)
class NetworkFacts:
    """Numbers about one trained network. Losses are in evaluation mode unless said otherwise.

    diverged     whether training ended in a loss that is not finite;
    start, constant, end   training loss of the untrained network, of the best constant output, of the trained network;
    guess        validation loss of that constant output, in the units that the data came in;
    train, validation, gap   on as many examples of each, in the units that the data came in; validation - train;
    reported     the training loss of the last epoch as `fit` reports it: dropout active, averaged over the epoch;
    noise        how much dropout (training mode) adds to `end`;
    reference    validation loss of the reference, None without one; `above`: what the network's is above it;
    useful       what the best constant's validation loss is above that of the reference: what there is to learn;
    spread       deviation of the outputs (of classes, their probabilities) over that of the targets;
    dead         share of ReLU units that are zero on all training examples, in the layer that has most of them;
                 `born_dead`: of the untrained network;
    rough        by how much the logarithm of the training loss rises from epoch to epoch (a fall counts as 0), mean
                 over the second half of the epochs;
    slope        of the logarithm of the validation loss an epoch, over the last third (Theil and Sen);
    risen        validation loss at the end of the curve above its lowest.
    """

    diverged: bool
    start: float
    constant: float
    guess: float
    end: float
    train: Mean
    validation: Mean
    gap: Mean
    reported: float
    noise: Mean
    reference: float | None
    above: Mean | None
    useful: Mean | None
    spread: float
    dead: float
    born_dead: float
    rough: float
    slope: float
    risen: float

    @property
    def learnt(self) -> float:
        """Share of the loss that training took away, of what the untrained network or the best constant has."""
        least = min(self.start, self.constant)
        return 1 - self.end / least if least > 0 else 0.0

    @property
    def generalised(self) -> float:
        """Share of the best constant's validation loss that training took away."""
        return 1 - self.validation.value / self.guess if self.guess > 0 else 0.0


@dataclass(frozen=True)
class Seen:
    """Everything the rules read of one training. `effects`: experiment -> effects on training and validation loss."""

    recipe: Recipe
    data: DataFacts
    watch: Watch
    network: NetworkFacts
    rates: RangeTest
    effects: Mapping[str, tuple[Effect, Effect]] = field(default_factory=dict)


def network_facts(problem: Problem, data: Prepared, attempt: Attempt, reference: Reference | None) -> NetworkFacts:
    """Measures one training. Cost: some forward passes."""
    fit, loss, looked = attempt.fit, problem.loss, evenly(data.train, LOOKED_AT)
    constant = best_constant(data.train.y, attempt.start, looked.x)
    train, validation = mean_of(attempt.train), mean_of(attempt.validation)
    y = data.validation.y
    guesses = losses_of(problem, data, constant.expand(len(y), *constant.shape), y)
    above = useful = by_reference = None
    if reference is not None:
        losses = losses_of(problem, data, reference.validation.float(), y)
        above, by_reference = mean_of(attempt.validation - losses), float(losses.mean())
        useful = mean_of(guesses - losses)
    return NetworkFacts(
        diverged=fit.diverged,
        start=evaluate_loss(attempt.start, looked, loss),
        guess=float(guesses.mean()),
        constant=float(loss(constant.expand(len(looked.y), *constant.shape), looked.y)),
        end=math.inf if fit.diverged else evaluate_loss(fit.model, looked, loss),
        train=train,
        validation=validation,
        gap=Mean(validation.value - train.value, math.hypot(validation.error, train.error)),
        reported=fit.curves["train"][-1],
        noise=dropout_noise(problem, data, attempt),
        reference=by_reference,
        above=above,
        useful=useful,
        spread=0.0 if fit.diverged else spread(predict_many([fit.model], data.validation.x)[0], data.validation.y),
        dead=0.0 if fit.diverged else dead_share(fit.model, looked, loss),
        born_dead=dead_share(attempt.start, looked, loss),
        rough=rough(fit.curves["train"]),
        slope=slope(fit.curves["validation"]),
        risen=risen(fit.curves["validation"]),
    )


def best_constant(y: Tensor, model: nn.Module, x: Tensor) -> Tensor:
    """The one output that answers all targets best: their mean, or the logarithms of the shares of the classes.

    Exact for the mean squared error and (but for one example added to each class) for cross entropy; for another loss
    it is what it says.
    """
    if y.is_floating_point():
        return y.mean(dim=0)
    outputs = predict_many([model], x[:1])[0].shape[1]
    return ((torch.bincount(y.flatten(), minlength=outputs) + 1) / (y.numel() + outputs)).log()


def spread(out: Tensor, y: Tensor) -> float:
    """Deviation of the outputs over that of the targets, the least of any column.

    Of classes, deviations of all probabilities from their means together, over those of the true 0 and 1.
    """
    if not y.is_floating_point():
        found, truth = out.softmax(dim=1), torch.eye(out.shape[1])[y]
        return float((found.var(dim=0).sum() / truth.var(dim=0).sum()).sqrt())
    of_targets = y.reshape(len(y), -1).std(dim=0)
    ratio = out.reshape(len(out), -1).std(dim=0)[of_targets > 0] / of_targets[of_targets > 0]
    return float(ratio.min()) if len(ratio) else 1.0


def dead_share(model: nn.Module, batch: Batch, loss: Loss) -> float:
    """Share of the units of a linear layer with ReLU that are zero on every example, in the layer with most of them."""
    found = [values.outputs for values in layer_values(model, batch, loss).values() if values.relu]
    return max((float((outputs <= 0).all(dim=0).double().mean()) for outputs in found), default=0.0)


def dropout_noise(problem: Problem, data: Prepared, attempt: Attempt) -> Mean:
    """What training mode adds to the training loss, example by example, mean over 8 draws of dropout."""
    if attempt.fit.diverged or not any(
        isinstance(m, nn.modules.dropout._DropoutNd) for m in attempt.fit.model.modules()
    ):
        return Mean(0.0, 0.0)
    part, model = some_of(data), copy.deepcopy(attempt.fit.model).train()
    with forked(model), torch.no_grad():
        torch.manual_seed(attempt.fit.seed)
        noisy = [losses_of(problem, data, model(part.x), part.y) for _ in range(DRAWS)]
    return mean_of(np.mean(noisy, axis=0) - attempt.train)


def rough(curve: Sequence[float]) -> float:
    """Mean rise of the logarithm of a loss an epoch over the second half, falls counted as 0; infinite where it is."""
    late = np.array(curve[len(curve) // 2 :])
    if not (np.isfinite(late).all() and (late > 0).all()):
        return math.inf
    return float(np.diff(np.log(late)).clip(min=0).mean()) if len(late) > 1 else 0.0


def slope(curve: Sequence[float]) -> float:
    """Theil and Sen's slope of the logarithm of a loss an epoch over the last third; NaN below 3 epochs."""
    late = np.array(curve[-max(3, len(curve) // 3) :])
    if len(late) < 3 or not (np.isfinite(late).all() and (late > 0).all()):
        return math.nan
    return float(theilslopes(np.log(late)).slope)


def risen(curve: Sequence[float]) -> float:
    """The last loss above the lowest one; infinite where it is not finite."""
    return curve[-1] - min(curve) if curve and math.isfinite(curve[-1]) else math.inf
