"""Recipes trained once a seed, with the losses that they are compared by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pared.evaluation.metrics import Floats
from pared.training import Fit, fit_many, predict_many
from pared.tuning.losses import example_losses
from pared.tuning.recipe import Prepared, Problem, Recipe
from pared.types import Batch


@dataclass(frozen=True)
class Attempt:
    """One training: the network before and after it, and its losses example by example, in evaluation mode.

    `validation` is of all validation examples, `train` of as many training examples, the same for every attempt; both
    in the units that the data came in, not finite where training diverged.
    """

    start: nn.Module
    fit: Fit
    train: Floats
    validation: Floats


Known = dict[tuple[Recipe, int], Attempt]
"""Recipe, seed -> what came of it: nothing is trained twice."""


def attempts(problem: Problem, recipe: Recipe, seeds: Sequence[int], known: Known, jobs: int = 1) -> list[Attempt]:
    """Trains a recipe once a seed, but for the seeds that are known, and adds what it finds to `known`."""
    new = [seed for seed in seeds if (recipe, seed) not in known]
    if new:
        data = problem.data(recipe)
        starts = [problem.build(recipe, seed) for seed in new]
        configs = [recipe.training(seed) for seed in new]
        fits = fit_many(starts, [data] * len(new), configs, problem.loss, jobs=jobs)
        part = some_of(data)
        for seed, start, fit in zip(new, starts, fits, strict=True):
            known[recipe, seed] = attempt_of(problem, data, part, start, fit)
    return [known[recipe, seed] for seed in seeds]


def attempt_of(problem: Problem, data: Prepared, part: Batch, start: nn.Module, fit: Fit) -> Attempt:
    """A finished training with its losses; `part` are the training examples that count."""
    return Attempt(start, fit, *(given_losses(problem, data, fit, batch) for batch in (part, data.validation)))


def some_of(data: Prepared) -> Batch:
    """As many training examples as there are for validation, the same ones every time."""
    count = min(len(data.train.x), len(data.validation.x))
    index = torch.randperm(len(data.train.x), generator=torch.Generator().manual_seed(0))[:count].sort().values
    return Batch(data.train.x[index], data.train.y[index])


def given_losses(problem: Problem, data: Prepared, fit: Fit, batch: Batch) -> Floats:
    """Losses example by example, in the units that the data came in."""
    if fit.diverged:
        return np.full(len(batch.x), np.inf)
    return losses_of(problem, data, predict_many([fit.model], batch.x)[0], batch.y)


def losses_of(problem: Problem, data: Prepared, out: Tensor, y: Tensor) -> Floats:
    """Losses of outputs, in the units that the data came in."""
    found = example_losses(data.given(out), data.given(y), problem.loss)
    return np.where(np.isfinite(found), found, np.inf)
