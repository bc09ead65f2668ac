"""Lottery tickets: pruned after training and set back, or as soon as it is clear which weights will stay."""

from dataclasses import replace

from torch import nn
from torch.nn.functional import mse_loss

from pared.gradual import Steps, check_scores
from pared.masks import Sparse, WeightScope, density, select_weights
from pared.selection import Ratio
from pared.training.fit import Fit, TrainConfig, TrainingData
from pared.training.fleet import fit_one
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
    first. Cost: `steps.count` + 1 trainings, by what `engine_of` names.
    Raises: ValueError for an epoch to rewind to that is not before the end, and as `gradual` does.
    Source: Frankle & Carbin, The Lottery Ticket Hypothesis (2019); Frankle et al., Stabilizing the Lottery Ticket
    Hypothesis (2019) for rewinding to a later epoch.
    """
    if not 0 <= rewind < config.epochs:
        raise ValueError(f"weights are set back to an epoch from 0 to {config.epochs - 1}, got {rewind}")
    rules = steps.rules()
    early: Fit | None = None
    if rewind:
        early = fit_one(model, split, replace(part_of(config, 0, rewind), patience=None), loss)
    rest, masks = part_of(config, rewind, config.epochs), Masks()
    fits = [fit_one(model, split, rest, loss, early)]
    for rule in rules:
        if rule is not None:
            scores = criterion(fits[-1].model, split.train, loss)
            check_scores(scores, fits[-1].model)
            masks = select_weights(scores, rule, steps.scope, masks)
        fits.append(fit_one(model, split, rest, loss, early, masks))
    return Sparse(fits[-1].model, masks, tuple(fits))


def early_bird(  # noqa: PLR0913
    model: nn.Module,
    split: TrainingData,
    criterion: Criterion,
    ratio: float,
    config: TrainConfig,
    loss: Loss = mse_loss,
    scope: WeightScope = "global",
    within: float = 0.1,
    last: int = 4,
) -> Sparse:
    """Early-bird ticket: trains until the masks that pruning would give have settled, prunes, and trains to the end.

    After each epoch the weights are scored and masks drawn that remove `ratio` of them; once these are nearer than
    `within` to each of the `last` ones before, by `mask_distance`, they hold for the rest of the training, which goes
    on from the weights and the optimiser's state that are there. Masks that never settle are drawn an epoch before the
    end. The paper draws masks of channels, by scales of batch normalisation; these are of weights, by any criterion.

    Returns the trained network, its masks, and the trainings on the way: an epoch each, and the rest of the epochs.
    Cost: one training, and a scoring after each epoch until then.
    Raises: ValueError for fewer than two epochs, patience, ratios of which nothing goes or stays, no `last` masks to
    compare with, and distances below 0.
    Source: You et al., Drawing Early-Bird Tickets (2020), whose threshold of 0.1 holds for the share that differs.
    """
    if config.epochs < 2 or config.patience is not None or not 0 < ratio < 1:
        raise ValueError(
            "an early-bird ticket needs two epochs or more, no patience, and a ratio between 0 and 1; got "
            f"{config.epochs}, {config.patience} and {ratio}"
        )
    if last < 1 or within < 0:
        raise ValueError(
            "masks are compared with one or more before them, at a distance of 0 or more; choose other settings than "
            f"last={last}, within={within}"
        )
    fits, drawn = list[Fit](), list[Masks]()
    for epoch in range(config.epochs - 1):
        part = part_of(config, epoch, epoch + 1)
        fits.append(fit_one(model, split, part, loss, fits[-1] if fits else None))
        scores = criterion(fits[-1].model, split.train, loss)
        check_scores(scores, fits[-1].model)
        drawn = [*drawn[-last:], select_weights(scores, Ratio(ratio), scope)]
        if len(drawn) > last and all(mask_distance(drawn[-1], before) < within for before in drawn[:-1]):
            break
    rest = part_of(config, len(fits), config.epochs)
    fits.append(fit_one(model, split, rest, loss, fits[-1], drawn[-1]))
    return Sparse(fits[-1].model, drawn[-1], tuple(fits))


def mask_distance(a: Masks, b: Masks) -> float:
    """How far apart two masks of one density are: the share of weights they differ in, over 2 q (1 - q).

    q is the share that is gone (of `a`), and 2 q (1 - q) what two random masks differ in: 0.18 at q = 0.1, so that an
    unscaled threshold would say little there. 0 for equal masks, about 1 for unrelated ones. Raises ValueError for
    masks of other weights, and where nothing or everything is gone.
    """
    if {name: mask.shape for name, mask in a.items()} != {name: mask.shape for name, mask in b.items()}:
        raise ValueError("masks of different weights have no distance; give two masks of one network")
    left = density(a)
    if not 0 < left < 1:
        raise ValueError(f"a distance needs masks by which some weights go and some stay, got a density of {left}")
    differing = sum(int((mask ^ b[name]).sum()) for name, mask in a.items())
    return differing / sum(mask.numel() for mask in a.values()) / (2 * left * (1 - left))
