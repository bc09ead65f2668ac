"""The tables of the database, for SQLite, PostgreSQL and whatever else SQLAlchemy speaks to: a column a field."""

import json
import zlib
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, LargeBinary, MetaData, Table, Text, TypeDecorator
from sqlalchemy.engine import Dialect

VERSION = 2
"""Of the tables. A change of them is a new version, with a step in `versions` that upgrades older databases."""


class Words(TypeDecorator[str]):
    """Text; what no database takes (NUL, half a character of UTF-16) is replaced by a question mark."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.replace("\0", "?").encode("utf-8", "replace").decode("utf-8")


class Json(TypeDecorator[Any]):
    """What JSON holds, as text in ASCII."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class Packed(TypeDecorator[Any]):
    """What JSON holds, compressed: the curves of a network, one blob."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:
        return None if value is None else zlib.compress(json.dumps(value).encode())

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(zlib.decompress(value))


METADATA = MetaData()

SCHEMA = Table("pared_schema", METADATA, Column("version", Integer, primary_key=True, autoincrement=False))

RUNS = Table(
    "pared_runs",
    METADATA,
    Column("id", Words, primary_key=True),
    *(Column(name, Words) for name in ("kind", "status", "data", "begun", "task")),
    Column("seed", BigInteger),
    Column("seconds", Float(53)),
    *(Column(name, Words) for name in ("host", "folder", "pared", "torch", "python", "git", "fingerprint", "parent")),
    Column("settings", Json),
    Column("finding", Words),
    Column("remarks", Json),
    Column("error", Words),
    *(Column(name, Float(53)) for name in ("before", "after", "difference", "low", "high")),
    *(Column(name, Words) for name in ("scale", "verdict")),
    *(Column(name, BigInteger) for name in ("parameters_before", "parameters_after")),
    *(Column(name, Words) for name in ("reason", "traceback")),
)


def _of_run(name: str, *columns: Column[Any]) -> Table:
    """Rows of a run, in their order."""
    keys = (Column("run", Words, primary_key=True), Column("place", Integer, primary_key=True, autoincrement=False))
    return Table(name, METADATA, *keys, *columns)


TRIALS = _of_run(
    "pared_trials",
    Column("stage", Words),
    Column("number", BigInteger),
    Column("seed", BigInteger),
    Column("point", Json),
    Column("result", Json),
    Column("curves", Packed),
    Column("seconds", Float(53)),
    Column("reason", Words),
    Column("traceback", Words),
)
FITS = _of_run(
    "pared_fits",
    Column("arm", Words),
    Column("block", BigInteger),
    Column("seed", BigInteger),
    Column("ratio", Float(53)),
    Column("metrics", Json),
    Column("plan", Packed),
    Column("curves", Packed),
)
CUTS = _of_run(
    "pared_cuts",
    Column("label", Words),
    Column("removed", Float(53)),
    Column("parameters", Float(53)),
    Column("chosen", Boolean),
    Column("diverged", Integer),
    Column("comparison", Json),
)
COMPARISONS = _of_run(
    "pared_comparisons",
    *(Column(name, Words) for name in ("first", "second")),
    *(Column(name, Float(53)) for name in ("difference", "low", "high", "p_value", "margin")),
    Column("verdict", Words),
    *(Column(name, Integer) for name in ("pairs", "clusters")),
    Column("scale", Words),
)
NOTES = _of_run("pared_notes", Column("written", Words), Column("text", Words))
