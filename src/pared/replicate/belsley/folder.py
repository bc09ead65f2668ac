"""What a replication consists of, and what of it is finished in a folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pared.replicate import parts
from pared.replicate.belsley.protocol import PROBLEMS, Problem
from pared.replicate.belsley.tasks import Task, run
from pared.types import DataError, Progress

FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """Problems, seeds of each (half as many of those on which variants are chosen), draws of noise: pure data."""

    problems: tuple[Problem, ...] = tuple(PROBLEMS.values())
    seeds: int = 20
    draws: int = 30
    quick: bool = False

    def tasks(self) -> list[Task]:
        """Every task; seeds before problems, so that partial results hold all problems."""
        pairs = product(range(self.seeds), self.problems)
        found = [(seed, problem) for seed, problem in pairs if seed < self.of(problem)]
        return [Task(problem, seed, 0 if problem.choosing else self.draws) for seed, problem in found]

    def of(self, problem: Problem) -> int:
        """How many seeds a problem has."""
        return -(-self.seeds // 2) if problem.choosing else self.seeds

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        plain: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **asdict(self)}))
        return plain


def settings(quick: bool = False, problems: Sequence[str] = (), seeds: int | None = None) -> Settings:
    """Settings by names; nothing named means everything. Raises DataError for unknown names or no seed."""
    if unknown := [name for name in problems if name not in PROBLEMS]:
        raise DataError(f"unknown problem {unknown[0]!r}; choose from {', '.join(PROBLEMS)}")
    if seeds is not None and seeds < 1:
        raise DataError(f"there must be at least 1 seed, got {seeds}")
    chosen = tuple(
        problem
        for name, problem in PROBLEMS.items()
        if name in problems or (not problems and not (quick and problem.choosing))
    )
    return Settings(chosen, seeds or (2 if quick else 20), 10 if quick else 30, quick)


def work(folder: Path, wanted: Settings, jobs: int, progress: Progress = lambda stage, done, total: None) -> None:
    """Does the missing tasks; see `parts.work`."""
    parts.work(folder, "networks", wanted.tasks(), run, jobs, progress)


Results = dict[tuple[str, int], dict[str, Any]]
"""(problem, seed) -> what its task found."""


def finished(folder: Path, wanted: Settings) -> Results:
    """The results there are. Raises DataError where a file is damaged."""
    return {(task.problem.name, task.seed): result for task, result in parts.finished(folder, wanted.tasks())}
