"""Writing to the database and reading from it: entries in, entries out, equal."""

from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Table, delete, func, select

from pared.database.connection import reading, writing
from pared.database.entries import Compared, Cut, Entry, Fit, Note, Run, StoreError, Trial
from pared.database.tables import COMPARISONS, CUTS, FITS, NOTES, RUNS, TRIALS

R = TypeVar("R", Run, Trial, Fit, Cut, Compared, Note)
PARTS: dict[str, tuple[type[Any], Table]] = {
    "trials": (Trial, TRIALS),
    "fits": (Fit, FITS),
    "cuts": (Cut, CUTS),
    "comparisons": (Compared, COMPARISONS),
}
"""What belongs to a run: field of `Entry` -> what it holds, and where it is kept."""


def add(url: URL, entry: Entry) -> bool:
    """Keeps an entry, in the place of the one of the same id; notes of the user stay. Whether it is new.

    Raises StoreError where the database cannot be written; what it held is then as it was.
    """
    with writing(url) as connection:
        known = connection.execute(delete(RUNS).where(RUNS.c.id == entry.run.id)).rowcount
        connection.execute(RUNS.insert().values(_row(entry.run)))
        for name, (_, table) in PARTS.items():
            connection.execute(delete(table).where(table.c.run == entry.run.id))
            rows = [_row(part) | {"run": entry.run.id, "place": n} for n, part in enumerate(getattr(entry, name))]
            if rows:
                connection.execute(table.insert(), rows)
        return not known


def runs(url: URL) -> list[Run]:
    """All runs without their parts, newest first. Raises StoreError."""
    with reading(url) as connection:
        rows = connection.execute(select(RUNS).order_by(RUNS.c.begun.desc(), RUNS.c.id)).mappings()
        return [_built(Run, row) for row in rows]


def entry(url: URL, run: Run) -> Entry:
    """A run with its parts. Raises StoreError."""
    with reading(url) as connection:
        return Entry(run, **{name: _parts(connection, run.id, kind, table) for name, (kind, table) in PARTS.items()})


def find(runs: Iterable[Run], start: str) -> Run:
    """The run whose id starts so. Raises StoreError where there is none, or several."""
    found = [run for run in runs if run.id.startswith(start)]
    if len(found) != 1 or not start:
        many = f"{len(found)} runs have ids that start with {start!r}; give more of it"
        raise StoreError(many if found else f"there is no run {start!r}; `pared runs` lists them")
    return found[0]


def notes(url: URL, run: Run) -> list[Note]:
    """What a user wrote about a run, oldest first."""
    with reading(url) as connection:
        return _parts(connection, run.id, Note, NOTES)


def write_note(url: URL, run: Run, text: str) -> None:
    """Adds a note to a run. Raises StoreError."""
    note = Note(run.id, now(), text)
    with writing(url) as connection:
        place = connection.execute(select(func.count()).select_from(NOTES).where(NOTES.c.run == run.id)).scalar_one()
        connection.execute(NOTES.insert().values(_row(note) | {"place": place}))


def now() -> str:
    """This moment, as the database keeps it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _parts(connection: Connection, run: str, kind: type[R], table: Table) -> list[R]:
    rows = connection.execute(select(table).where(table.c.run == run).order_by(table.c.place)).mappings()
    return [_built(kind, row) for row in rows]


def _row(part: Run | Trial | Fit | Cut | Compared | Note) -> dict[str, Any]:
    return {each.name: getattr(part, each.name) for each in fields(part)}


def _built(kind: type[R], row: Any) -> R:
    return kind(**{each.name: row[each.name] for each in fields(kind)})
