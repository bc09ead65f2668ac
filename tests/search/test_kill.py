"""SIGKILL at any moment, of the driver or of a worker, then the same search goes on to the same trials."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

import searching
from commands import environment
from pared.search import SearchSettings, search
from pared.search.book import FILE, Book

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("PARED_KILLS", "20"))
TRIALS = 8 * (KILLS + 1)


def rows(folder: Path) -> int:
    """How many evaluations are kept; none before the file is there."""
    if not (folder / FILE).exists():
        return 0
    with closing(sqlite3.connect(folder / FILE)) as database:
        return database.execute("SELECT count(*) FROM pared_evaluations").fetchone()[0]


def workers_of(driver: int) -> list[int]:
    """Worker processes of a driver: children of its fork server."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return [pid for pid, parent in parents.items() if parents.get(parent) == driver]


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_killed_again_and_again_a_search_ends_as_one_that_was_left_alone(tmp_path):
    """Again and again some evaluations are made, then one of the driver and its two workers is killed, by lot.

    A worker is replaced by the driver; a driver is started anew.
    """
    chance = random.Random(0)
    left_alone = search(searching.slow, searching.SPACE, SearchSettings(TRIALS, seed=3, lag=4))
    command = [sys.executable, searching.__file__, str(tmp_path), str(TRIALS), "2"]
    kills = {"driver": 0, "worker": 0}
    while sum(kills.values()) < KILLS:
        run = subprocess.Popen(command, env=environment(), start_new_session=True)
        try:
            while run.poll() is None:
                goal = rows(tmp_path) + chance.randint(1, 6)
                while rows(tmp_path) < goal and run.poll() is None:
                    time.sleep(chance.random() / 50)
                assert run.poll() is None, "it ended before it was killed as often as wanted"
                workers = workers_of(run.pid)
                victim = chance.choice([run.pid, *workers])
                os.kill(victim, signal.SIGKILL)
                kills["driver" if victim == run.pid else "worker"] += 1
                if victim == run.pid or sum(kills.values()) == KILLS:
                    break
            run.kill()
            run.wait()
            assert all(ended(pid) for pid in workers)  # no worker goes on without its driver
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    assert min(kills.values()) > 0
    subprocess.run(command, env=environment(), check=True, timeout=120)
    found = search(searching.slow, searching.SPACE, SearchSettings(TRIALS, seed=3, lag=4), folder=tmp_path)
    assert [(t.number, t.point, t.result) for t in found.trials] == [
        (t.number, t.point, t.result) for t in left_alone.trials
    ]
    assert found.finalists == left_alone.finalists
    kept = Book(tmp_path / FILE).keys()
    assert len(kept) == len(set(kept)) == found.evaluations
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        states = database.execute("SELECT state, count(*) FROM trials GROUP BY state").fetchall()
    assert states == [("COMPLETE", len(found.trials))]  # none is running for ever


def ended(pid: int, seconds: float = 100) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
                return True  # init buries it
        except OSError:
            return True
        time.sleep(0.05)
    return False
