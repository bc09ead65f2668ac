"""From rows to paired differences: which networks a cell of a table means, and how two cells compare."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from pared.evaluation import compare
from pared.replicate.junk_neuron.arms import READINGS, Arm, Order, Treatment, arm, below, relative
from pared.replicate.junk_neuron.folder import Results
from pared.replicate.junk_neuron.measures import Metrics
from pared.replicate.junk_neuron.published import System

MARGIN = 1.0
"""Points of free-running direction accuracy that a network may lose and still count as good."""
RATIO_MARGIN = 0.05
"""Share of NRMSE likewise."""

COUNTS = ("hits", "free_hits")
MEASURES = ("direction", "hits", "free", "free_hits", "nrmse", "vpt")

Member = tuple[int, int]
"""(block, seed): networks of one member share data, and where possible their start."""
Group = Mapping[Member, Metrics]


@dataclass(frozen=True)
class Amount:
    """How many units go: by a rule ("one", "quarter", "half"), or as at the paper's threshold number `place`.

    "published": as many as in the paper there; "below": as many as lie below it in the network at hand.
    """

    rule: Literal["one", "quarter", "half", "published", "below"]
    place: int = 0

    def units(self, system: System, index: Sequence[float]) -> int:
        """Units of the first layer that go, from a network whose junk index this is."""
        if self.rule == "published":
            return system.deleted[self.place]
        if self.rule == "below":
            return below(index, system)[self.place]
        return relative(system)[("one", "quarter", "half").index(self.rule)]


ONE, QUARTER, HALF = Amount("one"), Amount("quarter"), Amount("half")


@dataclass(frozen=True)
class Cell:
    """The networks of one treatment, order and amount; of retraining the order only says whose threshold counts."""

    treatment: Treatment
    order: Order = ""
    amount: Amount | None = None


FULL, TWIN, LONGER = Cell("base"), Cell("reseeded"), Cell("trained_on")


@dataclass(frozen=True)
class Sample:
    """All finished results of one budget and system."""

    system: System
    results: Sequence[tuple[int, Mapping[str, Any]]]
    _groups: dict[Cell, Group] = field(default_factory=dict)

    @cached_property
    def measured(self) -> dict[tuple[Member, Arm], Metrics]:
        """The measures of every network."""
        found = {}
        for seed, result in self.results:
            for row in result["rows"]:
                metrics = {key: row[key] for key in row if key not in ("block", *Arm._fields)}
                found[(row["block"], seed), Arm(row["treatment"], row["order"], row["deleted"])] = metrics
        return found

    @cached_property
    def index(self) -> dict[Member, Mapping[str, Sequence[float]]]:
        """The junk index of every full network, by reading."""
        return {(each["block"], seed): each for seed, result in self.results for each in result["index"]}

    def group(self, cell: Cell) -> Group:
        """The networks that a cell means."""
        if cell not in self._groups:
            self._groups[cell] = self._find(cell)
        return self._groups[cell]

    def _find(self, cell: Cell) -> Group:
        found = {}
        for member, index in self.index.items():
            deleted = 0
            if cell.amount is not None:
                reading = cell.order if cell.order in READINGS else "out"
                deleted = cell.amount.units(self.system, index[reading])
            own = Arm(cell.treatment) if cell.amount is None else arm(cell.treatment, cell.order, deleted)
            found[member] = self.measured[member, own]
        return found


def samples(results: Results, budget: str, systems: Sequence[System]) -> list[Sample]:
    """The samples of a budget; systems without a finished task are left out."""
    found = []
    for system in systems:
        own = sorted(
            (seed, result)
            for (b, s, seed), result in results.items()
            if (b, s) == (budget, system.name) and seed is not None
        )
        if own:
            found.append(Sample(system, own))
    return found


@dataclass(frozen=True)
class Difference:
    """A paired difference: of free-running accuracy in points, positive where the first is better, or a ratio of NRMSE.

    The interval (95 %) is over clusters, blocks of a system, after averaging the pairs within each.
    """

    value: float
    low: float | None
    high: float | None
    verdict: str
    pairs: int
    clusters: int


def accuracy_difference(all_samples: Sequence[Sample], first: Cell, second: Cell, measure: str = "free") -> Difference:
    """First minus second, in points, pooled over systems: every block of every system has equal weight."""
    a, b, clusters = _paired(all_samples, first, second, measure)
    scale = 100 / 14 if measure.endswith("hits") else 100.0
    found = compare(-scale * np.array(a), -scale * np.array(b), MARGIN, clusters, "linear")
    low, high = _known(-found.high), _known(-found.low)
    return Difference(-found.difference, low, high, found.verdict, found.pairs, found.clusters)


def error_ratio(all_samples: Sequence[Sample], first: Cell, second: Cell) -> Difference:
    """NRMSE of the first over that of the second, geometric mean, pooled over systems."""
    a, b, clusters = _paired(all_samples, first, second, "nrmse")
    found = compare(a, b, RATIO_MARGIN, clusters, "log")
    low, high = _known(found.ratio_low), _known(found.ratio_high)
    return Difference(found.ratio, low, high, found.verdict, found.pairs, found.clusters)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _paired(
    all_samples: Sequence[Sample], first: Cell, second: Cell, measure: str
) -> tuple[list[float], list[float], list[Hashable]]:
    """Values of both cells and the cluster of each pair; pairs of which one diverged are left out."""
    a: list[float] = []
    b: list[float] = []
    clusters: list[Hashable] = []
    for sample in all_samples:
        ours, theirs = sample.group(first), sample.group(second)
        for member, metrics in ours.items():
            one, other = metrics[measure], theirs[member][measure]
            if one is not None and other is not None:
                a.append(one)
                b.append(other)
                clusters.append((sample.system.name, member[0]))
    return a, b, clusters


def pooled_hits(sample: Sample, cell: Cell, measure: str) -> dict[int, int]:
    """Seed -> right directions of the paper's count over all blocks, k of 14 a block."""
    found: dict[int, int] = {}
    for (_, seed), metrics in sample.group(cell).items():
        found[seed] = found.get(seed, 0) + round(metrics[measure] or 0)
    return found


@dataclass(frozen=True)
class Rule:
    """The paper's rule, best of thresholds minus the full network (points), and the same where nothing differs.

    `gain` and `twin` are means over `trials` (a seed of a system is one); `positive` and `twin_positive` the shares of
    trials with a gain; `excess` is gain minus twin with its interval over trials.
    """

    gain: float
    positive: float
    twin: float
    twin_positive: float
    excess: float
    low: float | None
    high: float | None
    trials: int


def best_of_thresholds(all_samples: Sequence[Sample], measure: str) -> Rule:
    """Applies the rule to smaller networks of the published sizes, and to as many re-seeded full networks.

    gain = max_t k_t - k_full, with k of `measure` summed over blocks; the twin of seed s takes the re-seeded networks
    of seeds s, s + 1, ... instead of the smaller ones: as many of them as there are thresholds, at most all seeds.
    Trials share these, so that the interval is a little too narrow.
    """
    gains: list[float] = []
    twins: list[float] = []
    for sample in all_samples:
        full, twin = pooled_hits(sample, FULL, measure), pooled_hits(sample, TWIN, measure)
        places = range(len(sample.system.thresholds))
        smaller = [pooled_hits(sample, Cell("scratch", "", Amount("published", place)), measure) for place in places]
        points = 100 / (14 * len({block for block, _ in sample.index}))
        seeds = sorted(full)
        for at, seed in enumerate(seeds):
            others = [seeds[(at + place) % len(seeds)] for place in places]
            gains.append(points * (max(each[seed] for each in smaller) - full[seed]))
            twins.append(points * (max(twin[other] for other in others) - full[seed]))
    return _rule(np.array(gains), np.array(twins))


def _rule(gains: Any, twins: Any) -> Rule:
    found = compare(gains, twins, 1.0, scale="linear")
    return Rule(
        gain=float(gains.mean()),
        positive=float((gains > 0).mean()),
        twin=float(twins.mean()),
        twin_positive=float((twins > 0).mean()),
        excess=found.difference,
        low=_known(found.low),
        high=_known(found.high),
        trials=found.pairs,
    )


def best_threshold(sample: Sample) -> dict[str, float]:
    """The threshold whose published size counts most one-step directions, ties to the first: mean, lowest and highest
    over seeds."""
    thresholds = sample.system.thresholds
    cells = [Cell("scratch", "", Amount("published", place)) for place in range(len(thresholds))]
    hits = [pooled_hits(sample, cell, "hits") for cell in cells]
    best = [thresholds[int(np.argmax([each[seed] for each in hits]))] for seed in hits[0]]
    return {"mean": float(np.mean(best)), "low": min(best), "high": max(best)}


@dataclass(frozen=True)
class Level:
    """How good forecasters are, over all blocks and seeds; accuracies in per cent.

    `hits` and `free_hits` are the paper's counts, k of 14 a block, one step ahead and free-running; `spread` and
    `free_spread` their standard deviations over seeds. `direction` counts all one-step directions against the last true
    value, `free` all free runs; `worst` is the lowest block's `free`. `nrmse` is a geometric mean, `vpt` in steps.
    """

    hits: float
    spread: float | None
    free_hits: float
    free_spread: float | None
    direction: float
    free: float
    worst: float
    nrmse: float | None
    vpt: float
    networks: int


def level(group: Group) -> Level:
    """The level of a group of forecasters."""
    table = {key: np.array([metrics[key] for metrics in group.values()], dtype=np.float64) for key in MEASURES}
    blocks, seeds = (np.array(each) for each in zip(*group, strict=True))
    hits, free_hits = ([100 / 14 * table[key][seeds == s].mean() for s in np.unique(seeds)] for key in COUNTS)
    nrmse = table["nrmse"][np.isfinite(table["nrmse"])]
    return Level(
        hits=float(np.mean(hits)),
        spread=float(np.std(hits, ddof=1)) if len(hits) > 1 else None,
        free_hits=float(np.mean(free_hits)),
        free_spread=float(np.std(free_hits, ddof=1)) if len(hits) > 1 else None,
        direction=float(100 * table["direction"].mean()),
        free=float(100 * table["free"].mean()),
        worst=float(min(100 * table["free"][blocks == block].mean() for block in np.unique(blocks))),
        nrmse=float(np.exp(np.log(nrmse).mean())) if len(nrmse) else None,
        vpt=float(table["vpt"].mean()),
        networks=len(group),
    )


def naive(results: Results, budget: str, system: System) -> dict[str, Level]:
    """The naive forecasters' levels; none where their task is not finished."""
    rows = results.get((budget, system.name, None), {"rows": []})["rows"]
    names = dict.fromkeys(row["forecaster"] for row in rows)
    return {name: level({(row["block"], 0): row for row in rows if row["forecaster"] == name}) for name in names}
