"""Every input that cannot be used: one clear message, exit code 2, nothing left behind, nothing overwritten."""

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest

from commands import SMALL, assert_refused, files, pared, process, write_csv


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a finished run."""
    home = tmp_path_factory.mktemp("finished")
    result = pared("run", write_csv(home / "my.csv"), "--column", "value", *SMALL, "--out", home)
    assert result.exit_code == 0, result.stderr
    return home / "my-seed0"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with a usable my.csv."""
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "my.csv")
    return tmp_path


@pytest.fixture
def copy(here, finished) -> Path:
    """A copy of the finished run, to be damaged."""
    return shutil.copytree(finished, here / "model")


def refuse(here: Path, words: tuple[object, ...], *parts: str, code: int = 2) -> None:
    before = files(here)
    assert_refused(pared(*words), *parts, code=code)
    assert files(here) == before


FILES = {
    "text": (lambda path: write_csv(path, {6: "oops"}), ("line 7", "'value'", "'oops'", "not a number")),
    "NaN": (lambda path: write_csv(path, {6: "NaN"}), ("line 7", "'value'", "NaN", "fill or cut")),
    "infinite": (lambda path: write_csv(path, {6: "-inf"}), ("line 7", "'value'", "-inf", "fill or cut")),
    "blank": (lambda path: write_csv(path, {6: "", 9: ""}), ("line 7", "'value'", "blank", "2 missing")),
    "too few rows": (lambda path: write_csv(path, count=20), ("20 rows are too few", "window of 3", "39 are needed")),
    "outlier in training": (lambda path: write_csv(path, {6: "1e300"}), ("row 6", "'value'", "1e+300", "correct it")),
    "outlier at the end": (lambda path: write_csv(path, {416: "-1e300"}), ("row 416", "'value'", "-1e+300")),
    "empty": (lambda path: path.write_text(""), ("file is empty", "header")),
    "header only": (lambda path: path.write_text("day,value\n"), ("no rows",)),
    "folder": (lambda path: path.mkdir(), ("is a folder",)),
    "missing": (lambda path: None, ("no such file",)),
    "binary": (lambda path: path.write_bytes(bytes(range(256)) * 9), ("not UTF-8 text", "0x80")),
    "zeros": (lambda path: path.write_bytes(b"\0" * 900), ("bad.csv",)),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
def test_a_file_that_cannot_be_used(here, kind):
    make, parts = FILES[kind]
    make(here / "bad.csv")
    refuse(here, ("run", "bad.csv", "--column", "value", *SMALL), "bad.csv" if kind != "too few rows" else "", *parts)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("my.csv", "--column", "nope"), ("my.csv", "no column 'nope'", "'day', 'value', 'extra', 'flat'")),
        (("my.csv", "--column", "flat"), ("'flat' is constant", "420 rows")),
        (("my.csv", "--column", "day"), ("line 2", "'d1' is not a number")),
        (("my.csv",), ("3 number columns", "--column")),
        (("my.csv", "--column", "value", "--features", "nope"), ("no column 'nope'",)),
        (("my.csv", "--column", "value", "--features", "extra,value"), ("'value' is both the target and a feature",)),
        (("my.csv", "--column", "value", "--features", "extra,extra"), ("'extra' is given twice",)),
        (("nosuch",), ("'nosuch'", "neither a file nor a built-in series", "henon")),
        (("henon", "--column", "x"), ("henon is a built-in series", "leave column")),
        (("logistic-9",), ("mu",)),
    ],
)
def test_a_series_that_is_not_there(here, words, parts):
    refuse(here, ("run", *words, *SMALL), *parts)


OPTIONS = {  # option -> (what the message names, values)
    "--ratios": ("ratio", ["0", "1", "1.5", "-0.5", "nan", "0.3,1", "half", "", "0.3,0.3"]),
    "--thresholds": ("thresholds", ["low", "nan", "inf"]),
    "--margin": ("margin", ["0", "-0.1", "nan", "inf", "5%"]),
    "--criterion": ("taylor", ["magic"]),
    "--recurrent": ("recurrent", ["0", "4,0", "-3", "4.5", "", "four"]),
    "--dense": ("dense", ["0", "-1", "x"]),
    "--window": ("window", ["-1", "500", "x"]),
    "--horizon": ("horizon", ["0", "-1", "1000"]),
    "--epochs": ("epochs", ["0", "-1", "1.5"]),
    "--refit-epochs": ("epochs", ["-1"]),
    "--batch-size": ("batch_size", ["0", "-1"]),
    "--lr": ("l", ["0", "-1", "nan", "inf"]),
    "--jobs": ("--jobs", ["-1"]),
    "--seeds": ("seeds", ["0", "-1"]),
    "--seed": ("seed", ["-1", "x"]),
    "--keep": ("groups", ["*", "head", "recurrent.*,head.*"]),
    "--cell": ("gru", ["transformer"]),
    "--init": ("keras", ["zeros"]),
    "--predict": ("increments", ["future"]),
    "--scope": ("global", ["world"]),
    "--what": ("layers", ["trees"]),
    "--refit": ("distill", ["learn"]),
}


@pytest.mark.parametrize(
    ("option", "named", "value"),
    [(option, named, value) for option, (named, values) in OPTIONS.items() for value in values],
)
def test_an_option_that_cannot_be(here, option, named, value):
    refuse(here, ("run", "my.csv", "--column", "value", *SMALL, option, value), named)


def test_a_network_with_nothing_to_remove(here):
    words = ("run", "my.csv", "--column", "value", *SMALL, "--recurrent", "1", "--dense", "")
    refuse(here, words, "removes nothing", "recurrent.0.l0: 1 units")
    words = ("run", "my.csv", "--column", "value", *SMALL, "--ratios", "0.001")
    refuse(here, words, "0.001", "removes nothing", "ask for more")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--what", "layers", "--recurrent", "4", "--dense", ""), ("no hidden layer may go", "--recurrent 16,16")),
        (("--what", "layers", "--scope", "group"), ("leave scope away",)),
        (("--what", "layers", "--criterion", "taylor", "--ratios", "search"), ("replaceability or cka",)),
        (("--what", "layers", "--ratios", "0.1"), ("removes 0 of 3 layers", "1 to 2 may go")),
        (("--what", "layers", "--thresholds", "0.1"), ("leave thresholds away",)),
        (("--what", "weights", "--criterion", "taylor"), ("scores of weights", "magnitude or obd")),
        (("--what", "weights", "--keep", "nowhere"), ("'nowhere' in keep matches none of recurrent.0.weight_ih_l0",)),
        (("--what", "weights", "--ratios", "0.00001"), ("removes nothing",)),
        (("--what", "units", "--criterion", "cka"), ("scores whole layers", "not units", "taylor or magnitude")),
        (("--ratios", "search", "--recurrent", "1", "--dense", ""), ("removes nothing", "recurrent.0.l0: 1 units")),
    ],
)
def test_what_cannot_be_removed(here, words, parts):
    refuse(here, ("run", "my.csv", "--column", "value", *SMALL, *words), *parts)


@pytest.mark.parametrize("out", ["taken", "taken/below", "taken/far/below"])
def test_an_output_folder_that_cannot_be_written(here, out):
    (here / "taken").write_text("a file of mine", encoding="utf-8")
    refuse(here, ("run", "my.csv", "--column", "value", *SMALL, "--out", out), out, "cannot be written", "--out")


@pytest.mark.slow
def test_diverged_training_is_reported_and_never_crowned(here):
    before = files(here)
    result = pared("run", "my.csv", "--column", "value", *SMALL, "--lr", "1e30", "--out", "new/folder")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "all 10 trainings" in result.stderr
    assert "lower the learning rate" in result.stderr
    assert result.stdout == ""
    entered = {"new", "new/folder", "new/folder/pared.db"}  # the list of runs keeps that it failed, and why
    assert files(here).keys() == before.keys() | entered


@pytest.mark.parametrize("name", ["model.safetensors", "plan.json", "config.toml"])
@pytest.mark.parametrize("how", ["missing", "truncated", "empty", "binary", "folder"])
def test_a_damaged_model_folder(here, copy, name, how):
    path = copy / name
    content = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "missing":
        path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "binary": b"\xff\xfe\0"}[how])
    refuse(here, ("predict", "model", "my.csv"), "model", "missing" if how == "missing" else "damaged")


WRONG = {
    "window of text": ("window = 3", 'window = "3"'),
    "negative window": ("window = 3", "window = -3"),
    "no window": ("window = 3", "window = 0"),
    "half a window": ("window = 3", "window = 3.5"),
    "horizon of text": ("horizon = 1", 'horizon = "a"'),
    "layers of text": ("recurrent = [\n    4,", 'recurrent = [\n    "a",'),
    "other layers": ("recurrent = [\n    4,\n    3,", "recurrent = [\n    4,\n    4,"),
    "fewer layers": ("recurrent = [\n    4,\n    3,", "recurrent = [\n    4,"),
    "another cell": ('cell = "lstm"', 'cell = "gru"'),
    "no cell": ('cell = "lstm"', "cell = 3"),
    "list of cells": ('cell = "lstm"', 'cell = ["lstm"]'),
    "scale of text": (r"re:scale = \[\n.*,", 'scale = [\n    "a",'),
    "scale of zero": (r"re:scale = \[\n.*,", "scale = [\n    0,"),
    "scale of NaN": (r"re:scale = \[\n.*,", "scale = [\n    nan,"),
    "no scale": (r"re:scale = \[\n.*,", "scale = [\n"),
    "infinite shift": (r"re:shift = \[\n.*,", "shift = [\n    inf,"),
    "no columns": ('columns = [\n    "value",', "columns = ["),
    "a column of numbers": ('columns = [\n    "value",', "columns = [\n    3,"),
    "another column": ('columns = [\n    "value",', 'columns = [\n    "sales",'),
    "another format": ("format = 1", "format = 7"),
    "no scaler": ("[scaler]", "[scalar]"),
    "no table": ("[run]", "run = 3\n[walk]"),
    "unknown setting": ("epochs = 2", "epoch = 2"),
    "seeds of truth": ("seeds = 1", "seeds = true"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_configuration_that_cannot_be(here, copy, what):
    old, new = WRONG[what]
    text = (copy / "config.toml").read_text(encoding="utf-8")
    changed = re.sub(old[3:], new, text, count=1) if old.startswith("re:") else text.replace(old, new, 1)
    assert changed != text
    (copy / "config.toml").write_text(changed, encoding="utf-8")
    refuse(here, ("predict", "model", "my.csv"))


@pytest.mark.parametrize(
    "plan",
    [
        {},
        [],
        {"format": 1},
        {"format": 9, "edits": []},
        {"format": 1, "edits": 3},
        {"format": 1, "edits": [{"edit": "keep", "group": "nowhere", "units": [0]}]},
        {"format": 1, "edits": [{"edit": "split", "group": "recurrent.0.l0"}]},
    ],
)
def test_a_plan_that_cannot_be(here, copy, plan):
    (copy / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    refuse(here, ("predict", "model", "my.csv"))


@pytest.mark.parametrize(
    ("first", "unit"), [("units", 99), ("units", -1), ("units", "a"), ("units", 1.5), ("width", 5)]
)
def test_a_plan_of_another_network(here, copy, first, unit):
    plan = json.loads((copy / "plan.json").read_text(encoding="utf-8"))
    plan["edits"][0][first] = [unit] if first == "units" else unit
    (copy / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    refuse(here, ("predict", "model", "my.csv"))


class Planted:
    """What a pickle would run when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", ["model.safetensors", "plan.json", "config.toml", "outcomes.json"])
def test_loading_never_runs_code(here, copy, name):
    (copy / name).write_bytes(pickle.dumps(Planted()))
    words = ("report", "model") if name == "outcomes.json" else ("predict", "model", "my.csv")
    refuse(here, words, "model", "damaged")
    assert not (here / "executed").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("nowhere", "my.csv"), ("nowhere", "config.toml is missing", "pared run")),
        (("my.csv", "my.csv"), ("my.csv",)),
        (("model", "nowhere.csv"), ("nowhere.csv", "no such file")),
        (("model", "my.csv", "--column", "nope"), ("no column 'nope'",)),
        (("model", "my.csv", "--steps", "0"), ("0 steps",)),
        (("model", "my.csv", "--steps", "-1"), ("-1 steps",)),
        (("model", "my.csv", "--out", "my.csv"), ("my.csv", "exists", "--out")),
        (("model", "my.csv", "--out", "nowhere/f.csv"), ("nowhere/f.csv", "cannot be written")),
        (("model", "short.csv"), ("2 rows", "at least 3")),
    ],
)
def test_a_forecast_that_cannot_be(here, copy, words, parts):
    write_csv(here / "short.csv", count=2)
    refuse(here, ("predict", *words), *parts)


def test_steps_that_a_network_looking_two_rows_ahead_cannot_take(here, copy):
    config = (copy / "config.toml").read_text(encoding="utf-8").replace("horizon = 1", "horizon = 2")
    (copy / "config.toml").write_text(config, encoding="utf-8")
    refuse(here, ("predict", "model", "my.csv", "--steps", "5"), "5 steps", "reaches 2")


@pytest.mark.parametrize("value", [3, "x", None, [3], {"full": 3}, [{}], True])
@pytest.mark.slow
@pytest.mark.parametrize("name", ["format", "data", "blocks", "outcomes", "candidates", "comparisons", "finding"])
def test_a_record_with_wrong_parts(here, copy, name, value):
    if (name, value) in (("format", True), ("data", {"full": 3}), ("finding", "x")):
        return  # harmless: the page shows what there is
    record = json.loads((copy / "outcomes.json").read_text(encoding="utf-8")) | {name: value}
    (copy / "outcomes.json").write_text(json.dumps(record), encoding="utf-8")
    refuse(here, ("report", "model"), str(Path("model") / "outcomes.json"))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"format": 1}', '{"format": 2}', "[" * 100_000])
def test_a_record_that_is_none(here, copy, text):
    (copy / "outcomes.json").write_text(text, encoding="utf-8")
    refuse(here, ("report", "model"), str(Path("model") / "outcomes.json"))


def test_a_report_of_nothing(here):
    refuse(here, ("report", "."), "outcomes.json is missing", "pared run")
    refuse(here, ("report", "nowhere"), "nowhere")
    refuse(here, ("report", "my.csv"), "my.csv is a file; give a folder made by `pared run`")


@pytest.mark.parametrize("words", [("distill", "my.csv"), ("retune", "my.csv"), ("predict", "my.csv", "my.csv")])
def test_a_file_is_no_run(here, words):
    refuse(here, words, "Error: my.csv is a file; give a folder made by `pared run`")


@pytest.mark.slow
def test_a_real_process_says_it_in_one_line(here):
    before = files(here)
    done = process("run", "my.csv", "--column", "nope", *SMALL, cwd=here)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "Error: my.csv: no column 'nope'; the file has 'day', 'value', 'extra', 'flat'\n"
    assert files(here) == before
