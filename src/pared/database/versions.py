"""The version of a database's tables: new ones are made at once, older ones upgraded step by step, newer ones refused.

A step is a function of a connection; it runs in one transaction with the others, and no row is lost.
Its SQL is written out, as `tables` goes on to change.
"""

from collections.abc import Callable, Mapping

from sqlalchemy import Connection, inspect, select, text

from pared.database.entries import StoreError
from pared.database.tables import METADATA, SCHEMA, VERSION


def version(connection: Connection) -> int | None:
    """Of the tables that are there; None where there are none."""
    if not inspect(connection).has_table(SCHEMA.name):
        return None
    found: int | None = connection.execute(select(SCHEMA.c.version)).scalar()
    return found


def check(connection: Connection) -> bool:
    """Whether the tables are there and of this version. Raises StoreError where they are of a newer one."""
    found = version(connection)
    if found is not None and found > VERSION:
        raise StoreError(
            f"the database was written by a newer version of pared (its tables are version {found}, this one knows "
            f"{VERSION}); upgrade pared, or choose another --store"
        )
    return found == VERSION


def prepare(connection: Connection) -> None:
    """Makes the tables, or upgrades them. Raises StoreError where they are of a newer version."""
    if check(connection):
        return
    found = version(connection)
    if found is None:
        METADATA.create_all(connection)
        connection.execute(SCHEMA.insert().values(version=VERSION))
        return
    for each in range(found, VERSION):
        STEPS[each](connection)
    connection.execute(SCHEMA.update().values(version=VERSION))


def _origins_and_notes(connection: Connection) -> None:
    """1 -> 2: whose settings a run used, on which data; notes of the user."""
    for column in ("fingerprint", "parent"):
        connection.execute(text(f"ALTER TABLE pared_runs ADD COLUMN {column} TEXT"))
    connection.execute(
        text(
            "CREATE TABLE pared_notes (run TEXT NOT NULL, place INTEGER NOT NULL, written TEXT, text TEXT, "
            "PRIMARY KEY (run, place))"
        )
    )


STEPS: Mapping[int, Callable[[Connection], None]] = {1: _origins_and_notes}
"""From each older version to the next."""
