"""Runs on tables through the command line: both tasks, predictions, the page, and everything that is refused."""

import csv
import functools
import json
import math
import shutil
import tomllib
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch

from commands import assert_refused, files, pared, write_csv
from pared import run_table, store
from pared.data import read_table
from pared.data.folds import folds
from pared.job import investigation, partial_record
from pared.models import MLP
from pared.report import page
from pared.settings import TableConfig
from pared.surgery import load
from pared.types import DataError

QUICK = ("--quick", "--epochs", "3", "--hidden", "6,4", "--ratios", "0.3", "--jobs", "1")
TASKS = {"kind": "classification", "price": "regression"}
LEFT = {
    "report.html",
    "outcomes.json",
    "plan.json",
    "model.safetensors",
    "config.toml",
    "curves.json.gz",
    "provenance.json",
}


def write_table(path: Path, rows: int = 96, changes: dict[int, str] | None = None) -> Path:
    """Columns a, b (numbers), colour (text), kind (three classes) and price (a number); `changes` replaces lines."""
    lines = ["a,b,colour,kind,price"]
    for row in range(rows):
        a, b, colour = math.sin(7 * row), math.cos(3 * row * row), ("red", "blue")[row % 2]
        kind = ("oak", "ash", "elm")[(a > 0) + (a + b > 1)]
        lines.append(f"{a!r},{b!r},{colour},{kind},{100 * a + 20 * b * (row % 2)!r}")
    for line, text in (changes or {}).items():
        lines[line - 1] = text
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_table(folder / "t.csv")
    return folder


@pytest.fixture(scope="module")
def runs(home):
    """Task -> what its run printed, and its folder; a run is made when it is first asked for."""

    @functools.cache
    def run(task: str):
        column = next(name for name, each in TASKS.items() if each == task)
        options = ("--task", "auto", "--column", column, "--features", "a,b,colour", *QUICK)
        result = pared("run", home / "t.csv", *options, "--out", home / task)
        assert result.exit_code == 0, result.stderr
        return result, home / task / "t-seed0"

    return run


@pytest.mark.parametrize(("column", "task"), TASKS.items())
def test_a_table_becomes_a_study(home, column, task):
    table = read_table(home / "t.csv", column, ("a", "b", "colour"))
    job = run_table.job(table, TableConfig(task, hidden=(6, 4)))
    study = investigation(job, 1, lambda stage, done, total: None)
    assert [group.name for group in study.structure] == ["layers.0", "layers.2"]
    widths = [layer.out_features for layer in job.build(0, {"layers.0": 2}).layers[::2]]
    assert widths == [2, 4, 3 if table.encoding.classes else 1]
    record = partial_record(job, study.finished())
    assert record["settings"]["margin"] == {"classification": 0.01, "regression": 0.05}[task]
    assert page(json.loads(json.dumps(record))).count("Not drawn: ") == 4
    with pytest.raises(DataError, match=f"is a table for {task}"):
        run_table.job(table, TableConfig(next(each for each in TASKS.values() if each != task)))


def record_of(folder: Path):
    return json.loads((folder / "outcomes.json").read_text(encoding="utf-8"))


def printed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text)))


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS.values())
def test_a_run_leaves_its_files_and_says_what_it_found(runs, task):
    result, folder = runs(task)
    assert {path.name for path in folder.iterdir()} == LEFT
    record = record_of(folder)
    assert record["task"] == task
    assert record["finding"] in result.stdout
    assert ("accuracy" if task == "classification" else "NRMSE") in result.stdout
    naive = {"classification": {"majority", "logistic", "neighbour"}, "regression": {"mean", "linear", "neighbour"}}
    assert naive[task] <= record["comparisons"].keys()
    metric = "test.error" if task == "classification" else "test.nrmse"
    full = [o for o in record["outcomes"] if o["arm"] == "full"]
    assert sorted(o["block"] for o in full) == list(range(6))
    assert all(math.isfinite(o["metrics"][metric]) for o in full)
    assert not any("direction" in name or "free" in name for o in record["outcomes"] for name in o["metrics"])
    settings = record["settings"]
    assert (settings["hidden"], settings["seeds"], settings["quick"]) == ([6, 4], [0], True)
    assert settings["margin"] == (0.01 if task == "classification" else 0.05)
    assert record["blocks"][0] == {"block": 0, "train": 80, "validation": 8, "test": 8}


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS.values())
def test_the_scale_of_the_comparison_is_the_tasks(runs, task):
    record = record_of(runs(task)[1])
    scales = {found["scale"] for found in record["comparisons"].values()}
    assert scales == {"linear" if task == "classification" else "log"}
    metric = "error" if task == "classification" else "nrmse"
    errors = {
        arm: [o["metrics"][f"test.{metric}"] for o in record["outcomes"] if o["arm"] == arm and not o["ratio"]]
        for arm in ("full", "neighbour")
    }
    if record["chosen"] is None:
        a, b = (np.array(errors[arm]) for arm in errors)
        difference = (a - b if metric == "error" else np.log(a) - np.log(b)).mean()
        assert record["comparisons"]["neighbour"]["difference"] == pytest.approx(difference)


def by_hand(folder: Path, path: Path) -> list[float | str]:
    """The saved network, loaded and fed the cells of the file."""
    saved = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    scaler, classes = saved["scaler"], saved["encoding"]["classes"]
    model = load(folder, MLP(4, saved["table"]["hidden"], len(classes) or 1, saved["table"]["activation"])).eval()
    rows = printed(path.read_text(encoding="utf-8"))
    raw = np.array([[float(r["a"]), float(r["b"]), r["colour"] == "blue", r["colour"] == "red"] for r in rows])
    with torch.no_grad():
        outputs = model(torch.tensor((raw - scaler["shift"][1:]) / scaler["scale"][1:], dtype=torch.float32))
    if classes:
        return [classes[place] for place in outputs.argmax(dim=1).tolist()]
    return [value * scaler["scale"][0] + scaler["shift"][0] for value in outputs[:, 0].double().tolist()]


@pytest.mark.slow
@pytest.mark.parametrize(("column", "task"), TASKS.items())
def test_predict_is_the_saved_network_bit_for_bit(home, runs, column, task):
    folder = runs(task)[1]
    result = pared("predict", folder, home / "t.csv")
    assert result.exit_code == 0, result.stderr
    rows = printed(result.stdout)
    truth = printed((home / "t.csv").read_text(encoding="utf-8"))
    assert [row["actual"] for row in rows] == [row[column] for row in truth]
    assert [int(row["row"]) for row in rows] == list(range(1, 97))
    kind = str if task == "classification" else float
    assert [kind(row["predicted"]) for row in rows] == by_hand(folder, home / "t.csv")


@pytest.mark.slow
@pytest.mark.parametrize(("column", "task"), TASKS.items())
def test_test_rows_are_predicted_as_the_run_did(home, runs, column, task):
    folder = runs(task)[1]
    record = record_of(folder)
    table = read_table(home / "t.csv", column, ("a", "b", "colour"))
    fold = folds(table)[record["shipped"]["block"]]
    rows = printed(pared("predict", folder, home / "t.csv").stdout)
    own = [rows[row]["predicted"] for row in fold.rows["test"]]
    arm, seed = record["shipped"]["arm"], record["shipped"]["seed"]
    outcome = next(o for o in record["outcomes"] if (o["arm"], o["block"], o["seed"]) == (arm, fold.block, seed))
    if task == "classification":
        wrong = [a != rows[row]["actual"] for a, row in zip(own, fold.rows["test"], strict=True)]
        assert outcome["metrics"]["test.error"] == np.mean(wrong)
    else:
        start = sum(len(f.rows["test"]) for f in folds(table)[: fold.block])
        drawn = record["figures"]["predictions"][arm][start : start + len(own)]
        np.testing.assert_allclose(list(map(float, own)), drawn, rtol=1e-5, atol=1e-3)  # other batches round otherwise


@pytest.mark.slow
def test_a_file_without_the_target_can_be_predicted(home, runs, tmp_path):
    (tmp_path / "new.csv").write_text("colour,b,a\nred,0.5,0.25\n", encoding="utf-8")
    result = pared("predict", runs("classification")[1], tmp_path / "new.csv", "--out", tmp_path / "p.csv")
    assert result.exit_code == 0, result.stderr
    (row,) = printed((tmp_path / "p.csv").read_text(encoding="utf-8"))
    assert (row["row"], row["actual"]) == ("1", "")
    assert row["predicted"] in ("oak", "ash", "elm")
    far = write_table(tmp_path / "far.csv", changes={3: "1e300,0,red,ash,1"})
    assert_refused(pared("predict", runs("regression")[1], far), "row 2", "no finite number")


@pytest.mark.slow
def test_the_same_command_gives_the_same_outcomes_whatever_the_jobs(home, runs):
    options = ("--task", "classification", "--column", "kind", "--features", "a,b,colour", *QUICK[:-1])
    result = pared("run", home / "t.csv", *options, 2, "--out", home / "again")
    assert result.exit_code == 0, result.stderr
    first, twin = runs("classification")[1], home / "again" / "t-seed0"
    one, two = record_of(first)["outcomes"], record_of(twin)["outcomes"]
    assert one == two
    for name in ("model.safetensors", "plan.json", "config.toml"):
        assert (first / name).read_bytes() == (twin / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS.values())
def test_the_page_shows_what_applies(runs, task):
    source = (runs(task)[1] / "report.html").read_text(encoding="utf-8")
    for word in ("Direction", "Free running", "valid prediction time", "Lyapunov", "forecast", "NaN", "series"):
        assert word not in source, word
    assert source.count("<figure") == 4
    assert source.count("<svg") == 4
    assert ("Accuracy" in source) == (task == "classification")
    assert ("NRMSE" in source) == (task == "regression")


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS.values())
def test_a_record_without_results_has_a_page(runs, task):
    record = record_of(runs(task)[1])
    bare = record | {
        "outcomes": [],
        "comparisons": {},
        "candidates": [],
        "chosen": None,
        "figures": {},
        "shipped": None,
    }
    assert page(bare).count("Not drawn: ") == 4


@pytest.mark.slow
def test_a_small_network_that_passes_is_shipped_and_claimed(home):
    options = ("--task", "classification", "--column", "kind", "--features", "a,b,colour", *QUICK, "--margin", "0.9")
    result = pared("run", home / "t.csv", *options, "--out", home / "wide")
    assert result.exit_code == 0, result.stderr
    record = record_of(home / "wide" / "t-seed0")
    assert record["chosen"] == "ratio 0.3"
    assert record["shipped"]["arm"] == "cut"
    assert "points of accuracy" in record["finding"]
    assert "at a margin of 90 points of accuracy" in record["finding"]
    assert {"full", "trained_on", "scratch", "random"} <= record["comparisons"].keys() | {"cut"}
    assert set(record["figures"]["confusion"]) == {"classes", "full", "cut"}
    assert sum(map(sum, record["figures"]["confusion"]["cut"])) == 48
    assert record["directions"]["full"]["only_first"] >= 0
    source = (home / "wide" / "t-seed0" / "report.html").read_text(encoding="utf-8")
    assert "difference in test accuracy" in source
    assert "Right and wrong, counted" in source
    assert pared("predict", home / "wide" / "t-seed0", home / "t.csv").exit_code == 0


def test_data_describes_tables():
    listed = pared("data").stdout
    assert all(name in listed for name in ("wine", "breast-cancer", "digits", "diabetes", "boston", "henon"))
    described = pared("data", "wine").stdout
    assert "178 rows; 13 inputs" in described
    assert "class_0 59" in described


def refuse(words, *parts):
    assert_refused(pared(*words), *parts)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--task", "auto"), ("say which column is to be predicted", "--column")),
        (("--task", "auto", "--column", "nope"), ("no column 'nope'",)),
        (("--task", "regression", "--column", "kind"), ("line 2", "'kind'", "is not a number")),
        (("--task", "classification", "--column", "price"), ("class", "has 1 rows", "fewer than the 6 folds")),
        (("--task", "auto", "--column", "kind", "--window", "3"), ("--window", "no sense for a table", "--hidden")),
        (("--task", "auto", "--column", "kind", "--horizon", "1", "--cell", "gru"), ("--horizon, --cell",)),
        (("--task", "auto", "--column", "kind", "--predict", "values"), ("--predict",)),
        (("--column", "a", "--hidden", "3"), ("--hidden", "no sense for a series", "--task auto")),
        (("--column", "a", "--activation", "relu"), ("--activation",)),
        (("--task", "forecast", "--column", "a", "--hidden", "3"), ("--hidden",)),
        (("--task", "auto", "--column", "kind", "--hidden", ""), ("hidden layer", "--hidden 64,32")),
        (("--task", "auto", "--column", "kind", "--hidden", "0"), ("at least 1",)),
        (("--task", "auto", "--column", "kind", "--hidden", "x"), ("--hidden takes numbers",)),
        (("--task", "auto", "--column", "kind", "--margin", "1"), ("below 1", "one point less accuracy")),
        (("--task", "auto", "--column", "kind", "--criterion", "junk"), ("recurrent",)),
        (("--task", "guess", "--column", "kind"), ("regression",)),
    ],
)
def test_what_a_table_cannot_be_asked(home, tmp_path, monkeypatch, words, parts):
    monkeypatch.chdir(tmp_path)
    refuse(("run", home / "t.csv", *words, "--jobs", "1"), *parts)
    assert files(tmp_path) == {}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({5: "0.1,oops,red,oak,1"}, ("line 5", "'b'", "'oops' is not a number")),
        ({5: "0.1,,red,oak,1"}, ("line 5", "'b'", "blank")),
        ({5: "0.1,0.2,,oak,1"}, ("line 5", "'colour'", "blank", "text")),
        ({5: "0.1,0.2,red,,1"}, ("line 5", "'kind'", "blank")),
        ({5: "0.1,0.2,red,yew,1"}, ("class 'yew'", "has 1 rows", "fewer than the 6 folds")),
        ({5: "1e300,0.2,red,oak,1"}, ("row 4", "'a'", "1e+300", "lies so far")),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path, monkeypatch, changes, parts):
    monkeypatch.chdir(tmp_path)
    path = write_table(tmp_path / "t.csv", changes=changes)
    before = files(tmp_path)
    refuse(("run", path, "--task", "classification", "--column", "kind", *QUICK), *parts)
    assert files(tmp_path) == before


def test_targets_that_hold_nothing_to_learn(tmp_path):
    for cell, said in (("oak", "only the class 'oak'"), ("3.5", "is constant (3.5 in all 40 rows)")):
        path = tmp_path / "flat.csv"
        path.write_text("\n".join(["x,y", *(f"{k},{cell}" for k in range(40))]) + "\n", encoding="utf-8")
        refuse(("run", path, "--task", "auto", "--column", "y", *QUICK), said, "nothing to predict")
    refuse(("run", write_table(path, rows=20), "--task", "auto", "--column", "price", *QUICK), "20 rows are too few")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("wine", "--column", "x"), ("built-in table", "leave column")),
        (("wine", "--task", "regression"), ("for classification", "leave --task away")),
        (("wine", "--window", "3"), ("--window",)),
        (("henon", "--task", "auto"), ("built-in series",)),
    ],
)
def test_what_a_built_in_table_cannot_be_asked(words, parts):
    refuse(("run", *words), *parts)


@pytest.mark.slow
def test_what_a_saved_network_cannot_be_asked(home, runs, tmp_path):
    folder = runs("classification")[1]
    refuse(("predict", folder, home / "t.csv", "--steps", "2"), "--steps", "no sense")
    refuse(("predict", folder, home / "t.csv", "--column", "kind"), "--column")
    refuse(("predict", folder, write_csv(tmp_path / "s.csv")), "no column 'a'")
    refuse(("predict", folder, "wine"), "other columns or classes")
    changed = write_table(tmp_path / "new.csv", changes={3: "0.1,0.2,green,oak,1"})
    refuse(("predict", folder, changed), "line 3", "'green' is new", "'blue', 'red'")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('predicts = "classification"', 'predicts = "regression"'),
        ('predicts = "classification"', 'predicts = "magic"'),
        ("hidden = [\n    6,", "hidden = [\n    7,"),
        ('    "oak",\n', ""),
        ('"blue"', "3"),
        ("[encoding]", "[coding]"),
        ('target = "kind"', 'target = "sort"'),
        ('activation = "relu"', 'activation = "gelu"'),
    ],
)
def test_a_damaged_configuration(home, runs, tmp_path, old, new):
    copy = shutil.copytree(runs("classification")[1], tmp_path / "model")
    text = (copy / "config.toml").read_text(encoding="utf-8")
    assert old in text
    (copy / "config.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    refuse(("predict", copy, home / "t.csv"), "model")


@pytest.mark.slow
def test_networks_of_series_and_tables_are_told_apart(runs):
    for task in TASKS.values():
        folder = runs(task)[1]
        assert store.is_table(folder)
        model, encoding, scaler = store.read_table_model(folder)
        assert isinstance(model, MLP)
        assert scaler.columns == (encoding.target, *encoding.names)
