"""What a run says of its evidence, and how its settings become a study."""

import math

import numpy as np
import pytest

from pared import store
from pared.data import Series
from pared.evaluation import compare
from pared.findings import finding, notes, ratio_text
from pared.outcomes import Candidate, Evidence, Outcome
from pared.run import job
from pared.selection import Ratio, Threshold
from pared.settings import RunConfig, TableConfig
from pared.sizes import Bisection, LayerByLayer
from pared.types import DataError

BLOCKS = range(10)


def evidence(errors: dict[str, float], chosen: bool = True) -> Evidence:
    """Arm -> error, the same but for a little noise on every block; comparisons of the cut network with each other."""
    noisy = {arm: [error * (1 + 0.001 * block) for block in BLOCKS] for arm, error in errors.items()}
    first = "cut" if chosen else "full"
    outcomes = [
        Outcome("data", block, 0, arm, None, {"test.nrmse": values[block], "parameters": 100})
        for arm, values in noisy.items()
        for block in BLOCKS
    ]
    comparisons = {
        arm: compare([e * (1 + 0.0001 * (b % 3)) for b, e in enumerate(noisy[first])], values)
        for arm, values in noisy.items()
        if arm != first
    }
    candidate = Candidate("ratio 0.5", Ratio(0.5), 0.5, 40.0, comparisons.get("full"), 0) if chosen else None
    return Evidence({}, {}, (), candidate, tuple(outcomes), comparisons, {})


@pytest.mark.parametrize(
    ("errors", "said", "not_said"),
    [
        (
            {"full": 1.0, "cut": 0.8, "trained_on": 1.0},
            "predicts better than the full one: −20.0 % error",
            "as well as",
        ),
        ({"full": 1.0, "cut": 0.8, "trained_on": 0.8}, "not shown to beat it given the same extra training", "better"),
        ({"full": 1.0, "cut": 0.8}, "not shown to beat it given the same extra training", "better"),
        ({"full": 1.0, "cut": 1.02, "trained_on": 0.9}, "predicts as well as the full one: +2.0 % error", "beat"),
        ({"full": 1.0, "cut": 1.2}, "failed its test: +20.0 % error", "as well as"),
    ],
)
def test_the_finding_claims_no_more_than_the_comparisons_do(errors, said, not_said):
    text = finding(evidence(errors), RunConfig())
    assert said in text
    assert not_said not in text
    assert "60 % fewer parameters" in text
    assert "margin of 5 %" in text
    assert ("the full network is shipped" in text) == (errors["cut"] > 1.05)


def test_nothing_chosen_is_said():
    assert "No smaller network" in finding(evidence({"full": 1.0}, chosen=False), RunConfig())


@pytest.mark.parametrize("trivial", ["persistence", "mean"])
def test_full_networks_that_learnt_nothing_are_counted(trivial):
    found = evidence({"full": 0.5, "persistence": 0.9, "mean": 0.9} | {trivial: 0.5}, chosen=False)
    assert notes([None] * 10, RunConfig(), found)[0].startswith("10 of the full networks tested err no less")
    found = evidence({"full": 0.45, "persistence": 0.9, "mean": 0.9} | {trivial: 0.5}, chosen=False)
    assert not any("learnt nothing" in note for note in notes([None] * 10, RunConfig(), found))


def test_naive_forecasters_and_scratch_that_do_better_are_named():
    found = evidence({"full": 1.0, "cut": 1.0, "ar": 0.5, "analog": 2.0, "persistence": 3.0, "scratch": 0.8})
    naive, scratch = notes([None] * 10, RunConfig(), found)
    assert "smaller error than the network: ar. " in naive
    assert "error ratio 1.25" in scratch


@pytest.mark.parametrize(
    ("ratios", "text"),
    [
        ((0.5, 0.41, 0.6), "0.50 [0.41, 0.60]"),
        ((0.002, 0.001, 0.009), "< 0.01"),
        ((8518.43, 3192.64, 22728.4), "8,518 [3,193, 22,728]"),
    ],
)
def test_ratios_are_short(ratios, text):
    assert ratio_text(dict(zip(("difference", "low", "high"), map(math.log, ratios), strict=True))) == text


def test_a_run_keeps_the_best_epoch_and_warms_up_before_the_cut_only():
    config = RunConfig(epochs=50)
    for training in (config.training, config.refitting):
        assert training.patience == math.inf
    assert config.training.schedule(0) == pytest.approx(0.1)
    assert config.refitting.schedule(0) == 1
    assert config.refitting.epochs == 10


def test_sizes_are_searched_unless_ratios_are_told():
    assert RunConfig().rules == (Bisection(),)
    assert RunConfig(scope="group", thresholds=(0.1,)).rules == (LayerByLayer(), Threshold(0.1))
    assert RunConfig(ratios=(0.1, 0.2)).rules == (Ratio(0.1), Ratio(0.2))
    assert RunConfig().resolved["candidates"] == ["bisection of the ratio to 0.0625, at most 5 ratios"]


@pytest.mark.parametrize(("length", "told"), [(50_000, False), (3000, True)])
def test_a_choice_that_looks_at_rows_that_are_tested_on_is_told(length, told):
    values = np.sin(np.arange(length) ** 1.3)[:, None]
    remarks = job(Series("wave", values, ("value",), 2, "values", None, "a test"), RunConfig()).remarks
    assert any("validation rows of the next block" in remark for remark in remarks) == told


def test_regularisation_reaches_the_training():
    config = RunConfig(weight_decay=1e-4, clip=1.0, schedule="constant", dropout=0.1)
    assert (config.training.weight_decay, config.training.clip) == (1e-4, 1.0)
    assert [config.training.schedule(progress) for progress in (0.1, 0.5, 1.0)] == [1.0, 1.0, 1.0]  # risen, and stays
    assert RunConfig().training.schedule(1.0) == 0.0
    assert config.refitting.weight_decay == 1e-4
    assert config.network(1, {}, seed=0).dropout.p == 0.1
    for wrong in ({"weight_decay": -1.0}, {"clip": 0.0}, {"dropout": 1.0}, {"schedule": "linear"}):
        with pytest.raises(DataError, match=r"weight decay|dropout"):
            RunConfig(**wrong)


@pytest.mark.parametrize(
    "config", [RunConfig(recurrent=(3,), dense=(), clip=2.0), TableConfig("regression", dropout=0.2)]
)
def test_settings_come_back_from_their_file(tmp_path, config):
    store.write_settings(tmp_path / "best.toml", config)
    assert store.read_settings(tmp_path / "best.toml") == config
    with pytest.raises(DataError, match=r"none.toml is missing; settings are the best.toml"):
        store.read_settings(tmp_path / "none.toml")
    with pytest.raises(DataError, match=r"is a folder; settings are the best.toml"):
        store.read_settings(tmp_path)
    (tmp_path / "best.toml").write_text("format = 1\n[run]\nlr = 'fast'\n")
    with pytest.raises(DataError, match="damaged: lr cannot be 'fast'"):
        store.read_settings(tmp_path / "best.toml")
