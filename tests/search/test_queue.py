"""Workers on other machines: the search of local ones, through deaths of workers, of their machines and the driver."""

import json
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

import postgres
from commands import assert_refused, command, environment, logistic, pared, write_csv
from pared.data import Series, classic
from pared.search import PowerOfTwo, Queue, SearchSettings, Space, queue, remote, search
from pared.search.book import Book, opened
from pared.search.places import Place, engine_of, found_in
from pared.search.queue import claim, queued
from pared.search.space import Float
from pared.search.trials import Evaluation, Failure, Key, SearchError, Task
from pared.settings import RunConfig
from pared.types import DataError
from searching import noisy

slow = pytest.mark.slow
SPACE = Space({"width_1": PowerOfTwo(2, 8), "lr": Float(0.001, 0.1, log=True)})
SERIES = Series("my", [[value] for value in logistic()], ("value",), 3, "values", None, "made for the tests")
BASE = RunConfig(recurrent=(4,), dense=(), window=3, epochs=30)
SETTINGS = SearchSettings(24, seed=1, lag=4)
TASKS = [Task(Key("search", number, 0), {"lr": 0.1}, ((5, float("inf")), (9, 0.1))) for number in range(3)]
RESULT = Evaluation((0.1 + 0.2,), (0.25, 0.5), {5: 0.7}, True, ({"train": (1.0,)},))


def test_what_workers_elsewhere_cannot_take_part_in_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="jobs count from 0"):
        Queue(-1)
    with pytest.raises(DataError, match="a function cannot be sent through a database"):
        search(noisy, SPACE, SETTINGS, jobs=Queue())
    write_csv(tmp_path / "my.csv")
    refused = pared("search", "my.csv", "--column", "value", "--engine", "queue")
    assert_refused(refused, "meet in a PostgreSQL database; begin the search with --book postgresql://")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("where", "parts"),
    [
        ("runs", ("there is no search in runs; name its folder, or the database",)),
        ("mysql+pymysql://me:secret@host/db", ("WHERE",)),
        ("sqlite:///x.db", ("WHERE is for PostgreSQL",)),
        ("postgresql://me:secret@127.0.0.1:1/db", ("me@127.0.0.1:1/db", "see that the server is there")),
    ],
)
def test_a_worker_with_nowhere_to_go_is_told(tmp_path, monkeypatch, where, parts):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PGPASSWORD", raising=False)
    refused = pared("search-worker", where)
    assert_refused(refused, *parts)
    assert "secret" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


@slow
def test_a_worker_for_a_book_in_a_file_is_told(tmp_path):
    with opened(tmp_path, {"format": 1}, 1):
        pass
    assert_refused(pared("search-worker", tmp_path), "keeps its book in a file, where no other machine can take part")


@pytest.fixture(scope="module")
def server():
    with postgres.database() as url:
        yield make_url(url)


@pytest.fixture(scope="module")
def alone():
    """The search of one process."""
    return search(SERIES, SPACE, SETTINGS, BASE)


def worker(url, *words):
    own = command("search-worker", url.render_as_string(hide_password=False), "--jobs", 1, *words)
    return subprocess.Popen(own, env=environment(), start_new_session=True, stdout=-1, stderr=-1, text=True)


def holders(url) -> dict[int, int]:
    """Which process, by id, has taken which task, in the one search that is under way."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            found = queue.under_way(connection)
            query = "SELECT worker, id FROM {}.pared_tasks WHERE worker IS NOT NULL AND seconds IS NULL"
            rows = connection.execute(text(query.format(found[0]))).all() if found else []
            return {int(name.split()[1]): number for name, number in rows if " " in name}
    finally:
        engine.dispose()


def until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@slow
def test_no_two_take_the_same_task_and_a_lost_lease_gives_it_out_again(tmp_path, server, monkeypatch):
    monkeypatch.setattr(queue, "MOST_DEATHS", 2)
    place = Place(tmp_path / "search-my-seed0", server)
    with opened(place, {"format": 1}, 1) as book, queued(len, SERIES, book.database, Queue(0), 0) as crew:
        engine = engine_of(book.database)
        for task in TASKS:
            crew.submit(task)
        with engine.begin() as one, engine.begin() as two:
            first, second = claim(one, "one", 60), claim(two, "two", 0.2)
        assert [first[1], second[1]] == TASKS[:2]
        with engine.begin() as connection:
            assert claim(connection, "one", 60)[1] == TASKS[2]
            assert claim(connection, "one", 60) is None
            queue.put(connection, first[0], (TASKS[0], RESULT, 0.5))
        assert crew.collect() == (TASKS[0], RESULT, 0.5)
        time.sleep(0.2)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(crew.collect)

            def again():
                with engine.begin() as connection:
                    return claim(connection, "three", 0.2)

            assert until(again) == second
            task, result, _ = waiting.result(60)
        assert (task, result) == (TASKS[1], Failure("its worker was lost 2 times"))
        with engine.begin() as connection:
            queue.put(connection, second[0], (TASKS[1], RESULT, 0.5))  # too late
            queue.give_back(connection, "one")
            assert claim(connection, "four", 60)[1] == TASKS[2]
        with pytest.raises(SearchError, match=r"no search 'other' in .* takes workers now; there are pared_search_my"):
            remote.search_on(server, "other")
        engine.dispose()
    with pytest.raises(SearchError, match=r"no search in .* takes workers now; start it with"):
        remote.search_on(server)


@slow
@pytest.mark.parametrize("data", [SERIES, classic("wine")], ids=lambda data: data.name)
def test_data_arrive_as_they_were_sent(data):
    told = queue._sent(data)
    there = queue._data(json.loads(told["data"]), told["arrays"])
    assert {**vars(there), "values": 0, "inputs": 0, "target": 0} == {
        **vars(data),
        "values": 0,
        "inputs": 0,
        "target": 0,
    }
    for name in {"values", "inputs", "target"} & vars(data).keys():
        assert (getattr(there, name) == getattr(data, name)).all()


def takes_workers(url):
    try:
        return remote.search_on(url)
    except SearchError:
        return None


@slow
@pytest.mark.timeout(900)
def test_workers_and_drivers_that_die_or_leave_change_nothing(tmp_path, server, alone):
    """One worker is killed at its task, one leaves by Ctrl-C, the driver is killed; the third serves the next one."""
    place = Place(tmp_path / "search-my-seed1", server)
    words = [sys.executable, __file__, place.folder, server.render_as_string()]
    driver, workers = subprocess.Popen(words, env=environment()), []
    try:
        until(lambda: takes_workers(server))
        for _ in range(3):
            workers.append(worker(server))
            until(lambda: workers[-1].pid in holders(server))
            if len(workers) == 1:
                workers[0].kill()
            elif len(workers) == 2:
                began = time.monotonic()
                workers[1].send_signal(signal.SIGINT)
                _, said = workers[1].communicate(timeout=60)
                assert time.monotonic() - began < 30
                assert workers[1].returncode == 130
                assert "given back" in said
                assert "Traceback" not in said
        driver.kill()
        driver.wait()
        kept = len(Book(found_in(place)).keys())
        found = search(SERIES, SPACE, SETTINGS, BASE, place, Queue(0, lease=1))
        told, wrong = workers[2].communicate(timeout=60)
        assert workers[2].returncode == 0, wrong
    finally:
        for each in (driver, *workers):
            each.kill()
            each.wait()
    assert found == alone
    made = Book(found_in(place)).keys()
    untested = [each for each in made if each.stage != "test"]
    assert kept < len(untested) == len(set(untested)) == found.evaluations
    assert re.search(r"The search has ended; [1-9]\d* evaluations were made here", told)


@slow
def test_the_command_says_how_others_take_part_and_goes_on_alone(tmp_path, server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "my.csv")
    (tmp_path / "space.json").write_text(json.dumps(SPACE.as_dict()))
    words = (
        "search",
        "my.csv",
        "--column",
        "value",
        "--trials",
        6,
        "--space",
        "space.json",
        "--epochs",
        2,
        "--jobs",
        1,
    )
    told = ("--engine", "queue", "--book", server.set(password="secret").render_as_string(hide_password=False))
    monkeypatch.setenv("PGPASSWORD", "")
    result = pared(*words, "--trials", 6, *told)
    assert result.exit_code == 0, result.stderr
    assert f"On other machines: pared search-worker {server.render_as_string()}" in result.stderr
    assert "secret" not in result.stderr
    assert pared(*words, "--engine", "queue", "--resume", "--trials", 8).exit_code == 0
    assert pared(*words, "--trials", 8, "--out", "local").exit_code == 0
    here, there = (
        json.loads((tmp_path / each / "search-my-seed0" / "search.json").read_text()) for each in ("local", "runs")
    )
    assert here | {"seconds": 0} == there | {"seconds": 0}


if __name__ == "__main__":  # python test_queue.py FOLDER URL: a driver with no local process
    search(SERIES, SPACE, SETTINGS, BASE, Place(Path(sys.argv[1]), make_url(sys.argv[2])), Queue(0, lease=1))
