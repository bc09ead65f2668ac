"""`pared compare-criteria` through the command line: what it leaves, what it says, what it refuses."""

import html
import json
import os
import re
import signal
import subprocess
import time

import pytest
import torch

from commands import assert_refused, command, environment, files, pared, process, write_csv
from pared import CriteriaSettings, compare_criteria, criteria, run_table
from pared.comparing import command as command_module
from pared.comparing import figures, record, tables
from pared.comparing.page import page
from pared.data import classic
from pared.evaluation import CLASSIFICATION
from pared.report.svg import style
from pared.settings import TableConfig

SMALL = ("--recurrent", "4,3", "--dense", "2", "--window", "3", "--ratios", "0.5", "--jobs", "1")
SERIES = ("compare-criteria", "my.csv", "--column", "value", *SMALL)
LEFT = {"report.html", "results.json", "provenance.json"}


@pytest.fixture(scope="module")
def content():
    """The record of untrained networks on folds of a table, one criterion of it gone wrong."""
    job = run_table.job(classic("wine"), TableConfig("classification", hidden=(6, 4), epochs=3, seeds=1))
    models = [job.build(seed, {}) for seed in range(6)]

    def wrong(model, batch, loss):
        raise ValueError("<b>no</b>")

    def flat(model, batch, loss):
        return {"layers.0": torch.zeros(6)}

    asked = {"taylor": criteria.taylor, "<i>": wrong, "flat": flat, "norm": criteria.norm}
    settings = CriteriaSettings(ratios=(0.25, 0.5), refit=None, draws=1)
    result = compare_criteria(models, job.blocks[:6], asked, CLASSIFICATION, settings)
    return json.loads(json.dumps(record.build(job, result, 1.5, False), allow_nan=False))


def test_the_page_says_what_the_record_holds(content):
    source = page(content)
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", source)).split())
    assert source == page(content)
    assert "<b>no</b>" not in source
    assert source.count("<svg") == 1
    for part in (
        "wine: which criterion?", "6 trained networks on 6 folds", "flat does not score layers.2",
        "flat gives equal scores to all of layers.0 (6 networks)",
        "one forward pass of all samples", "6 of 6 <b>no</b>",
    ):  # fmt: skip
        assert part in text, part
    for table in (tables.against_full, tables.against_random):
        for row in table(content, "plain").rows:
            assert all(" ".join(cell.split()) in text for cell in row)
    assert [row[0] for row in tables.against_full(content, "plain").rows] == ["random", "taylor", "flat", "norm"]
    assert [row[0] for row in tables.against_random(content, "plain").rows] == ["taylor", "flat", "norm"]
    assert "null" not in text
    assert "None" not in text


def test_many_criteria_keep_one_legend(content):
    many = json.loads(json.dumps(content))
    rows = [row for row in many["table"] if row["criterion"] == "taylor"]
    for place in range(12):
        many["compared"].append(f"c{place}")
        many["table"] += [row | {"criterion": f"c{place}"} for row in rows]
    with style():
        drawing = figures.kept(many)
    assert "Grey: 7 further criteria" in drawing.caption
    assert drawing.svg.count(">random<") == 1


def test_few_blocks_claim_nothing(content):
    few = content | {"clusters": 4}
    assert record.sentences(few) == ["Nothing may be claimed from 4 blocks; at least 5 are needed."]
    assert len(record.sentences(content)) == 3
    assert "interrupted" in record.notes(content | {"stopped": True})[0]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("wine", "--criteria", "tailor"), ("unknown criterion 'tailor'", "ablation, activation", "or all")),
        (("wine", "--criteria", "norm,taylor,norm"), ("'norm' is named twice",)),
        (("wine", "--ratios", "0.5,1.5"), ("a ratio lies between 0 and 1", "1.5")),
        (("wine", "--ratios", "0"), ("a ratio lies between 0 and 1",)),
        (("wine", "--ratios", "0.5,0.5"), ("must differ",)),
        (("wine", "--ratios", "half"), ("--ratios takes numbers",)),
        (("wine", "--ratios", "0.001"), ("removes nothing",)),
        (("wine", "--what", "weights", "--keep", "layers.0"), ("keep names groups of units",)),
        (("wine", "--keep", "nothing*"), ("'nothing*' in keep matches no group",)),
        (("wine", "--cell", "gru"), ("--cell makes no sense for a table",)),
        (("henon", "--hidden", "4"), ("--hidden makes no sense for a series",)),
        (("wine", "--what", "layers"), ("Invalid value for '--what'",)),
        (("wine", "--seeds", "0"), ("at least 1 seed",)),
        (("nowhere.csv",), ("nowhere.csv",)),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(tmp_path, words, parts):
    assert_refused(pared("compare-criteria", *words, "--out", tmp_path / "runs"), *parts)
    assert files(tmp_path) == {}


@pytest.mark.slow
def test_a_comparison_leaves_two_files_and_overwrites_nothing(tmp_path):
    write_csv(tmp_path / "my.csv")
    first = process(*SERIES, "--epochs", 2, "--criteria", "taylor,junk,replaceability", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "runs" / "compare-criteria-my-seed0"
    before = files(folder)
    assert before.keys() == LEFT
    found = json.loads(before["results.json"])
    assert found["compared"] == ["random", "taylor", "junk"]
    assert found["refused"][0]["criterion"] == "replaceability"
    assert found["unscored"] == {"junk": {"head.0": 10}}
    assert found["repairs"] == ["plain", "compensated", "refitted"]
    assert len(found["kept"]) == 10 * 3 * (3 + 2)
    assert found["settings"]["epochs"] == 2
    assert "criterion" not in found["settings"]
    for part in ("random", "taylor", "No scores of replaceability for 10 of 10", str(folder.name)):
        assert part in first.stdout
    for stage in ("training the networks", "scoring, cutting and repairing", "refitting"):
        assert stage in first.stderr
    words = (*SERIES[2:-1], 2, "--epochs", 2, "--criteria", "taylor,junk,random,replaceability")
    second = pared("compare-criteria", tmp_path / "my.csv", *words, "--out", tmp_path / "runs")
    assert second.exit_code == 0, second.stderr
    assert files(folder) == before
    again = json.loads((tmp_path / "runs" / f"{folder.name}-2" / "results.json").read_text())
    assert again["kept"] == found["kept"]
    assert again["table"] == found["table"]


@pytest.mark.slow
def test_weights_of_a_table(tmp_path):
    words = ("--hidden", "6,4", "--epochs", "2", "--ratios", "0.5", "--what", "weights", "--criteria", "magnitude,obd")
    result = pared("compare-criteria", "diabetes", *words, "--jobs", 1, "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    found = json.loads((tmp_path / "compare-criteria-diabetes-seed0" / "results.json").read_text())
    assert found["compared"] == ["random", "magnitude", "obd"]
    assert found["settings"]["what"] == "weights"
    assert {row["full"]["scale"] for row in found["table"]} == {"log"}


def test_ctrl_c_before_anything_is_compared_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_module, "fit_each", interrupted)
    result = pared("compare-criteria", "wine", "--out", tmp_path / "runs")
    assert result.exit_code == 130
    assert "nothing is left behind" in " ".join(result.stderr.split())
    assert files(tmp_path) == {}


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(tmp_path):
    write_csv(tmp_path / "my.csv")
    log = tmp_path / "messages"
    with log.open("w") as stream:
        run = subprocess.Popen(
            command(*SERIES, "--epochs", 2, "--refit-epochs", 10_000_000, "--criteria", "norm"),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
        )
    try:
        while "refitting" not in log.read_text():
            assert run.poll() is None, log.read_text()
            time.sleep(0.05)
        time.sleep(1)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(timeout=60) == 130
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    assert "Interrupted" in log.read_text()
    assert "Traceback" not in log.read_text()
    found = json.loads((tmp_path / "runs" / "compare-criteria-my-seed0" / "results.json").read_text())
    assert found["stopped"]
    assert found["repairs"] == ["plain", "compensated"]
    assert len(found["kept"]) == 10 * 2 * 4
