"""The rules of the text that the tuning started from, word for word, for comparison: they err (docs/diagnosis.md).

Source: the seed's "Neural network hyper-parameter optimisation", section "manual adjustment"; R3 to R8 of the
reference.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn

from pared.training import Fit
from pared.tuning.attempts import Attempt, Known, attempts
from pared.tuning.recipe import Prepared, Problem, Recipe
from pared.types import Batch, Loss

FEWEST, MOST = 32, 512
MUCH = 2.0
"""What "training loss << validation loss" is taken for: the text gives no number."""


@dataclass(frozen=True)
class Observed:
    """What the text looks at: the last training loss as it is reported, the validation loss, the last gradient."""

    training_loss: float
    validation_loss: float
    gradient_norm: float


@dataclass(frozen=True)
class LiteralTuning:
    """The recipes one after another, what was observed of each, and how it ended: "settled", "circle" or "limit"."""

    recipes: tuple[Recipe, ...]
    observed: tuple[Observed, ...]
    ended: str


def literal(recipe: Recipe, seen: Observed) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe that the text's rules make of another, all at once, and the names of those that fired."""
    train, validation, norm = seen.training_loss, seen.validation_loss, seen.gradient_norm
    fired, new = list[str](), recipe
    if validation > 1.2 * train:
        fired.append("R3: overfit, halve the units")
        new = replace(new, hidden=tuple(max(FEWEST, units // 2) for units in recipe.hidden))
    elif validation < 0.8 * train:
        fired.append("R4: underfit, double the units")
        new = replace(new, hidden=tuple(min(MOST, units * 2) for units in recipe.hidden))
    if norm < 0.01:
        fired.append("R5: vanishing gradient, fewer layers")
        new = replace(new, hidden=new.hidden[: max(1, len(new.hidden) - 1)])
    elif norm > 10:
        fired.append("R6: exploding gradient, clip at 1")
        new = replace(new, clip=1.0)
    if MUCH * train < validation:
        fired.append("R7: overfit, dropout + 0.1")
        new = replace(new, dropout=round(min(0.5, recipe.dropout + 0.1), 3))
    elif train > validation:
        fired.append("R8: underfit, dropout - 0.1")
        new = replace(new, dropout=round(max(0.1, recipe.dropout - 0.1), 3))
    return new, tuple(fired)


def follow(problem: Problem, recipe: Recipe, seed: int = 0, rounds: int = 10) -> LiteralTuning:
    """Trains, applies the rules, and trains again, without asking whether it helped, as the text has it.

    Fields that the problem does not heed stay as they are. Ends where a recipe comes back. Cost: `rounds` trainings.
    """
    known: Known = {}
    recipes, observed = [recipe], list[Observed]()
    while len(observed) < rounds:
        attempt = attempts(problem, recipes[-1], [seed], known)[0]
        observed.append(observe(problem, recipes[-1], attempt))
        new, _ = literal(recipes[-1], observed[-1])
        kept = {name: getattr(recipes[-1], name) for name in recipe.as_dict() if name not in problem.fields}
        new = replace(new, **kept)
        if new in recipes:
            ended = "settled" if new == recipes[-1] else "circle"
            return LiteralTuning((*recipes, new), tuple(observed), ended)
        recipes.append(new)
    return LiteralTuning(tuple(recipes), tuple(observed), "limit")


def observe(problem: Problem, recipe: Recipe, attempt: Attempt) -> Observed:
    """What the text would look at after a training, in the units that training took place in."""
    curves = attempt.fit.curves
    norm = gradient_size(attempt.fit, problem.data(recipe), problem.loss, recipe.batch_size)
    return Observed(curves["train"][-1], curves["validation"][-1], norm)


def gradient_size(fit: Fit, data: Prepared, loss: Loss, batch_size: int) -> float:
    """Size of the gradient of a batch of training examples at the trained network, in training mode."""
    model = copy.deepcopy(fit.model).train()
    index = torch.randperm(len(data.train.x), generator=torch.Generator().manual_seed(fit.seed))[:batch_size]
    batch = Batch(data.train.x[index], data.train.y[index])
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(fit.seed)
        loss(model(batch.x), batch.y).backward()  # type: ignore[no-untyped-call]
    return float(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
