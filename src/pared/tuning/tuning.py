"""Tuning by rules: diagnose, make the one change, train anew, keep it only where it is better, until nothing helps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pared.evaluation import Comparison, compare
from pared.evaluation.paired import Scale
from pared.tuning.attempts import Attempt, attempts
from pared.tuning.diagnosis import Diagnosis, Examination, Finding
from pared.tuning.losses import Effect, effect
from pared.tuning.recipe import Problem, Recipe
from pared.tuning.rules import Thresholds

SEEDS = (0, 1, 2, 3, 4)
"""A paired test over fewer claims nothing."""
REPAIRS = ("leaky split",)
"""What is changed without a test, as the figures before it were not valid."""


@dataclass(frozen=True)
class Step:
    """One change that was tried: `recipe` before and `changed` after it, what that did, and whether it was kept.

    `effect` is on the validation loss, with its standard error over examples and seeds; `comparison` the paired test
    over seeds of the changed recipe against the one before, None where a training diverged.
    """

    recipe: Recipe
    changed: Recipe
    finding: Finding
    effect: Effect
    comparison: Comparison | None
    kept: bool


@dataclass(frozen=True)
class Tuning:
    """The recipe that was arrived at, what is found of it, the way there, and why it ended there."""

    recipe: Recipe
    diagnosis: Diagnosis
    steps: tuple[Step, ...]
    ended: str

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """What was arrived at, then what was kept before, then the rest: where a search may start."""
        kept = [self.recipe, *(step.recipe for step in reversed(self.steps))]
        return tuple(dict.fromkeys([*kept, *(step.changed for step in self.steps)]))

    @property
    def configurations(self) -> list[dict[str, Any]]:
        """The same as plain configurations."""
        return [recipe.as_dict() for recipe in self.recipes]


def improve(
    problem: Problem,
    recipe: Recipe,
    seeds: Sequence[int] = SEEDS,
    most: int = 12,
    limits: Thresholds = Thresholds(),
    jobs: int = 1,
    see: Callable[[Step], None] = lambda step: None,
) -> Tuning:
    """Changes a recipe step by step, as its diagnosis proposes, as long as the validation loss falls.

    A change is kept where `compare` finds it better over the seeds (paired, 95 %) and the mean gain exceeds two
    standard errors over the examples; what repairs the validation data themselves is kept without that. No recipe is
    tried twice, so it cannot go in circles, and never more than `most` are. Test data are not looked at. The loss of
    what was kept is a winner's: measure it anew on other data.

    Returns: a Tuning; `see` is told every step. Cost: a diagnosis for each recipe that was kept, and `seeds` trainings
    a change. Raises ValueError for fewer than 5 seeds.
    """
    return tune(Examination(problem, tuple(seeds[:3]), limits, jobs), recipe, seeds, most, see)


def tune(
    examination: Examination,
    recipe: Recipe,
    seeds: Sequence[int],
    most: int = 12,
    see: Callable[[Step], None] = lambda step: None,
) -> Tuning:
    """`improve` within an examination, which remembers what was trained."""
    if len(seeds) < len(SEEDS):
        raise ValueError(f"a paired test needs at least {len(SEEDS)} seeds, got {len(seeds)}")
    problem, jobs = examination.problem, examination.jobs
    tried, steps = {recipe}, list[Step]()
    while True:
        diagnosis = examination.diagnosis(recipe, tried)
        finding = diagnosis.proposal or next(iter(examination.advice(recipe, tried)), None)
        if finding is None or finding.change is None:
            return Tuning(recipe, diagnosis, tuple(steps), "nothing is left to try")
        if len(steps) == most:
            return Tuning(recipe, diagnosis, tuple(steps), f"{most} changes were tried, which is the limit")
        changed = finding.change.of(recipe)
        tried.add(changed)
        before, after = (attempts(problem, each, seeds, examination.known, jobs) for each in (recipe, changed))
        found, comparison = judged(before, after)
        kept = finding.kind in REPAIRS or better(found, comparison)
        steps.append(Step(recipe, changed, finding, found, comparison, kept))
        see(steps[-1])
        if kept:
            recipe = changed


def judged(before: Sequence[Attempt], after: Sequence[Attempt]) -> tuple[Effect, Comparison | None]:
    """What a change does to the validation loss, and the paired test over seeds, on the log scale where that exists."""
    found = effect([a.validation for a in before], [a.validation for a in after])
    old, new = (np.array([a.validation.mean() for a in each]) for each in (before, after))
    if not (np.isfinite(old).all() and np.isfinite(new).all()):
        return found, None
    scale: Scale = "log" if min(old.min(), new.min()) > 0 else "linear"
    return found, compare(new, old, blocks=range(len(old)), scale=scale)


def better(found: Effect, comparison: Comparison | None) -> bool:
    """Whether a change is better over examples and seeds; it is where only training without it diverged."""
    return found.helps(0.0) and (comparison is None or comparison.verdict == "better")
