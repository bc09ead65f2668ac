"""`pared retune`: whether the old model stays, input that cannot be used, Ctrl-C."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from commands import assert_refused, command, environment, files, pared, process
from pared.database import keeping
from pared.database.connection import located
from pared.database.folders import entry_of
from retuning import deploy_series, deploy_table, logistic, write_series, write_table

OLD = logistic(420, 3.9)
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def deployed(tmp_path_factory) -> Path:
    """my.csv with my-seed0, and rows.csv with rows-seed0."""
    home = tmp_path_factory.mktemp("deployed")
    deploy_series(write_series(home / "my.csv", OLD))
    deploy_table(write_table(home / "rows.csv", 300), epochs=100)
    return home


@pytest.fixture
def here(tmp_path, monkeypatch, deployed) -> Path:
    monkeypatch.chdir(shutil.copytree(deployed, tmp_path / "here"))
    return tmp_path / "here"


def grown(here: Path, mu: float, count: int = 200) -> Path:
    """my.csv with more rows, of the same law or another."""
    return write_series(here / "more.csv", OLD + logistic(count + 1, mu, OLD[-1])[1:])


def text_of(result) -> str:
    return " ".join((result.stdout + result.stderr).split())


def test_unchanged_data_ask_for_nothing_and_leave_nothing(here):
    before = files(here)
    for words in (("my-seed0",), ("my-seed0", "--force"), ("my-seed0", "--data", grown(here, 3.6, 40))):
        result = pared("retune", *words)
        assert result.exit_code == 3, result.stderr
        assert "new rows of the 100 that a look is worth; nothing was done" in text_of(result)
        assert pared("retune", *words, "--quiet").stdout == ""
    (here / "more.csv").unlink()
    assert files(here) == before


def test_new_rows_of_the_same_law_leave_a_record_and_the_old_model(here):
    before = files(here / "my-seed0")
    result = pared("retune", "my-seed0", "--data", grown(here, 3.9), "--jobs", "1")
    assert result.exit_code == 3, result.stderr
    assert "Keep the old model: in 120 new rows no column is distributed otherwise" in text_of(result)
    folder = here / "retune-more-seed0"
    assert {path.name for path in folder.iterdir()} == {"retune.json", "report.html", "provenance.json"}
    record = json.loads((folder / "retune.json").read_text())
    assert (record["contest"], record["promoted"]) == (None, False)
    assert record["rows"] == {"known": 420, "new": 200, "train": 80, "validation": 40, "test": [16] * 5}
    assert record["finding"] in (folder / "report.html").read_text()
    assert files(here / "my-seed0") == before
    (run,) = keeping.runs(located(None, here))
    assert (run.kind, run.status, run.finding) == ("retuning", "finished", record["finding"])
    assert entry_of(folder).run == run
    assert run.parent == json.loads((here / "my-seed0" / "provenance.json").read_text())["id"]

    again = pared("retune", "my-seed0", "--data", "more.csv", "--jobs", "1")
    assert again.exit_code == 3
    assert "looked at before, in retune-more-seed0; nothing was done" in text_of(again)
    promoted = {"contest": {"tested": []}, "promoted": True, "finding": "Promote: it is better."}
    (here / "retune-more-seed0-2").mkdir()
    (here / "retune-more-seed0-2" / "retune.json").write_text(json.dumps(record | promoted))
    for force in ((), ("--force",)):
        words = ("retune", "my-seed0", "--data", "more.csv", *force)
        again, quiet = pared(*words), pared(*words, "--quiet")
        assert again.exit_code == quiet.exit_code == 0
        assert "looked at before, in retune-more-seed0-2; nothing was done. Promote: it is better." in text_of(again)
        assert "the new model: retune-more-seed0-2; to make it smaller" in text_of(again)
        assert quiet.stdout == "retune-more-seed0-2\n"
    assert_refused(pared("retune", folder), "retune-more-seed0 kept the old model, my-seed0; give that folder")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("nowhere",), ("nowhere is not a run folder", "outcomes.json is missing")),
        (("my-seed0", "--data", "gone.csv"), ("gone.csv: no such file",)),
        (("my-seed0", "--data", "other.csv"), ("other.csv: no column 'value'", "'price'")),
        (("my-seed0", "--data", "short.csv"), ("short.csv: 60 rows are too few", "at least 100 new ones")),
        (("my-seed0", "--data", "text.csv"), ("text.csv, line 3, column 'value': 'x' is not a number",)),
        (("my-seed0", "--data", "binary.csv"), ("binary.csv, line 1: not UTF-8",)),
        (("my-seed0", "--data", "henon"), ("henon has the columns 'x', not 'value'",)),
        (("my-seed0", "--data", "alien.csv", "--old", "gone.csv"), ("gone.csv is no file here", "--old")),
        (("my-seed0", "--data", "alien.csv", "--old", "short.csv"), ("does not hold the data", "420 rows", "--old")),
        (("rows-seed0", "--data", "my.csv"), ("my.csv: no column 'y'",)),
        (("rows-seed0", "--data", "wine"), ("wine has other columns or classes",)),
        (("my-seed0", "--trials", "0"), ("--trials",)),
        (("my-seed0", "--store", "what://x"), ("--store must be",)),
    ],
)
def test_input_that_cannot_be_used(here, words, parts):
    write_series(here / "other.csv", OLD, name="price")
    write_series(here / "short.csv", logistic(60, 3.8, 0.2))
    write_series(here / "alien.csv", logistic(300, 3.8, 0.2))
    write_series(here / "more.csv", OLD + logistic(201, 3.9, OLD[-1])[1:])
    (here / "text.csv").write_text("day,value\nd,1\nd,x\nd,2\nd,3\n")
    (here / "binary.csv").write_bytes(b"\xff\xfe\x00value\n1\n")
    if "--store" in words:
        words = (*words, "--data", "more.csv")
    before = files(here)
    assert_refused(pared("retune", *words), *parts)
    assert files(here) == before


def test_a_damaged_record(here):
    (here / "my-seed0" / "config.toml").write_text("format = 1\n[run]\nepochs = 'x'\n")
    assert_refused(pared("retune", "my-seed0"), "config.toml is damaged")


@slow
def test_a_better_challenger_is_promoted_and_can_be_used_and_tuned_again(here):
    result = process("retune", "my-seed0", "--data", grown(here, 3.6, 300), "--jobs", 1, cwd=here)
    assert result.returncode == 0, result.stderr
    assert "Distributed otherwise than before: value." in result.stdout
    assert "Promote: the error of " in result.stdout
    folder = here / "retune-more-seed0"
    record = json.loads((folder / "retune.json").read_text())
    contest = record["contest"]
    assert record["promoted"]
    assert all(contest["duel"][over]["high"] < 0 for over in ("parts", "seeds"))
    means = [each["mean"] for each in contest["contenders"]]
    assert means[contest["challenger"]] == min(means)
    assert len(contest["trials"]) == 12
    assert contest["tested"] == list(range(600, 720))
    assert "promoted" in (folder / "report.html").read_text()

    for force in ((), ("--force",)):  # the promotion was not lost with the first answer
        same = pared("retune", "my-seed0", "--data", "more.csv", "--quiet", *force)
        assert (same.exit_code, same.stdout) == (0, "retune-more-seed0\n"), same.stderr
    forecast = pared("predict", folder, "more.csv", "--out", "forecast.csv")
    assert forecast.exit_code == 0, forecast.stderr
    more = logistic(301, 3.6, OLD[-1])[1:]
    write_series(here / "most.csv", OLD + more + logistic(261, 3.6, more[-1])[1:])
    again = pared("retune", folder, "--data", "most.csv", "--jobs", 1, "--quiet")
    assert (again.exit_code, again.stdout) == (3, ""), again.stderr
    kept = json.loads((here / "retune-most-seed0" / "retune.json").read_text())
    assert kept["rows"]["known"] == 720
    entered = {run.folder: run for run in keeping.runs(located(None, here))}
    assert entered[str(here / "retune-most-seed0")].parent == entered[str(folder)].id
    assert entered[str(folder)].after < entered[str(folder)].before


@slow
def test_a_challenger_that_is_no_better_leaves_the_old_model_and_spends_the_rows(here):
    deploy_series(write_series(here / "good.csv", OLD), epochs=400)
    words = ("retune", "good-seed0", "--data", grown(here, 3.9), "--force", "--trials", 5, "--jobs", 1)
    result = process(*words, cwd=here)
    assert result.returncode == 3, result.stderr
    assert "Keep the old model: the error of " in result.stdout
    assert "The contest was asked for (--force)" in result.stdout
    folder = here / "retune-more-seed0"
    assert not (folder / "model.safetensors").exists()

    write_series(here / "most.csv", OLD + logistic(451, 3.9, OLD[-1])[1:])
    result = pared("retune", "good-seed0", "--data", "most.csv", "--jobs", 1)
    assert result.exit_code == 3, result.stderr
    record = json.loads((here / "retune-most-seed0" / "retune.json").read_text())
    assert record["rows"]["known"] == 620  # what was tested on is not chosen on
    assert "looked at before" in text_of(pared("retune", "good-seed0", "--data", "more.csv", "--force"))


@slow
@pytest.mark.parametrize(("slope", "code"), [(1.0, 3), (-1.0, 0)])
def test_a_table(here, slope, code):
    old, fresh = (here / "rows.csv").read_text(), write_table(here / "fresh.csv", 250, slope, seed=1).read_text()
    (here / "more.csv").write_text(old + fresh.split("\n", 1)[1])
    result = pared("retune", "rows-seed0", "--data", "more.csv", "--jobs", 1)
    assert result.exit_code == code, (result.stdout, result.stderr)
    record = json.loads((here / "retune-more-seed0" / "retune.json").read_text())
    assert record["rows"]["known"] == 300
    assert record["promoted"] == (code == 0)
    alone = process("retune", "rows-seed0", "--data", "fresh.csv", "--trials", 5, "--jobs", 1, "--quiet", cwd=here)
    assert alone.returncode == code, alone.stderr
    assert alone.stdout.split() == (["retune-fresh-seed0"] if code == 0 else [])


@slow
def test_the_same_seed_gives_the_same_record_whatever_the_jobs(here):
    grown(here, 3.6)
    for out, jobs in (("one", 1), ("two", 2)):
        words = ("retune", "my-seed0", "--data", "more.csv", "--trials", 5, "--out", out, "--jobs", jobs)
        assert pared(*words).exit_code in (0, 3)
    one, two = (json.loads((here / out / "retune-more-seed0" / "retune.json").read_text()) for out in ("one", "two"))
    assert {**one, "seconds": 0} == {**two, "seconds": 0}


@slow
def test_an_interrupt_leaves_nothing(here):
    config = here / "my-seed0" / "config.toml"
    config.write_text(config.read_text().replace("epochs = 20\n", "epochs = 10000000\n"))
    grown(here, 3.6)
    before = files(here)
    with (here.parent / "messages").open("w") as stream:
        words = command("retune", "my-seed0", "--data", "more.csv", "--jobs", 1)
        run = subprocess.Popen(words, cwd=here, env=environment(), stdout=subprocess.DEVNULL, stderr=stream)
    try:
        while not (here / "retune-more-seed0").exists():
            assert run.poll() is None
            time.sleep(0.05)
        time.sleep(3)
        os.kill(run.pid, signal.SIGINT)
        assert run.wait(timeout=60) == 130
    finally:
        if run.poll() is None:
            run.kill()
    text = (here.parent / "messages").read_text()
    assert "Interrupted. Nothing is left behind; the old model stays." in text
    assert "Traceback" not in text
    assert files(here) == before
