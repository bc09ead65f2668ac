"""The book: what was evaluated comes back; what changed, is locked, full or damaged is told in one line."""

import shutil
import sqlite3
from contextlib import closing

import optuna
import pytest
from filelock import FileLock
from sqlalchemy import make_url

import postgres
from pared.search import Float, SearchError, SearchSettings, Space, book, places, search
from pared.search.book import opened
from pared.search.places import FILE, LOCK, POINTER, Place, found_in
from pared.search.trials import Evaluation, Failure, Key, Task
from searching import SPACE, noisy

ABOUT = {"format": 1, "space": {"a": 1}, "settings": {"seed": 0}, "trials": 9}
TASK = Task(Key("confirm", 7, 3), {"lr": 0.1, "kind": "deep"})
slow = pytest.mark.slow  # a new file takes Optuna a third of a second
RESULTS = [
    Evaluation((0.1 + 0.2, float("inf")), (0.25, 0.5), {5: 0.7}, True, ({"train": (1.0, float("nan"))}, {})),
    Failure("ValueError: no", "Traceback: ..."),
]


def test_results_come_back(tmp_path):
    tasks = [Task(Key("confirm", number, 3), TASK.point) for number in range(len(RESULTS))]
    with opened(tmp_path, ABOUT, 1) as first:
        for task, result in zip(tasks, RESULTS, strict=True):
            first.write(task, result, 0.5)
    with opened(tmp_path, ABOUT, 1) as second:
        assert repr([second.find(task) for task in tasks]) == repr(RESULTS)  # NaN is not itself
        assert second.find(Task(Key("confirm", 7, 4), {})) is None
        assert second.seconds == {task.key: 0.5 for task in tasks}


@slow
def test_another_point_under_the_same_number_is_refused(tmp_path):
    with opened(tmp_path, ABOUT, 1) as own:
        own.write(TASK, RESULTS[0], 0.5)
        with pytest.raises(SearchError, match=r"trial 7 was .*go on with the former versions, or start anew"):
            own.find(Task(TASK.key, {"lr": 0.2}))


@slow
def test_a_changed_search_is_refused_and_more_trials_are_not(tmp_path):
    with opened(tmp_path, ABOUT, 1):
        pass
    with opened(tmp_path, ABOUT | {"trials": 12}, 1):
        pass
    assert book.about_of(tmp_path) == ABOUT | {"trials": 12}
    changed = ABOUT | {"settings": {"seed": 1}}
    with pytest.raises(SearchError, match=r"with other settings \(seed: 0 there, 1 here\).*start anew"):
        opened(tmp_path, changed, 1).__enter__()


@slow
def test_a_search_of_a_changed_space_is_refused(tmp_path):
    search(noisy, SPACE, SearchSettings(3), folder=tmp_path)
    wider = Space({**SPACE.parameters, "lr": Float(1e-5, 1e-1, log=True)})
    with pytest.raises(SearchError, match=r"low: 0\.0001 there, 1e-05 here"):
        search(noisy, wider, SearchSettings(3), folder=tmp_path)


def test_two_processes_cannot_work_on_one_search(tmp_path):
    with FileLock(tmp_path / LOCK), pytest.raises(SearchError, match="another process is at work in"):
        opened(tmp_path, ABOUT, 1).__enter__()


def test_a_locked_file_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "WAIT", 0.1)
    with opened(tmp_path, ABOUT, 1) as own, closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SearchError, match=r"locked\); another program writes to it.*--resume") as told:
            own.write(TASK, RESULTS[0], 0.5)
        assert "\n" not in str(told.value)
        other.rollback()
        own.write(Task(Key("search", 0, 0), {}), RESULTS[1], 0.1)  # and it goes on


@slow
def test_a_full_disk_is_one_clear_line_and_finished_trials_are_kept(tmp_path, monkeypatch):
    journal = places._journal

    def small(connection, record):
        journal(connection, record)
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0] + 2}")

    with opened(tmp_path, ABOUT, 1):
        pass
    monkeypatch.setattr(places, "_journal", small)
    large = Failure("ValueError", "x" * 1500)
    written = 0
    with opened(tmp_path, ABOUT, 1) as own:
        try:
            while True:
                own.write(Task(Key("search", written, 0), {}), large, 0.1)
                written += 1
        except SearchError as error:
            told = str(error)
    monkeypatch.undo()
    assert "full); make room, and go on with --resume" in told
    assert written > 0
    with opened(tmp_path, ABOUT, 1) as own:
        assert [own.find(Task(Key("search", place, 0), {})) for place in range(written)] == [large] * written


def test_a_damaged_file_is_one_clear_line(tmp_path):
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(SearchError, match=r"cannot be used \(file is not a database\); restore a copy, or start anew"):
        opened(tmp_path, ABOUT, 1).__enter__()


@slow
def test_what_was_begun_and_not_finished_is_begun_anew(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path, ABOUT, 1).__enter__()
    assert list(tmp_path.iterdir()) == []
    with opened(tmp_path, ABOUT, 1) as own:
        assert own.keys() == []


@slow
def test_optuna_finds_the_trials_in_the_same_file(tmp_path):
    found = search(noisy, SPACE, SearchSettings(12), folder=tmp_path)
    search(noisy, SPACE, SearchSettings(12), folder=tmp_path)  # adds nothing
    assert {path.name for path in tmp_path.iterdir()} == {FILE, LOCK}
    study = optuna.load_study(study_name="pared", storage=f"sqlite:///{tmp_path / FILE}")
    assert [trial.value for trial in study.trials] == [trial.values[0] for trial in found.trials]
    with closing(sqlite3.connect(tmp_path / FILE)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.fixture(scope="module")
def server():
    with postgres.database() as url:
        yield make_url(url)


@slow
def test_results_come_back_from_postgresql_and_no_password_is_written(tmp_path, server):
    place = Place(tmp_path / "search-my-seed0", server.set(password="secret"))
    with opened(place, ABOUT, 1) as first:
        first.write(TASK, RESULTS[0], 0.5)
        with pytest.raises(SearchError, match="another process is at work in"):
            opened(place, ABOUT, 1).__enter__()
    assert {path.name for path in place.folder.iterdir()} == {LOCK, POINTER}
    assert all(b"secret" not in path.read_bytes() for path in place.folder.iterdir())
    assert "secret" not in f"{place} {found_in(place)!r} {found_in(place)}"
    with opened(place.folder, ABOUT, 1) as second:  # study.json says where
        assert repr(second.find(TASK)) == repr(RESULTS[0])
    with pytest.raises(SearchError, match=r"the book of this search is .*leave --book out, or name that"):
        opened(Place(place.folder, server.set(database="other")), ABOUT, 1).__enter__()
    with pytest.raises(SearchError, match=r"seed: 0 there, 1 here"):
        opened(place, ABOUT | {"settings": {"seed": 1}}, 1).__enter__()


@slow
def test_a_copy_of_the_folder_is_no_second_search(tmp_path, server, monkeypatch):
    monkeypatch.setattr(places, "WAIT", 1)
    with opened(Place(tmp_path / "one", server), ABOUT, 1):
        shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=shutil.ignore_patterns(LOCK))
        with pytest.raises(SearchError, match=r"lock timeout\); another program writes to it"):
            opened(tmp_path / "two", ABOUT, 1).__enter__()


@slow
def test_a_server_that_is_not_there_is_one_clear_line_and_leaves_nothing(tmp_path):
    place = Place(tmp_path, make_url("postgresql+psycopg://pared:secret@127.0.0.1:1/none"))
    with pytest.raises(SearchError, match=r"cannot be used \(.*\); see that the server is there") as told:
        opened(place, ABOUT, 1).__enter__()
    assert "secret" not in str(told.value)
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []
