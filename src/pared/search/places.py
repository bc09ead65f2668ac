"""Where the book of a search lies: study.db (SQLite) in its folder, or a schema of its own in a PostgreSQL database.

study.json in the folder then says where, without the password: that is left to the URL given anew, or to libpq
(PGPASSWORD, ~/.pgpass).
"""

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pared.search.trials import SearchError

FILE, LOCK, POINTER = "study.db", "study.lock", "study.json"
WAIT = 10
"""Seconds to wait for another program that writes, or for a server to answer."""
HELD = (
    "EXISTS (SELECT FROM pg_locks JOIN pg_database d ON d.oid = database AND d.datname = current_database() "
    "WHERE locktype = 'advisory' AND objsubid = 1 AND granted "
    "AND objid::bigint = hashtext({name})::bigint & 4294967295)"
)
"""Of PostgreSQL: whether somebody is `alone` with the book in the schema of this name."""
FOR_LONG = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
"""A server whose machine has been gone for a minute is given up."""
GONE = ("-c tcp_keepalives_idle=30", "-c tcp_keepalives_interval=10", "-c tcp_keepalives_count=3")
"""A server lets go of the book when the machine that held it was gone for a minute."""


@dataclass(frozen=True)
class Place:
    """Where a search is kept: its folder, and the PostgreSQL database of its book, unless that lies in the folder."""

    folder: Path
    server: URL | None = None


@dataclass(frozen=True)
class Database:
    """The database of one book: a SQLite file, or a schema of PostgreSQL."""

    url: URL
    schema: str | None = None

    @property
    def is_there(self) -> bool:
        """Whether the file exists; of a schema only its server knows."""
        return self.schema is not None or Path(str(self.url.database)).exists()

    def __str__(self) -> str:
        if self.schema is None:
            return str(self.url.database)
        return f"{self.url.render_as_string(hide_password=True)} (schema {self.schema})"


def found_in(place: Place) -> Database | None:
    """The book that the folder has; None where it has none.

    Raises SearchError where study.json is damaged or names another database than the one that is given.
    """
    if (place.folder / FILE).exists():
        if place.server is not None:
            raise SearchError(f"the book of this search is {place.folder / FILE}; go on without --book")
        return in_folder(place.folder)
    path = place.folder / POINTER
    if not path.exists():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        known, schema = make_url(told["url"]), str(told["schema"])
    except (OSError, ValueError, KeyError, TypeError, ArgumentError) as error:
        raise SearchError(f"{path} does not say where the book of this search lies; restore a copy") from error
    if place.server is not None and without_password(place.server) != without_password(known):
        raise SearchError(f"the book of this search is {Database(known, schema)}; leave --book out, or name that")
    return Database(place.server or known, schema)


def in_folder(folder: Path) -> Database:
    """study.db, there or not."""
    return Database(URL.create("sqlite", database=str(folder / FILE)))


def on_server(place: Place) -> Database:
    """A schema for the book of a new search, called after the folder and by lot."""
    assert place.server is not None
    name = re.sub(r"[^a-z0-9]", "_", place.folder.name.lower())[:40]
    return Database(place.server, f"pared_{name}_{secrets.token_hex(4)}")


def point_to(database: Database, folder: Path) -> None:
    """Writes study.json, whole or not at all."""
    url = without_password(database.url).render_as_string()
    beside = folder / f"{POINTER}.new"
    beside.write_text(json.dumps({"url": url, "schema": database.schema}), encoding="utf-8")
    os.replace(beside, folder / POINTER)


def without_password(url: URL) -> URL:
    """A URL as it may be written down."""
    plain = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
    return plain.difference_update_query(["password"])


def connecting(database: Database) -> dict[str, Any]:
    """How SQLAlchemy connects to a book: one that waits does so for `WAIT` seconds."""
    if database.schema is None:
        return {"connect_args": {"timeout": WAIT}}
    own = (f"-c search_path={database.schema}", f"-c lock_timeout={WAIT}s", *GONE)
    given = database.url.query.get("options", ())
    words = [*([given] if isinstance(given, str) else given), *own]
    return {"connect_args": {"connect_timeout": WAIT, "options": " ".join(words), **FOR_LONG}}


def engine_of(database: Database) -> Engine:
    """Connections to a book, or to any database of PostgreSQL."""
    engine = create_engine(database.url, **connecting(database))
    prepare(engine)
    return engine


def prepare(engine: Engine) -> None:
    """Of SQLite: readers do not wait for the writer, and a commit survives the death of this process."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _journal)


def _journal(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


@contextmanager
def alone(database: Database) -> Iterator[None]:
    """No other process, on whatever machine, works on a book in PostgreSQL; a file's folder has a lock of its own."""
    if database.schema is None:
        yield
        return
    engine = engine_of(database)
    try:
        with ExitStack() as held:
            with clear(database):
                connection = held.enter_context(engine.connect()).execution_options(isolation_level="AUTOCOMMIT")
                connection.execute(text("SELECT pg_advisory_lock(hashtext(:name))"), {"name": database.schema})
            yield
    finally:
        engine.dispose()


@contextmanager
def clear(database: Database | None, on: str = "go on with --resume; finished trials are kept") -> Iterator[None]:
    """What a database refuses becomes one line that says what to do, and how to go `on` then."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, SQLAlchemyError | OSError) and type(error).__name__ != "StorageInternalError":
            raise
        said = str(getattr(error, "orig", None) or error.__cause__ or error).strip().splitlines()[0]
        raise SearchError(f"{database} cannot be used ({said}); {_advice(said, database, on)}") from error


def _advice(said: str, database: Database | None, on: str) -> str:
    if "locked" in said or "lock timeout" in said:
        return f"another program writes to it: close that, and {on}"
    if "full" in said or "I/O" in said or "No space" in said:
        return f"make room, and {on}"
    if database is not None and database.schema is not None:
        return f"see that the server is there and lets you in, and {on}"
    return "restore a copy, or start anew"
