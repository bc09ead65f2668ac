"""What is wrong with a training, by measurement: findings, each with its evidence and the one change to try."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from pared.training import Fit
from pared.tuning import remedies
from pared.tuning.advice import of_batch_size, of_rate
from pared.tuning.attempts import Known, attempt_of, attempts, some_of
from pared.tuning.checks import data_facts
from pared.tuning.facts import Seen, network_facts
from pared.tuning.losses import Effect, effect
from pared.tuning.range_test import range_test
from pared.tuning.recipe import Change, Problem, Recipe
from pared.tuning.reference import reference
from pared.tuning.rules import GROUND, RULES, Draft, Kind, Rule, Thresholds
from pared.tuning.watch import watch
from pared.types import Progress

SEEDS = (0, 1, 2)
WIDEST = 512
"""No layer is proposed to be made wider."""


@dataclass(frozen=True)
class Finding:
    """Something that was found: numbers, words, and the one change to try, None where nothing should be changed.

    `seeds`: in how many of the trainings it showed.
    """

    kind: Kind
    evidence: dict[str, float]
    reason: str
    change: Change | None
    seeds: int = 1


@dataclass(frozen=True)
class Diagnosis:
    """All that was found about a recipe, causes first; `losses`: mean validation loss of each seed's training."""

    recipe: Recipe
    findings: tuple[Finding, ...]
    losses: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """The first finding's kind, or "fine"."""
        return self.findings[0].kind if self.findings else "fine"

    @property
    def proposal(self) -> Finding | None:
        """The first finding that proposes a change."""
        return next((finding for finding in self.findings if finding.change), None)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipe and what it becomes by each change: where a search may start."""
        return (self.recipe, *(finding.change.of(self.recipe) for finding in self.findings if finding.change))

    @property
    def configurations(self) -> list[dict[str, Any]]:
        """The same as plain configurations."""
        return [recipe.as_dict() for recipe in self.recipes]


def diagnose(
    problem: Problem,
    recipe: Recipe,
    seeds: Sequence[int] = SEEDS,
    limits: Thresholds = Thresholds(),
    jobs: int = 1,
) -> Diagnosis:
    """Trains a recipe once a seed, measures, and says what is wrong.

    Rules about data and optimisation come first: where they propose something, it ends there, as figures of a training
    that failed say nothing on its size. Else the recipe is trained anew with twice the epochs, twice the units, the
    weights of its best epoch, weight decay and dropout, and what helps says what was missing. A finding must show in
    most of the seeds.

    Returns: a Diagnosis. Cost: `seeds` trainings, three range tests and 200 watched steps a seed; then up to seven
    times the trainings.
    """
    return Examination(problem, tuple(seeds), limits, jobs).diagnosis(recipe)


def diagnose_fit(
    problem: Problem, recipe: Recipe, fit: Fit, start: nn.Module, limits: Thresholds = Thresholds()
) -> Diagnosis:
    """What one finished training shows without another: its curves, its network, its data, its first steps anew.

    `start` is the network that was trained. Budget and size are judged by the curves and by a reference, which is
    less than the experiments of `diagnose` tell.
    """
    data = problem.data(recipe)
    attempt = attempt_of(problem, data, some_of(data), start, fit)
    other = reference(data.train, data.validation, problem.loss)
    config = recipe.training(fit.seed)
    seen = Seen(
        recipe,
        data_facts(data.train, data.validation, other),
        watch(start, data.train, config, problem.loss),
        network_facts(problem, data, attempt, other),
        range_test(start, data.train, config, problem.loss),
    )
    found = conclude((seen,), RULES, limits, lambda change: allowed(problem, recipe, change, ()))
    return Diagnosis(recipe, found, (float(attempt.validation.mean()),))


@dataclass(frozen=True)
class Examination:
    """Diagnoses of recipes of one problem that remember what was trained and seen."""

    problem: Problem
    seeds: tuple[int, ...] = SEEDS
    limits: Thresholds = Thresholds()
    jobs: int = 1
    progress: Progress = lambda stage, done, total: None
    known: Known = field(default_factory=dict)
    seen: dict[tuple[Recipe, bool], tuple[Seen, ...]] = field(default_factory=dict)
    advised: dict[Recipe, tuple[Draft, ...]] = field(default_factory=dict)

    def diagnosis(self, recipe: Recipe, tried: Collection[Recipe] = ()) -> Diagnosis:
        """What is wrong with a recipe; changes to one that was `tried` are not proposed again."""

        def open_(change: Change) -> bool:
            return allowed(self.problem, recipe, change, tried)

        found = conclude(self._look(recipe), GROUND, self.limits, open_)
        if not any(finding.change for finding in found):
            found = conclude(self._experiment(recipe), RULES, self.limits, open_)
        own = attempts(self.problem, recipe, self.seeds, self.known, self.jobs)
        return Diagnosis(recipe, found, tuple(float(attempt.validation.mean()) for attempt in own))

    def advice(self, recipe: Recipe, tried: Collection[Recipe] = ()) -> tuple[Finding, ...]:
        """What may be better though nothing is wrong: another learning rate, another batch size."""
        if recipe not in self.advised:
            drafts = of_rate(self._look(recipe)[0]), of_batch_size(self.problem, recipe, self.seeds[0])
            self.advised[recipe] = tuple(draft for draft in drafts if draft)
        found = [_finding([draft], lambda c: allowed(self.problem, recipe, c, tried)) for draft in self.advised[recipe]]
        return tuple(finding for finding in found if finding.change)

    def _look(self, recipe: Recipe) -> tuple[Seen, ...]:
        """What each seed's training shows by itself."""
        if (recipe, False) not in self.seen:
            problem, data = self.problem, self.problem.data(recipe)
            self.progress("training", 0, 1)
            own = attempts(problem, recipe, self.seeds, self.known, self.jobs)
            self.progress("training", 1, 1)
            other = reference(data.train, data.validation, problem.loss)
            facts = data_facts(data.train, data.validation, other)
            configs = [recipe.training(seed) for seed in self.seeds]
            rates = range_test(own[0].start, data.train, configs[0], problem.loss)
            self.seen[recipe, False] = tuple(
                Seen(
                    recipe,
                    facts,
                    watch(attempt.start, data.train, config, problem.loss),
                    network_facts(problem, data, attempt, other),
                    rates,
                )
                for attempt, config in zip(own, configs, strict=True)
            )
        return self.seen[recipe, False]

    def _experiment(self, recipe: Recipe) -> tuple[Seen, ...]:
        """The same, with what the experiments did."""
        if (recipe, True) not in self.seen:
            seen = self._look(recipe)
            effects = self._effects(recipe, seen)
            self.seen[recipe, True] = tuple(replace(each, effects=effects) for each in seen)
        return self.seen[recipe, True]

    def _effects(self, recipe: Recipe, seen: tuple[Seen, ...]) -> dict[str, tuple[Effect, Effect]]:
        before, found = attempts(self.problem, recipe, self.seeds, self.known, self.jobs), {}
        planned = experiments(seen[0], self.limits)
        for done, (name, changes) in enumerate(planned.items()):
            self.progress("experiments", done, len(planned))
            change = next((change for change in changes if allowed(self.problem, recipe, change, ())), None)
            if change is None:
                continue
            after = attempts(self.problem, change.of(recipe), self.seeds, self.known, self.jobs)
            found[name] = (
                effect([a.train for a in before], [a.train for a in after]),
                effect([a.validation for a in before], [a.validation for a in after]),
            )
        self.progress("experiments", len(planned), len(planned))
        return found


def experiments(seen: Seen, limits: Thresholds) -> dict[str, tuple[Change, ...]]:
    """What is tried to see what is missing: name -> changes, of which the first that the problem allows is made."""
    recipe = seen.recipe
    beyond = seen.network.rough > limits.rough or recipe.lr > (seen.rates.lowest or math.inf)
    return {
        "longer": (remedies.longer(seen),),
        "wider": (remedies.wider(recipe),),
        "best": (remedies.best_epoch(recipe),),
        "decayed": remedies.decayed(recipe, seen.data.examples),
        "dropout": (remedies.more_dropout(recipe),),
        "slower": (remedies.lower(seen),) if beyond else (),
        "faster": remedies.higher(seen),
    }


def conclude(
    seen: Sequence[Seen], rules: Sequence[Rule], limits: Thresholds, open_: Callable[[Change], bool]
) -> tuple[Finding, ...]:
    """What the rules find in most of the trainings, with the first remedy that is open."""
    found = []
    for rule in rules:
        drafts = [draft for each in seen if (draft := rule(each, limits))]
        if 2 * len(drafts) > len(seen):
            found.append(_finding(drafts, open_))
    return tuple(found)


def _finding(drafts: Sequence[Draft], open_: Callable[[Change], bool]) -> Finding:
    first = drafts[0]
    change = next((remedy for remedy in first.remedies if open_(remedy)), None)
    return Finding(first.kind, first.evidence, first.reason, change, len(drafts))


def allowed(problem: Problem, recipe: Recipe, change: Change, tried: Collection[Recipe]) -> bool:
    """Whether a change makes another recipe of fields that the problem heeds, within bounds, and not tried before."""
    changed = change.of(recipe)
    heeded = all(name in problem.fields for name in change.values)
    return heeded and changed != recipe and changed not in tried and max(changed.hidden) <= max(WIDEST, *recipe.hidden)
