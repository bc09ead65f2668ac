"""What is not wrong but may be better: learning rate and batch size, by range test and gradient noise scale."""

from dataclasses import replace

from pared.training import fit_many
from pared.tuning import remedies
from pared.tuning.facts import Seen
from pared.tuning.noise_scale import batch_size_for, noise_scale, rescaled_lr, seconds_an_example
from pared.tuning.recipe import Change, Problem, Recipe
from pared.tuning.rules import Draft

SHARE = 0.25
"""How far a network is trained before its noise scale is measured: it grows in training."""


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

    Looks at a network that was trained for a quarter of the epochs. Cost: that, and three epochs a batch size.
    """
    data, start = problem.data(recipe), problem.build(recipe, seed)
    short = replace(recipe.training(seed), epochs=max(1, round(SHARE * recipe.epochs)), patience=None)
    fit = fit_many([start], [data], [short], problem.loss)[0]
    if fit.diverged or len(data.train.x) < 32:
        return None
    scale = noise_scale(fit.model, data.train, problem.loss)
    size = batch_size_for(scale, seconds_an_example(start, data, short, problem.loss))
    if size is None or 0.5 < size / recipe.batch_size < 2:
        return None
    lr = remedies.rounded(rescaled_lr(recipe.lr, recipe.batch_size, size, recipe.optimiser))
    examples = scale.examples or 0.0
    reason = (
        f"the gradient noise scale is {examples:.3g} examples: batches beyond it teach little more, smaller ones are "
        f"noisier; of the sizes up to it {size} is the largest that is about as fast an example as any"
    )
    return Draft("batch size", {"noise scale": examples}, reason, (Change({"batch_size": size, "lr": lr}),))
