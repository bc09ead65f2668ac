"""The race: little noise takes few seeds, much noise all there are; intervals hold what they say."""

import math

import numpy as np
import pytest

from pared.search.honest import finalists, race, spread, standings


def measured(truth, noise, seed=0, shared=0.0):
    """Errors = truth + what a seed does to all + what it does to each."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, shared, 50)
    own = rng.normal(0, noise, (len(truth), 50))
    return lambda trials, turn: {t: truth[t] + common[turn] + own[t, turn] for t in trials}


def test_without_noise_two_rounds_are_enough():
    errors = race([0, 1, 2], measured([0.3, 0.2, 0.25], 0.0), 15, "linear")
    assert {trial: len(line) for trial, line in errors.items()} == {0: 2, 1: 2, 2: 2}
    assert standings(errors, dict.fromkeys(errors, 0.0), "linear")[0].trial == 1


def test_what_seeds_do_to_all_alike_is_no_noise_of_the_race():
    errors = race([0, 1, 2], measured([0.3, 0.2, 0.25], 1e-6, shared=5.0), 15, "linear")
    assert sum(map(len, errors.values())) == 6


def test_much_noise_takes_the_whole_budget():
    errors = race([0, 1, 2], measured([0.2, 0.2, 0.2], 0.1, seed=3), 15, "linear")
    assert 13 <= sum(map(len, errors.values())) <= 15


def test_the_budget_is_never_exceeded():
    for budget in range(12):
        errors = race(list(range(finalists(budget))), measured([0.2] * 5, 0.1, seed=budget), budget, "linear")
        assert sum(map(len, errors.values())) <= budget


def test_who_fails_leaves_and_cannot_win():
    errors = race([0, 1], lambda trials, turn: {t: math.inf if t == 0 else 0.5 for t in trials}, 6, "log")
    found = standings(errors, {0: 0.1, 1: 0.4}, "log")
    assert [each.trial for each in found] == [1]
    assert len(errors[0]) == 1


def test_slack_keeps_those_that_are_near():
    near = race([0, 1], measured([0.2, 0.21], 0.0), 8, "linear", slack=0.02)
    far = race([0, 1], measured([0.2, 0.21], 0.0), 8, "linear", slack=0.005)
    assert len(near[1]) == 4
    assert len(far[1]) == 2


def test_the_variance_over_seeds_is_that_of_one_trial():
    """Mean over many tables: what seeds do to all (2) and to each (1) add up as variances."""
    rng = np.random.default_rng(0)
    tables = [rng.normal(0, 2, (1, 4)) + rng.normal(0, 1, (3, 4)) for _ in range(1500)]
    found = [spread(table).variance for table in tables]
    assert np.mean(found) == pytest.approx(2**2 + 1**2, rel=0.08)
    assert all(3 <= spread(table).freedom <= 12 for table in tables[:200])  # between seeds - 1 and all that is free


def test_intervals_hold_the_mean_as_often_as_they_say():
    inside = []
    for seed in range(200):
        errors = race([0, 1, 2], measured([0.5, 0.5, 0.5], 0.05, seed, shared=0.05), 9, "linear")
        each = standings(errors, dict.fromkeys(errors, 0.0), "linear")[-1]  # not the winner, whose luck is chosen
        inside.append(each.low <= 0.5 <= each.high)
    assert 0.9 <= np.mean(inside) <= 1.0


def test_what_is_expected_of_the_best_is_its_truth_on_average():
    """Truths differ by as much as noise: the mean of the best of six flatters, what is expected does not."""
    rng = np.random.default_rng(1)
    flattered, expected = [], []
    for seed in range(150):
        truth = rng.normal(1, 0.1, 6)
        best = standings(
            race(range(6), measured(truth, 0.15, seed), 12, "linear"), dict.fromkeys(range(6), 0.0), "linear"
        )[0]
        flattered.append(truth[best.trial] - best.mean)
        expected.append(truth[best.trial] - best.expected)
    assert np.mean(flattered) > 0.05
    assert abs(np.mean(expected)) < 0.02


def test_nothing_goes_back_where_nothing_is_noise():
    errors = {0: [0.3, 0.5], 1: [0.2, 0.4]}
    assert [each.expected for each in standings(errors, {0: 0.0, 1: 0.0}, "linear")] == [
        pytest.approx(0.3),
        pytest.approx(0.4),
    ]


def test_the_log_scale_has_geometric_means_and_ratios():
    (best,) = standings({4: [0.1, 0.4]}, {4: 0.1}, "log")
    assert best.mean == pytest.approx(0.2)
    assert best.high / best.mean == pytest.approx(best.mean / best.low)


def test_one_seed_has_no_interval():
    (best,) = standings({4: [0.1]}, {4: 0.1}, "log")
    assert (best.mean, best.low, best.high) == (pytest.approx(0.1), None, None)
