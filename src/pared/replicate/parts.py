"""The folder of a replication: settings, one file a finished task, so that a stopped run goes on where it stood."""

import json
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, TypeVar

from joblib import Parallel, delayed

from pared.training.fleet import interrupts_wait
from pared.types import DataError, Progress

SETTINGS, PARTS, RESULTS, REPORT = "settings.json", "parts", "results.json", "report.html"


class Named(Protocol):
    """A task: its name is that of the file of its results."""

    @property
    def name(self) -> str: ...


Task = TypeVar("Task", bound=Named)
Run = Callable[[Task], dict[str, Any]]


def open_folder(folder: Path, wanted: dict[str, Any]) -> None:
    """Makes the folder of a replication, or checks that an existing one has the same settings or a part of them.

    What is added to a list of named things, or to the number of seeds, is done beside what the folder holds already.
    Raises DataError where it holds something else; OSError where it cannot be made.
    """
    path = folder / SETTINGS
    if path.exists():
        found = _read(path)
        if not _extends(wanted, found):
            raise DataError(
                f"{folder} holds a replication with other settings ({_difference(found, wanted)}); repeat "
                "the command that began it, choose another --out, or remove the folder"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} holds other files; choose another --out")
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    write(path, wanted)


def _extends(wanted: Any, found: Any, name: str = "") -> bool:
    """Whether settings hold all that others do, and otherwise only named things and seeds more."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return wanted.keys() == found.keys() and all(_extends(wanted[key], found[key], key) for key in found)
    if _named(wanted) and _named(found):
        own = {each["name"]: each for each in wanted}
        return all(each["name"] in own and _extends(own[each["name"]], each) for each in found)
    return bool(wanted >= found if name == "seeds" else wanted == found)


def _difference(found: Any, wanted: Any, name: str = "settings") -> str:
    """The first place where two settings differ, and how."""
    if isinstance(found, dict) and isinstance(wanted, dict) and found.keys() == wanted.keys():
        return next(_difference(found[key], wanted[key], key) for key in found if found[key] != wanted[key])
    if isinstance(found, list) and isinstance(wanted, list) and _names(found) == _names(wanted):
        return next(f"{a['name']}, {_difference(a, b)}" for a, b in zip(found, wanted, strict=True) if a != b)
    return f"{name}: {_names(found)} there, {_names(wanted)} here"


def _names(value: Any) -> str:
    return ", ".join(each["name"] for each in value) if _named(value) else str(value)


def _named(value: Any) -> bool:
    """Whether it is a list of things with names."""
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) and "name" in each for each in value)


def work(folder: Path, stage: str, tasks: Sequence[Task], run: Run[Task], jobs: int, progress: Progress) -> None:
    """Does the missing tasks, `jobs` at a time, and keeps each as it finishes; an interrupt keeps what is finished."""
    todo = [task for task in tasks if not _part(folder, task).exists()]
    done = len(tasks) - len(todo)
    progress(stage, done, len(tasks))
    with closing(_each(todo, run, jobs)) as results:
        for index, result in results:
            write(_part(folder, todo[index]), result)
            done += 1
            progress(stage, done, len(tasks))


def _each(tasks: Sequence[Task], run: Run[Task], jobs: int) -> Generator[tuple[int, dict[str, Any]], None, None]:
    if jobs == 1 or len(tasks) < 2:
        yield from ((index, run(task)) for index, task in enumerate(tasks))
        return
    with interrupts_wait():
        results = Parallel(n_jobs=jobs, return_as="generator_unordered")(
            delayed(_numbered)(index, task, run) for index, task in enumerate(tasks)
        )
    yield from results


def _numbered(index: int, task: Task, run: Run[Task]) -> tuple[int, dict[str, Any]]:
    return index, run(task)


def finished(folder: Path, tasks: Sequence[Task]) -> list[tuple[Task, dict[str, Any]]]:
    """The tasks that are done and their results. Raises DataError where a file is damaged."""
    return [(task, _read(_part(folder, task))) for task in tasks if _part(folder, task).exists()]


def write(path: Path, content: Any) -> None:
    """Writes JSON as a whole or not at all."""
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(beside, path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is damaged: {error}; remove it and run again") from error


def _part(folder: Path, task: Named) -> Path:
    return folder / PARTS / f"{task.name}.json"
