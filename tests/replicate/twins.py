"""Naive twins of the replication's analysis, written as the formulas read, and results made up for them."""

import math
import random

from scipy import stats

from pared.replicate.junk_neuron.published import SYSTEMS, System

TOY = SYSTEMS["logistic-3.9"]


def toy_results(system: System, blocks: int, seeds: int) -> dict:
    """(budget, system, seed) -> what a task would find: random figures, every arm that the tables ask for."""
    rng = random.Random(0)
    counts = range(1, system.units)
    arms = [("base", "", 0), ("reseeded", "", 0), ("trained_on", "", 0)]
    arms += [(kind, "", count) for kind in ("scratch", "equal_compute") for count in counts]
    orders = ("out", "in", "random", "largest")
    arms += [(kind, order, count) for kind in ("surgery", "refit") for order in orders for count in counts]
    results = {}
    for seed in range(seeds):
        rows = [
            {"block": block, "treatment": kind, "order": order, "deleted": count, **_figures(rng)}
            for block in range(blocks)
            for kind, order, count in arms
        ]
        index = [
            {"block": block, **{r: [rng.uniform(0.085, 0.2) for _ in range(system.units)] for r in ("out", "in")}}
            for block in range(blocks)
        ]
        gate = [[rng.uniform(-1, 1) for _ in range(system.units)] for _ in range(system.units)]
        results["ten", system.name, seed] = {
            "rows": rows, "index": index, "gate": gate, "seconds": {"wall": 1.0, "processor": 1.0},
        }  # fmt: skip
    results["ten", system.name, None] = {
        "rows": [{"block": b, "forecaster": name, **_figures(rng)} for name in ("flip", "ar") for b in range(blocks)],
        "seconds": {"wall": 1.0, "processor": 1.0},
    }
    return results


def _figures(rng: random.Random) -> dict[str, float]:
    return {
        "direction": rng.random(), "hits": float(rng.randint(0, 14)), "free": rng.random(),
        "free_hits": float(rng.randint(0, 14)), "nrmse": rng.uniform(0.1, 1.0), "vpt": rng.uniform(0, 200),
    }  # fmt: skip


def figure(results: dict, seed: int, block: int, arm: tuple[str, str, int], name: str) -> float:
    """One number of one network."""
    rows = results["ten", TOY.name, seed]["rows"]
    found = next(r for r in rows if (r["block"], r["treatment"], r["order"], r["deleted"]) == (block, *arm))
    return found[name]


def below(results: dict, seed: int, block: int, reading: str, threshold: float) -> int:
    """Units of a network whose index lies under the threshold."""
    (found,) = [each for each in results["ten", TOY.name, seed]["index"] if each["block"] == block]
    return min(len([value for value in found[reading] if value < threshold]), TOY.units - 1)


def interval(means: list[float]) -> tuple[float, float, float]:
    """Mean of cluster means and its 95 % t interval."""
    n = len(means)
    mean = sum(means) / n
    sd = math.sqrt(sum((each - mean) ** 2 for each in means) / (n - 1))
    half = stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n)
    return mean, mean - half, mean + half
