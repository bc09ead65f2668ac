"""`pared distill`: the student's size, which one ships, what is refused, and the whole command on a small run."""

import json
import math
import shutil
import sys
from dataclasses import replace

import pytest
import torch

from commands import assert_refused, files, pared
from pared import MLP, run_table
from pared.data import classic
from pared.database.folders import entry_of
from pared.distilling.lesson import Found, Taken, lesson, student_settings, taken
from pared.distilling.page import page
from pared.distilling.record import build, compared, shipped_key
from pared.evaluation import macs
from pared.settings import RunConfig, TableConfig
from pared.store import read_table_model
from pared.surgery import Plan
from pared.targets import Soft
from pared.training import Fit
from pared.types import DataError, DivergedError

WINE = TableConfig("classification", hidden=(6, 4), epochs=3)


def wine(tmp_path):
    return Taken(tmp_path, classic("wine"), WINE, run_table.job(classic("wine"), WINE).blocks[-1].block, 0)


def given(tmp_path, seeds=5):
    teacher = MLP(13, (6, 4), 3, "relu", seed=1)
    return lesson(wine(tmp_path), replace(WINE, hidden=(2,)), teacher, Soft(), range(seeds))


def found_of(own, taught, plain):
    """Students that were not trained, of these errors by seed."""
    state = {"state": {}, "param_groups": []}
    fits = {("plain", s): Fit(own.student(s), state, {}, s, 0.0) for s in own.seeds}
    fits |= {("taught", s): Fit(own.student(s + 9), state, {}, s, 0.0) for s in own.seeds}
    errors = {"taught": taught, "plain": plain}
    metrics = {
        (arm, seed): {f"{part}.error": errors[arm][seed] for part in ("validation", "test")} for arm, seed in fits
    }
    return Found(fits, metrics, {"test.error": 0.1, "validation.error": 0.1})


def test_a_student_is_of_the_cut_networks_size_or_of_the_one_that_was_told(tmp_path):
    (tmp_path / "plan.json").write_text(Plan({"layers.0": (0, 3), "layers.2": (1,)}).to_json(), encoding="utf-8")
    assert student_settings(wine(tmp_path), {}).hidden == (2, 1)
    assert student_settings(wine(tmp_path), {"hidden": (5,)}, epochs=7) == replace(WINE, hidden=(5,), epochs=7)
    assert student_settings(replace(wine(tmp_path), config=replace(WINE, dropout=0.1)), {}).hidden == (2, 4)
    plan = Plan({"recurrent.1.l0": (0,), "head.0": (2, 3)})
    (tmp_path / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    series = student_settings(replace(wine(tmp_path), config=RunConfig()), {})
    assert (series.recurrent, series.dense) == ((16, 1), (2,))
    (tmp_path / "plan.json").write_text(Plan({}).to_json(), encoding="utf-8")
    with pytest.raises(DataError, match=r"no network with fewer units.*--hidden"):
        student_settings(wine(tmp_path), {})


def test_the_student_alone_is_trained_longer_by_what_the_teachers_answers_cost(tmp_path):
    own = given(tmp_path)
    little, large = (macs(model, own.block.train.x[:1]) for model in (own.student(0), own.teacher))
    assert own.trainings["taught"].epochs == 3
    assert own.trainings["plain"].epochs == 3 + math.ceil(large / (3 * little)) > 3


def test_the_kind_of_lower_validation_error_ships_and_of_it_the_median(tmp_path):
    own = given(tmp_path)
    low, high = [0.1, 0.3, 0.2, 0.05, 0.15], [0.2, 0.3, 0.4, 0.25, 0.35]
    assert shipped_key(own, found_of(own, low, high)) == ("taught", 4)
    assert shipped_key(own, found_of(own, high, low)) == ("plain", 4)
    assert shipped_key(own, found_of(own, low, low)) == ("plain", 4)  # of equals the one that needs no teacher
    comparison = compared(own, found_of(own, low, high), "test")
    assert comparison.difference == pytest.approx(sum(low) / 5 - sum(high) / 5)
    assert comparison.clusters == 5
    nothing = [math.nan] * 5
    assert shipped_key(own, found_of(own, nothing, low)) == ("plain", 4)
    assert compared(own, found_of(own, nothing, low), "test") is None
    with pytest.raises(DivergedError, match="all trainings"):
        shipped_key(own, found_of(own, nothing, nothing))


def test_the_page_says_what_the_record_holds(tmp_path):
    own = given(tmp_path)
    record = build(own, found_of(own, [0.1] * 5, [0.2] * 5), tmp_path / "<b>", "full", 1.0)
    source = page(json.loads(json.dumps(record, allow_nan=False)))
    assert "<b>" not in source.replace("<body>", "")
    for part in (record["finding"], f"{record['student']['parameters']} parameters", "90.0", "Equal compute"):
        assert part in source, part
    assert "Ships the student that was taught" in record["finding"]


def test_who_cannot_teach_is_refused(tmp_path):
    with pytest.raises(DataError, match="alike"):
        lesson(wine(tmp_path), WINE, MLP(13, (4,), 2, seed=0), Soft(), range(2))
    own, without = wine(tmp_path), classic("wine")
    blocks = run_table.job(without, WINE).blocks
    for block in blocks:
        block.train.y[block.train.y == 2] = -1
    object.__setattr__(own, "job", lambda config: run_table.job(without, config, blocks))
    with pytest.raises(DataError, match="no example is labelled as class 2"):
        lesson(own, WINE, MLP(13, (4,), 3, seed=0), Soft(), range(2))
    assert_refused(pared("distill", tmp_path), "is not a run folder")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    base = tmp_path_factory.mktemp("distill")
    arguments = ("--quick", "--epochs", 1, "--hidden", "6,4", "--ratios", 0.3, "--jobs", 1, "--out", base)
    assert pared("run", "wine", *arguments).exit_code == 0
    return base / "wine-seed0"


TOLD = ("--hidden", "3", "--epochs", 1, "--jobs", 1)


def test_a_run_is_distilled_into_a_folder_that_predicts(finished):
    before = files(finished)
    result = pared("distill", finished, *TOLD, "--seeds", 5, "--out", finished.parent)
    assert result.exit_code == 0, (result.stderr, result.exception)
    folder = finished.parent / "distill-wine-seed0"
    left = {"report.html", "distill.json", "plan.json", "model.safetensors", "config.toml", "provenance.json"}
    assert set(files(folder)) == left
    record = json.loads((folder / "distill.json").read_text())
    network, _, _ = read_table_model(folder)
    assert sum(p.numel() for p in network.parameters()) == record["student"]["parameters"]
    assert pared("predict", folder, "wine").stdout.count("\n") > 170
    entry = entry_of(folder)
    assert (entry.run.kind, entry.run.finding) == ("distillation", record["finding"])
    assert len(entry.fits) == 10
    assert files(finished) == before


def test_other_data_than_the_runs_are_refused(finished, tmp_path):
    wine = classic("wine")
    head = ",".join((wine.encoding.target, *wine.encoding.names))
    rows = [[wine.encoding.classes[int(k)], *map(float, x)] for x, k in zip(wine.inputs, wine.target, strict=True)]
    for name in ("same.csv", "other.csv"):
        (tmp_path / name).write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
        rows[0][1] += 1.0
    assert len(taken(finished, str(tmp_path / "same.csv")).data.target) == len(rows)
    result = pared("distill", finished, *TOLD, "--data", tmp_path / "other.csv", "--out", tmp_path / "runs")
    assert_refused(result, "other.csv does not hold the data that", "wine-seed0 was made from", "with --data")
    assert not (tmp_path / "runs").exists()
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "provenance.json").unlink()
    taken(copy, str(tmp_path / "other.csv"))  # no fingerprint tells


@pytest.mark.slow
def test_a_seed_gives_the_same_students_and_the_shipped_network_may_teach(finished, tmp_path):
    for number, which in enumerate(("full", "full", "shipped")):
        told = (*TOLD, "--seeds", 2, "--out", tmp_path / str(number), "--teacher", which)
        assert pared("distill", finished, *told).exit_code == 0
    first, again, _ = (
        json.loads((tmp_path / str(k) / "distill-wine-seed0/distill.json").read_text()) for k in range(3)
    )
    assert first["fits"] == again["fits"]
    one, two = (read_table_model(tmp_path / str(k) / "distill-wine-seed0")[0].state_dict() for k in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("stage", ["teacher_of", "students"])
def test_an_interrupt_is_told_whenever_it_comes(finished, tmp_path, monkeypatch, stage):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["pared.distilling.command"], stage, interrupt)
    result = pared("distill", finished, *TOLD, "--out", tmp_path / "new" / "runs")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "Interrupted before the students were trained; nothing is left behind." in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("told", "parts"), [
    (("--hidden", "3", "--temperature", "0"), ("temperature must be positive", "0.0")),
    (("--hidden", "3", "--alpha", "1.5"), ("alpha", "1.5")),
    (("--recurrent", "3"), ("--recurrent makes no sense for this run's data",)),
    (("--recurrent", "3", "--dense", "2"), ("--recurrent, --dense make no sense",)),
    (("--hidden", "3", "--bound", "1"), ("--bound", "makes no sense")),
    (("--hidden", "0"), ("0",)),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_training(finished, told, parts):
    before = files(finished.parent)
    assert_refused(pared("distill", finished, *told, "--out", finished.parent), *parts)
    assert files(finished.parent) == before
