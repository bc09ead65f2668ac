"""Opening the database: SQLite in a file by default, another by URL; what it refuses becomes one clear line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from pared.database import versions
from pared.database.entries import StoreError

FILE = "pared.db"
WAIT = 10
"""Seconds to wait for another program that writes, or for a server to answer."""
LOCK = 0x70617265
"""Of PostgreSQL: who holds it writes."""


def located(store: str | None, base: Path) -> URL:
    """The database that is meant: a URL, the path of a SQLite file, or by default pared.db in the folder of the runs.

    Raises StoreError where SQLAlchemy does not know such a URL or its driver is not installed.
    """
    if store is None or "://" not in store:
        path = base if store is None else Path(store)
        return URL.create("sqlite", database=str(path / FILE if store is None or path.is_dir() else path))
    return server_of(store, "--store")


def server_of(text: str, option: str) -> URL:
    """The database that a URL means. Raises StoreError, naming the option, where it cannot be one."""
    try:
        url = make_url(text)
        if url.get_backend_name() == "postgresql" and "+" not in url.drivername:
            url = url.set(drivername="postgresql+psycopg")
        create_engine(url).dispose()
    except ModuleNotFoundError as error:
        package = "'pared[postgres]'" if error.name == "psycopg" else error.name
        raise StoreError(f"{option} {shown(url)} needs the package {error.name}: pip install {package}") from error
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise StoreError(
            f"{option} must be a SQLite file, or a URL such as postgresql://user@host/database; "
            f"SQLAlchemy says: {str(error).splitlines()[0]}"
        ) from error
    return url


def shown(url: URL) -> str:
    """A file's path, else the URL without its password."""
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


@contextmanager
def reading(url: URL) -> Iterator[Connection]:
    """A connection to read by; older tables are upgraded first. Raises StoreError, also where there is no database."""
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise StoreError(
            f"there is no database {shown(url)} yet; `pared run` and other commands make it, `pared runs sync` does so "
            "from their folders"
        )
    with _clear(url), _connected(url, writes=False) as connection:
        if versions.check(connection):
            yield connection
            return
    with writing(url) as connection:
        yield connection


@contextmanager
def writing(url: URL) -> Iterator[Connection]:
    """A connection to write by, alone; all is kept at the end, or nothing. Raises StoreError."""
    with _clear(url), _connected(url, writes=True) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        versions.prepare(connection)
        yield connection


@contextmanager
def _connected(url: URL, writes: bool) -> Iterator[Connection]:
    options: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        options = {"connect_args": {"timeout": WAIT, "isolation_level": None}}
    elif url.get_backend_name() == "postgresql":
        options = {"connect_args": {"connect_timeout": WAIT}}
    engine = create_engine(url, **options)
    if engine.dialect.name == "sqlite":
        if writes:
            Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        begin = "BEGIN IMMEDIATE" if writes else "BEGIN"  # who will write waits at once: readers cannot turn writers
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _clear(url: URL) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError) as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0].removesuffix(".")
        raise StoreError(f"the database {shown(url)} cannot be used: {said}{_advice(said)}") from error


def _advice(said: str) -> str:
    if "locked" in said:
        return f"; another program has been writing to it for {WAIT} seconds"
    if "full" in said or "I/O" in said:
        return "; make room"
    if "readonly" in said or "read-only" in said or "unable to open" in said:
        return "; choose another --store, or allow writing there"
    return ""
