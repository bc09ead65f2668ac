"""`pared search` as a user meets it: a folder, a page, settings to prune, and one message where something is wrong."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
import tomllib
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from commands import assert_refused, command, environment, files, pared, write_csv
from pared.search.book import about_of

TINY = {
    "width_1": {"kind": "power of two", "low": 2, "high": 4},
    "window": {"kind": "int", "low": 2, "high": 4},
    "lr": {"kind": "float", "low": 0.001, "high": 0.1, "log": True},
}
SMALL = ("--column", "value", "--space", "space.json", "--epochs", "1", "--jobs", "1")
slow = pytest.mark.slow


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with my.csv and a small space."""
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "my.csv")
    (tmp_path / "space.json").write_text(json.dumps(TINY))
    (tmp_path / "table.toml").write_text('format = 1\n[table]\npredicts = "regression"\n')
    return tmp_path


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--resume",), ("no search of my.csv with seed 0 in runs", "leave --resume out")),
        (("--objectives", "error,beauty"), ("unknown objective 'beauty'", "error, parameters, latency")),
        (("--space", "none.json"), ("none.json: no such file", "a space is JSON")),
        (("--space", "."), ("Error: . is a folder; a space is JSON",)),
        (("--config", "none.toml"), ("none.toml is missing", "best.toml")),
        (("--config", "table.toml"), ("table.toml holds the settings of a network for other data",)),
        (("--trials", "0"), ("'--trials'", "greater than or equal to 1")),
        (("--epochs", "0"), ("epochs",)),
        (("--warmup", "0"), ("warm-up of at least 1 epoch",)),
        (("--sampler", "grid", "--levels", "9"), ("the grid has 54 points", "take more trials")),
        (("--sampler", "bayes"), ("'bayes'", "tpe")),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_left(here, words, parts):
    before = files(here)
    assert_refused(pared("search", "my.csv", *SMALL, *words), *parts)
    assert files(here) == before


@pytest.mark.parametrize(
    ("space", "part"),
    [
        ({}, "the space is empty"),
        ({"lr": {"kind": "float", "low": 1.0, "high": 0.1}}, "'lr': its range is empty"),
        ({"lr": TINY["lr"], "clip": {"kind": "float", "low": 1, "high": 2, "when": {"layerz": [2]}}}, "'layerz'"),
        ({"hidden_1": {"kind": "int", "low": 1, "high": 2}}, "unknown parameter 'hidden_1'"),
        ({"window": {"kind": "int", "low": 2, "high": 4000}}, "420 rows are too few for a window of 4000"),
    ],
)
def test_a_space_that_cannot_be_searched_is_told(here, space, part):
    (here / "space.json").write_text(json.dumps(space))
    assert_refused(pared("search", "my.csv", *SMALL), part)
    assert not (here / "runs").exists()


@slow
def test_from_a_csv_file_to_settings_that_a_run_takes(here):
    result = pared("search", "my.csv", *SMALL, "--trials", 10)
    assert result.exit_code == 0, result.stderr
    folder = here / "runs" / "search-my-seed0"
    assert set(files(folder)) == {
        "best.toml", "report.html", "search.json", "study.db", "study.lock", "provenance.json"
    }  # fmt: skip
    record = json.loads((folder / "search.json").read_text())
    assert record["evaluations"] <= 10
    assert record["finding"] in " ".join(result.stdout.split())
    assert (
        f"to prune it: pared run my.csv --column value --config {folder.relative_to(here)}/best.toml" in result.stdout
    )
    study = optuna.load_study(study_name="pared", storage=f"sqlite:///{folder / 'study.db'}")
    assert [trial.value for trial in study.trials] == [trial["values"][0] for trial in record["trials"]]
    words = re.search("pared (run .*)", result.stdout)[1].split()
    run = pared(*words, "--seeds", 1, "--epochs", 2, "--ratios", "0.3", "--jobs", 1)
    assert run.exit_code == 0, run.stderr
    told = json.loads((here / "runs" / "my-seed0" / "outcomes.json").read_text())["settings"]
    point = next(t["point"] for t in record["trials"] if t["trial"] == record["winner"])
    assert (told["lr"], told["window"], told["recurrent"]) == (point["lr"], point["window"], [point["width_1"]])
    assert (told["epochs"], told["seeds"]) == (2, [0])  # options count more


@slow
def test_a_second_search_begins_at_what_the_first_found_and_beats_it(here):
    (here / "first.toml").write_text('format = 1\n[run]\nrecurrent = [2]\ndense = []\nlr = 0.02\noptimiser = "adamw"\n')
    stage = {"layers": {"kind": "int", "low": 1, "high": 2}, "width_1": TINY["width_1"]}
    stage["width_2"] = {"kind": "power of two", "low": 2, "high": 4, "when": {"layers": [2]}}
    stage["schedule"] = {"kind": "categorical", "choices": ["cosine", "plateau"]}
    (here / "space.json").write_text(json.dumps(stage))
    words = ("search", "my.csv", *SMALL, "--config", "first.toml", "--trials")
    result = pared(*words, 7)
    assert result.exit_code == 0, result.stderr
    folder = here / "runs" / "search-my-seed0"
    first = json.loads((folder / "search.json").read_text())["trials"][0]["point"]
    assert first == {"layers": 1, "width_1": 2, "schedule": "cosine"}
    best = tomllib.loads((folder / "best.toml").read_text())["run"]
    assert (best["lr"], best["optimiser"], best["epochs"]) == (0.02, "adamw", 1)  # what was not searched is kept
    again = pared("search", "my.csv", "--column", "value", "--jobs", 1, "--resume", "--trials", 9)
    assert again.exit_code == 0, again.stderr
    assert tomllib.loads((folder / "best.toml").read_text())["run"]["lr"] == 0.02


@slow
@pytest.mark.parametrize("words", [("wine",), ("my.csv", "--column", "extra", "--features", "value", "--task", "auto")])
def test_tables_are_searched_with_what_is_early_and_lean(here, words):
    options = ("--trials", 8, "--epochs", 4, "--jobs", 2, "--objectives", "error,parameters")
    result = pared("search", *words, *options, "--stopping", "median", "--warmup", 1)
    assert result.exit_code == 0, result.stderr
    assert "to prune it: pared run" in result.stdout


@slow
def test_the_same_command_with_more_jobs_gives_the_same_search(here):
    for jobs in (1, 2, 4):
        result = pared("search", "my.csv", *SMALL[:-1], jobs, "--trials", 16, "--out", f"{jobs}", "--seed", 4)
        assert result.exit_code == 0, result.stderr
    one, two, four = (
        json.loads((here / f"{jobs}" / "search-my-seed4" / "search.json").read_text()) for jobs in (1, 2, 4)
    )
    assert len({each.pop("seconds")["total"] for each in (one, two, four)}) == 3
    assert one == two == four


@slow
def test_after_ctrl_c_a_search_goes_on_with_the_options_that_it_was_begun_with(here):
    words = (
        "search",
        "my.csv",
        *SMALL,
        "--trials",
        "12",
        "--sampler",
        "random",
        "--stopping",
        "median",
        "--warmup",
        "1",
    )
    folder = here / "runs" / "search-my-seed0"
    run = subprocess.Popen(
        command(*words, "--epochs", "200"), cwd=here, env=environment(), start_new_session=True, stderr=subprocess.PIPE
    )
    while not (folder / "study.db").exists() or count(folder) < 2:
        assert run.poll() is None
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    _, text = run.communicate(timeout=60)
    assert run.returncode == 130
    assert b"--resume" in text
    assert b"Traceback" not in text
    refused = pared("search", "my.csv", "--column", "value", "--resume", "--sampler", "tpe", "--jobs", 1)
    assert_refused(refused, "other settings (sampler: random there, tpe here)", "start anew")
    write_csv(here / "my.csv", {7: "0.5"})
    for words, part in (
        ((), "of other data (as many rows and the same columns, but other values in value); give it those"),
        (("--features", "extra"), "(column 'extra' only here)"),
    ):
        refused = pared("search", "my.csv", "--column", "value", *words, "--resume", "--jobs", 1)
        assert_refused(refused, part, "start anew: without --resume")
    write_csv(here / "my.csv", count=430)
    refused = pared("search", "my.csv", "--column", "value", "--resume", "--jobs", 1)
    assert_refused(refused, "of other data (430 rows here, 420 there)", "start anew: without --resume")
    write_csv(here / "my.csv")
    (here / "space.json").write_text(json.dumps(TINY | {"window": {"kind": "int", "low": 2, "high": 5}}))
    refused = pared("search", "my.csv", "--column", "value", "--resume", "--jobs", 1, "--space", "space.json")
    assert_refused(refused, "other settings (space window high: 4 there, 5 here)", "start anew: without --resume")
    result = pared("search", "my.csv", "--column", "value", "--resume", "--jobs", 1)
    assert result.exit_code == 0, result.stderr
    about = about_of(folder)
    assert (about["settings"]["sampler"], about["base"]["epochs"], about["trials"]) == ("random", 200, 12)
    assert len(json.loads((folder / "search.json").read_text())["trials"]) == 10


def count(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "study.db")) as database:
        return database.execute("SELECT count(*) FROM pared_evaluations").fetchone()[0]


@slow
def test_points_that_make_no_network_are_told_and_the_search_goes_on(here):
    space = TINY | {"clip": {"kind": "categorical", "choices": [1.0, -1.0]}}
    (here / "space.json").write_text(json.dumps(space))
    result = pared("search", "my.csv", *SMALL, "--trials", 12, "--sampler", "random")
    assert result.exit_code == 0, result.stderr
    trials = json.loads((here / "runs" / "search-my-seed0" / "search.json").read_text())["trials"]
    failed = [trial for trial in trials if trial["point"]["clip"] == -1.0]
    assert 0 < len(failed) < len(trials)
    assert all("clip" in trial["outcome"] and trial["outcome"].startswith("failed: ") for trial in failed)
    assert all(trial["outcome"] == "complete" for trial in trials if trial not in failed)


@slow
def test_data_on_which_nothing_can_be_trained_stop_the_search_with_the_commonest_error(here):
    space = TINY | {"lr": {"kind": "float", "low": 1e30, "high": 1e35, "log": True}}
    (here / "space.json").write_text(json.dumps(space))
    result = pared("search", "my.csv", *SMALL)
    assert_refused(result, "none of the first 10 trials came to an end", "diverged")


def test_a_book_that_is_no_postgresql_database_is_told(here):
    refused = pared("search", "my.csv", *SMALL, "--book", "mysql+pymysql://me:secret@host/db")
    assert "secret" not in refused.stderr
    assert_refused(pared("search", "my.csv", *SMALL, "--book", "sqlite:///x.db"), "--book is for PostgreSQL")
    unreachable = pared("search", "my.csv", *SMALL, "--book", "postgresql://me:secret@127.0.0.1:1/db")
    assert_refused(unreachable, "postgresql+psycopg://me@127.0.0.1:1/db", "see that the server is there")
    assert "secret" not in unreachable.stderr
    worker = pared("search-worker", "postgresql://me:secret@127.0.0.1:1/db")
    assert_refused(worker, "see that the server is there and lets you in, and start this worker again")
    assert not (here / "runs").exists()
