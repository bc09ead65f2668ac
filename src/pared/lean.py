"""Fewer layers: train and watch, take the least needed layer out, train on, keep it where nothing is lost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.functional import mse_loss

from pared import criteria
from pared.data.batches import evenly, suited_batch
from pared.surgery import Plan, StructureError, drop_layer
from pared.training.fit import Fit, TrainConfig, TrainingData, evaluate_loss
from pared.training.fleet import fit_many
from pared.training.parts import part_of
from pared.types import Batch, Criterion, Loss, Scores

PROBE = 512
"""How many training examples layers are scored on."""


def fit_watching_layers(
    model: nn.Module,
    split: TrainingData,
    config: TrainConfig,
    criterion: Criterion = criteria.replaceability,
    loss: Loss = mse_loss,
    every: int = 10,
    decay: float = 0.9,
) -> tuple[Fit, Scores]:
    """`fit`, with the importance of every layer recorded on the way: a running mean of a criterion's scores.

        m <- decay m + (1 - decay) s,   divided at the end by 1 - decay^records

    s is scored on a fixed batch of training examples after every `every` epochs. The parts between follow the whole
    of every schedule; `patience` is not heeded.

    Returns the fit, whose curves are those of all epochs, and the running means. Cost: the training and
    epochs / every scorings. Raises what the criterion and `fit` raise.
    """
    probe = evenly(split.train, PROBE)
    now: Fit | None = None
    curves: dict[str, tuple[float, ...]] = {"train": (), "validation": ()}
    means: Scores = {}
    records, seconds = 0, 0.0
    for start in range(0, config.epochs, every):
        end = min(start + every, config.epochs)
        part = replace(part_of(config, start, end), patience=None, seed=config.seed + start)
        (now,) = fit_many([model], [split], [part], loss, [now] if now else None)
        curves = {name: curves[name] + values for name, values in now.curves.items()}
        seconds += now.seconds
        if now.diverged:
            break
        scores, records = criterion(now.model, suited_batch(probe, now.model), loss), records + 1
        means = {name: decay * means.get(name, torch.zeros(())) + (1 - decay) * s for name, s in scores.items()}
    assert now is not None
    means = {name: mean / (1 - decay**records) for name, mean in means.items()}
    return replace(now, curves=curves, seed=config.seed, seconds=seconds), means


@dataclass(frozen=True)
class Lean:
    """A network with fewer layers: its last fit, how its layers went, and the validation error after each of them."""

    fit: Fit
    plan: Plan
    dropped: tuple[str, ...]
    errors: tuple[float, ...]


def shed_layers(
    full: Fit,
    split: TrainingData,
    refit: TrainConfig,
    criterion: Criterion = criteria.replaceability,
    loss: Loss = mse_loss,
    measure: Callable[[nn.Module, Batch], float] | None = None,
    limit: Callable[[float], float] = lambda error: 1.05 * error,
) -> Lean:
    """Takes hidden layers out one by one as long as the validation error allows it.

    The layer of the lowest score goes by `drop_layer`, the rest is trained on with `refit`, and it stays out where the
    validation error is at most `limit(that of the full network)`, by default 5 % more; else the next lowest is tried,
    and when none may go it is over. `measure(model, validation)` is the error, by default the loss. After each drop the
    layers are scored anew; recorded scores serve as `lambda model, batch, loss: scores` where one layer is to go.

    Returns the lean network, its plan and what was dropped in this order. Cost: at most L (L + 1) / 2 refits for L
    layers. A network without such layers comes back whole. Raises ValueError without validation data, and for
    scores that are not one number a layer.
    Source: seed 004's loop, with the deletion operator of `drop_layer`.
    """
    if not len(split.validation.x):
        raise ValueError("layers are dropped by the validation error, and there are no validation data")
    error = measure or (lambda model, batch: evaluate_loss(model, batch, loss))
    bound, probe = limit(error(full.model, split.validation)), evenly(split.train, PROBE)
    now, plan, gone, errors = full, Plan({}), list[str](), list[float]()
    while True:
        try:
            scores = criterion(now.model, suited_batch(probe, now.model), loss)
        except StructureError:  # no layer is left
            break
        for name in _ranked(scores):
            small, edit = drop_layer(now.model, name, suited_batch(probe, now.model).x)
            (trained,) = fit_many([small], [split], [refit], loss)
            if not trained.diverged and error(trained.model, split.validation) <= bound:
                break
        else:
            break
        now, plan = trained, plan.then(edit)
        gone.append(name)
        errors.append(error(now.model, split.validation))
    return Lean(now, plan, tuple(gone), tuple(errors))


def _ranked(scores: Mapping[str, torch.Tensor]) -> list[str]:
    """Layers, the lowest score first."""
    for name, score in scores.items():
        if score.numel() != 1 or score.isnan().any():
            raise ValueError(
                f"the criterion's score of layer {name!r} is {score.tolist()}; it must be one number, and not NaN "
                "(criteria of layers are replaceability, cka and those beside them)"
            )
    return sorted(scores, key=lambda name: float(scores[name]))
