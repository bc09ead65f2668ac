"""Whole runs through the command line, as a new user meets them."""

import csv
import json
import math
import subprocess
import tomllib
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch

import pared as library
from commands import ROWS, SMALL, assert_refused, command, environment, files, logistic, pared, process, write_csv
from pared import evaluation, run, store
from pared.cli import app
from pared.settings import USUAL
from pared.surgery import Plan, load

RUN = ("run", "my.csv", "--column", "value", *SMALL)
LEFT = {
    "report.html",
    "outcomes.json",
    "plan.json",
    "model.safetensors",
    "config.toml",
    "curves.json.gz",
    "provenance.json",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_csv(folder / "my.csv")
    return folder


@pytest.fixture(scope="module")
def first(home):
    """One run in a process of its own: (what it printed, its folder)."""
    done = process(*RUN, cwd=home)
    assert done.returncode == 0, done.stderr
    return done, home / "runs" / "my-seed0"


@pytest.fixture(scope="module")
def ahead(home):
    """A network with a further input that looks two rows ahead."""
    options = ("--column", "value", "--features", "extra", *SMALL, "--horizon", 2, "--out", home / "ahead")
    result = pared("run", home / "my.csv", *options)
    assert result.exit_code == 0, result.stderr
    return home / "ahead" / "my-seed0"


def untimed(record):
    if isinstance(record, dict):
        return {k: untimed(v) for k, v in record.items() if k not in ("seconds", "milliseconds")}
    return [untimed(v) for v in record] if isinstance(record, list) else record


def record_of(folder: Path):
    return json.loads((folder / "outcomes.json").read_text(encoding="utf-8"))


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text)))


def test_a_run_leaves_its_files_and_nothing_else(first):
    _, folder = first
    assert {path.name for path in folder.iterdir()} == LEFT
    assert {path.name for path in folder.parent.iterdir()} == {"my-seed0", "pared.db"}
    assert "<svg" in (folder / "report.html").read_text(encoding="utf-8")
    assert tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))["run"]["recurrent"] == [4, 3]
    assert Plan.from_json((folder / "plan.json").read_text(encoding="utf-8")) is not None


def test_the_output_names_size_error_verdict_and_controls(first):
    done, folder = first
    record = record_of(folder)
    assert record["finding"] in done.stdout
    assert "Quick run" in done.stdout
    shipped, full = record["shipped"], record["full_size"]
    assert f"{shipped['parameters']} of {full['parameters']} parameters" in done.stdout
    assert "NRMSE" in done.stdout
    assert "verdict" in done.stdout
    for arm in (
        "full",
        "cut",
        "random",
        "trained_on",
        "scratch",
        "persistence",
        "flip",
        "same",
        "mean",
        "ar",
        "analog",
    ):
        row = next(line for line in done.stdout.splitlines() if line.split()[:1] in ([arm], [arm + "*"]))
        compared = record["comparisons"].get(arm)
        assert compared is None or compared["verdict"] in row
    assert str(Path("runs") / "my-seed0" / "report.html") in done.stdout
    for stage in ("training the full networks", "cutting and refitting", "training the controls"):
        assert stage in done.stderr
    assert "Traceback" not in done.stderr


def test_the_record_holds_what_the_run_was_asked_for(first):
    settings = record_of(first[1])["settings"]
    asked = {"epochs": 2, "recurrent": [4, 3], "dense": [2], "window": 3, "ratios": [0.3], "seeds": [0], "quick": True}
    assert {name: settings[name] for name in asked} == asked
    assert settings["candidates"] == ["ratio 0.3"]


def test_every_network_of_every_block_has_its_outcome(first):
    record = record_of(first[1])
    blocks = {block["block"] for block in record["blocks"]}
    for arm in ("full", "cut", "random", "scratch", "trained_on"):
        outcomes = [o for o in record["outcomes"] if o["arm"] == arm]
        assert {o["block"] for o in outcomes} == blocks
        assert all(math.isfinite(o["metrics"]["test.nrmse"]) for o in outcomes)


@pytest.mark.slow
def test_the_same_command_gives_the_same_outcomes_whatever_the_jobs(first, home):
    done = process(*RUN[:-2], "--jobs", "2", "--out", "elsewhere", cwd=home)
    assert done.returncode == 0, done.stderr
    twin = home / "elsewhere" / "my-seed0"
    assert untimed(record_of(twin)) == untimed(record_of(first[1]))
    for name in ("model.safetensors", "plan.json", "config.toml"):
        assert (twin / name).read_bytes() == (first[1] / name).read_bytes()


@pytest.mark.slow
def test_a_second_run_goes_beside_the_first(first, home, monkeypatch):
    monkeypatch.chdir(home)
    before = files(first[1])
    result = pared(*RUN, "--seed", "0")
    assert result.exit_code == 0, result.stderr
    assert files(first[1]) == before
    assert {path.name for path in (home / "runs" / "my-seed0-2").iterdir()} == LEFT
    assert untimed(record_of(home / "runs" / "my-seed0-2")) == untimed(record_of(first[1]))


@pytest.mark.slow
def test_another_seed_gives_other_networks(first, home, tmp_path):
    result = pared("run", home / "my.csv", "--column", "value", *SMALL, "--seed", 7, "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    other = record_of(tmp_path / "my-seed7")
    assert other["settings"]["seeds"] == [7]
    assert untimed(other)["outcomes"] != untimed(record_of(first[1]))["outcomes"]


def forecasts_by_hand(folder: Path, path: Path, columns: list[str], horizon: int) -> dict[int, float]:
    """Row from 1 -> forecast: the saved network, loaded and fed one window at a time."""
    saved = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    sizes, scaler = saved["run"], saved["scaler"]
    fresh = library.Forecaster(len(columns), sizes["recurrent"], sizes["dense"], cell=sizes["cell"])
    model, rows = load(folder, fresh).eval(), table(path.read_text(encoding="utf-8"))
    raw = np.array([[float(row[name]) for name in columns] for row in rows])
    scaled = torch.tensor((raw - scaler["shift"]) / scaler["scale"], dtype=torch.float32)
    windows = [scaled[start : start + sizes["window"]] for start in range(len(rows) - sizes["window"] + 1)]
    with torch.no_grad():
        outputs = model(torch.stack(windows)).double()[:, 0].tolist()
    values = (value * scaler["scale"][0] + scaler["shift"][0] for value in outputs)
    return dict(enumerate(values, sizes["window"] + horizon))


@pytest.mark.parametrize(
    ("network", "columns", "horizon"),
    [("first", ["value"], 1), pytest.param("ahead", ["value", "extra"], 2, marks=pytest.mark.slow)],
)
def test_predict_is_the_saved_network_bit_for_bit(request, home, network, columns, horizon):
    found = request.getfixturevalue(network)
    folder = found[1] if network == "first" else found
    result = pared("predict", folder, home / "my.csv")  # the config knows the columns
    assert result.exit_code == 0, result.stderr
    printed = table(result.stdout)
    assert {int(row["row"]): float(row["forecast"]) for row in printed} == forecasts_by_hand(
        folder, home / "my.csv", columns, horizon
    )
    truth = {row: value for row, value in enumerate(logistic(), 1) if row >= 3 + horizon}
    assert {int(row["row"]): float(row["actual"]) for row in printed if row["actual"]} == truth
    assert [row["row"] for row in printed if not row["actual"]] == [str(ROWS + 1 + k) for k in range(horizon)]


def test_the_last_test_forecasts_are_those_of_the_run(first, home):
    """Trained, measured, saved, loaded, predicted: the figure of the newest block holds the same numbers."""
    record = record_of(first[1])
    forecast = record["figures"]["forecast"]
    kind = f"one_step_{record['shipped']['arm']}"
    start, end = record["blocks"][record["shipped"]["block"]]["test"]
    printed = table(pared("predict", first[1], home / "my.csv").stdout)
    own = [float(row["forecast"]) for row in printed if start < int(row["row"]) <= end][:60]
    np.testing.assert_allclose(own, forecast[kind], rtol=1e-6)  # the figure rounds once more


def test_steps_beyond_the_end_feed_forecasts_back(first, home):
    one, five = (table(pared("predict", first[1], home / "my.csv", "--steps", k).stdout) for k in (1, 5))
    assert [row["row"] for row in five[-5:]] == [str(ROWS + k) for k in range(1, 6)]
    assert five[:-4] == one
    model, window, scaler = store.read_model(first[1])
    predict = evaluation.predictor(model, scaler)
    last = torch.tensor(scaler.scaled(np.array(logistic())[:, None]), dtype=torch.float32)[-window:, 0].tolist()
    for row in five[-5:]:
        value = predict(torch.tensor(last)[None, :, None])
        assert float(row["forecast"]) == pytest.approx(scaler.raw(value.double()).item(), rel=1e-6)
        last = [*last[1:], value.item()]


def test_predict_writes_a_new_file_and_never_over_one(first, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = pared("predict", first[1], home / "my.csv")
    assert pared("predict", first[1], home / "my.csv", "--out", "f.csv").exit_code == 0
    assert (tmp_path / "f.csv").read_text(encoding="utf-8") == shown.stdout
    before = files(tmp_path)
    assert_refused(pared("predict", first[1], home / "my.csv", "--out", "f.csv"), "f.csv", "--out")
    assert files(tmp_path) == before


@pytest.mark.slow
def test_report_draws_the_same_page_again(first, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (first[1] / "report.html").read_bytes()
    (tmp_path / "outcomes.json").write_bytes((first[1] / "outcomes.json").read_bytes())
    assert pared("report", tmp_path).exit_code == 0
    assert (tmp_path / "report.html").read_bytes() == page
    assert pared("report", tmp_path, "--out", "again.html").exit_code == 0
    assert (tmp_path / "again.html").read_bytes() == page
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert_refused(pared("report", tmp_path, "--out", "mine.txt"), "mine.txt", "not overwritten")
    assert (tmp_path / "mine.txt").read_text(encoding="utf-8") == "mine"


def test_data_lists_describes_and_writes_a_series_that_can_be_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = pared("data")
    assert listed.exit_code == 0
    for name in library.data.BUILTINS:
        assert name in listed.stdout
    described = pared("data", "sunspots")
    assert "309 rows" in described.stdout
    assert pared("data", "sunspots", "--out", "f.csv").exit_code == 0
    again, own = library.data.load("f.csv"), library.data.load("sunspots")
    assert again.columns == own.columns
    np.testing.assert_array_equal(again.values, own.values)  # to the last bit
    assert len(run.prepare(again, run.RunConfig(window=3))) >= 5
    before = files(tmp_path)
    assert_refused(pared("data", "nope", "--out", "g.csv"), "nope", "henon")
    assert pared("data", "henon", "--out", "f.csv").exit_code == 2
    assert files(tmp_path) == before


def test_help_and_version():
    assert pared("--version").stdout == f"pared {library.__version__}\n"
    for words in (
        "",
        "run",
        "data",
        "predict",
        "report",
        "search",
        "compare-criteria",
        "diagnose",
        "retune",
        "distill",
    ):
        helped = pared(*words.split(), "--help")
        assert helped.exit_code == 0
        assert "Usage" in helped.stdout
    assert pared().exit_code == 2
    assert pared("prune").exit_code == 2
    assert {command.callback.__name__ for command in app.registered_commands} == {
        "run_command", "data_command", "predict_command", "report_command", "search_command", "search_worker_command",
        "compare_criteria_command", "diagnose_command", "retune_command", "distill_command",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "candidate", "words"),
    [
        ("weights", "ratio 0.3", ("Weights removed", "Parameters that are not zero", "PyTorch multiplies by them")),
        ("layers", "1 removed", ("Layers removed", "% of the hidden layers gone", "these went:")),
    ],
)
def test_weights_and_layers_take_the_same_way(home, tmp_path, what, candidate, words):
    ratios = ("--ratios", "search" if what == "layers" else "0.3")
    options = ("--column", "value", *SMALL, *ratios, "--what", what, "--margin", "50")
    result = pared("run", home / "my.csv", *options, "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    folder = tmp_path / "my-seed0"
    assert {path.name for path in folder.iterdir()} == LEFT
    record = record_of(folder)
    assert record["settings"]["what"] == what
    assert record["settings"]["criterion"] == {"weights": USUAL["weights"], "layers": "replaceability"}[what]
    assert record["candidates"][0]["label"] == candidate
    assert {"full", "random", "scratch", "trained_on"} <= record["comparisons"].keys()
    assert record["shipped"]["arm"] == "cut"
    assert record["shipped"]["nonzeros"] < record["full_size"]["nonzeros"]
    page = " ".join((folder / "report.html").read_text(encoding="utf-8").replace("\u00a0", " ").split())
    for word in words:
        assert word in page
    assert "units are removed" not in page
    printed = table(pared("predict", folder, home / "my.csv").stdout)
    found = {int(row["row"]): float(row["forecast"]) for row in printed}
    start, end = record["blocks"][record["shipped"]["block"]]["test"]
    own = [found[row] for row in range(start + 1, end + 1)][:60]
    np.testing.assert_allclose(own, record["figures"]["forecast"]["one_step_cut"], rtol=1e-5)


@pytest.mark.slow
def test_hostile_names_reach_the_page_as_text(home, tmp_path):
    path = tmp_path / "<b>[red]x.csv"
    text = (home / "my.csv").read_text(encoding="utf-8").replace("value", "<script>alert(1)</script>", 1)
    path.write_text(text, encoding="utf-8")
    result = pared("run", path, "--column", "<script>alert(1)</script>", *SMALL, "--out", tmp_path / "runs")
    assert result.exit_code == 0, result.stderr
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.slow
def test_a_closed_pipe_ends_without_a_word(first, home):
    writer = subprocess.Popen(
        command("predict", first[1], "henon"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    writer.wait(timeout=60)
