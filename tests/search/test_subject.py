"""What is searched for: common seeds and blocks, test data that no trial shares, points that become settings."""

import math

import numpy as np
import pytest
import torch

from pared.data import Series, classic, folds
from pared.evaluation import parameters
from pared.outcomes import predictor
from pared.schedules import Stretch
from pared.search import Categorical, Float, Int, PowerOfTwo, SearchSettings, Space, Stopping, search
from pared.search.defaults import check_names, configured, default_space, start_point
from pared.search.space import domain, grid
from pared.search.subject import combined, evaluated, of_series, of_table
from pared.search.trials import Key, Task
from pared.settings import RunConfig, TableConfig
from pared.study import member_seed
from pared.training import fit
from pared.types import DataError

TINY = Space({"layers": Int(1, 2), "width_1": PowerOfTwo(2, 4), "window": Int(2, 6), "lr": Float(1e-3, 1e-1, log=True)})
POINT = {"layers": 1, "width_1": 4, "window": 3, "lr": 0.01}


def series(rows=400, seed=0):
    values = np.sin(np.arange(rows) * 0.7)[:, None] + np.random.default_rng(seed).normal(0, 0.1, (rows, 1))
    return Series("wave", values, ("value",), 3, "values", None, "a test")


def wave(objectives=("error",), epochs=2, rows=400):
    return of_series(series(rows), RunConfig(epochs=epochs), objectives, TINY)


def task(point=POINT, stage="search", seed=0, milestones=()):
    return Task(Key(stage, 0, seed), point, milestones)


@pytest.mark.parametrize("data", [series(), classic("wine")], ids=["series", "table"])
def test_the_default_space_starts_from_the_settings_of_a_run(data):
    base = RunConfig(window=3) if isinstance(data, Series) else TableConfig(data.task)
    space = default_space(data)
    check_names(space, base)
    point = start_point(space, base)
    space.check(point)
    again = configured(base, point)
    assert again.weight_decay == domain(space.parameters["weight_decay"]).low  # a log scale has no 0
    assert configured(again, {"weight_decay": 0.0}) == base


def test_every_point_of_the_default_grid_makes_a_network():
    table = classic("wine")
    space = default_space(table)
    few = Space({name: each for name, each in space.parameters.items() if name not in ("lr", "weight_decay", "clip")})
    for point in grid(few, 2)[::7]:
        config = configured(TableConfig("classification"), point)
        assert len(config.hidden) == point["layers"]
        assert config.dropout == point["dropout"]
        assert config.network(13, 3, {}, 0)(torch.zeros(2, 13)).shape == (2, 3)


def test_heads_and_unknown_names():
    assert configured(RunConfig(), {"heads": 0}).dense == ()
    assert configured(RunConfig(), {"heads": 1, "head_1": 8}).dense == (8,)
    assert configured(RunConfig(), {"width_2": 4, "width_1": 8}).recurrent == (8, 4)
    with pytest.raises(DataError, match=r"unknown parameter 'hidden_1'; there are cell, window"):
        check_names(Space({"hidden_1": Int(1, 2)}), RunConfig())


def test_windows_of_all_lengths_forecast_the_same_rows():
    subject = wave()
    for tested in (False, True):
        spans = [
            [block.spans for block in subject.blocks(configured(subject.base, {"window": window}), tested)]
            for window in (2, 6)
        ]
        assert spans[0] == spans[1]


@pytest.mark.parametrize("rows", [60, 90, 400, 30000])
def test_test_rows_of_a_series_lie_after_all_that_trials_see(rows):
    subject = wave(rows=rows)
    seen = max(
        block.spans[part][1] for block in subject.blocks(subject.base, False) for part in ("train", "validation")
    )
    tested = min(block.spans["test"][0] for block in subject.blocks(subject.base, True))
    assert tested >= seen


def test_rows_of_a_table_that_are_tested_on_are_nowhere_else():
    table = classic("wine")
    subject = of_table(table, TableConfig("classification"), ("error",))
    aside = [row for part in subject.aside for row in part]
    assert len(aside) == len(set(aside)) == len(table.target) - len(subject.rest.target)
    rest = {tuple(row) for row in subject.rest.inputs}
    assert not rest & {tuple(table.inputs[row]) for row in aside}
    for fold, rows in zip(subject.blocks(subject.base, True), subject.aside, strict=True):
        assert len(fold.test.x) == len(rows)
        assert fold.test.y.tolist() == table.target[list(rows)].tolist()
    assert [fold.block for fold in subject.blocks(subject.base, False)] == [0, 4, 7]
    assert len(folds(subject.rest)) == 8


def test_an_evaluation_is_the_training_of_a_run_on_every_block():
    subject = wave(("error", "parameters"))
    config = configured(subject.base, POINT)
    errors = []
    for block in subject.blocks(config, False):
        seed = member_seed(block.block, 7)
        alone = fit(subject.build(config, seed), block, _seeded(config, seed))
        found = config.task.measure(predictor(config.task, alone.model, block), block, block.validation, False)
        errors.append(found["nrmse"])
    got = evaluated(subject, task(seed=7))
    assert got.blocks == pytest.approx(errors, rel=1e-4)
    assert got.values == (pytest.approx(math.exp(np.log(errors).mean()), rel=1e-4), parameters(alone.model))
    assert [len(each["validation"]) for each in got.curves] == [2] * 3


def _seeded(config, seed):
    from dataclasses import replace

    return replace(config.training, seed=seed)


def test_a_training_in_stretches_stops_where_it_is_worse_than_the_bar():
    subject = wave(epochs=6)
    whole = evaluated(subject, task(milestones=((2, math.inf), (4, math.inf))))
    assert set(whole.rungs) == {2, 4}
    assert not whole.stopped
    assert {len(each["train"]) for each in whole.curves} == {6}
    stopped = evaluated(subject, task(milestones=((2, math.inf), (4, whole.rungs[4] / 2))))
    assert stopped.stopped
    assert stopped.error == whole.rungs[4] == stopped.rungs[4]
    assert {len(each["train"]) for each in stopped.curves} == {4}


def test_a_stretch_is_a_part_of_its_schedule():
    part = Stretch(lambda progress: progress**2, 0.25, 0.5)
    assert [part(0.0), part(0.5), part(1.0)] == [0.25**2, 0.5**2, 0.75**2]


def test_a_network_that_diverges_is_infinite_and_not_an_error():
    got = evaluated(wave(), task(POINT | {"lr": 1e30}))
    assert got.error == math.inf
    assert not got.sound


def test_errors_are_combined_on_their_scale():
    assert combined([0.1, 0.4], "log") == pytest.approx(0.2)
    assert combined([0.1, 0.4], "linear") == 0.25
    assert combined([0.1, math.inf], "log") == math.inf


def test_a_search_crowns_tests_and_says_how_far_the_score_flattered():
    found = search(series(), TINY, SearchSettings(12, seed=1), RunConfig(epochs=2))
    assert found.evaluations <= 12
    assert found.confirmed.mean == pytest.approx(math.exp(np.log(found.confirmed.fresh).mean()))
    assert found.optimism == pytest.approx(found.confirmed.mean / found.winner.values[0] - 1)
    assert found.config == configured(RunConfig(epochs=2, window=3, predict="values"), found.point)
    assert found.test.comparison.clusters == 5
    assert {seed for _, seed in found.test.winner} == {2, 3}


def test_points_that_make_no_network_are_failures_and_the_search_goes_on():
    space = Space({"window": Categorical((3, 5000)), "lr": Float(1e-3, 1e-1, log=True)})
    short = Space({"window": Categorical((3,))})
    subject = of_series(series(), RunConfig(epochs=1), ("error",), short)
    with pytest.raises(ValueError, match="hold no window of 5000"):
        evaluated(subject, task({"window": 5000, "lr": 0.01}))
    with pytest.raises(DataError, match="rows are too few for a window of 5000"):
        search(series(), space, SearchSettings(4))


@pytest.mark.slow
def test_early_stopping_and_several_objectives_go_together():
    settings = SearchSettings(10, objectives=("error", "parameters"), stopping=Stopping("median", 1), lag=1)
    found = search(series(), TINY, settings, RunConfig(epochs=4))
    assert any(trial.outcome == "stopped early" for trial in found.trials)
    assert found.winner.outcome == "complete"


@pytest.mark.parametrize(
    ("objectives", "words"),
    [
        ((), "objectives are error"),
        (("parameters",), "objectives are error, and perhaps parameters and latency after it"),
        (("error", "size"), "'size'; choose from"),
    ],
)
def test_objectives_that_cannot_be_are_refused(objectives, words):
    with pytest.raises(DataError, match=words):
        wave(objectives)
