"""What is left of networks' quality where criteria said what goes: the figures, and paired comparisons of them."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Literal

from pared.evaluation import Comparison
from pared.evaluation.paired import FEWEST_CLUSTERS
from pared.outcomes import Metrics, Yardstick

What = Literal["units", "weights"]
Repair = Literal["plain", "compensated", "refitted"]
Standing = Literal["better", "worse", "open"]
REPAIRS: tuple[Repair, ...] = ("plain", "compensated", "refitted")
RANDOM = "random"
MARKS: dict[Standing, str] = {"better": "+", "worse": "−", "open": ""}


@dataclass(frozen=True)
class Scored:
    """A criterion's scores of one network: processor `seconds` they took, or why there are none (`refusal`).

    `unscored` are the groups (or parameters) that it says nothing of: there the yardstick's random order counts.
    `alike` are those in which all scores are equal, so that the lower index goes first.
    """

    criterion: str
    network: int
    seconds: float
    refusal: str | None = None
    unscored: tuple[str, ...] = ()
    alike: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """Test metrics of one network after one removal; `draw` counts the random orders."""

    criterion: str
    network: int
    ratio: float
    repair: Repair
    metrics: Metrics
    draw: int = 0


@dataclass(frozen=True)
class CriteriaComparison:
    """Criteria beside each other, on the same networks; printed, it is a table for each repair.

    `blocks` and `full` hold the block of every network and its test metrics before anything is removed. `needs` says
    what a criterion costs, by its own docstring. Pairs share a network; networks of one block are one cluster.
    """

    what: What
    criteria: tuple[str, ...]
    ratios: tuple[float, ...]
    yardstick: Yardstick
    blocks: tuple[int, ...]
    full: tuple[Metrics, ...]
    needs: dict[str, str]
    scored: tuple[Scored, ...]
    kept: tuple[Kept, ...]

    def against_full(self, criterion: str, ratio: float, repair: Repair) -> Comparison | None:
        """Error after the removal (first) and before it (second); None where there is no pair."""
        own = self._found.get((criterion, ratio, repair), ())
        pairs = [(each.metrics, self.full[each.network], self.blocks[each.network]) for each in own]
        return self.yardstick.compared(pairs, "test")

    def against_random(self, criterion: str, ratio: float, repair: Repair) -> Comparison | None:
        """Error under the criterion (first) and under every random order of the same network (second)."""
        return self.against(criterion, RANDOM, ratio, repair)

    def against(self, criterion: str, other: str, ratio: float, repair: Repair) -> Comparison | None:
        """Error under one criterion (first) and another (second) on the same networks; None where there is no pair."""
        own, others = (self._found.get((name, ratio, repair), ()) for name in (criterion, other))
        pairs = [(a.metrics, b.metrics, self.blocks[a.network]) for a in own for b in others if a.network == b.network]
        return self.yardstick.compared(pairs, "test")

    def standing(self, criterion: str, ratio: float, repair: Repair) -> Standing:
        """Whether the whole interval against random lies on one side; open with fewer than 5 blocks.

        A criterion after which a network diverged is not better.
        """
        found = self.against_random(criterion, ratio, repair)
        if criterion == RANDOM or found is None or found.clusters < FEWEST_CLUSTERS:
            return "open"
        if found.high < 0:
            return "open" if self.diverged(criterion, ratio, repair) else "better"
        return "worse" if found.low > 0 else "open"

    def diverged(self, criterion: str, ratio: float, repair: Repair) -> int:
        """Networks without a finite error: they are in no comparison."""
        return sum("diverged" in each.metrics for each in self._found.get((criterion, ratio, repair), ()))

    def seconds(self, criterion: str) -> float | None:
        """Median processor time of the scores of one network; None where there are none."""
        times = [each.seconds for each in self.scored if each.criterion == criterion and each.refusal is None]
        return median(times) if times else None

    def refusals(self) -> dict[tuple[str, str], int]:
        """(criterion, why it gave no scores) -> for how many networks."""
        found: dict[tuple[str, str], int] = {}
        for each in self.scored:
            if each.refusal is not None:
                key = each.criterion, each.refusal
                found[key] = found.get(key, 0) + 1
        return found

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """The repairs that there are figures of."""
        return tuple(repair for repair in REPAIRS if any(each.repair == repair for each in self.kept))

    @property
    def compared(self) -> tuple[str, ...]:
        """The criteria that there are figures of, random first."""
        known = {each.criterion for each in self.kept}
        return tuple(name for name in (RANDOM, *self.criteria) if name in known)

    @cached_property
    def _found(self) -> dict[tuple[str, float, Repair], list[Kept]]:
        found: dict[tuple[str, float, Repair], list[Kept]] = {}
        for each in self.kept:
            found.setdefault((each.criterion, each.ratio, each.repair), []).append(each)
        return found

    def __str__(self) -> str:
        measure = "error over the full network's" if self.yardstick.scale == "log" else "points of accuracy gained"
        lines = [
            f"Test {measure} [{100 * self.yardstick.level:g} % interval over {len(set(self.blocks))} blocks] after "
            f"removing a share of the {self.what}; + better, − worse than random"
        ]
        for repair in self.repairs:
            head = [repair, *(f"{100 * ratio:g} % " for ratio in self.ratios)]
            lines += ["", *_aligned([head, *(self._row(name, repair) for name in self.compared)])]
        lines += ["", *self._costs()]
        reasons: dict[str, list[str]] = {}
        for (name, why), count in self.refusals().items():
            reasons.setdefault(f"for {count} of {len(self.blocks)} networks: {why}", []).append(name)
        lines += [f"\nNo scores of {', '.join(names)} {why}" for why, names in reasons.items()]
        return "\n".join(lines)

    def _row(self, name: str, repair: Repair) -> list[str]:
        cells = []
        for ratio in self.ratios:
            mark = MARKS[self.standing(name, ratio, repair)]
            cells.append(shown(self.against_full(name, ratio, repair)) + (mark or " "))
        return [name, *cells]

    def _costs(self) -> Iterator[str]:
        """Seconds and needs, these up to where conditions begin."""
        times = [self.seconds(name) for name in self.compared]
        cells = ["seconds", *("" if seconds is None else f"{seconds:.2g}" for seconds in times)]
        needs = ["and what they take", *(self.needs[name].split("; ")[0].split(". ")[0] for name in self.compared)]
        rows = _aligned(list(zip(["cost of scores", *self.compared], cells, strict=True)))
        return (f"{row}  {text}".rstrip() for row, text in zip(rows, needs, strict=True))


def shown(found: Comparison | None) -> str:
    """1.32 [1.10, 1.58]; of classes, points of accuracy: -0.3 [-0.9, +0.4]; no interval where it is infinite."""
    if found is None:
        return "–"
    if found.scale == "log":
        middle, low, high = (_significant(value) for value in (found.ratio, found.ratio_low, found.ratio_high))
    else:
        middle, low, high = (_points(-100 * value) for value in (found.difference, found.high, found.low))
    return f"{middle} [{low}, {high}]" if math.isfinite(found.high) else middle


def _significant(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def _points(value: float) -> str:
    return f"{value:+.1f}" if abs(value) >= 0.05 else "0.0"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as their widest cell, the first on the left, the others on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([f"{first:<{widths[0]}}", *cells]).rstrip()
