"""`pared runs` and what the other commands enter into it."""

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from commands import SMALL, assert_refused, environment, pared, process, write_csv
from pared import store
from pared.database import keeping
from pared.database.connection import located
from pared.database.folders import entry_of, found_below
from pared.study import Investigation

pytestmark = pytest.mark.slow
RUN = ("run", "my.csv", "--column", "value", *SMALL)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with two runs that differ in seed and rate."""
    folder = tmp_path_factory.mktemp("home")
    write_csv(folder / "my.csv")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for words in ((), ("--seed", 1, "--lr", 0.02)):
            result = pared(*RUN, *words)
            assert result.exit_code == 0, result.stderr
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    """A copy of it to work in."""
    shutil.copytree(home, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def kept(base):
    return keeping.runs(located(None, Path(base)))


def listed(*words):
    result = pared("runs", *words)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_a_run_enters_itself_whole(here):
    database = located(None, here / "runs")
    newest, first = sorted(keeping.runs(database), key=lambda run: -run.seed)
    record = store.read_record(here / "runs" / "my-seed0")
    told = (first.kind, first.status, first.data, first.task, first.seed)
    assert told == ("run", "finished", "my.csv", "forecasting", 0)
    assert first.settings == record["settings"]
    assert (first.finding, first.remarks) == (record["finding"], record["notes"])
    assert first.parameters_before == record["full_size"]["parameters"]
    assert first.parameters_after == record["shipped"]["parameters"]
    assert first.seconds > 0
    assert first.python == ".".join(map(str, sys.version_info[:3]))
    assert len(first.fingerprint) == 64
    assert newest.settings["lr"] == 0.02
    entry = keeping.entry(database, first)
    assert [(f.arm, f.block, f.seed, f.metrics) for f in entry.fits] == [
        (o["arm"], o["block"], o["seed"], o["metrics"]) for o in record["outcomes"]
    ]
    assert [cut.label for cut in entry.cuts] == [c["label"] for c in record["candidates"]]
    assert {c.second: c.difference for c in entry.comparisons} == {
        arm: c["difference"] for arm, c in record["comparisons"].items()
    }
    drawn = record["figures"]["curves"]["full"]
    shipped = record["shipped"]
    own = next(f for f in entry.fits if (f.arm, f.block, f.seed) == ("full", shipped["block"], shipped["seed"]))
    assert own.curves["train"] == pytest.approx(drawn["train"], rel=1e-6)
    assert all(f.curves is None for f in entry.fits if f.arm in ("persistence", "ar"))
    assert all(len(f.curves["train"]) == 2 for f in entry.fits if f.arm == "full")


def test_the_database_is_made_anew_from_the_folders(here):
    moved = [replace(run, folder=str(here / "runs" / f"my-seed{run.seed}")) for run in kept("runs")]
    before = {run.id: keeping.entry(located(None, here / "runs"), run) for run in moved}
    (here / "runs" / "pared.db").unlink()
    assert_refused(pared("runs"), "no database runs/pared.db yet", "pared runs sync")
    assert "2 added, 0 brought up to date" in listed("sync")
    assert "0 added, 2 brought up to date" in listed("sync")
    assert {run.id: keeping.entry(located(None, here / "runs"), run) for run in kept("runs")} == before
    shutil.move(here / "runs" / "my-seed0", here / "elsewhere")
    assert "0 added, 1 brought up to date" in listed("add", "elsewhere")  # the same run, wherever it lies
    moved = next(run for run in kept("runs") if run.seed == 0)
    assert moved.folder == str(here / "elsewhere")


def test_folders_without_provenance_are_known_by_their_record(here):
    for folder in found_below(here / "runs"):
        (folder / "provenance.json").unlink()
    one, other = map(entry_of, found_below(here / "runs"))
    assert one.run.id != other.run.id
    assert entry_of(here / "runs" / "my-seed0") == one
    assert (one.run.seed, one.run.host, one.run.seconds > 0) == (0, None, True)


def test_a_damaged_folder_is_told_and_the_others_are_added(here):
    (here / "runs" / "my-seed0" / "outcomes.json").write_text("{")
    result = pared("runs", "add", "runs/my-seed0", "runs/my-seed1", "my.csv", "--store", "new.db")
    assert result.exit_code == 2
    assert "outcomes.json is damaged" in result.stderr
    assert "my.csv holds no run" in result.stderr
    assert "1 added" in result.stdout


def test_runs_are_listed_and_filtered(here):
    text = listed()
    assert [line.split()[0] for line in text.splitlines()[1:]] == [run.id[:8] for run in kept("runs")]
    assert "my.csv" in text
    assert "nrmse" in text
    for words, seeds in (
        (("--where", "seed=1"), [1]),
        (("--where", "settings.lr<=0.01"), [0]),
        (("--where", "data=my.csv", "--where", "seed!=0"), [1]),
        (("--where", "data~MY", "--where", "status=failed"), []),
        (("--where", "settings.recurrent=4,3"), [0, 1]),
        (("--where", "reason=", "--where", "seed>0.5"), [1]),
        (("--where", "begun>2020-01-01", "--where", "before<0"), []),
    ):
        lines = listed(*words).splitlines()[1:]
        assert sorted(run.seed for run in kept("runs") if any(line.startswith(run.id[:8]) for line in lines)) == seeds
        assert len(lines) == len(seeds)
    assert "1 older ones are not shown" in listed("--most", "1")
    assert_refused(pared("runs", "--where", "data"), "--where takes FIELD OP VALUE", "got 'data'")
    assert_refused(pared("runs", "--where", "id; DROP TABLE pared_runs"), "--where takes FIELD OP VALUE")
    assert_refused(pared("runs", "--where", "what=units"), "no field 'what'", "settings.NAME")
    assert_refused(pared("runs", "--where", "settings.nothing=1"), "no run has settings.nothing")


def test_runs_are_shown_compared_and_noted(here):
    newest, first = sorted(kept("runs"), key=lambda run: -run.seed)
    assert pared("runs", "note", first.id[:8], "the [bold] one").exit_code == 0
    text = listed("show", first.id[:8])
    assert "looked at; 1 other entries of these data did" in " ".join(text.split())
    for part in (first.id, first.finding, "the [bold] one", "settings.lr", "persistence", first.fingerprint):
        assert part in text
    marked = {line.split()[1] for line in listed("compare", first.id, newest.id).splitlines() if line.startswith("≠")}
    assert {"seed", "settings.lr", "settings.seed"} <= marked
    assert not {"data", "settings.epochs", "fingerprint"} & marked
    assert_refused(pared("runs", "compare", first.id), "two runs or more")
    assert_refused(pared("runs", "show", "nothing"), "no run 'nothing'")


def test_runs_are_exported_in_full_and_nothing_is_overwritten(here):
    assert pared("runs", "export", "--to", "all.csv", "--where", "seed=1").exit_code == 0
    with (here / "all.csv").open(encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    (run,) = (run for run in kept("runs") if run.seed == 1)
    assert (row["id"], float(row["before"]), float(row["settings.lr"])) == (run.id, run.before, 0.02)
    assert (row["settings.recurrent"], row["git"], row["verdict"]) == ("4,3", run.git or "", run.verdict or "")
    assert_refused(pared("runs", "export", "--to", "all.csv"), "all.csv cannot be written: File exists")
    assert_refused(pared("runs", "export"), "say where to")


def test_a_failure_is_entered_with_its_traceback(here, monkeypatch):
    def broken(*_):
        raise RuntimeError("no more memory\nor so")

    monkeypatch.setattr(Investigation, "run", broken)
    result = pared(*RUN, "--seed", 7)
    assert isinstance(result.exception, RuntimeError)
    assert not (here / "runs" / "my-seed7").exists()
    (run,) = (run for run in kept("runs") if run.seed == 7)
    assert (run.status, run.reason, run.data) == ("failed", "RuntimeError: no more memory", "my.csv")
    assert "in broken" in run.traceback
    assert run.settings["seed"] == 7
    assert "no more memory" in listed("--where", "status=failed")


def test_no_result_is_lost_with_the_database(here, monkeypatch):
    (here / "runs" / "pared.db").write_text("some text that is no database, and longer than a header of one\n" * 9)
    result = pared(*RUN, "--seed", 8)
    assert result.exit_code == 0
    said = " ".join(result.stderr.split())
    assert "Note: not entered into the list of runs: the database runs/pared.db cannot be used" in said
    assert "enter it later: pared runs add runs/my-seed8" in said
    monkeypatch.setenv("PARED_STORE", str(here / "other.db"))
    assert "1 added" in listed("add", "runs/my-seed8")
    assert "my.csv" in listed()
    result = pared(*RUN, "--store", "nonsense://x")
    assert_refused(result, "--store must be a SQLite file, or a URL")
    assert not (here / "runs" / "my-seed0-2").exists()


def test_a_run_knows_whose_settings_it_uses(here):
    parent = next(run for run in kept("runs") if run.seed == 0)
    result = pared(*RUN, "--config", "runs/my-seed0/config.toml", "--seed", 9)
    assert result.exit_code == 0, result.stderr
    assert next(run for run in kept("runs") if run.seed == 9).parent == parent.id


def test_the_commit_is_kept(here):
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org")
    for words in (("init", "-q"), ("add", "my.csv"), ("commit", "-q", "-m", "data")):
        subprocess.run((*git, *words), check=True)
    commit = subprocess.run(("git", "rev-parse", "HEAD"), capture_output=True, text=True, check=True).stdout.strip()
    from pared.database.provenance import fresh

    assert fresh("run", "x").git == commit
    (here / "my.csv").write_text("changed")
    assert fresh("run", "x").git == f"{commit}-dirty"


def test_searches_comparisons_and_diagnoses_are_entered_too(tmp_path, monkeypatch):
    write_csv(tmp_path / "my.csv")
    monkeypatch.chdir(tmp_path)
    data = ("my.csv", "--column", "value")
    assert pared("search", *data, "--trials", 4, "--epochs", 2, "--jobs", 1, "--quick").exit_code == 0
    words = (*SMALL[1:-4], "--ratios", 0.5, "--criteria", "magnitude", "--jobs", 1)
    assert pared("compare-criteria", *data, *words).exit_code == 0
    assert pared("diagnose", *data, "--epochs", 3, "--recurrent", "4,3", "--dense", "2", "--jobs", 1).exit_code == 0
    words = ("run", *data, *SMALL, "--config", "runs/search-my-seed0/best.toml")
    assert pared(*words).exit_code == 0
    by_kind = {run.kind: run for run in kept("runs")}
    assert by_kind.keys() == {"search", "comparison", "diagnosis", "run"}
    assert all(run.status == "finished" and run.data == "my.csv" for run in by_kind.values())
    assert by_kind["run"].parent == by_kind["search"].id
    assert by_kind["run"].fingerprint == by_kind["search"].fingerprint == by_kind["comparison"].fingerprint
    search = keeping.entry(located(None, Path("runs")), by_kind["search"])
    record = json.loads(Path("runs/search-my-seed0/search.json").read_text())
    tried = {t.number: t for t in search.trials if t.stage == "search"}
    assert tried.keys() == {trial["trial"] for trial in record["trials"]}
    for trial in record["trials"]:
        assert tried[trial["trial"]].point == trial["point"]
        assert tried[trial["trial"]].result["values"] == trial["values"]
        assert all(len(curves["train"]) == 2 for curves in tried[trial["trial"]].curves)
    assert (search.run.before, search.run.after) == (record["test"]["start"], record["test"]["winner"])
    shutil.rmtree("runs/compare-criteria-my-seed0")
    Path("runs/pared.db").unlink()
    assert "2 added" in listed("sync")


def test_processes_enter_at_the_same_time(tmp_path):
    write_csv(tmp_path / "my.csv")
    words = [sys.executable, "-m", "pared", *map(str, RUN)]
    told = {"cwd": tmp_path, "env": environment(), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen([*words, "--seed", seed], **told) for seed in "01"]
    for each in both:
        _, said = each.communicate(timeout=120)
        assert each.returncode == 0
        assert b"not entered" not in said
    result = process("runs", "--where", "kind=run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 3
    with sqlite3.connect(tmp_path / "runs" / "pared.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_sinks_that_are_not_installed_say_how(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert_refused(pared("runs", "export", "--mlflow", "sqlite:///x.db"), "pip install 'pared[mlflow]'")
    assert_refused(pared("runs", "export", "--tensorboard", "logs"), "pip install 'pared[tensorboard]'")


def test_tensorboard_gets_every_curve_once(here):
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'pared[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert "2 runs were added" in listed("export", "--tensorboard", "logs")
    assert "0 runs were added" in listed("export", "--tensorboard", "logs")
    run = next(run for run in kept("runs") if run.seed == 0)
    read = EventAccumulator(str(here / "logs" / f"run-{run.id}"))
    read.Reload()
    fits = keeping.entry(located(None, here / "runs"), run).fits
    losses = [event.value for event in read.Scalars("full/block_0/seed_0/network_0/train")]
    assert losses == pytest.approx(fits[0].curves["train"], rel=1e-6)
    assert read.Scalars("before")[0].value == pytest.approx(run.before, rel=1e-6)


def test_mlflow_gets_every_run_once(here):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow: pip install 'pared[mlflow]'")
    pytest.importorskip("alembic")
    uri = f"sqlite:///{here / 'mlflow.db'}"
    assert "2 runs were added" in listed("export", "--mlflow", uri)
    assert "0 runs were added" in listed("export", "--mlflow", uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    home = client.get_experiment_by_name("pared").experiment_id
    run = next(run for run in kept("runs") if run.seed == 0)
    (found,) = client.search_runs([home], filter_string=f"tags.`pared.id` = '{run.id}'")
    assert found.data.params["lr"] == "0.01"
    assert found.data.metrics["before"] == pytest.approx(run.before)
    history = client.get_metric_history(found.info.run_id, "full/block 0/seed 0/network 0/train")
    assert [(m.step, m.value) for m in history] == [
        (epoch, pytest.approx(loss))
        for epoch, loss in enumerate(keeping.entry(located(None, here / "runs"), run).fits[0].curves["train"], 1)
    ]
