"""From what the tasks found to shares that can go, mean curves with intervals, and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from pared.evaluation import compare
from pared.replicate.belsley.folder import Results
from pared.replicate.belsley.protocol import LEVELS, Array, Problem

Measure = Literal["kept", "path", "spread", "distortion"]

UP_TO = {"spread": 80, "distortion": 50}
"""Per cent removed up to which noise is averaged; beyond, networks become constant, which no noise moves."""


@dataclass(frozen=True)
class Sample:
    """All finished results of one problem, seed by seed."""

    problem: Problem
    results: Sequence[Mapping[str, Any]]

    def values(self, way: str, kind: str) -> Array:
        """(seeds, levels) of "quality", (seeds, levels, noise levels) of others; NaN where the network is constant."""
        return np.array([result["ways"][way][kind] for result in self.results], dtype=float)

    def each(self, way: str, measure: Measure) -> Array:
        """(seeds,): the share that can go, quality averaged over the path, or noise over removal and noise levels."""
        if measure == "path":
            return np.asarray(self.values(way, "quality").mean(axis=1))
        if measure == "kept":
            return np.array([removable(self.problem, row) for row in self.values(way, "quality")], dtype=float)
        rows = [place for place, level in enumerate(LEVELS) if level <= UP_TO[measure]]
        return np.asarray(np.nanmean(self.values(way, measure)[:, rows, 1:], axis=(1, 2)))


def samples(results: Results, problems: Sequence[Problem]) -> list[Sample]:
    """The problems of which anything is finished."""
    found = [
        (problem, [result for (name, _), result in results.items() if name == problem.name]) for problem in problems
    ]
    return [Sample(problem, each) for problem, each in found if each]


def removable(problem: Problem, quality: Sequence[float] | Array) -> int:
    """The highest level of removal before the first at which the measure leaves its margin.

    The margin is around the whole network's measure: accuracy >= a_0 - 3 points, RMSE <= 1.1 e_0.
    """
    values = np.asarray(quality, dtype=float)
    if problem.task == "classes":
        outside = values < values[0] - problem.margin - 1e-9
    else:
        outside = values > values[0] * (1 + problem.margin) * (1 + 1e-9)
    return LEVELS[int(outside.argmax()) - 1] if outside.any() else LEVELS[-1]


def interval(values: Array) -> dict[str, Any]:
    """Mean over seeds and its 95 % t interval; None where one seed gives none."""
    return {key: found[0] for key, found in bands(values[:, None]).items()}


def difference(sample: Sample, measure: Measure, first: str, second: str) -> dict[str, Any]:
    """Mean of first - second over seeds, paired, with its 95 % t interval and the p value of no difference."""
    pair = sample.each(first, measure), sample.each(second, measure)
    there = np.isfinite(pair[0]) & np.isfinite(pair[1])
    found = compare(pair[0][there], pair[1][there], margin=1.0, scale="linear")
    return {**interval((pair[0] - pair[1])[there]), "p": found.p_value, "seeds": int(there.sum())}


def bands(values: Array) -> dict[str, list[float | None]]:
    """Means over seeds (first axis) of values (seeds, levels), and their 95 % t intervals."""
    seeds, mean = len(values), values.mean(axis=0)
    if seeds < 2:
        return {"value": mean.tolist(), "low": [None] * len(mean), "high": [None] * len(mean)}
    half = stats.t.ppf(0.975, seeds - 1) * values.std(axis=0, ddof=1) / np.sqrt(seeds)
    return {"value": mean.tolist(), "low": (mean - half).tolist(), "high": (mean + half).tolist()}


def surface(values: Array) -> list[list[float | None]]:
    """Mean over seeds of (seeds, levels, noise levels), None where all networks are constant."""
    there = np.isfinite(values)
    totals, counts = np.where(there, values, 0.0).sum(axis=0), there.sum(axis=0)
    return [
        [float(f"{t / c:.4g}") if c else None for t, c in zip(*row, strict=True)]
        for row in zip(totals, counts, strict=True)
    ]


def nearest_noise(spreads: Array, published: float) -> int:
    """Which noise level gives the whole network (seeds, levels, noise levels) the spread that the paper draws."""
    return 1 + int(np.abs(spreads[:, 0, 1:].mean(axis=0) - published).argmin())
