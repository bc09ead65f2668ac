"""The queue of a search: tasks in the PostgreSQL database of its book, for workers on any machine to take.

The driver asks and tells as it does with local workers; tasks travel there and results back, and nothing else. A
worker has a lease on what it takes, and renews it; where it dies, alone or with its machine, the lease runs out, and
the task is given out again. Data travel once, as numbers and JSON: a worker runs no code that the database holds.
"""

import io
import json
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import numpy as np
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Engine,
    Float,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    and_,
    func,
    or_,
    select,
    text,
)

from pared.data import Series
from pared.data import Table as Examples
from pared.data.examples import Encoding
from pared.search.book import about_in, as_row, result_of
from pared.search.places import HELD, Database, clear, engine_of
from pared.search.space import space_from_dict
from pared.search.subject import base_from_dict, fingerprint, subject_of
from pared.search.trials import Call, Failure, Key, SearchError, Task
from pared.search.workers import MOST_DEATHS, Crew, Done, Queue, Warm, warm

QUICKEST, SLOWEST, SHARE = 0.01, 0.5, 0.05
"""Seconds between two looks at the database: this share of the time that nothing happened, within bounds."""
DRIVER = "driver"
RESULT = ("result", "curves", "reason", "traceback", "seconds")

_TABLES = MetaData()
_QUEUE = Table(
    "pared_queue",
    _TABLES,
    Column("id", Integer, primary_key=True),
    Column("driver", String),
    Column("ended", Boolean),
    Column("versions", String),
    Column("lease", Float),
    Column("data", String),
    Column("arrays", LargeBinary),
)
_TASKS = Table(
    "pared_tasks",
    _TABLES,
    Column("id", BigInteger, Identity(), primary_key=True),  # counts on: results of an earlier driver's tasks fit none
    Column("stage", String),
    Column("trial", Integer),
    Column("seed", Integer),
    Column("point", String),
    Column("milestones", String),
    Column("worker", String),
    Column("until", DateTime(timezone=True)),
    Column("deaths", Integer, default=0),
    Column("result", String),
    Column("curves", LargeBinary),
    Column("reason", String),
    Column("traceback", String),
    Column("seconds", Float),
)
_UNDER_WAY = (
    "SELECT n.nspname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'pared_queue' "
    f"WHERE has_schema_privilege(n.oid, 'USAGE') AND {HELD.format(name='n.nspname::text')} ORDER BY 1"
)
_UNMADE = _TASKS.c.seconds.is_(None)


@contextmanager
def queued(call: Call, data: Series | Examples, database: Database, queue: Queue, retries: int) -> Iterator[Crew]:
    """A crew of local processes and of workers elsewhere; what an earlier driver left in the queue is forgotten.

    `call` makes evaluations here; elsewhere it is made anew from `data` and what the book says of the search.
    Raises: SearchError where the database refuses, also when tasks are submitted and collected.
    """
    engine = engine_of(database)
    try:
        with clear(database):
            _TABLES.create_all(engine)
            with engine.begin() as connection:
                connection.execute(_TASKS.delete())
                connection.execute(_QUEUE.delete())
                connection.execute(_QUEUE.insert().values(id=1, lease=queue.lease, **_sent(data)))
        with warm(call, queue.jobs, retries) as local:
            yield _Queued(database, engine, local)
        with clear(database), engine.begin() as connection:
            connection.execute(_QUEUE.update().values(ended=True))
    finally:
        engine.dispose()


class _Queued:
    """What the driver sees: all tasks go through the table, from which local processes take without a lease."""

    def __init__(self, database: Database, engine: Engine, local: Warm) -> None:
        self._database, self._engine, self._local = database, engine, local
        self._finished: deque[Done] = deque()

    def submit(self, task: Task) -> None:
        values = {"point": json.dumps(task.point), "milestones": json.dumps(task.milestones)}
        with clear(self._database), self._engine.begin() as connection:
            connection.execute(_TASKS.insert().values(**task.key._asdict(), **values))

    def collect(self) -> Done:
        began = time.monotonic()
        while not self._finished:
            with clear(self._database), self._engine.begin() as connection:
                _give_out_again(connection)
                self._finished += _finished(connection)
                while self._local.free > 0 and (claimed := claim(connection, DRIVER, None)):
                    self._local.submit(claimed[1])
            if not self._finished and (done := self._local.finished(pause(began))):
                self._forget(done[0].key)
                return done
        return self._finished.popleft()

    def _forget(self, key: Key) -> None:
        own = and_(*(_TASKS.c[name] == value for name, value in key._asdict().items()))
        with clear(self._database), self._engine.begin() as connection:
            connection.execute(_TASKS.delete().where(own))


def pause(since: float) -> float:
    """Seconds to wait where nothing has happened since then."""
    return min(SLOWEST, max(QUICKEST, SHARE * (time.monotonic() - since)))


def claim(connection: Connection, worker: str, lease: float | None) -> tuple[int, Task] | None:
    """The oldest task that waits is this worker's; None where there is none. No two are given the same."""
    waiting = select(_TASKS.c.id).where(_TASKS.c.worker.is_(None), _UNMADE).order_by(_TASKS.c.id).limit(1)
    row = (
        connection.execute(
            _TASKS.update()
            .where(_TASKS.c.id == waiting.with_for_update(skip_locked=True).scalar_subquery())
            .values(worker=worker, until=_until(lease))
            .returning(_TASKS)
        )
        .mappings()
        .first()
    )
    return None if row is None else (row["id"], _task(row))


def renew(connection: Connection, worker: str, lease: float) -> None:
    """This worker is still there."""
    connection.execute(_TASKS.update().where(_TASKS.c.worker == worker, _UNMADE).values(until=_until(lease)))


def give_back(connection: Connection, worker: str) -> None:
    """What this worker has not finished waits for another."""
    connection.execute(_TASKS.update().where(_TASKS.c.worker == worker, _UNMADE).values(worker=None, until=None))


def put(connection: Connection, number: int, done: Done) -> None:
    """The result of a claimed task; nothing where its driver is gone, or another was faster after the lease ran out."""
    row = as_row(*done)
    values = {name: row.get(name) for name in RESULT}
    connection.execute(_TASKS.update().where(_TASKS.c.id == number, _UNMADE).values(**values))


@dataclass(frozen=True)
class State:
    """How a search is: which driver opened its queue, whether it has ended, whether its driver is there."""

    driver: str
    ended: bool
    present: bool


@dataclass(frozen=True)
class Work:
    """What a worker is to do: the call that makes evaluations, how often to try, for how long a task is its own."""

    driver: str
    call: Call
    retries: int
    lease: float


def state(connection: Connection, database: Database) -> State:
    """How the search is now."""
    present = text(HELD.format(name=":schema")).bindparams(schema=database.schema)
    return State(*connection.execute(select(_QUEUE.c.driver, _QUEUE.c.ended, present)).one())


def under_way(connection: Connection) -> list[str]:
    """The schemas of a database whose searches take workers now."""
    return list(connection.execute(text(_UNDER_WAY)).scalars())


def received(connection: Connection, database: Database) -> Work:
    """What is to be done, made from the data in the queue and from the book.

    Raises SearchError where this machine has other versions than the driver.
    """
    row = connection.execute(_QUEUE.select()).mappings().one()
    theirs, here = json.loads(row["versions"]), _versions()
    if theirs != here:
        told = ", ".join(f"{name} {here.get(name)} (the driver: {theirs[name]})" for name in theirs)
        raise SearchError(f"workers need the versions that the driver has; this machine has {told}")
    about = about_in(database)
    data = _data(json.loads(row["data"]), row["arrays"])
    if fingerprint(data) != about["data"]:
        raise SearchError(f"the data in {database} are not those of its search; start the search anew")
    settings, base = about["settings"], base_from_dict(data, about["base"])
    call = subject_of(data, base, tuple(settings["objectives"]), space_from_dict(about["space"]))
    return Work(row["driver"], call, settings["retries"], row["lease"])


def _until(lease: float | None) -> Any:
    """By the clock of the server; a task of the driver itself is held as long as it lives."""
    return None if lease is None else func.now() + timedelta(seconds=lease)


def _give_out_again(connection: Connection) -> None:
    lost = _TASKS.update().where(_UNMADE, _TASKS.c.until < func.now())
    connection.execute(lost.values(worker=None, until=None, deaths=_TASKS.c.deaths + 1))


def _finished(connection: Connection) -> list[Done]:
    """Takes results out of the table, and tasks that so many workers died of."""
    over = or_(_TASKS.c.seconds.is_not(None), _TASKS.c.deaths >= MOST_DEATHS)
    rows = connection.execute(_TASKS.delete().where(over).returning(_TASKS)).mappings()
    return [_done(row) for row in rows]


def _done(row: RowMapping) -> Done:
    if row["seconds"] is None:
        return _task(row), Failure(f"its worker was lost {row['deaths']} times"), 0.0
    return _task(row), result_of(row), row["seconds"]


def _task(row: RowMapping) -> Task:
    milestones = tuple((epoch, bar) for epoch, bar in json.loads(row["milestones"]))
    return Task(Key(row["stage"], row["trial"], row["seed"]), json.loads(row["point"]), milestones)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("pared", "torch", "numpy")}


def _sent(data: Series | Examples) -> dict[str, Any]:
    """Data as the columns of the queue hold them."""
    content = asdict(data)
    arrays = {name: content.pop(name) for name in list(content) if isinstance(content[name], np.ndarray)}
    stored = io.BytesIO()
    np.savez_compressed(stored, **arrays)
    told = {"driver": uuid.uuid4().hex, "ended": False, "versions": json.dumps(_versions())}
    return told | {"data": json.dumps(content), "arrays": stored.getvalue()}


def _data(content: Mapping[str, Any], stored: bytes) -> Series | Examples:
    with np.load(io.BytesIO(stored), allow_pickle=False) as arrays:
        values = {**content, **arrays}
    if "encoding" not in values:
        return Series(**values | {"columns": tuple(values["columns"])})
    own = values["encoding"]
    categories = tuple(tuple(texts) for texts in own["categories"])
    encoding = Encoding(own["target"], tuple(own["classes"]), tuple(own["columns"]), categories)
    return Examples(**values | {"encoding": encoding})
