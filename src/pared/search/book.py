"""The book of a search: one row an evaluation, kept for good as soon as it is made, in study.db (SQLite) or PostgreSQL.

The rows are what a search goes on from. The same database holds the study as Optuna keeps it, for `optuna-dashboard`.
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
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    text,
)

from pared.search.places import (
    LOCK,
    POINTER,
    Database,
    Place,
    alone,
    clear,
    connecting,
    engine_of,
    found_in,
    in_folder,
    on_server,
    point_to,
    prepare,
)
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

STUDY = "pared"
SECTIONS = ("format", "settings", "base")
"""Of what a search is about: those whose entries go by their own names, as options do."""

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
    """What has been evaluated so far; without a database it is kept in memory alone."""

    def __init__(self, database: Database | None = None) -> None:
        self.database = database
        self.seconds: dict[Key, float] = {}
        self._rows: dict[Key, tuple[Point, Result]] = {}
        self._engine = None if database is None else engine_of(database)
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
        """Keeps a result. Raises SearchError where it cannot be written."""
        self._rows[task.key] = task.point, result
        self.seconds[task.key] = seconds
        if self._engine is not None:
            with clear(self.database), self._engine.begin() as connection:
                connection.execute(_ROWS.insert().values(as_row(task, result, seconds)))

    def mirror(self, trial: "FrozenTrial") -> None:
        """Adds the next trial to the study for the dashboard, unless it is there from before."""
        if self.database is None:
            return
        with clear(self.database), quiet():
            if self._mirror is None:
                self._mirror = _study(self.database)
                self._there = len(self._mirror[0].get_trials(deepcopy=False))
            self._told += 1
            if self._told > self._there:
                self._mirror[0].add_trial(trial)

    def close(self) -> None:
        """Lets go of the database; the last to do so folds a file's write-ahead log into it."""
        if self._mirror is not None:
            self._mirror[1].remove_session()
            self._mirror[1].engine.dispose()
        if self._engine is not None:
            self._engine.dispose()

    def _read(self, engine: Engine) -> None:
        with clear(self.database), engine.connect() as connection:
            for row in connection.execute(_ROWS.select()).mappings():
                found = Key(row["stage"], row["trial"], row["seed"])
                self._rows[found] = json.loads(row["point"]), result_of(row)
                self.seconds[found] = row["seconds"]


@contextmanager
def opened(where: Place | Path | None, about: Mapping[str, Any], objectives: int) -> Iterator[Book]:
    """The book of a folder, new or the one that it has; no other process can open it meanwhile.

    `about` says what is searched, as JSON holds it: data, space, settings.
    Raises: SearchError where the folder has another search, another process works on it, or the database refuses.
    """
    if where is None:
        yield Book()
        return
    place = where if isinstance(where, Place) else Place(where)
    if "?" in str(place.folder):
        raise SearchError(
            f"{place.folder} holds a question mark, which the database would not understand; choose another folder"
        )
    place.folder.mkdir(parents=True, exist_ok=True)
    try:
        with (
            FileLock(place.folder / LOCK, timeout=0),
            _begun(place, about, objectives) as database,
            alone(database),
        ):
            book = Book(database)
            try:
                yield book
            finally:
                book.close()
    except Timeout as error:
        raise SearchError(
            f"another process is at work in {place.folder}; wait for it, or choose another --out"
        ) from error


@contextmanager
def _begun(place: Place, about: Mapping[str, Any], objectives: int) -> Iterator[Database]:
    """The database is there, and about this; the lock goes where it is not."""
    try:
        database = found_in(place)
        if database is None:
            database = _made(place, about, objectives)
        else:
            _check(database, place.folder, about)
        yield database
    finally:
        if not is_begun(place.folder):
            (place.folder / LOCK).unlink(missing_ok=True)


def is_begun(folder: Path) -> bool:
    """Whether a folder has a book, here or elsewhere."""
    return in_folder(folder).is_there or (folder / POINTER).exists()


def about_of(where: Place | Path) -> dict[str, Any] | None:
    """What a folder's search is about; None where it has none. Raises SearchError where its book cannot be read."""
    database = found_in(where if isinstance(where, Place) else Place(where))
    return None if database is None else about_in(database)


def about_in(database: Database) -> dict[str, Any]:
    """What the search of a book is about."""
    with _reading(database) as connection:
        content: dict[str, Any] = json.loads(connection.execute(_ABOUT.select()).mappings().one()["about"])
        return content


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All evaluations in the book of a folder, as plain data. Raises SearchError where it cannot be read."""
    database = found_in(Place(folder))
    if database is None:
        return []
    with _reading(database) as connection:
        return [_plain(row) for row in connection.execute(_ROWS.select()).mappings()]


@contextmanager
def _reading(database: Database) -> Iterator[Connection]:
    engine = engine_of(database)
    try:
        with clear(database), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _plain(row: RowMapping) -> dict[str, Any]:
    read = {name: json.loads(row[name]) if row[name] else None for name in ("point", "result")}
    return {**row, **read, "curves": json.loads(zlib.decompress(row["curves"])) if row["curves"] else None}


def _check(database: Database, folder: Path, about: Mapping[str, Any]) -> None:
    """Raises SearchError where the book is about something else; more or fewer trials are no difference."""
    found = about_in(database)
    if found.get("data") != about.get("data"):
        raise SearchError(
            f"{folder} holds a search of other data ({changed(found.get('data'), about.get('data'))}); give it those "
            "that it was begun with, or start anew: without --resume, or in another folder"
        )
    if {**found, "trials": None} != {**about, "trials": None}:
        raise SearchError(
            f"{folder} holds a search with other settings ({difference(found, about)}); repeat the command that "
            "began it, or start anew: without --resume, or in another folder"
        )
    engine = engine_of(database)
    with clear(database), engine.begin() as connection:
        connection.execute(_ABOUT.update().values(about=json.dumps(about)))
    engine.dispose()


def changed(found: Any, wanted: Any) -> str:
    """How data differ from those that a book is about, in words; of values the book knows but the digest."""
    if not (isinstance(found, Mapping) and isinstance(wanted, Mapping)) or "sha256" not in found.keys() & wanted.keys():
        return difference(found, wanted, "data")
    there, here = found["columns"], wanted["columns"]
    told = [f"{wanted['rows']} rows here, {found['rows']} there"] if wanted["rows"] != found["rows"] else []
    told += [f"column {name!r} only here" for name in here if name not in there]
    told += [f"column {name!r} only there" for name in there if name not in here]
    if told:
        return "; ".join(told)
    if here != there:
        return f"the columns in another order: {', '.join(there)} there, {', '.join(here)} here"
    if found["sha256"] != wanted["sha256"]:
        return f"as many rows and the same columns, but other values in {', '.join(here)}"
    return difference(found, wanted)


def difference(found: Any, wanted: Any, name: str = "format") -> str:
    """The first place where two contents differ, and how."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        for each in {**found, **wanted}:
            if each == "trials":
                continue
            path = each if name in SECTIONS else f"{name} {each}"
            if each not in found or each not in wanted:
                return f"{path}: only {'here' if each in wanted else 'there'}"
            if found[each] != wanted[each]:
                return difference(found[each], wanted[each], path)
    return f"{name}: {found} there, {wanted} here"


def _made(place: Place, about: Mapping[str, Any], objectives: int) -> Database:
    """Makes a book whole or not at all."""
    if place.server is not None:
        return _made_on_server(place, about, objectives)
    database = in_folder(place.folder)
    path = Path(str(database.url.database))
    beside = path.with_suffix(".new")
    _clean(beside)
    try:
        with clear(database):
            _fill(Database(database.url.set(database=str(beside))), about, objectives)
        os.replace(beside, path)
    finally:
        _clean(beside)
    return database


def _made_on_server(place: Place, about: Mapping[str, Any], objectives: int) -> Database:
    database = on_server(place)
    engine = engine_of(database)
    try:
        with clear(database):
            with engine.begin() as connection:
                connection.execute(text(f"CREATE SCHEMA {database.schema}"))
            try:
                _fill(database, about, objectives)
                point_to(database, place.folder)
            except BaseException:  # such as Ctrl-C: half a book would be taken for one
                with engine.begin() as connection:
                    connection.execute(text(f"DROP SCHEMA {database.schema} CASCADE"))
                raise
    finally:
        engine.dispose()
    return database


def _fill(database: Database, about: Mapping[str, Any], objectives: int) -> None:
    """The study and the tables of a new book."""
    import optuna

    with quiet():
        storage = _storage(database)
        optuna.create_study(storage=storage, study_name=STUDY, directions=["minimize"] * objectives)
        storage.engine.dispose()
    engine = engine_of(database)
    _TABLES.create_all(engine)
    with engine.begin() as connection:
        connection.execute(_ABOUT.insert().values(id=1, about=json.dumps(about)))
    engine.dispose()  # the last connection folds a file's write-ahead log into it


def _clean(path: Path) -> None:
    """Removes a file and the journals beside it, which would be applied to the next of its name."""
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def _study(database: Database) -> "tuple[Study, RDBStorage]":
    import optuna

    storage = _storage(database, skip_compatibility_check=True)
    prepare(storage.engine)
    return optuna.load_study(study_name=STUDY, storage=storage), storage


def _storage(database: Database, **options: Any) -> "RDBStorage":
    from optuna.storages import RDBStorage

    url = database.url.render_as_string(hide_password=False)
    return RDBStorage(url, engine_kwargs=connecting(database), **options)


def as_row(task: Task, result: Result, seconds: float) -> dict[str, Any]:
    """An evaluation as columns of a table."""
    row: dict[str, Any] = {**task.key._asdict(), "point": json.dumps(task.point), "seconds": seconds}
    if isinstance(result, Failure):
        return row | {"reason": result.reason, "traceback": result.traceback}
    curves = zlib.compress(json.dumps([dict(each) for each in result.curves]).encode())
    return row | {"result": json.dumps(evaluation_as_dict(result)), "curves": curves}


def result_of(row: RowMapping) -> Result:
    """What came of an evaluation, from the columns of its row."""
    if row["result"] is None:
        return Failure(row["reason"], row["traceback"])
    curves = json.loads(zlib.decompress(row["curves"]))
    plain = tuple({name: tuple(line) for name, line in each.items()} for each in curves)
    return evaluation_from_dict(json.loads(row["result"]), plain)
