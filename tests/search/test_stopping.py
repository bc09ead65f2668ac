"""Early stopping: bars from earlier trials alone, against the rules as they are written."""

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pared.search.stopping import Stopping
from pared.types import DataError

MANY = settings(max_examples=60, deadline=None)
ERRORS = st.lists(st.floats(0, 1), max_size=12)


def milestones(rule, errors, epochs=6):
    earlier = [(number, {5: error}) for number, error in enumerate(errors)]
    return Stopping(rule, warmup=5).milestones(len(errors), epochs, earlier)


@given(ERRORS, st.floats(0, 1))
@MANY
def test_halving_keeps_the_best_third_of_all_that_came_so_far(errors, own):
    ((epoch, bar),) = milestones("asha", errors)
    better = sum(error < own for error in errors)
    assert epoch == 5
    assert (own <= bar) == (better < max(1, (len(errors) + 1) // 3))


@given(ERRORS)
@MANY
def test_the_median_rule_waits_for_four(errors):
    ((_, bar),) = milestones("median", errors)
    assert bar == (statistics.median(errors) if len(errors) >= 4 else float("inf"))


def test_rungs_grow_by_the_factor_and_end_before_the_last_epoch():
    assert Stopping("asha", 5, 3).rungs(60) == (5, 15, 45)
    assert Stopping("asha", 5, 3).rungs(45) == (5, 15)
    assert Stopping("median", 70).rungs(60) == ()
    assert Stopping().rungs(60) == ()


def test_hyperband_has_brackets_of_longer_and_longer_warm_ups_one_of_them_without_any_stop():
    rule = Stopping("hyperband", 5, 3)
    rungs = {bracket: rule.rungs(60, bracket) for bracket in (rule.bracket(n, 60) for n in range(49))}
    assert rungs == {0: (5, 15, 45), 1: (15, 45), 2: (45,), 3: ()}
    counts = [sum(rule.bracket(n, 60) == bracket for n in range(49)) for bracket in range(4)]
    assert counts == [27, 12, 6, 4]  # ceil(4 * 3^s / (s + 1)) for s = 3, 2, 1, 0


def test_a_bar_is_set_by_trials_of_the_same_bracket_only():
    rule = Stopping("hyperband", 5, 3)
    earlier = [(0, {15: 0.5}), (30, {15: 0.1})]  # brackets 0 and 1
    assert dict(rule.milestones(31, 60, earlier))[15] == 0.1
    assert dict(rule.milestones(1, 60, earlier))[15] == 0.5


@pytest.mark.parametrize("wrong", [{"rule": "patient"}, {"warmup": 0}, {"factor": 1}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(DataError, match="early stopping"):
        Stopping(**wrong)
