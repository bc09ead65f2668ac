"""What the database keeps of a run: plain data, as JSON holds it. Times are ISO 8601 in UTC, durations seconds."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pared.types import DataError

Kind = Literal["run", "search", "comparison", "replication", "diagnosis", "retuning", "distillation"]
Status = Literal["finished", "interrupted", "failed"]
Curves = dict[str, list[float | None]]
"""Losses per epoch, under "train" and "validation"; None where one is no finite number."""


class StoreError(DataError):
    """The database cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Run:
    """One call of a command: what it was told, what it came to, where and on what.

    `error` names the error that `before` (the full network; of a search: the settings to beat; of a retuning: the old
    model) and `after` (the smaller one; the winner; the challenger) are of, on test data. `difference`, `low` and
    `high` compare the two: after minus before, of log errors on the scale "log", of errors on "linear". Of a size,
    weights that are zero do not count where single weights were removed. `fingerprint` is the SHA-256 of the data,
    `git` the commit of the working directory, `parent` the run whose settings it used; `reason` and `traceback` say why
    it failed.
    """

    id: str
    kind: str
    status: str
    data: str
    begun: str
    task: str | None = None
    seed: int | None = None
    seconds: float | None = None
    host: str | None = None
    folder: str | None = None
    pared: str | None = None
    torch: str | None = None
    python: str | None = None
    git: str | None = None
    fingerprint: str | None = None
    parent: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    finding: str | None = None
    remarks: list[str] = field(default_factory=list)
    error: str | None = None
    before: float | None = None
    after: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    scale: str | None = None
    verdict: str | None = None
    parameters_before: int | None = None
    parameters_after: int | None = None
    reason: str | None = None
    traceback: str | None = None


@dataclass(frozen=True)
class Trial:
    """An evaluation of a search: the point, what it gave (None where it failed), the losses of each block's network."""

    stage: str
    number: int
    seed: int
    point: dict[str, Any]
    result: dict[str, Any] | None = None
    curves: list[Curves] | None = None
    seconds: float | None = None
    reason: str | None = None
    traceback: str | None = None


@dataclass(frozen=True)
class Fit:
    """A network of a run: its arm, block and seed, the share that was removed and how, its figures, its losses."""

    arm: str
    block: int
    seed: int
    ratio: float | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    plan: dict[str, Any] | None = None
    curves: Curves | None = None


@dataclass(frozen=True)
class Cut:
    """A rule that was tried on validation data: how much it removes, and how it compares to the full network."""

    label: str
    removed: float | None
    parameters: float | None
    chosen: bool
    diverged: int = 0
    comparison: dict[str, Any] | None = None


@dataclass(frozen=True)
class Compared:
    """A paired comparison on test data; a negative difference = the first has the smaller error."""

    first: str
    second: str
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    margin: float | None
    verdict: str
    pairs: int
    clusters: int
    scale: str


@dataclass(frozen=True)
class Entry:
    """All that the database keeps of a run."""

    run: Run
    trials: list[Trial] = field(default_factory=list)
    fits: list[Fit] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    comparisons: list[Compared] = field(default_factory=list)


@dataclass(frozen=True)
class Note:
    """What a user wrote about a run, and when."""

    run: str
    written: str
    text: str
