"""Rows of the page "What works, measured": one a method and data set, kept as results/growth_<part>.json."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from facts import machine, write

Verdict = Literal["better", "not inferior", "inferior", "no effect", "inconclusive"]


@dataclass(frozen=True)
class Row:
    """A method against its control, paired by seed.

    `effect` is the mean over seeds of method minus control in `measure`, which names its unit and says which way is
    better ("test accuracy, points, higher is better"); `low` and `high` are the ends of its 95 % interval. Costs are
    mean seconds of one training. `note` holds what the numbers do not say. Raises ValueError for an interval that
    does not hold its effect, fewer than two seeds and unknown verdicts.
    """

    method: str
    source: str
    data: str
    seeds: int
    measure: str
    effect: float
    low: float
    high: float
    control: str
    cost_seconds: float
    control_cost_seconds: float
    verdict: Verdict
    note: str = ""

    def __post_init__(self) -> None:
        if not self.low <= self.effect <= self.high:
            raise ValueError(f"the interval must hold the effect, got {self.low}, {self.effect}, {self.high}")
        if self.seeds < 2:
            raise ValueError(f"an interval needs at least 2 seeds, got {self.seeds}")
        if self.verdict not in get_args(Verdict):
            raise ValueError(f"unknown verdict {self.verdict!r}; choose one of {', '.join(get_args(Verdict))}")


def write_rows(rows: Sequence[Row], part: str, *packages: str) -> None:
    """To results/growth_<part>.json, or the path on the command line, with the facts of the machine."""
    write({"machine": machine("torch", *packages), "rows": [asdict(row) for row in rows]}, f"growth_{part}")


def read_rows(path: Path) -> list[Row]:
    """The rows of one results file; ValueError names the file where they are not in this format."""
    try:
        return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name} is not a file of rows: {error}; write it with write_rows") from error
