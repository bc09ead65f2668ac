"""`pared diagnose`: findings of data and of runs, tuning, the literal rules, input that cannot be used, Ctrl-C."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from commands import SMALL, assert_refused, command, environment, files, pared, process, write_csv
from pared.diagnose.command import _entered

TINY = ("--column", "value", "--window", "3", "--recurrent", "3", "--jobs", "1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with my.csv and the folder of a finished run of it."""
    home = tmp_path_factory.mktemp("finished")
    result = pared("run", write_csv(home / "my.csv"), "--column", "value", *SMALL, "--out", home)
    assert result.exit_code == 0, result.stderr
    return home


@pytest.fixture
def here(tmp_path, monkeypatch, finished) -> Path:
    """A copy of it, to work in."""
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "here"))
    return tmp_path / "here"


def words_of(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.slow
def test_data_are_diagnosed_and_the_findings_written(here):
    result = process("diagnose", "my.csv", *TINY, "--epochs", "3", "--out", "found.json", cwd=here)
    assert result.returncode == 0, result.stderr
    text = words_of(result.stdout)
    assert "my.csv, block 9: hidden 3, cell lstm, epochs 3, lr 0.01, batch_size 64" in text
    assert "1. budget too small: " in text
    assert "to try: epochs 3 -> 48" in text
    assert "next: pared run my.csv --column value --window 3 --recurrent 3 --epochs 48" in text
    record = json.loads((here / "found.json").read_text())
    assert record["verdict"] == "budget too small"
    assert [c["epochs"] for c in record["configurations"][:2]] == [3, 48]
    assert record["configurations"][0]["recurrent"] == [3]
    assert record["findings"][0]["change"] == {"values": {"epochs": 48}}


@pytest.mark.slow
def test_a_run_is_trained_again_and_its_curve_comes_out_the_same(here):
    result = pared("diagnose", "my-seed0", "--jobs", "1")
    assert result.exit_code == 0, result.stderr
    text = words_of(result.stdout)
    assert "trained again, its curve is the same" in text
    assert "my.csv, block 9: hidden 4,3, cell lstm, epochs 2" in text
    write_csv(here / "other.csv", {400: "0.123"})
    result = pared("diagnose", "my-seed0", "--data", "other.csv", "--jobs", "1")
    assert "its curve is another one: the data" in words_of(result.stdout)


@pytest.mark.slow
def test_tuning_keeps_what_helps(here):
    words = ("diagnose", "my.csv", *TINY, "--epochs", "3", "--auto", "--most", "2", "--out", "found.json")
    result = pared(*words)
    assert result.exit_code == 0, result.stderr
    text = words_of(result.stdout)
    assert "budget too small: epochs 3 -> 48: validation loss -" in text
    assert "better over 5 seeds: kept" in text
    assert "ended: " in text
    record = json.loads((here / "found.json").read_text())
    assert record["steps"][0]["kept"]
    assert record["configurations"][0]["epochs"] >= 48


@pytest.mark.slow
def test_a_table_and_the_literal_rules(here):
    result = pared("diagnose", "wine", "--hidden", "64", "--epochs", "20", "--rules", "literal", "--out", "path.json")
    assert result.exit_code == 0, result.stderr
    *path, ended = result.stdout.splitlines()[1:]
    assert all(line.startswith("training loss ") and ": " in line for line in path)
    assert ended.startswith("the rules ")
    assert len(json.loads((here / "path.json").read_text())["configurations"]) == len(path) + 1


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("nosuch",), ("'nosuch'", "neither a file nor a built-in series")),
        (("my.csv",), ("3 number columns", "--column")),
        (("my.csv", "--column", "value", "--block", "77"), ("my.csv has the blocks 0 to 9, got 77",)),
        (("my.csv", "--column", "value", "--recurrent", "4,x"), ("--recurrent takes numbers",)),
        (("my.csv", "--column", "value", "--lr", "-1"), ("lr must be positive",)),
        (("my.csv", "--data", "my.csv"), ("--data is for a run",)),
        (("my-seed0", "--epochs", "3"), ("--epochs makes no sense for a run",)),
        (("my-seed0", "--data", "gone.csv"), ("made from my.csv", "gone.csv is no file", "--data")),
        ((".",), (". is not a run folder", "outcomes.json is missing")),
        (("wine", "--rules", "folklore"), ("folklore", "literal")),
        (("wine", "--most", "0"), ("--most",)),
        (("wine", "--out", "my.csv"), ("my.csv exists and is not overwritten",)),
    ],
)
def test_input_that_cannot_be_used(here, words, parts):
    before = files(here)
    assert_refused(pared("diagnose", *words), *parts)
    assert files(here) == before


def test_a_run_that_is_damaged_or_was_interrupted(here):
    (here / "my-seed0" / "config.toml").unlink()
    assert_refused(pared("diagnose", "my-seed0"), "config.toml is missing")
    record = json.loads((here / "my-seed0" / "outcomes.json").read_text())
    shutil.copytree(here / "my-seed0", here / "broken")
    (here / "broken" / "outcomes.json").write_text(json.dumps(record | {"shipped": {}}))
    (here / "broken" / "config.toml").write_text("format = 1\n[run]\n")
    assert_refused(pared("diagnose", "broken"), "outcomes.json is damaged", "block")


@pytest.mark.slow
def test_an_interrupt_ends_it_soon_with_one_line(here):
    words = ("diagnose", "my.csv", *TINY, "--epochs", "10000000")
    with (here / "messages").open("w") as stream:
        run = subprocess.Popen(command(*words), cwd=here, env=environment(), stdout=subprocess.DEVNULL, stderr=stream)
    try:
        while "training" not in (here / "messages").read_text():
            assert run.poll() is None
            time.sleep(0.05)
        time.sleep(2)
        os.kill(run.pid, signal.SIGINT)
        assert run.wait(timeout=60) == 130
    finally:
        if run.poll() is None:
            run.kill()
    text = (here / "messages").read_text()
    assert "Interrupted. Nothing was found yet." in text
    assert "Traceback" not in text


def test_the_list_of_runs_keeps_what_rules_found_and_decided():
    found = {"kind": "overfit", "reason": "weight decay lowers the validation loss"}
    decisions = ["overfit: weight_decay 0 -> 0.01: validation loss -12.0%, better over 5 seeds: kept"]
    record = {"verdict": "fine", "findings": [found], "decisions": decisions, "proposed": {"lr": 0.01}}
    assert _entered(record) == {
        "finding": "fine",
        "remarks": ["overfit: weight decay lowers the validation loss", *decisions, 'proposed: {"lr": 0.01}'],
    }
