"""Lottery tickets: trained, pruned, and the weights that are left set back to what they were early in the training."""

from dataclasses import replace

from torch import nn
from torch.nn.functional import mse_loss

from pared.gradual import Steps, check_scores
from pared.masks import Sparse, select_weights
from pared.training.fit import Fit, TrainConfig, TrainingData, fit
from pared.training.parts import part_of
from pared.types import Criterion, Loss, Masks


def lottery_ticket(
    model: nn.Module,
    split: TrainingData,
    criterion: Criterion,
    steps: Steps,
    config: TrainConfig,
    loss: Loss = mse_loss,
    rewind: int = 0,
) -> Sparse:
    """Iterative pruning with rewinding: trains, removes the lowest scores, sets the others back, trains anew.

    Each of `steps.count` rounds scores the trained network, removes up to the schedule's value (`Exponential` removes
    the same share of what is left each time, as in the paper), and trains what is left from the weights, and the
    optimiser's state, of epoch `rewind` to the end. With rewind 0 these are the weights of `model`. The paper's
    criterion is `criteria.magnitude`.

    Returns the last trained network, its masks, and the trainings from the rewound weights, that of the dense network
    first. Cost: `steps.count` + 1 trainings.
    Raises: ValueError for an epoch to rewind to that is not before the end, and as `gradual` does.
    Source: Frankle & Carbin, The Lottery Ticket Hypothesis (2019); Frankle et al., Stabilizing the Lottery Ticket
    Hypothesis (2019) for rewinding to a later epoch.
    """
    if not 0 <= rewind < config.epochs:
        raise ValueError(f"weights are set back to an epoch from 0 to {config.epochs - 1}, got {rewind}")
    rules = steps.rules()
    early: Fit | None = None
    if rewind:
        early = fit(model, split, replace(part_of(config, 0, rewind), patience=None), loss)
    rest, masks = part_of(config, rewind, config.epochs), Masks()
    fits = [fit(model, split, rest, loss, early)]
    for rule in rules:
        if rule is not None:
            scores = criterion(fits[-1].model, split.train, loss)
            check_scores(scores, fits[-1].model)
            masks = select_weights(scores, rule, steps.scope, masks)
        fits.append(fit(model, split, rest, loss, early, masks))
    return Sparse(fits[-1].model, masks, tuple(fits))
