"""A worker of a search that another machine drives: takes tasks from its queue until the search has ended.

Evaluations are made in local processes; this one claims, renews its leases and hands in results.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from pared.search import places, queue
from pared.search.places import Database, Place, engine_of, found_in
from pared.search.queue import State, Work
from pared.search.trials import Key, SearchError
from pared.search.workers import Warm, warm

PATIENCE = 600
"""Seconds to wait for a driver that is gone: it may be started anew with --resume."""
RENEWALS = 3
"""How often a lease is renewed before it would run out."""
clear = partial(places.clear, on="start this worker again")


def search_in(folder: Path) -> Database:
    """The database of the search of a folder. Raises SearchError where no other machine can take part in it."""
    found = found_in(Place(folder))
    if found is None:
        raise SearchError(f"there is no search in {folder}; name its folder, or the database that its --book named")
    if found.schema is None:
        raise SearchError(f"the search in {folder} keeps its book in a file, where no other machine can take part")
    return found


def search_on(server: URL, schema: str | None = None) -> Database:
    """The search that is under way in a PostgreSQL database: the only one, or the one of this schema.

    Raises SearchError where there is none, or several and no schema.
    """
    anywhere = Database(server, "public")
    engine = engine_of(anywhere)
    try:
        with clear(anywhere), engine.connect() as connection:
            found = queue.under_way(connection)
    finally:
        engine.dispose()
    known = server.render_as_string(hide_password=True)
    if not found:
        raise SearchError(
            f"no search in {known} takes workers now; start it with `pared search DATA --engine queue --book URL`"
        )
    if schema is None and len(found) > 1:
        raise SearchError(f"several searches in {known} take workers; choose one with --search: {', '.join(found)}")
    if schema is not None and schema not in found:
        raise SearchError(f"no search {schema!r} in {known} takes workers now; there are {', '.join(found)}")
    return Database(server, schema or found[0])


def take_part(database: Database, jobs: int) -> int:
    """Makes evaluations, `jobs` at a time, until the search has ended; a driver that is started anew is served, too.

    What is under way when this is left, by Ctrl-C perhaps, is given back.
    Returns: how many evaluations were made here.
    Raises: SearchError where the database refuses, the versions differ or the driver does not come back.
    """
    engine = engine_of(database)
    made = 0
    try:
        while True:
            with clear(database), engine.connect() as connection:
                work = queue.received(connection, database)
            worker = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
            with warm(work.call, jobs, work.retries) as local, _lease(engine, worker, work.lease):
                service = _Service(database, engine, work, worker, local)
                now = service.run()
            made += service.made
            if now.ended:
                return made
    finally:
        engine.dispose()


class _Service:
    """Tasks of one driver, from its queue to local processes and back."""

    def __init__(self, database: Database, engine: Engine, work: Work, worker: str, local: Warm) -> None:
        self._database, self._engine, self._work, self._worker = database, engine, work, worker
        self._local = local
        self._numbers: dict[Key, int] = {}
        self.made = 0

    def run(self) -> State:
        """Goes on until the search has ended, or has another driver."""
        present = news = time.monotonic()
        while True:
            with clear(self._database), self._engine.begin() as connection:
                now = queue.state(connection, self._database)
                if now.ended or now.driver != self._work.driver:
                    return now
                while now.present and self._local.free > 0 and self._claim(connection):
                    news = time.monotonic()
            present = time.monotonic() if now.present else present
            if time.monotonic() - present > PATIENCE:
                raise SearchError(f"the driver of {self._database} has been gone for {PATIENCE} s; start both anew")
            if done := self._local.finished(queue.pause(news)):
                with clear(self._database), self._engine.begin() as connection:
                    queue.put(connection, self._numbers.pop(done[0].key), done)
                self.made, news = self.made + 1, time.monotonic()

    def _claim(self, connection: Connection) -> bool:
        found = queue.claim(connection, self._worker, self._work.lease)
        if found is None:
            return False
        number, task = found
        self._numbers[task.key] = number
        self._local.submit(task)
        return True


@contextmanager
def _lease(engine: Engine, worker: str, seconds: float) -> Iterator[None]:
    """A thread renews, by a connection of its own, what this worker has; at the end it is given back."""
    over = threading.Event()

    def renewing() -> None:
        while not over.wait(seconds / RENEWALS):
            with suppress(SQLAlchemyError), engine.begin() as connection:  # whoever claims tells what is wrong
                queue.renew(connection, worker, seconds)

    thread = threading.Thread(target=renewing, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        with suppress(SQLAlchemyError), engine.begin() as connection:  # else the lease runs out
            queue.give_back(connection, worker)
