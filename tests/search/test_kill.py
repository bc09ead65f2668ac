"""SIGKILL at any moment, of the driver or of a worker, then the same search goes on to the same trials."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

import postgres
import searching
from commands import environment
from pared.search import SearchSettings, search
from pared.search.book import Book
from pared.search.places import Place, engine_of, found_in

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("PARED_KILLS", "20"))
TRIALS = 8 * (KILLS + 1)


SETTINGS = SearchSettings(TRIALS, seed=3, lag=4)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request):
    """The URL of the database of the book; None: a file."""
    if request.param == "sqlite":
        yield None
        return
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="module")
def left_alone():
    """The search that nobody disturbed."""
    return search(searching.slow, searching.SPACE, SETTINGS)


def asked(folder: Path, *queries: str) -> list[list[tuple]]:
    """What the database of a folder's book answers; nothing before it is there."""
    database = found_in(Place(folder))
    if database is None:
        return []
    engine = engine_of(database)
    try:
        with engine.connect() as connection:
            answers = (connection.execute(text(query)) for query in queries)
            return [[tuple(row) for row in answer] if answer.returns_rows else [] for answer in answers]
    finally:
        engine.dispose()


def rows(folder: Path) -> int:
    """How many evaluations are kept."""
    found = asked(folder, "SELECT count(*) FROM pared_evaluations")
    return found[0][0][0] if found else 0


def workers_of(driver: int) -> list[int]:
    """Worker processes of a driver: children of its fork server."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return [pid for pid, parent in parents.items() if parents.get(parent) == driver]


@pytest.mark.timeout(900)  # twenty starts of a driver and its workers
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_killed_again_and_again_a_search_ends_as_one_that_was_left_alone(tmp_path, server, left_alone):
    """Again and again some evaluations are made, then one of the driver and its two workers is killed, by lot.

    A worker is replaced by the driver; a driver is started anew.
    """
    chance = random.Random(0)
    command = [sys.executable, searching.__file__, str(tmp_path), str(TRIALS), "2", *([server] if server else [])]
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
    place = Place(tmp_path, make_url(server) if server else None)
    found = search(searching.slow, searching.SPACE, SETTINGS, folder=place)
    assert [(t.number, t.point, t.result) for t in found.trials] == [
        (t.number, t.point, t.result) for t in left_alone.trials
    ]
    assert found.finalists == left_alone.finalists
    kept = Book(found_in(place)).keys()
    assert len(kept) == len(set(kept)) == found.evaluations
    assert sound(tmp_path)
    ((states,),) = (asked(tmp_path, "SELECT state, count(*) FROM trials GROUP BY state"),)
    assert [(str(state), count) for state, count in states] == [("COMPLETE", len(found.trials))]  # none runs for ever


def sound(folder: Path) -> bool:
    """Whether the database passes its own check: of PostgreSQL, every table and index of the book by amcheck."""
    if found_in(Place(folder)).schema is None:
        return asked(folder, "PRAGMA integrity_check") == [[("ok",)]]
    own = "FROM pg_class c WHERE relnamespace = current_schema()::regnamespace AND relkind ="
    _, tables, indices = asked(
        folder,
        "CREATE EXTENSION amcheck SCHEMA public",
        f"SELECT relname, (SELECT count(*) FROM public.verify_heapam(c.oid)) {own} 'r'",
        f"SELECT relname, public.bt_index_check(c.oid, true)::text {own} 'i'",
    )
    return len(tables) > 2 and len(indices) > 2 and all(count == 0 for _, count in tables)


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
