"""A full disk, a locked database, a server that goes: one clear line, finished work kept, and on to the same end."""

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing

import pytest
from sqlalchemy import create_engine, text

import postgres
from commands import assert_refused, command, environment, pared, write_csv
from pared.search import command as search_command
from pared.search import places
from pared.search.book import rows_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SPACE = {
    "width_1": {"kind": "power of two", "low": 2, "high": 8},
    "window": {"kind": "int", "low": 2, "high": 4},
    "lr": {"kind": "float", "low": 0.001, "high": 0.1, "log": True},
}
WORDS = ("search", "my.csv", "--column", "value", "--space", "space.json", "--epochs", "2", "--jobs", "1")
TRIALS = ("--trials", "40", "--sampler", "random")
NAME = "search-my-seed0"


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory):
    """The trials of the search that had no bad day."""
    with pytest.MonkeyPatch.context() as patch:
        folder = prepared(tmp_path_factory.mktemp("alone"))
        patch.chdir(folder)
        assert pared(*WORDS, *TRIALS).exit_code == 0
        return trials(folder / "runs" / NAME)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return prepared(tmp_path)


def prepared(folder):
    write_csv(folder / "my.csv")
    (folder / "space.json").write_text(json.dumps(SPACE))
    return folder


def trials(folder):
    return json.loads((folder / "search.json").read_text())["trials"]


def assert_one_line(stderr, *parts):
    """Progress, and then one message, with no traceback."""
    (line,) = [line for line in stderr.splitlines() if "Error:" in line]
    assert stderr.rstrip().endswith(line)
    assert "Traceback" not in stderr
    for part in parts:
        assert part in line


def mounts():
    """Whether a small disk can be had here."""
    if not shutil.which("unshare"):
        return False
    words = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs none /mnt"]
    return subprocess.run(words, capture_output=True).returncode == 0


@pytest.mark.skipif(not mounts(), reason="needs to mount a small disk")
def test_a_full_disk(here, left_alone):
    script = """
        mount -t tmpfs -o size=700k none runs
        "$@" --trials 40 --sampler random 2> first.txt; echo $? > code.txt
        mount -o remount,size=100m none runs
        "$@" --trials 40 --resume && cp -r runs kept
    """
    (here / "runs").mkdir()
    words = ["unshare", "-rm", "sh", "-c", script, "sh", *command(*WORDS)]
    subprocess.run(words, env=environment(), capture_output=True, timeout=500)
    assert_one_line((here / "first.txt").read_text(), "make room, and go on with --resume; finished trials are kept")
    assert (here / "code.txt").read_text() == "2\n"
    assert trials(here / "kept" / NAME) == left_alone


def test_a_disk_that_is_full_when_the_page_is_written(here, left_alone, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(search_command, "write_page", full)
        refused = pared(*WORDS, *TRIALS)
    assert_refused(refused, "make room, and repeat the command, a search with --resume")
    assert not (here / "runs" / NAME / "report.html").exists()
    assert pared(*WORDS, *TRIALS, "--resume").exit_code == 0
    assert trials(here / "runs" / NAME) == left_alone


def test_a_locked_database(here, left_alone, monkeypatch):
    monkeypatch.setattr(places, "WAIT", 0.1)
    assert pared(*WORDS, "--trials", 8, *TRIALS[2:]).exit_code == 0
    with closing(sqlite3.connect(here / "runs" / NAME / "study.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = pared(*WORDS, *TRIALS, "--resume")
        assert_refused(refused, "database is locked", "another program writes to it: close that, and go on with")
        other.rollback()
    assert pared(*WORDS, *TRIALS, "--resume").exit_code == 0
    assert trials(here / "runs" / NAME) == left_alone


def test_a_server_that_goes_in_the_middle(here, left_alone):
    with postgres.cluster() as cluster:
        port = postgres.free_port()
        with postgres.running(cluster, port) as url:
            words = command(*WORDS, *TRIALS, "--book", url.replace("+psycopg", ""))
            run = subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True)
            while evaluations(url) < 5:
                assert run.poll() is None
                time.sleep(0.01)
        _, said = run.communicate(timeout=120)
        assert run.returncode == 2
        assert_one_line(said, "see that the server is there and lets you in, and go on with --resume; finished trials")
        refused = pared(*WORDS, *TRIALS, "--resume")
        assert_refused(refused, "see that the server is there")
        with postgres.running(cluster, port):
            assert len(rows_of(here / "runs" / NAME)) >= 5
            assert pared(*WORDS, *TRIALS, "--resume").exit_code == 0
    assert trials(here / "runs" / NAME) == left_alone


def evaluations(url):
    """How many are kept in the one book there."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            named = "SELECT schemaname FROM pg_tables WHERE tablename = 'pared_evaluations'"
            found = connection.execute(text(named)).scalars().all()
            return (
                connection.execute(text(f"SELECT count(*) FROM {found[0]}.pared_evaluations")).scalar() if found else 0
            )
    finally:
        engine.dispose()
