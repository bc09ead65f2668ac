"""How findings are made of what was measured: majority, remedies that are open, experiments, bounds."""

from dataclasses import replace

import pytest
from torch.nn.functional import mse_loss

from diagnosable import SOUND, dense, fine, short_budget, surface
from networks import snapshot, unchanged
from pared.training import fit
from pared.tuning import Change, Diagnosis, Examination, Recipe, diagnose_fit
from pared.tuning.diagnosis import allowed, conclude, experiments
from pared.tuning.facts import risen, rough, slope
from pared.tuning.recipe import described, difference
from pared.tuning.remedies import decayed, factor
from pared.tuning.rules import RULES, Draft, Thresholds


@pytest.fixture(scope="module")
def seen():
    """What a short training of few steps shows."""
    case = short_budget(0)
    return Examination(case.problem, (0, 1, 2))._look(case.recipe)


def test_a_finding_must_show_in_most_trainings(seen):
    def in_first(each, limits):
        return Draft("unstable", {"place": 0.0}, "") if each is seen[0] else None

    def in_two(each, limits):
        return Draft("overfit", {"place": float(each is seen[2])}, "") if each is not seen[0] else None

    found = conclude(seen, (in_first, in_two), Thresholds(), lambda change: True)
    assert [(finding.kind, finding.seeds) for finding in found] == [("overfit", 2)]


def test_the_first_open_remedy_is_proposed(seen):
    first, second = Change({"epochs": 8}), Change({"lr": 0.1})

    def rule(each, limits):
        return Draft("underfit", {}, "", (first, second))

    closed = conclude(seen, (rule,), Thresholds(), lambda change: change != first)
    assert closed[0].change == second
    assert conclude(seen, (rule,), Thresholds(), lambda change: False)[0].change is None


def test_a_change_is_open_where_it_is_heeded_new_and_within_bounds():
    problem = replace(dense(surface(0)), fields=("hidden", "epochs"))
    assert allowed(problem, SOUND, Change({"epochs": 10}), ())
    assert not allowed(problem, SOUND, Change({"lr": 0.1}), ())
    assert not allowed(problem, SOUND, Change({"epochs": SOUND.epochs}), ())
    assert not allowed(problem, SOUND, Change({"epochs": 10}), (replace(SOUND, epochs=10),))
    assert not allowed(problem, SOUND, Change({"hidden": (1024,)}), ())
    wide = replace(SOUND, hidden=(1024, 64))
    assert allowed(problem, wide, Change({"hidden": (1024, 128)}), ())


def test_few_steps_are_extended_further_than_many(seen):
    assert factor(seen[0]) == 16
    assert factor(replace(seen[0], recipe=replace(SOUND, epochs=40))) == 2
    assert experiments(seen[0], Thresholds())["longer"][0].values == {"epochs": 64}


def test_decay_forgets_within_one_training():
    first, penalty = decayed(Recipe(epochs=100, lr=1e-2, batch_size=50), 500)
    assert first.values == {"weight_decay": 0.1, "optimiser": "adamw"}  # 1 / (0.01 * 1000)
    assert penalty.values == {"weight_decay": 1e-4}
    assert decayed(Recipe(epochs=100, lr=1e-2, batch_size=50, optimiser="adamw", weight_decay=1.0), 500) == (
        Change({"weight_decay": 4.0}),
    )


def test_curves_are_read_without_units():
    falling, jumping = [2.0 * 0.9**k for k in range(30)], [1.0, 2.0] * 15
    assert (rough(falling), risen(falling)) == (0.0, 0.0)
    assert slope(falling) == pytest.approx(-0.10536, rel=1e-3)
    assert rough(jumping) > 0.3
    assert rough([1000 * value for value in jumping]) == pytest.approx(rough(jumping))
    assert rough([1.0, float("nan")]) == float("inf")
    assert risen([3.0, 1.0, 2.5]) == 1.5


def test_one_fit_says_what_it_can_and_stays_as_it_is():
    case = short_budget(0)
    start = case.problem.build(case.recipe, 0)
    trained = fit(start, case.problem.data(case.recipe), case.recipe.training(0), mse_loss)
    before, after = snapshot(start), snapshot(trained.model)
    found = diagnose_fit(case.problem, case.recipe, trained, start)
    unchanged(before, start)
    unchanged(after, trained.model)
    assert found.verdict in ("budget too small", "underfit")
    assert found.proposal.change is not None


def test_recipes_in_words():
    changed = Change({"epochs": 64, "hidden": (8, 4)})
    assert changed.words(SOUND) == "hidden 32 -> 8,4, epochs 150 -> 64"
    assert difference(SOUND, SOUND) == ""
    assert described(replace(SOUND, clip=1.0)) == (
        "hidden 32, activation tanh, epochs 150, lr 0.005, batch_size 32, clip 1"
    )


def test_proposals_are_plain_configurations(seen):
    case = fine(0)
    found = conclude(seen, RULES, Thresholds(), lambda change: True)
    diagnosis = Diagnosis(case.recipe, found, (1.0,))
    assert diagnosis.configurations[0] == case.recipe.as_dict()
    assert all(Recipe(**configuration) for configuration in diagnosis.configurations)
    assert len(diagnosis.configurations) == 1 + sum(finding.change is not None for finding in found)
