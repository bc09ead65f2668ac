"""What is not wrong but may be better: learning rate and batch size, by range test and gradient noise scale."""

from dataclasses import replace

from torch import nn

from pared.schedules import Constant
from pared.training import Fit, TrainConfig, fit_many
from pared.tuning import remedies
from pared.tuning.facts import Seen
from pared.tuning.noise_scale import NoiseScale, batch_size_for, noise_scale, rescaled_lr, seconds_an_example
from pared.tuning.recipe import Change, Prepared, Problem, Recipe
from pared.tuning.rules import Draft

SHARES = (0.02, 0.1, 0.25)
"""Shares of the training after which the noise scale is measured: it grows, and batches must suit the start, too."""


def of_rate(seen: Seen) -> Draft | None:
    """Where the range test suggests a rate that differs by a factor of two or more."""
    change = remedies.suggested_rate(seen)
    if not change:
        return None
    steepest, lowest = seen.rates.steepest or 0.0, seen.rates.lowest or 0.0
    reason = (
        f"in a range test the loss falls fastest at a learning rate of {steepest:.2g} and is lowest at {lowest:.2g}; "
        f"yours is {seen.recipe.lr:.2g}"
    )
    return Draft("learning rate", {"steepest": steepest, "lowest": lowest, "lr": seen.recipe.lr}, reason, change)


def of_batch_size(problem: Problem, recipe: Recipe, seed: int) -> Draft | None:
    """Where the noise scale and the clock ask for half or twice the batch size, or further from it.

    Cost: a quarter of a training, and three epochs a batch size.
    """
    data, start = problem.data(recipe), problem.build(recipe, seed)
    scale = scale_in_training(problem, data, recipe.training(seed), start)
    if scale is None:
        return None
    size = batch_size_for(scale, seconds_an_example(start, data, recipe.training(seed), problem.loss))
    if size is None or 0.5 < size / recipe.batch_size < 2:
        return None
    lr = remedies.rounded(rescaled_lr(recipe.lr, recipe.batch_size, size, recipe.optimiser))
    examples = scale.examples or 0.0
    reason = (
        f"the gradient noise scale is {examples:.3g} examples: batches beyond it teach little more, smaller ones are "
        f"noisier; of the sizes up to it {size} is the largest that is about as fast an example as any"
    )
    return Draft("batch size", {"noise scale": examples}, reason, (Change({"batch_size": size, "lr": lr}),))


def scale_in_training(problem: Problem, data: Prepared, config: TrainConfig, start: nn.Module) -> NoiseScale | None:
    """The noise scale over the first quarter of a training at an even rate: means of signal and noise at three points.

    None where training diverged or there are fewer than 32 examples.
    """
    if len(data.train.x) < 32:
        return None
    fit: Fit | None = None
    found, done = list[NoiseScale](), 0
    for share in SHARES:
        epochs = max(1, round(share * config.epochs) - done)
        part = replace(config, epochs=epochs, patience=None, schedule=Constant(), seed=config.seed + done)
        fit = fit_many([start], [data], [part], problem.loss, [fit] if fit else None)[0]
        if fit.diverged:
            return None
        found.append(noise_scale(fit.model, data.train, problem.loss))
        done += epochs
    return NoiseScale(sum(s.signal for s in found) / len(found), sum(s.noise for s in found) / len(found))
