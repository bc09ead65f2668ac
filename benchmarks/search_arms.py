"""The searches that benchmarks/search.py compares: pared's default, and each method as manuals show it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pared.search import Point, SearchSettings, Space, grid, search
from pared.search.samplers import suggested

Function = Callable[[Point, int], float]
"""A point and a seed, 0 for the one that all searches compare points on -> the error."""


@dataclass(frozen=True)
class Chosen:
    """What a search ends with: the point, the error that it reports, and all points in the order they were tried."""

    point: Point
    reported: float
    tried: list[Point]


Arm = Callable[[Space, Function, int, int, int], Chosen]
"""Space, function, number of evaluations, seed, how many at a time -> what is chosen."""


def ours(space: Space, function: Function, trials: int, seed: int, at_a_time: int) -> Chosen:
    """pared's default: four fifths of the evaluations search, a fifth confirms the best on two fresh seeds."""

    def train(point: Point, own: int) -> float:
        assert 0 <= own - seed <= 2
        return function(point, own - seed)

    found = search(train, space, SearchSettings(trials, seed=seed, lag=at_a_time))
    assert found.evaluations <= trials
    assert found.confirmed
    return Chosen(found.point, found.confirmed.expected, [trial.point for trial in found.trials])


def plain(make: Callable[[int], Any]) -> Arm:
    """Optuna: ask, tell, and the best trial; at a time = asked for before the first of them is told."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def run(space: Space, function: Function, trials: int, seed: int, at_a_time: int) -> Chosen:
        study = optuna.create_study(sampler=make(seed))
        tried: list[Point] = []
        while len(tried) < trials:
            asked = [study.ask() for _ in range(min(at_a_time, trials - len(tried)))]
            points = [suggested(trial, space) for trial in asked]
            tried += points
            for trial, point in zip(asked, points, strict=True):
                study.tell(trial, function(point, 0))
        return Chosen(tried[study.best_trial.number], study.best_value, tried)

    return run


def gridded(space: Space, function: Function, trials: int, seed: int, at_a_time: int) -> Chosen:
    """Cells of a grid of the ends and the middle of every range, in a random order, as many as there may be."""
    points = grid(space, 3)
    order = np.random.default_rng(seed).permutation(len(points))[:trials]
    tried = [points[place] for place in order]
    errors = [function(point, 0) for point in tried]
    best = int(np.argmin(errors))
    return Chosen(tried[best], errors[best], tried)


def arms() -> dict[str, Arm]:
    """Every search by name, pared's first."""
    from optuna import exceptions, samplers

    warnings.simplefilter("ignore", exceptions.ExperimentalWarning)  # of QMCSampler

    return {
        "pared": ours,
        "grid": gridded,
        "random": plain(lambda seed: samplers.RandomSampler(seed=seed)),
        "quasi-random": plain(lambda seed: samplers.QMCSampler(seed=seed, warn_independent_sampling=False)),
        "gp": plain(lambda seed: samplers.GPSampler(seed=seed)),
        "nsga2": plain(lambda seed: samplers.NSGAIISampler(seed=seed)),
        "nsga2, 12": plain(lambda seed: samplers.NSGAIISampler(seed=seed, population_size=12)),
        "cmaes": plain(lambda seed: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)),
        "tpe": plain(lambda seed: samplers.TPESampler(seed=seed)),
    }
