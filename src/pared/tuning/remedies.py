"""What to try against what was found, in order: changes of a recipe."""

import math
from itertools import chain

import numpy as np

from pared.tuning.facts import Seen
from pared.tuning.recipe import Change, Recipe

ENOUGH = 1000
"""Steps of training below which twice as many would show little."""
USUAL = 90
"""Percentile of the sizes of early gradients at which they are clipped."""


def usual_norm(seen: Seen, percentile: float = USUAL) -> float:
    """A percentile of the sizes of the gradients of the first steps, those that are finite."""
    norms = [norm for norm in seen.watch.norms if math.isfinite(norm)]
    return float(np.percentile(norms, percentile)) if norms else 1.0


def factor(seen: Seen) -> int:
    """How many times the epochs are tried: twice, or, of a training of few steps, up to 16 times for 1,000 steps."""
    return min(16, max(2, 1 << max(0, math.ceil(math.log2(ENOUGH / steps(seen))))))


def steps(seen: Seen) -> int:
    """How many steps the training takes."""
    return seen.recipe.epochs * math.ceil(seen.data.examples / seen.recipe.batch_size)


def longer(seen: Seen) -> Change:
    return Change({"epochs": factor(seen) * seen.recipe.epochs})


def wider(recipe: Recipe) -> Change:
    return Change({"hidden": tuple(2 * units for units in recipe.hidden)})


def narrower(recipe: Recipe) -> Change:
    return Change({"hidden": tuple(max(1, units // 2) for units in recipe.hidden)})


def best_epoch(_recipe: Recipe) -> Change:
    return Change({"stop": "best"})


def more_dropout(recipe: Recipe) -> Change:
    return Change({"dropout": round(min(0.5, recipe.dropout + 0.1), 3)})


def less_dropout(recipe: Recipe) -> Change:
    return Change({"dropout": round(max(0.0, recipe.dropout - 0.1), 3)})


def decayed(recipe: Recipe, examples: int) -> tuple[Change, ...]:
    """Weight decay that forgets within one training, 1 / (lr steps); four times as much where there is some already.

    For Adam the decoupled decay of AdamW, or, where the optimiser is given, a penalty on the squares of 1e-4 or ten
    times what there is. Source: Wang & Aitchison (2024): decoupled decay is an average over 1 / (lr decay) steps.
    """
    steps = recipe.epochs * math.ceil(examples / recipe.batch_size)
    decay = rounded(max(1 / (recipe.lr * steps), 4 * recipe.weight_decay))
    if recipe.optimiser != "adam":
        return (Change({"weight_decay": decay}),)
    penalty = Change({"weight_decay": max(1e-4, 10 * recipe.weight_decay)})
    return Change({"weight_decay": decay, "optimiser": "adamw"}), penalty


def slower(recipe: Recipe) -> Change:
    return Change({"lr": rounded(recipe.lr / 3)})


def suggested_rate(seen: Seen) -> tuple[Change, ...]:
    """The rate of the range test, where it is another one."""
    rate, own = seen.rates.suggestion, seen.recipe.lr
    return (Change({"lr": rounded(rate)}),) if rate and not 0.5 < rate / own < 2 else ()


def for_explosion(seen: Seen) -> tuple[Change, ...]:
    """Clipping at what is usual, then at what is small; smaller steps; gates; fewer layers."""
    clips = tuple(Change({"clip": rounded(usual_norm(seen, percentile))}) for percentile in (USUAL, 10))
    own = seen.recipe.clip
    return (
        *(change for change in clips if own is None or change.values["clip"] < own),
        slower(seen.recipe),
        *_gates(seen.recipe),
        *_fewer_layers(seen.recipe),
    )


def for_vanishing(seen: Seen) -> tuple[Change, ...]:
    """Functions that do not saturate, or gates; another rate; fewer layers."""
    recipe = seen.recipe
    relu = (Change({"activation": "relu"}),) if recipe.cell is None and recipe.activation != "relu" else ()
    return (*relu, *_gates(recipe), *suggested_rate(seen), *_fewer_layers(recipe))


def for_dead(seen: Seen, born: bool) -> tuple[Change, ...]:
    """Smaller steps where training killed them; a function without a dead side."""
    tanh = Change({"activation": "tanh"})
    return (tanh,) if born else (lower(seen), tanh)


def for_instability(seen: Seen) -> tuple[Change, ...]:
    """Smaller steps; clipping."""
    clip = rounded(usual_norm(seen))
    own = seen.recipe.clip
    return (lower(seen), *((Change({"clip": clip}),) if own is None or clip < own else ()), slower(seen.recipe))


def for_constant(seen: Seen) -> tuple[Change, ...]:
    """Less restraint; another rate; more training; more units."""
    recipe = seen.recipe
    return (
        *((Change({"weight_decay": 0.0}),) if recipe.weight_decay else ()),
        *((less_dropout(recipe),) if recipe.dropout else ()),
        *suggested_rate(seen),
        longer(seen),
        wider(recipe),
    )


def for_budget(seen: Seen) -> tuple[Change, ...]:
    """More epochs; larger steps where the range test allows them."""
    rate = seen.rates.suggestion
    faster = suggested_rate(seen) if rate and rate > seen.recipe.lr else ()
    return (longer(seen), *faster)


def for_underfit(seen: Seen) -> tuple[Change, ...]:
    """More units; less restraint; another rate; one more layer."""
    recipe = seen.recipe
    return (
        wider(recipe),
        *((less_dropout(recipe),) if recipe.dropout else ()),
        *((Change({"weight_decay": rounded(recipe.weight_decay / 10)}),) if recipe.weight_decay else ()),
        *suggested_rate(seen),
        Change({"hidden": (*recipe.hidden, recipe.hidden[-1])}),
    )


def for_overfit(seen: Seen, first: str = "best") -> tuple[Change, ...]:
    """The best epoch; weight decay; dropout; fewer units. What an experiment found best comes first."""
    recipe = seen.recipe
    found = {
        "best": (best_epoch(recipe),),
        "decayed": decayed(recipe, seen.data.examples),
        "dropout": (more_dropout(recipe),),
        "narrower": (narrower(recipe),),
    }
    return tuple(chain(found.pop(first), *found.values()))


def lower(seen: Seen) -> Change:
    """The rate of the range test where it is lower, else a third."""
    found = [change for change in suggested_rate(seen) if change.values["lr"] < seen.recipe.lr]
    return found[0] if found else slower(seen.recipe)


def higher(seen: Seen) -> tuple[Change, ...]:
    """The rate of the range test where it is three times this one or more."""
    return tuple(change for change in suggested_rate(seen) if change.values["lr"] >= 3 * seen.recipe.lr)


def _gates(recipe: Recipe) -> tuple[Change, ...]:
    return (Change({"cell": "lstm"}),) if recipe.cell == "rnn" else ()


def _fewer_layers(recipe: Recipe) -> tuple[Change, ...]:
    return (Change({"hidden": recipe.hidden[:-1]}),) if len(recipe.hidden) > 1 else ()


def rounded(value: float) -> float:
    """To two digits."""
    return float(f"{value:.2g}")
