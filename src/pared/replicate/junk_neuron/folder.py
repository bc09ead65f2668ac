"""The folder of a replication: settings, one file a finished task, so that a stopped run goes on where it stood."""

import json
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from pared.replicate.junk_neuron.protocol import BUDGETS, QUICK, Budget
from pared.replicate.junk_neuron.published import PAPER, SYSTEMS, System
from pared.replicate.junk_neuron.tasks import Task, run
from pared.training.fleet import interrupts_wait
from pared.types import DataError, Progress

FORMAT = 2
SETTINGS, PARTS, RESULTS, REPORT = "settings.json", "parts", "results.json", "report.html"


@dataclass(frozen=True)
class Settings:
    """What a replication consists of: pure data."""

    systems: tuple[System, ...] = PAPER.systems
    budgets: tuple[Budget, ...] = tuple(BUDGETS.values())
    quick: bool = False

    def tasks(self) -> list[Task]:
        """Every task, budget by budget; seeds before systems, so that partial results hold all systems."""
        found = []
        for budget in self.budgets:
            found += [Task(system, budget, None) for system in self.systems]
            found += [Task(system, budget, seed) for seed, system in product(range(budget.seeds), self.systems)]
        return found

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        plain: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **asdict(self)}))
        return plain


def settings(
    quick: bool = False, budgets: Sequence[str] = (), systems: Sequence[str] = (), seeds: int | None = None
) -> Settings:
    """Settings by names; nothing named means everything. Raises DataError for unknown names or no seed."""
    for kind, asked, known in (("budget", budgets, BUDGETS), ("system", systems, SYSTEMS)):
        if unknown := [name for name in asked if name not in known]:
            raise DataError(f"unknown {kind} {unknown[0]!r}; choose from {', '.join(known)}")
    if seeds is not None and seeds < 1:
        raise DataError(f"there must be at least 1 seed, got {seeds}")
    changes: dict[str, Any] = {} if seeds is None else {"seeds": seeds}
    chosen = [
        replace(budget, **(QUICK[name] if quick else {}) | changes)
        for name, budget in BUDGETS.items()
        if name in budgets or not budgets
    ]
    return Settings(tuple(s for s in PAPER.systems if s.name in systems or not systems), tuple(chosen), quick)


def open_folder(folder: Path, wanted: Settings) -> None:
    """Makes the folder of a replication, or checks that an existing one was made with the same settings.

    Raises DataError where it holds something else; OSError where it cannot be made.
    """
    path = folder / SETTINGS
    if path.exists():
        found = _read(path)
        if found != wanted.as_dict():
            raise DataError(
                f"{folder} holds a replication with other settings ({_difference(found, wanted.as_dict())}); repeat "
                "the command that began it, choose another --out, or remove the folder"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} holds other files; choose another --out")
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write(path, wanted.as_dict())


def _difference(found: Any, wanted: Any, name: str = "settings") -> str:
    """The first place where two settings differ, and how."""
    if isinstance(found, dict) and isinstance(wanted, dict) and found.keys() == wanted.keys():
        return next(_difference(found[key], wanted[key], key) for key in found if found[key] != wanted[key])
    if isinstance(found, list) and isinstance(wanted, list) and _names(found) == _names(wanted):
        return next(f"{a['name']}, {_difference(a, b)}" for a, b in zip(found, wanted, strict=True) if a != b)
    return f"{name}: {_names(found)} there, {_names(wanted)} here"


def _names(value: Any) -> str:
    named = isinstance(value, list) and value and all(isinstance(each, dict) and "name" in each for each in value)
    return ", ".join(each["name"] for each in value) if named else str(value)


def work(folder: Path, wanted: Settings, jobs: int, progress: Progress = lambda stage, done, total: None) -> None:
    """Does the missing tasks, `jobs` at a time, and keeps each as it finishes; an interrupt keeps what is finished."""
    tasks = wanted.tasks()
    for budget in wanted.budgets:
        own = [task for task in tasks if task.budget == budget]
        todo = [task for task in own if not _part(folder, task).exists()]
        done = len(own) - len(todo)
        stage = f"budget {budget.name}"
        progress(stage, done, len(own))
        with closing(_each(todo, jobs)) as results:
            for index, result in results:
                write(_part(folder, todo[index]), result)
                done += 1
                progress(stage, done, len(own))


def _each(tasks: Sequence[Task], jobs: int) -> Generator[tuple[int, dict[str, Any]], None, None]:
    if jobs == 1 or len(tasks) < 2:
        yield from ((index, run(task)) for index, task in enumerate(tasks))
        return
    with interrupts_wait():
        results = Parallel(n_jobs=jobs, return_as="generator_unordered")(
            delayed(_numbered)(index, task) for index, task in enumerate(tasks)
        )
    yield from results


def _numbered(index: int, task: Task) -> tuple[int, dict[str, Any]]:
    return index, run(task)


Results = dict[tuple[str, str, int | None], dict[str, Any]]
"""(budget, system, seed) -> what its task found; seed None: the naive forecasters."""


def finished(folder: Path, wanted: Settings) -> Results:
    """The results there are. Raises DataError where a file is damaged."""
    done = [task for task in wanted.tasks() if _part(folder, task).exists()]
    return {(task.budget.name, task.system.name, task.seed): _read(_part(folder, task)) for task in done}


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


def _part(folder: Path, task: Task) -> Path:
    return folder / PARTS / f"{task.name}.json"
