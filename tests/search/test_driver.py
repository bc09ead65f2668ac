"""The driver: same questions, same answers, however often it is stopped and whoever finishes first."""

import pytest
from optuna.trial import TrialState

from pared.search import Categorical, Conditional, Int, SearchError, SearchSettings, Space, Stopping, samplers, search
from pared.search.book import Book
from pared.search.driver import Evaluator, Exploration, Rules
from pared.search.samplers import SAMPLERS, Proposals
from pared.search.space import grid, key
from pared.search.story import _Function
from pared.search.trials import Evaluation, Failure, Key, Task
from pared.search.workers import attempted, crew
from pared.seeds import seed_of
from pared.types import DataError
from searching import SPACE, AnyOrder, noisy

OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in SAMPLERS if name not in ("tpe", "gp", "grid")]
SLOWEST = [pytest.param("gp", marks=pytest.mark.slow)]


def explored(count, sampler="tpe", lag=1, seed=0, call=noisy, space=SPACE, order=None):
    """The trials of a search of a function."""
    with crew(_Function(call), 1) as here:
        workers = here if order is None else AnyOrder(_Function(call), *order)
        rules = Rules(sampler, seed, lag=lag)
        return Exploration(space, rules, 1, 1, Evaluator(Book(), workers), []).upto(count, lambda done: None)


def plain(trials):
    return [(trial.point, trial.values) for trial in trials]


class Stopped(BaseException):
    """What comes from outside: neither the driver nor a worker may take it for a failure."""


@pytest.mark.parametrize("sampler", ["tpe", *OTHERS, *SLOWEST])
@pytest.mark.parametrize("lag", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_search_that_was_stopped_goes_on_to_the_same_trials(tmp_path, sampler, lag):
    whole = search(noisy, SPACE, SearchSettings(18, sampler, seed=5, lag=lag))
    calls = []

    def until(limit):
        def call(point, seed):
            if len(calls) == limit:
                raise Stopped
            calls.append((key(point), seed))
            return noisy(point, seed)

        call.__qualname__ = "noisy"
        return call

    for limit in (3, 4, 13, 16):
        with pytest.raises(Stopped):
            search(until(limit), SPACE, SearchSettings(18, sampler, seed=5, lag=lag), folder=tmp_path)
    found = search(until(None), SPACE, SearchSettings(18, sampler, seed=5, lag=lag), folder=tmp_path)
    assert found == whole
    assert len(set(calls)) == len(calls)  # nothing was evaluated twice
    assert len(calls) == found.evaluations <= 18


@pytest.mark.parametrize("sampler", ["tpe", *OTHERS])
def test_who_finishes_first_does_not_matter(sampler):
    expected = plain(explored(14, sampler, lag=5))
    for order in range(2):
        assert plain(explored(14, sampler, lag=5, order=(order,))) == expected


def test_the_number_of_jobs_does_not_matter():
    lag = SearchSettings().lag
    expected = plain(explored(20, lag=lag))
    assert all(plain(explored(20, lag=lag, order=(jobs, jobs))) == expected for jobs in (2, 4))
    assert plain(explored(20, lag=lag + 1)) != expected


def test_another_seed_is_another_search_and_every_trial_draws_anew():
    assert plain(explored(12, "random", seed=0)) != plain(explored(12, "random", seed=1))
    assert len({key(point) for point, _ in plain(explored(40, "random"))}) == 40
    assert len({seed_of(seed, number) for seed in range(20) for number in range(20)}) == 400


def test_a_proposal_that_was_tried_costs_nothing_and_a_space_ends():
    calls = []

    def call(point, seed):
        calls.append(point["a"])
        return float(point["a"])

    trials = explored(30, "tpe", space=Space({"a": Int(0, 4)}), call=call)
    assert sorted(calls) == sorted(trial.point["a"] for trial in trials) == [0, 1, 2, 3, 4]


def test_a_grid_is_tried_point_by_point():
    space = Space({"a": Int(0, 3), "b": Conditional(Int(0, 9), "a", (2,))})
    found = search(lambda point, seed: point["a"] + point.get("b", 0.5), space, SearchSettings(9, "grid", share=0.0))
    assert [trial.point for trial in found.trials] == grid(space, 3)
    assert found.point == {"a": 0}
    with pytest.raises(DataError, match=r"the grid has 216 points, and 200 trials leave 160 to search with"):
        search(noisy, SPACE, SearchSettings(200, "grid"))


def test_failures_are_told_and_the_search_goes_on():
    def call(point, seed):
        if point["kind"] == "plain":
            raise ValueError("no\nplain net")
        return float("nan") if point["layers"] == 3 else noisy(point, seed)

    trials = explored(30, "random", call=call)
    assert len(trials) == 30
    assert {trial.outcome for trial in trials} == {"complete", "diverged", "failed: ValueError: no plain net"}
    failed = next(trial.result for trial in trials if isinstance(trial.result, Failure))
    assert "raise ValueError" in failed.traceback


def test_where_all_trials_fail_the_search_stops_with_the_commonest_error():
    def call(point, seed):
        if point["kind"] == "plain":
            raise ValueError("no plain net")
        return 1 / 0

    with pytest.raises(SearchError, match=r"none of the first 10 trials came to an end.*of them failed: "):
        explored(40, "random", call=call)
    with pytest.raises(SearchError, match=r"none of the first 3 trials.*3 of them diverged"):
        search(lambda point, seed: float("nan"), SPACE, SearchSettings(3))


def test_what_raises_is_tried_again_as_often_as_told():
    tries = []

    def call(task):
        tries.append(task)
        if len(tries) < 3:
            raise RuntimeError("busy")
        return Evaluation((1.0,))

    task = Task(Key("search", 0, 0), {})
    assert isinstance(attempted(call, task, 1), Failure)
    assert attempted(call, task, 1) == Evaluation((1.0,))


def test_optuna_is_told_what_came_of_a_trial():
    proposals = Proposals(SPACE, "random", 0, 1)
    results = [Evaluation((0.5,)), Failure("ValueError: no"), Evaluation((0.7,), rungs={5: 0.7}, stopped=True)]
    told = [proposals.tell(proposals.ask()[0], result) for result in results]
    assert [trial.state for trial in told] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED]
    assert told[1].user_attrs == {"reason": "ValueError: no"}
    assert told[2].intermediate_values == {5: 0.7}


def test_a_long_history_is_thinned_and_the_search_is_still_the_same(monkeypatch):
    monkeypatch.setattr(samplers, "MOST_TRIALS", 20)
    monkeypatch.setattr(samplers, "BEST", 4)
    monkeypatch.setattr(samplers, "NEWEST", 6)
    expected = plain(explored(36, lag=3))
    assert plain(explored(36, lag=3, order=(1,))) == expected
    proposals = Proposals(SPACE, "tpe", 0, 1)
    errors = [abs(number - 7) / 10 for number in range(20)]
    for error in errors:
        proposals.tell(proposals.ask()[0], Evaluation((error,)))
    assert proposals.ask()[0] == 20
    assert [trial.value for trial in proposals._study.trials[:-1]] == [errors[n] for n in (5, 6, 7, 8, *range(14, 20))]


def test_a_given_point_is_asked_for_first():
    point = {"kind": "deep", "layers": 2, "width": 16, "lr": 0.003, "share": 0.1}
    assert Proposals(SPACE, "tpe", 0, 1).ask(point)[1] == point


def test_wrong_words_are_refused():
    with pytest.raises(DataError, match="unknown sampler 'bayes'; choose one of tpe, random"):
        Proposals(SPACE, "bayes", 0, 1)
    with pytest.raises(DataError, match="cmaes takes one objective"):
        Proposals(SPACE, "cmaes", 0, 2)
    with pytest.raises(DataError, match="trials and the lag count from 1"):
        SearchSettings(0)
    with pytest.raises(DataError, match=r"got 60, 0, 0, 0\.2"):
        SearchSettings(lag=0)


@pytest.mark.parametrize("sampler", ["nsga2", pytest.param("tpe", marks=pytest.mark.slow)])
def test_of_several_objectives_the_leanest_within_the_margin_wins(sampler):
    space = Space({"width": Int(1, 12), "kind": Categorical(("a", "b"))})

    def call(point, seed):
        return (0.5 + 1 / point["width"] ** 3 if point["kind"] == "a" else 0.9), float(point["width"])

    found = search(call, space, SearchSettings(30, sampler, objectives=("error", "parameters")))
    assert found.point["kind"] == "a"
    least = min(trial.values[0] for trial in found.trials)
    assert found.winner.values[0] <= least + 0.05
    assert found.point["width"] <= 6


def test_early_stopping_ends_what_is_worse_by_then(monkeypatch):
    """Trial n's error after 5 epochs is 1 / (n + 1) but for every third, which lies above the median."""
    seen = []

    def call(task):
        number = task.key.trial
        error = 5.0 if number % 3 == 2 else 1 / (number + 1)
        ((epoch, bar),) = task.milestones
        seen.append((epoch, bar))
        return Evaluation((error,), rungs={epoch: error}, stopped=error > bar)

    rules = Rules("random", stopping=Stopping("median", 5))
    with crew(call, 1) as here:
        trials = Exploration(SPACE, rules, 1, 10, Evaluator(Book(), here), []).upto(12, lambda done: None)
    assert [trial.number for trial in trials if trial.outcome == "stopped early"] == [5, 8, 11]
    assert seen[:4] == [(5, float("inf"))] * 4
