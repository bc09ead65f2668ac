"""The book of a search: study.db (SQLite), one row an evaluation, kept for good as soon as it is made.

The rows are what a search goes on from. The same file holds the study as Optuna keeps it, for `optuna-dashboard`.
"""

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from sqlalchemy import (
    Column,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    create_engine,
    event,
)
from sqlalchemy.exc import SQLAlchemyError

from pared.search.samplers import quiet
from pared.search.space import Point, key
from pared.search.trials import (
    Failure,
    Key,
    Result,
    SearchError,
    Task,
    evaluation_as_dict,
    evaluation_from_dict,
)

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

FILE, LOCK = "study.db", "study.lock"
STUDY = "pared"
WAIT = 10
"""Seconds to wait for another program that writes to the file."""

_TABLES = MetaData()
_ABOUT = Table("pared_search", _TABLES, Column("id", Integer, primary_key=True), Column("about", String))
_ROWS = Table(
    "pared_evaluations",
    _TABLES,
    Column("stage", String, primary_key=True),
    Column("trial", Integer, primary_key=True),
    Column("seed", Integer, primary_key=True),
    Column("point", String),
    Column("result", String),
    Column("curves", LargeBinary),
    Column("reason", String),
    Column("traceback", String),
    Column("seconds", Float),
)


class Book:
    """What has been evaluated so far; without a file it is kept in memory alone."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.seconds: dict[Key, float] = {}
        self._rows: dict[Key, tuple[Point, Result]] = {}
        self._engine = None if path is None else _engine(path)
        self._mirror: tuple[Study, RDBStorage] | None = None
        self._told = self._there = 0
        if self._engine is not None:
            self._read(self._engine)

    def find(self, task: Task) -> Result | None:
        """What came of a task before. Raises SearchError where that was at another point."""
        if task.key not in self._rows:
            return None
        point, result = self._rows[task.key]
        if key(point) != key(task.point):
            raise SearchError(
                f"the search cannot go on: trial {task.key.trial} was {point}, and the versions that are installed now "
                f"propose {task.point}; go on with the former versions, or start anew"
            )
        return result

    def keys(self) -> list[Key]:
        """Everything that was evaluated."""
        return list(self._rows)

    def write(self, task: Task, result: Result, seconds: float) -> None:
        """Keeps a result. Raises SearchError where the file cannot be written."""
        self._rows[task.key] = task.point, result
        self.seconds[task.key] = seconds
        if self._engine is not None:
            with _clear(self.path), self._engine.begin() as connection:
                connection.execute(_ROWS.insert().values(_as_row(task, result, seconds)))

    def mirror(self, trial: "FrozenTrial") -> None:
        """Adds the next trial to the study for the dashboard, unless it is there from before."""
        if self.path is None:
            return
        with _clear(self.path), quiet():
            if self._mirror is None:
                self._mirror = _study(self.path)
                self._there = len(self._mirror[0].get_trials(deepcopy=False))
            self._told += 1
            if self._told > self._there:
                self._mirror[0].add_trial(trial)

    def close(self) -> None:
        """Lets go of the file; the last to do so folds its write-ahead log into it."""
        if self._mirror is not None:
            self._mirror[1].remove_session()
            self._mirror[1].engine.dispose()
        if self._engine is not None:
            self._engine.dispose()

    def _read(self, engine: Engine) -> None:
        with _clear(self.path), engine.connect() as connection:
            for row in connection.execute(_ROWS.select()).mappings():
                found = Key(row["stage"], row["trial"], row["seed"])
                self._rows[found] = json.loads(row["point"]), _result(row)
                self.seconds[found] = row["seconds"]


@contextmanager
def opened(folder: Path | None, about: Mapping[str, Any], objectives: int) -> Iterator[Book]:
    """The book of a folder, new or the one that lies there; no other process can open it meanwhile.

    `about` says what is searched, as JSON holds it: data, space, settings.
    Raises: SearchError where the folder holds another search, another process works on it, or the file is damaged.
    """
    if folder is None:
        yield Book()
        return
    path = folder / FILE
    if "?" in str(path):
        raise SearchError(
            f"{path} holds a question mark, which the database would not understand; choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0), _begun(path, about, objectives):
            book = Book(path)
            try:
                yield book
            finally:
                book.close()
    except Timeout as error:
        raise SearchError(f"another process is at work in {folder}; wait for it, or choose another --out") from error


@contextmanager
def _begun(path: Path, about: Mapping[str, Any], objectives: int) -> Iterator[None]:
    """The file is there, and about this; the lock goes where it is not."""
    try:
        if path.exists():
            _check(path, about)
        else:
            _create(path, about, objectives)
        yield
    finally:
        if not path.exists():
            path.with_name(LOCK).unlink(missing_ok=True)


def about_of(folder: Path) -> dict[str, Any] | None:
    """What a folder's search is about; None where it holds none. Raises SearchError where its file is damaged."""
    path = folder / FILE
    if not path.exists():
        return None
    engine = _engine(path)
    try:
        with _clear(path), engine.connect() as connection:
            content: dict[str, Any] = json.loads(connection.execute(_ABOUT.select()).mappings().one()["about"])
            return content
    finally:
        engine.dispose()


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All evaluations that a folder's file holds, as plain data. Raises SearchError where it is damaged."""
    path = folder / FILE
    engine = _engine(path)
    try:
        with _clear(path), engine.connect() as connection:
            return [_plain(row) for row in connection.execute(_ROWS.select()).mappings()]
    finally:
        engine.dispose()


def _plain(row: RowMapping) -> dict[str, Any]:
    read = {name: json.loads(row[name]) if row[name] else None for name in ("point", "result")}
    return {**row, **read, "curves": json.loads(zlib.decompress(row["curves"])) if row["curves"] else None}


def _check(path: Path, about: Mapping[str, Any]) -> None:
    """Raises SearchError where the file is about something else; more or fewer trials are no difference."""
    found = about_of(path.parent) or {}
    if {**found, "trials": None} != {**about, "trials": None}:
        raise SearchError(
            f"{path.parent} holds a search with other settings ({difference(found, about)}); repeat the command that "
            "began it, or start anew: without --resume, or in another folder"
        )
    engine = _engine(path)
    with _clear(path), engine.begin() as connection:
        connection.execute(_ABOUT.update().values(about=json.dumps(about)))
    engine.dispose()


def difference(found: Any, wanted: Any, name: str = "format") -> str:
    """The first place where two contents differ, and how."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for each in {**found, **wanted}:
            if each == "trials":
                continue
            if each not in found or each not in wanted:
                return f"{each}: only {'here' if each in wanted else 'there'}"
            if found[each] != wanted[each]:
                return difference(found[each], wanted[each], each)
    return f"{name}: {found} there, {wanted} here"


def _create(path: Path, about: Mapping[str, Any], objectives: int) -> None:
    """Makes the file whole or not at all."""
    import optuna

    beside = path.with_suffix(".new")
    _clean(beside)
    try:
        with _clear(path), quiet():
            storage = optuna.storages.RDBStorage(f"sqlite:///{beside}")
            optuna.create_study(storage=storage, study_name=STUDY, directions=["minimize"] * objectives)
            storage.engine.dispose()
            engine = _engine(beside)
            _TABLES.create_all(engine)
            with engine.begin() as connection:
                connection.execute(_ABOUT.insert().values(id=1, about=json.dumps(about)))
            engine.dispose()  # the last connection folds the write-ahead log into the file
        os.replace(beside, path)
    finally:
        _clean(beside)


def _clean(path: Path) -> None:
    """Removes a file and the journals beside it, which would be applied to the next of its name."""
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def _study(path: Path) -> "tuple[Study, RDBStorage]":
    import optuna

    storage = optuna.storages.RDBStorage(
        f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": WAIT}}, skip_compatibility_check=True
    )
    event.listen(storage.engine, "connect", _prepare)
    return optuna.load_study(study_name=STUDY, storage=storage), storage


def _engine(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": WAIT})
    event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: Any, _record: Any) -> None:
    """Readers do not wait for the writer, and a commit survives the death of this process."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


@contextmanager
def _clear(path: Path | None) -> Iterator[None]:
    """What a database refuses becomes one line that says what to do."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, SQLAlchemyError | OSError) and type(error).__name__ != "StorageInternalError":
            raise
        text = str(getattr(error, "orig", None) or error.__cause__ or error).splitlines()[0]
        advice = "restore a copy, or start anew"
        if "locked" in text:
            advice = "another program writes to it: close that, and go on with --resume; finished trials are kept"
        elif "full" in text or "I/O" in text:
            advice = "make room, and go on with --resume; finished trials are kept"
        raise SearchError(f"{path} cannot be used ({text}); {advice}") from error


def _as_row(task: Task, result: Result, seconds: float) -> dict[str, Any]:
    row: dict[str, Any] = {**task.key._asdict(), "point": json.dumps(task.point), "seconds": seconds}
    if isinstance(result, Failure):
        return row | {"reason": result.reason, "traceback": result.traceback}
    curves = zlib.compress(json.dumps([dict(each) for each in result.curves]).encode())
    return row | {"result": json.dumps(evaluation_as_dict(result)), "curves": curves}


def _result(row: RowMapping) -> Result:
    if row["result"] is None:
        return Failure(row["reason"], row["traceback"])
    curves = json.loads(zlib.decompress(row["curves"]))
    plain = tuple({name: tuple(line) for name, line in each.items()} for each in curves)
    return evaluation_from_dict(json.loads(row["result"]), plain)
