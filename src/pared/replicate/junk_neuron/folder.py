"""What a replication consists of, and what of it is finished in a folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from pared.replicate import parts
from pared.replicate.junk_neuron.protocol import BUDGETS, QUICK, Budget
from pared.replicate.junk_neuron.published import PAPER, SYSTEMS, System
from pared.replicate.junk_neuron.tasks import Task, run
from pared.types import DataError, Progress

FORMAT = 2


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
    """Makes the folder, or checks that it was made with the same settings; see `parts.open_folder`."""
    parts.open_folder(folder, wanted.as_dict())


def work(folder: Path, wanted: Settings, jobs: int, progress: Progress = lambda stage, done, total: None) -> None:
    """Does the missing tasks budget by budget; see `parts.work`."""
    for budget in wanted.budgets:
        own = [task for task in wanted.tasks() if task.budget == budget]
        parts.work(folder, f"budget {budget.name}", own, run, jobs, progress)


Results = dict[tuple[str, str, int | None], dict[str, Any]]
"""(budget, system, seed) -> what its task found; seed None: the naive forecasters."""


def finished(folder: Path, wanted: Settings) -> Results:
    """The results there are. Raises DataError where a file is damaged."""
    found = parts.finished(folder, wanted.tasks())
    return {(task.budget.name, task.system.name, task.seed): result for task, result in found}
