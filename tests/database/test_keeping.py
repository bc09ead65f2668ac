"""The database's laws: what is written is read back equal; no one else's rows change; what it refuses is one line."""

import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import create_engine, inspect

import postgres
from commands import environment
from entries_drawn import ENTRIES
from pared.database import connection, keeping
from pared.database.connection import located
from pared.database.entries import Cut, Entry, Fit, Run, StoreError
from pared.database.tables import METADATA, VERSION

OLD = Path(__file__).with_name("version_1.sql")
SIMPLE = Entry(Run("ab" * 16, "run", "finished", "henon", "2026-11-28T10:00:00+00:00"), fits=[Fit("full", 0, 0)])


@pytest.fixture
def url(tmp_path):
    return located(None, tmp_path)


def in_database(url, entry):
    (run,) = (each for each in keeping.runs(url) if each.id == entry.run.id)
    return keeping.entry(url, run)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ENTRIES, ENTRIES)
def test_what_is_written_is_read_back_equal(url, one, other):
    keeping.add(url, one)
    keeping.add(url, other)
    assert in_database(url, other) == other
    if one.run.id != other.run.id:
        assert in_database(url, one) == one


def test_an_entry_takes_the_place_of_the_one_of_its_id_and_notes_stay(url):
    other = replace(SIMPLE, run=replace(SIMPLE.run, id="cd" * 16, begun="2026-11-29T10:00:00+00:00"))
    assert keeping.add(url, SIMPLE)
    assert keeping.add(url, other)
    keeping.write_note(url, SIMPLE.run, "first")
    keeping.write_note(url, SIMPLE.run, "second")
    again = replace(SIMPLE, fits=[], cuts=[Cut("ratio 0.5", 0.5, 10.0, True)])
    assert not keeping.add(url, again)
    assert in_database(url, SIMPLE) == again
    assert in_database(url, other) == other
    assert [run.id for run in keeping.runs(url)] == ["cd" * 16, "ab" * 16]  # newest first
    assert [note.text for note in keeping.notes(url, SIMPLE.run)] == ["first", "second"]
    assert keeping.notes(url, other.run) == []


def test_text_that_no_database_takes_is_mended(url):
    keeping.add(url, replace(SIMPLE, run=replace(SIMPLE.run, traceback="a\0b\ud800c")))
    assert in_database(url, SIMPLE).run.traceback == "a?b?c"


def test_a_run_is_found_by_how_its_id_begins():
    runs = [replace(SIMPLE.run, id=each) for each in ("abc", "abd", "b")]
    assert keeping.find(runs, "abd").id == "abd"
    assert keeping.find(runs, "b").id == "b"
    for start, part in (("ab", "2 runs"), ("x", "no run 'x'"), ("", "3 runs")):
        with pytest.raises(StoreError, match=part):
            keeping.find(runs, start)


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from pared.database import keeping
from pared.database.connection import located
from pared.database.entries import Entry, Fit, Run
url = located(sys.argv[1], Path())
for number in range(20):
    run = Run(f"{sys.argv[2]}{number}", "run", "finished", "henon", "2026-11-28T10:00:00+00:00")
    keeping.add(url, Entry(run, fits=[Fit("full", block, 0) for block in range(10)]))
"""


def write_at_once(store):
    """Two processes write to a new database at the same time; what it holds then."""
    words = [sys.executable, "-c", WRITER, store]
    writers = [subprocess.Popen([*words, name], env=environment(), stderr=subprocess.PIPE) for name in "ab"]
    for writer in writers:
        assert writer.wait(60) == 0, writer.stderr.read()
        writer.stderr.close()
    url = located(store, Path())
    runs = keeping.runs(url)
    assert {run.id for run in runs} == {f"{name}{number}" for name in "ab" for number in range(20)}
    assert all(len(keeping.entry(url, run).fits) == 10 for run in runs)


@pytest.mark.slow
def test_two_processes_write_at_once(tmp_path):
    write_at_once(str(tmp_path / "new" / "both.db"))


@pytest.mark.slow
def test_postgresql_keeps_the_same_laws():
    with postgres.database() as store:
        write_at_once(store)
        url = located(store, Path())

        @settings(max_examples=15, deadline=None)
        @given(ENTRIES)
        def check(entry):
            keeping.add(url, entry)
            assert in_database(url, entry) == entry

        check()
        keeping.write_note(url, SIMPLE.run, "a note")
        assert [note.text for note in keeping.notes(url, SIMPLE.run)] == ["a note"]


def test_a_locked_database_is_waited_for_then_refused(url, monkeypatch):
    keeping.add(url, SIMPLE)
    other = sqlite3.connect(url.database, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    assert in_database(url, SIMPLE) == SIMPLE  # readers do not wait
    monkeypatch.setattr(connection, "WAIT", 0.1)
    with pytest.raises(StoreError, match="locked; another program has been writing"):
        keeping.add(url, SIMPLE)
    monkeypatch.setattr(connection, "WAIT", 10)
    timer = threading.Timer(0.2, other.close)
    timer.start()
    assert not keeping.add(url, SIMPLE)
    timer.join()


def test_a_failed_write_leaves_what_was_there(url):
    keeping.add(url, SIMPLE)
    with pytest.raises(OverflowError):
        keeping.add(url, replace(SIMPLE, fits=[Fit("full", 2**70, 0)]))
    assert in_database(url, SIMPLE) == SIMPLE


def test_what_is_no_database_is_told(tmp_path):
    (tmp_path / "text.db").write_text("no database at all, but some text that is long enough to be looked at\n" * 9)
    with pytest.raises(StoreError, match=r"text\.db cannot be used: file is not a database"):
        keeping.runs(located(str(tmp_path / "text.db"), tmp_path))
    with pytest.raises(StoreError, match=r"no database .*gone\.db yet"):
        keeping.runs(located(str(tmp_path / "gone.db"), tmp_path))
    assert not (tmp_path / "gone.db").exists()


@pytest.mark.parametrize(
    ("store", "part"),
    [
        ("nonsense://host/x", "Can't load plugin"),
        ("://", "Could not parse"),
        ("oracle+cx_oracle://user:secret@host/x", "needs the package cx_Oracle: pip install cx_Oracle"),
    ],
)
def test_urls_that_cannot_be_are_told_without_their_password(tmp_path, store, part):
    with pytest.raises(StoreError, match=part) as caught:
        located(store, tmp_path)
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_told_without_its_password(tmp_path):
    pytest.importorskip("psycopg")
    url = located("postgresql://user:secret@127.0.0.1:9/x", tmp_path)
    with pytest.raises(StoreError, match=r"user:\*\*\*@127.0.0.1:9/x cannot be used: connection failed"):
        keeping.runs(url)


def old_database(path):
    with sqlite3.connect(path) as old:
        old.executescript(OLD.read_text(encoding="utf-8"))
    old.close()


def columns(path):
    found = inspect(create_engine(f"sqlite:///{path}"))
    return {name: {each["name"] for each in found.get_columns(name)} for name in found.get_table_names()}


def test_a_database_of_version_1_is_upgraded_and_loses_nothing(tmp_path):
    path, fresh = tmp_path / "old.db", tmp_path / "new.db"
    old_database(path)
    url = located(str(path), tmp_path)
    failed, good = keeping.runs(url)  # reading upgrades
    assert (good.data, good.before, good.remarks, good.parent) == ("santa-fe", 0.25, ["short"], None)
    assert good.settings == {"lr": 0.01, "recurrent": [16, 4]}
    assert (failed.reason, failed.seed) == ("DivergedError: all", 1)
    entry = keeping.entry(url, good)
    assert entry.fits[0].curves == {"train": [1.0, 0.5], "validation": [1.1, 0.6]}
    assert (entry.cuts[0].label, entry.comparisons[0].verdict) == ("ratio 0.5", "better")
    assert keeping.entry(url, failed).trials[0].point == {"lr": 0.1}
    keeping.write_note(url, good, "upgraded")
    assert not keeping.add(url, replace(entry, run=replace(good, parent="cd", fingerprint="ef")))
    assert keeping.runs(url)[1].parent == "cd"
    keeping.add(located(str(fresh), tmp_path), SIMPLE)
    assert columns(path) == columns(fresh)
    assert columns(path).keys() == METADATA.tables.keys()


def test_a_newer_database_is_refused_and_left_alone(url):
    keeping.add(url, SIMPLE)
    with sqlite3.connect(url.database) as newer:
        newer.execute("UPDATE pared_schema SET version = ?", (VERSION + 1,))
    newer.close()
    before = Path(url.database).read_bytes()
    for call in (lambda: keeping.runs(url), lambda: keeping.add(url, SIMPLE)):
        with pytest.raises(StoreError, match=f"newer version of pared .its tables are version {VERSION + 1}"):
            call()
    assert Path(url.database).read_bytes() == before
