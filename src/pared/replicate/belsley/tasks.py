"""One task: the network of one problem and seed is trained, pruned in every way, and measured at every level."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from pared.replicate.belsley.measures import quality, surface
from pared.replicate.belsley.paths import VARIANTS, WAYS, Removals, surgeon
from pared.replicate.belsley.protocol import Array, Problem, seed_of, subject

Ways = dict[str, Callable[[Removals], Array]]


@dataclass(frozen=True)
class Task:
    """One piece of work; `draws` of noise on the inputs, none for the problems on which variants are chosen."""

    problem: Problem
    seed: int
    draws: int

    @property
    def name(self) -> str:
        """The name of its results."""
        return f"{self.problem.name}-seed{self.seed}"

    @property
    def ways(self) -> Ways:
        """What is compared on this problem: where variants are chosen those, else all ways of removal."""
        return {each.name: partial(surgeon, variant=each) for each in VARIANTS} if self.problem.choosing else WAYS


def run(task: Task) -> dict[str, Any]:
    """Does a task. The same task gives the same numbers, but for `seconds`.

    Returns plain data, by way of removal: `quality` at each level, and where there is noise `mean`, `spread` and
    `distortion`, lists a level of values a noise level (None where a network's output is constant).
    """
    started = time.perf_counter()
    torch.set_num_threads(1)
    found = subject(task.problem, task.seed)
    removals = Removals(found, seed_of(task.problem, task.seed, 3))
    ways = {}
    for name, way in task.ways.items():
        weights = way(removals)
        ways[name] = {"quality": _plain(quality(found, weights))}
        if task.draws:
            noisy = surface(found, weights, task.draws, seed_of(task.problem, task.seed, 2))
            ways[name] |= {kind: _plain(values) for kind, values in noisy._asdict().items()}
    return {"ways": ways, "weights": len(removals.weights), "seconds": round(time.perf_counter() - started, 2)}


def _plain(values: Array) -> Any:
    """Lists of numbers of six digits, None for what is no number."""
    if values.ndim > 1:
        return [_plain(row) for row in values]
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]
