"""Trainings with one thing wrong, put there on purpose: the diagnosis finds it, seed after seed."""

import pytest

from diagnosable import CASES
from pared.tuning import diagnose

QUICK = ("wrong_scale", "leaky_split", "dead_relus", "vanishing")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_the_diagnosis_is_what_was_put_there(name):
    case = CASES[name](0)
    found = diagnose(case.problem, case.recipe)
    assert found.verdict == case.verdict, [(f.kind, f.reason) for f in found.findings]
