"""Tuning by rules: what helps is kept, what does not is taken back, nothing is tried twice."""

from dataclasses import replace

import numpy as np
import pytest

from diagnosable import SOUND, dense, fine, leaky_split, short_budget, surface, underfit, vanishing
from pared.evaluation import compare
from pared.tuning import Recipe, improve
from pared.tuning.losses import effect
from pared.tuning.tuning import better


def paths(tuning):
    return [(step.finding.kind, step.kept) for step in tuning.steps]


@pytest.mark.slow
def test_a_short_budget_is_lengthened():
    case = short_budget(0)
    problem = replace(case.problem, fields=("epochs",))
    seen = []
    found = improve(problem, case.recipe, most=1, see=seen.append)
    assert paths(found) == [("budget too small", True)]
    assert found.recipe == replace(case.recipe, epochs=64)
    assert found.steps == tuple(seen)
    assert found.steps[0].comparison.verdict == "better"
    assert found.configurations[:2] == [found.recipe.as_dict(), case.recipe.as_dict()]
    assert "limit" in found.ended


@pytest.mark.slow
@pytest.mark.parametrize("make", [underfit, vanishing])
def test_what_is_wrong_is_mended(make):
    case = make(0)
    found = improve(case.problem, case.recipe, most=3)
    assert any(step.kept for step in found.steps)
    before, after = found.steps[0].effect.loss, found.steps[-1].effect.loss
    assert after < 0.7 * before


@pytest.mark.slow
def test_nothing_is_tried_twice_and_what_does_not_help_is_taken_back():
    case = fine(0)
    found = improve(replace(case.problem, fields=("lr", "hidden", "batch_size")), case.recipe)
    tried = [step.changed for step in found.steps]
    assert len(set(tried)) == len(tried)
    assert found.recipe == ([step.changed for step in found.steps if step.kept] or [case.recipe])[-1]
    assert found.ended == "nothing is left to try"


@pytest.mark.slow
def test_a_leak_is_closed_though_the_validation_loss_rises():
    case = leaky_split(0)
    found = improve(replace(case.problem, fields=("apart",)), replace(case.recipe, epochs=30), most=1)
    assert paths(found) == [("leaky split", True)]
    assert found.recipe.apart
    assert found.diagnosis.verdict != "leaky split"


def test_better_needs_seeds_and_examples():
    rng = np.random.default_rng(0)
    before = [rng.uniform(1.0, 2.0, 100) for _ in range(5)]

    def verdict(after):
        means = [[losses.mean() for losses in each] for each in (after, before)]
        return better(effect(before, after), compare(*means, blocks=range(5)))

    assert verdict([losses * 0.9 for losses in before])
    assert not verdict([losses * 1.1 for losses in before])
    assert not verdict([losses * factor for losses, factor in zip(before, (0.5, 1.05, 1.05, 1.05, 1.05), strict=True)])


@pytest.mark.slow
def test_divergence_is_mended_without_a_comparison():
    problem = replace(dense(surface(0)), fields=("lr",))
    found = improve(problem, replace(SOUND, epochs=5, lr=0.9, optimiser="sgd"), most=1)
    assert paths(found) == [("unstable", True)]
    assert found.steps[0].comparison is None


def test_fewer_than_five_seeds_are_refused():
    with pytest.raises(ValueError, match="at least 5 seeds"):
        improve(dense(surface(0)), Recipe(), seeds=(0, 1))
