"""Commands that enter what they do into the database, at their end and also where they fail; the folder comes first."""

import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape
from sqlalchemy import URL

from pared.data import Series, Table
from pared.database import provenance
from pared.database.entries import Entry, Kind
from pared.database.folders import entry_of, run_of
from pared.database.keeping import add
from pared.database.provenance import Provenance
from pared.job import B, Job
from pared.search.subject import fingerprint
from pared.terminal import INTERRUPTED, err
from pared.types import DataError


@dataclass(frozen=True)
class Work:
    """What a command is about to do, on which data, and the database that this is entered into.

    `settings`, `task` and `seed` are kept where it fails before its folder says them.
    """

    kind: Kind
    data: str
    database: URL
    task: str | None = None
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None
    parent: str | None = None


def of_job(kind: Kind, job: Job[B], database: URL, data: Series | Table, parent: str | None = None) -> Work:
    """The work on a job, made of these data."""
    return Work(
        kind=kind,
        data=job.name,
        database=database,
        task=job.config.task.name,
        seed=job.config.seed,
        settings=job.head["settings"],
        fingerprint=fingerprint(data)["sha256"],
        parent=parent,
    )


@contextmanager
def registered(work: Work, folder: Path | None) -> Iterator[dict[str, Any]]:
    """Enters into the database what is done inside, as finished, interrupted or failed, and what the folder holds then.

    Without a folder the entry holds the fields of `Run` that are put into the mapping it yields.

    Input that is refused before anything is done, and an interrupt that leaves nothing, are not entered. Whatever is
    wrong with the database costs one line on the screen, never the result.
    """
    made, started = provenance.fresh(work.kind, work.data), time.perf_counter()
    made = replace(made, fingerprint=work.fingerprint, parent=work.parent)
    told = {"task": work.task, "seed": work.seed, "settings": dict(work.settings)}
    try:
        yield told
    except BaseException as error:
        made = replace(_ended(made, error), seconds=time.perf_counter() - started)
        if _is_worth_it(folder, error):
            _finish(work.database, made, told, folder)
        raise
    made = replace(made, status="finished", seconds=time.perf_counter() - started)
    _finish(work.database, made, told, folder)


def parent_of(file: Path | None) -> str | None:
    """The id of the run that left this file of settings; None where it is not known."""
    own = provenance.read(file.parent) if file else None
    return own.id if own else None


def enter(database: URL, entry: Entry, later: str) -> None:
    """Keeps an entry; where that fails, says so in one line, and what can be done later."""
    try:
        add(database, entry)
    except Exception as error:  # whatever it is, it must not cost the result
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        err.print(
            f"[yellow]Note:[/] not entered into the list of runs: {escape(said)}. {escape(later)}", soft_wrap=True
        )


def _ended(made: Provenance, error: BaseException) -> Provenance:
    if isinstance(error, KeyboardInterrupt) or (isinstance(error, typer.Exit) and error.exit_code == INTERRUPTED):
        return replace(made, status="interrupted")
    text = "".join(traceback.format_exception(error))
    said = str(error).splitlines()
    reason = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    return replace(made, reason=reason, traceback=text)


def _is_worth_it(folder: Path | None, error: BaseException) -> bool:
    """Whether something is left, or it was more than refused input or an early interrupt."""
    return _holds_something(folder) or not isinstance(error, DataError | KeyboardInterrupt | typer.Exit)


def _holds_something(folder: Path | None) -> bool:
    return folder is not None and folder.is_dir() and any(folder.iterdir())


def _finish(database: URL, made: Provenance, told: dict[str, Any], folder: Path | None) -> None:
    if folder is None or not _holds_something(folder):
        enter(database, Entry(replace(run_of(made), **told)), "Nothing else is lost.")
        return
    made = _continued(folder, made)
    later = f"Everything is kept in {folder}; enter it later: pared runs add {folder}"
    enter(database, _entry(made, told, folder), later)


def _continued(folder: Path, made: Provenance) -> Provenance:
    """What goes on in a folder is the same run; its time is added up."""
    before = provenance.read(folder)
    if before is None:
        return made
    return replace(made, id=before.id, begun=before.begun, parent=before.parent, seconds=before.seconds + made.seconds)


def _entry(made: Provenance, told: dict[str, Any], folder: Path) -> Entry:
    try:
        provenance.write(folder, made)
        return entry_of(folder)
    except (DataError, OSError):  # half a folder: of a failure, or of a full disk
        return Entry(replace(run_of(made), **told, folder=str(folder.resolve())))
