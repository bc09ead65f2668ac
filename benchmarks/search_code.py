"""What a user writes to search four parameters with 60 trainings, by each method; its lines are counted.

`train` takes a point, a dictionary of lr, units, batch and dropout, and returns the validation error. Every function
returns the best point.
"""

import ast
import inspect
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from scipy.stats import qmc
from sklearn.model_selection import ParameterGrid

from pared.search import Float, PowerOfTwo, SearchSettings, Space, search

Train = Callable[[dict[str, Any]], float]


def grid(train: Train) -> dict[str, Any]:
    """54 cells: a grid has the sizes that its lists multiply to."""
    points = ParameterGrid(
        {"lr": [1e-3, 1e-2, 1e-1], "units": [64, 128, 256], "batch": [32, 64, 128], "dropout": [0.0, 0.3]}
    )
    return min(points, key=train)


def by_lot(train: Train) -> dict[str, Any]:
    """Random search."""
    draw = random.Random(0)
    points = [
        {
            "lr": 10 ** draw.uniform(-4, -1),
            "units": 2 ** draw.randint(5, 9),
            "batch": 2 ** draw.randint(4, 8),
            "dropout": draw.uniform(0, 0.5),
        }
        for _ in range(60)
    ]
    return min(points, key=train)


def quasi_random(train: Train) -> dict[str, Any]:
    """Sobol's sequence by SciPy."""
    points = [
        {
            "lr": 10 ** (-4 + 3 * row[0]),
            "units": int(2 ** np.floor(5 + 5 * row[1])),
            "batch": int(2 ** np.floor(4 + 5 * row[2])),
            "dropout": row[3] / 2,
        }
        for row in qmc.Sobol(4, seed=0).random(64)[:60]
    ]
    return min(points, key=train)


def by_optuna(train: Train) -> dict[str, Any]:
    """Gaussian process, evolution, TPE: another sampler is another word."""

    def objective(trial: optuna.Trial) -> float:
        return train(
            {
                "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
                "units": 2 ** trial.suggest_int("log2 units", 5, 9),
                "batch": 2 ** trial.suggest_int("log2 batch", 4, 8),
                "dropout": trial.suggest_float("dropout", 0, 0.5),
            }
        )

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=60)
    return study.best_params


def by_pared(train: Train) -> dict[str, Any]:
    """Any of pared's samplers: another one is another word. For data of one's own `pared search` is one command."""
    space = Space(
        {
            "lr": Float(1e-4, 1e-1, log=True),
            "units": PowerOfTwo(32, 512),
            "batch": PowerOfTwo(16, 256),
            "dropout": Float(0, 0.5),
        }
    )
    return search(lambda point, seed: train(point), space, SearchSettings(60, sampler="tpe")).point


CODE = {
    "pared": by_pared,
    "grid": grid,
    "random": by_lot,
    "quasi-random": quasi_random,
    "gp": by_optuna,
    "nsga2": by_optuna,
    "nsga2, 12": by_optuna,
    "cmaes": by_optuna,
    "tpe": by_optuna,
}


def lines(function: Callable[..., Any]) -> int:
    """Lines of a function's body that are neither empty nor its docstring."""
    tree = ast.parse(inspect.getsource(function)).body[0]
    assert isinstance(tree, ast.FunctionDef)
    text = inspect.getsource(function).splitlines()[tree.body[1].lineno - 1 :]
    return sum(bool(line.strip()) for line in text)
