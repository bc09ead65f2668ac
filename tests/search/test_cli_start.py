"""`pared run --search`: found first, then made smaller, and tested on rows that neither has seen."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from commands import assert_refused, files, pared, write_csv
from pared.data import classic, load
from pared.database import keeping
from pared.database.connection import located
from pared.search.defaults import default_space
from pared.search.story import base_settings
from pared.search.subject import of_series, of_table
from pared.terminal import INTERRUPTED

OPTIONS = "--column value --search 3 --quick --epochs 2 --ratios 0.3 --jobs 1"
RUN = ("run", "my.csv", *OPTIONS.split())
slow = pytest.mark.slow
command = import_module("pared.search.command")  # `pared.search` is the function, too


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "my.csv")
    return tmp_path


@pytest.mark.parametrize(
    "words", [("--recurrent", "4"), ("--cell", "gru"), ("--lr", "0.1"), ("--config", "best.toml"), ("--window", "3")]
)
def test_what_a_search_finds_cannot_be_given(here, words):
    before = files(here)
    assert_refused(pared(*RUN, *words), words[0], "beside --search")
    assert files(here) == before


@pytest.mark.parametrize("name", ["logistic-3.9", "sunspots"])
def test_the_run_of_a_series_tests_on_rows_that_no_trial_saw(name):
    series = load(name)
    base = base_settings(series)
    subject = of_series(series, base, ("error",), default_space(series))
    seen = {row for block in subject.blocks(subject.base, False) for row in range(*_reach(block))}
    tested = {row for block in subject.blocks(subject.base, True) for row in range(*block.spans["test"])}
    assert tested
    assert tested.isdisjoint(seen)


def _reach(block) -> tuple[int, int]:
    """The rows that trials are trained and judged on."""
    return block.spans["train"][0], block.spans["validation"][1]


def test_the_run_of_a_table_tests_on_rows_that_no_trial_saw():
    table = classic("wine")
    subject = of_table(table, base_settings(table), ("error",))
    blocks = subject.blocks(subject.base, True)
    tested = [row for block in blocks for row in block.rows["test"]]
    others = {row for block in blocks for part in ("train", "validation") for row in block.rows[part]}
    assert len(set(tested)) == len(tested)
    assert others.isdisjoint(tested)
    assert others | set(tested) == set(range(len(table.target)))
    for block in blocks:
        for part in ("train", "validation", "test"):
            assert getattr(block, part).y.tolist() == table.target[list(block.rows[part])].astype(int).tolist()


def trials(here):
    return json.loads((here / "runs" / "search-my-seed0" / "search.json").read_text())["trials"]


@slow
def test_more_trials_go_on_in_the_same_search(here):
    assert pared(*RUN).exit_code == 0
    first, page = trials(here), (here / "runs" / "search-my-seed0" / "report.html").read_text()
    more = [*RUN, "--search", "5"]
    assert pared(*more).exit_code == 0
    assert [path.name for path in (here / "runs").glob("search-*")] == ["search-my-seed0"]
    assert len(trials(here)) == 5
    assert [trial["point"] for trial in trials(here)[:3]] == [trial["point"] for trial in first]
    assert (here / "runs" / "search-my-seed0" / "report.html").read_text() != page


def listed_runs(here):
    return keeping.runs(located(None, here / "runs"))


@slow
def test_an_interrupted_search_is_gone_on_with_and_its_network_pruned(here, monkeypatch):
    def interrupted(data, space, settings, base, folder, jobs, progress):
        def stop(stage, done, total):
            if done == 2:
                raise KeyboardInterrupt

        return own(data, space, settings, base, folder, jobs, stop)

    own = command.search
    with monkeypatch.context() as patch:
        patch.setattr(command, "search", interrupted)
        result = pared(*RUN)
    assert result.exit_code == INTERRUPTED
    assert "the same command goes on" in " ".join(result.stderr.split())
    assert [path.name for path in (here / "runs").glob("*/")] == ["search-my-seed0"]
    (begun,) = listed_runs(here)
    assert (begun.kind, begun.status) == ("search", "interrupted")

    assert pared(*RUN).exit_code == 0
    searched = trials(here)
    assert pared(*RUN).exit_code == 0
    assert sorted(path.name for path in (here / "runs").glob("*/")) == ["my-seed0", "my-seed0-2", "search-my-seed0"]
    assert trials(here) == searched
    one, other, search = sorted(listed_runs(here), key=lambda each: each.kind)
    assert (search.id, search.begun, search.status) == (begun.id, begun.begun, "finished")  # gone on with: the same
    assert one.parent == other.parent == search.id

    found = json.loads((here / "runs" / "search-my-seed0" / "search.json").read_text())
    record = json.loads((here / "runs" / "my-seed0" / "outcomes.json").read_text())
    assert record["start"]["trials"] == len(found["trials"]) == 3
    assert record["start"]["report"] == "../search-my-seed0/report.html"
    point = found["trials"][found["winner"]]["point"]
    assert record["settings"]["recurrent"][0] == point["width_1"]
    assert record["settings"]["lr"] == point["lr"]
    assert record["settings"]["epochs"] == 2
    page = (here / "runs" / "my-seed0" / "report.html").read_text(encoding="utf-8")
    assert "Where it started" in page
    assert found["finding"].split(":")[0] in page


@slow
def test_a_table(here):
    result = pared("run", "wine", "--search", "3", "--quick", "--epochs", "2", "--ratios", "0.3", "--jobs", "1")
    assert result.exit_code == 0, result.stderr
    record = json.loads((here / "runs" / "wine-seed0" / "outcomes.json").read_text())
    assert record["start"]["trials"] == 3
    assert sum(block["test"] for block in record["blocks"]) < 178 / 4
