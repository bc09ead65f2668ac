"""The rules of thumb word for word, where they err or go in circles, and what measurement says there."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from torch.nn.functional import cross_entropy

from diagnosable import SOUND, clouds, dense, surface
from pared.tuning import Recipe, diagnose, follow
from pared.tuning.literal import Observed, literal
from pared.types import Batch

R = Recipe(hidden=(64, 64), dropout=0.2)


@pytest.mark.parametrize(
    ("seen", "new"),
    [
        (Observed(1.0, 1.0, 1.0), {}),
        (Observed(1.0, 1.3, 1.0), {"hidden": (32, 32)}),
        (Observed(1.0, 2.5, 1.0), {"hidden": (32, 32), "dropout": 0.3}),
        (Observed(1.0, 0.7, 1.0), {"hidden": (128, 128), "dropout": 0.1}),
        (Observed(1.0, 0.9, 1.0), {"dropout": 0.1}),
        (Observed(1.0, 1.0, 0.001), {"hidden": (64,)}),
        (Observed(1.0, 1.0, 20.0), {"clip": 1.0}),
    ],
)
def test_the_rules_of_the_text(seen, new):
    assert literal(R, seen)[0] == replace(R, **new)


def test_their_bounds():
    assert literal(replace(R, hidden=(40,), dropout=0.5), Observed(1.0, 9.0, 1.0))[0].hidden == (32,)
    assert literal(replace(R, hidden=(40,), dropout=0.5), Observed(1.0, 9.0, 1.0))[0].dropout == 0.5
    assert literal(replace(R, hidden=(400,), dropout=0.0), Observed(1.0, 0.1, 1.0))[0].hidden == (512,)
    assert literal(replace(R, hidden=(400,), dropout=0.0), Observed(1.0, 0.1, 1.0))[0].dropout == 0.1


def test_they_halve_the_units_to_the_end_though_the_validation_loss_rises():
    """The ratio of the losses grows as the training loss falls, whatever the validation loss does."""
    problem = replace(dense(surface(0, noise=0.1)), fields=("hidden",))
    found = follow(problem, replace(SOUND, hidden=(128,), activation="relu", epochs=100))
    assert found.ended == "settled"
    assert [recipe.hidden for recipe in found.recipes] == [(128,), (64,), (32,), (32,)]
    assert found.observed[-1].validation_loss > 1.3 * found.observed[0].validation_loss


@pytest.mark.slow
def test_measurement_does_not_halve_them():
    problem = replace(dense(surface(0, noise=0.1)), fields=("hidden",))
    found = diagnose(problem, replace(SOUND, hidden=(128,), activation="relu", epochs=100))
    assert found.verdict != "overfit"
    assert all(max(finding.change.of(found.recipe).hidden) > 128 for finding in found.findings if finding.change)


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "rule"), [(0.01, {"hidden": (32,)}), (1.0, {}), (100.0, {"clip": 1.0})])
def test_they_follow_the_unit_of_the_targets(unit, rule):
    """The same data in other units: another rule fires. Measured, what is wrong are the units."""
    split = surface(0, noise=0.1)
    split = SimpleNamespace(**{name: Batch(part.x, unit * part.y) for name, part in vars(split).items()})
    recipe = replace(SOUND, hidden=(32, 32), epochs=40)
    found = follow(replace(dense(split), fields=("hidden", "clip")), recipe, rounds=1)
    by_gradient = replace(found.recipes[-1], hidden=found.recipes[-1].hidden[:1] * len(found.recipes[-1].hidden))
    assert (len(by_gradient.hidden), by_gradient.clip) == (len(rule.get("hidden", (32, 32))), rule.get("clip"))
    if unit != 1.0:
        assert diagnose(dense(split), recipe).verdict == "wrong scale"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_with_dropout_they_double_the_units_up_to_the_ceiling(seed):
    problem = replace(dense(clouds(0, apart=3.0), cross_entropy), fields=("hidden",))
    found = follow(problem, Recipe(hidden=(64,), dropout=0.5, epochs=40, lr=5e-3), seed)
    assert [recipe.hidden[0] for recipe in found.recipes] == [64, 128, 256, 512, 512]
    assert found.ended == "settled"


def test_they_leave_what_a_problem_does_not_heed():
    problem = replace(dense(surface(0)), fields=("hidden",))
    found = follow(problem, replace(SOUND, epochs=5), rounds=2)
    assert {(recipe.dropout, recipe.clip) for recipe in found.recipes} == {(0.0, None)}
    assert all(np.isfinite([seen.gradient_norm for seen in found.observed]))
