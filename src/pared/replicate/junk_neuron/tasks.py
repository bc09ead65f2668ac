"""One task: every network of one system, budget and seed is trained, cut and measured on all blocks."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from pared import criteria, evaluation
from pared.data import Split
from pared.evaluation.baselines import baselines
from pared.models import Forecaster
from pared.replicate.junk_neuron.arms import BASE, READINGS, RESEEDED, TRAINED_ON, Arm, Order, below, relative
from pared.replicate.junk_neuron.measures import Truth, measure, measure_network
from pared.replicate.junk_neuron.protocol import Budget, network, seed_of, splits_of, window_of
from pared.replicate.junk_neuron.published import System
from pared.selection import Count, select
from pared.surgery import cut, trace
from pared.training import TrainConfig, fit_many
from pared.types import Batch

FIRST = "recurrent.0.l0"
"""The group of the first layer's units, as `trace` names it."""

Key = tuple[int, Arm]
Networks = dict[Key, Forecaster]
Todo = dict[Key, tuple[Forecaster, TrainConfig]]
Scores = dict[Order, Tensor]


@dataclass(frozen=True)
class Task:
    """One piece of work; `seed` None measures the naive forecasters instead."""

    system: System
    budget: Budget
    seed: int | None

    @property
    def name(self) -> str:
        """The name of its results."""
        return f"{self.budget.name}-{self.system.name}-" + ("naive" if self.seed is None else f"seed{self.seed}")


def run(task: Task) -> dict[str, Any]:
    """Does a task. The same task gives the same numbers, but for `seconds`.

    Returns plain data: `rows`, a row a forecaster and block; and of networks `index`, the junk index of the full
    network's units in each block by both readings, and `gate`, the output gate's recurrent weights in the first block.
    """
    started = time.perf_counter(), time.process_time()
    torch.set_num_threads(1)
    truths = [Truth(split) for split in splits_of(task.system, task.budget.view, task.budget.blocks)]
    found = {"rows": _naive(truths)} if task.seed is None else _trained(task.system, task.budget, task.seed, truths)
    spent = {"wall": time.perf_counter() - started[0], "processor": time.process_time() - started[1]}
    return found | {"seconds": {name: round(value, 2) for name, value in spent.items()}}


def _naive(truths: Sequence[Truth]) -> list[dict[str, Any]]:
    return [
        {"block": truth.split.block, "forecaster": name, **measure(predict, truth)}
        for truth in truths
        for name, predict in baselines(truth.split).items()
    ]


def _trained(system: System, budget: Budget, seed: int, truths: Sequence[Truth]) -> dict[str, Any]:
    work = Work(system, budget, seed, tuple(truth.split for truth in truths))
    networks = work.full()
    scores = {split.block: work.scores(networks[split.block, BASE], split) for split in work.splits}
    networks |= work.cuts(networks, scores)
    networks |= work.smaller(scores)
    own = {truth.split.block: truth for truth in truths}
    gate = networks[work.splits[0].block, BASE].recurrent[0].get_parameter("weight_hh_l0").chunk(4)[3]
    return {
        "rows": [
            {"block": block, **arm._asdict(), **measure_network(model, own[block])}
            for (block, arm), model in networks.items()
        ],
        "index": [
            {"block": block, **{reading: _rounded(each[reading]) for reading in READINGS}}
            for block, each in scores.items()
        ],
        "gate": [_rounded(row) for row in gate],
    }


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


@dataclass(frozen=True)
class Work:
    """What a task trains and cuts, on all blocks."""

    system: System
    budget: Budget
    seed: int
    splits: tuple[Split, ...]

    def full(self) -> Networks:
        """The full networks, their re-seeded twins, and the full ones trained on."""
        todo = {}
        for split in self.splits:
            for purpose, arm in enumerate((BASE, RESEEDED)):
                seed = self._seed(split.block, purpose)
                todo[split.block, arm] = self._network(self.system.units, seed), self._training(seed)
        networks = self._fitted(todo)
        return networks | self._fitted(
            {(split.block, TRAINED_ON): self._refit(split.block, networks[split.block, BASE]) for split in self.splits}
        )

    def scores(self, model: Forecaster, split: Split) -> Scores:
        """Every order of deletion as scores of the first layer's units, the lowest go first."""
        batch = Batch(split.train.x[:1], split.train.y[:1])
        scores: Scores = {
            reading: criteria.junk(model, batch, mse_loss, direction=reading)[FIRST] for reading in READINGS
        }
        at_random = criteria.random(model, batch, mse_loss, seed=self._seed(split.block, 0))[FIRST]
        return scores | {"random": at_random, "largest": -scores["out"]}

    def cuts(self, networks: Networks, scores: Mapping[int, Scores]) -> Networks:
        """Networks cut in every order at the relative counts, by the readings at the thresholds too; and refitted."""
        done: Networks = {}
        for split in self.splits:
            model = networks[split.block, BASE]
            structure = trace(model, split.train.x[:1])
            for order, values in scores[split.block].items():
                for deleted in self._counts(values, order):
                    plan = select({FIRST: values}, structure, Count(deleted))
                    small = cast(Forecaster, cut(model, structure, plan))
                    done[split.block, Arm("surgery", order, deleted)] = small
        return done | self._fitted(
            {
                (block, arm._replace(treatment="refit")): self._refit(block, small)
                for (block, arm), small in done.items()
            }
        )

    def smaller(self, scores: Mapping[int, Scores]) -> Networks:
        """Networks from scratch of every size that is asked for, and of the relative sizes with equal compute."""
        todo = {}
        for block, own in scores.items():
            asked = {count for reading in READINGS for count in self._counts(own[reading], reading)}
            for deleted in sorted(asked | set(self.system.deleted)):
                seed = self._seed(block, 2, deleted)
                todo[block, Arm("scratch", "", deleted)] = (
                    self._network(self._left(deleted), seed),
                    self._training(seed),
                )
            for deleted in relative(self.system):
                seed = self._seed(block, 3, deleted)
                config = replace(self._training(seed), epochs=equal_epochs(self.system, self.budget, deleted))
                todo[block, Arm("equal_compute", "", deleted)] = self._network(self._left(deleted), seed), config
        return self._fitted(todo)

    def _counts(self, values: Tensor, order: Order) -> list[int]:
        found = below(values.tolist(), self.system) if order in READINGS else ()
        return sorted({*relative(self.system), *found} - {0})

    def _left(self, deleted: int) -> int:
        return self.system.units - deleted

    def _seed(self, block: int, purpose: int, deleted: int = 0) -> int:
        return seed_of(self.system, block, self.seed, purpose, deleted)

    def _network(self, units: int, seed: int) -> Forecaster:
        return network(self.system, units, seed)

    def _training(self, seed: int) -> TrainConfig:
        return self.budget.training(self.system, seed)

    def _refit(self, block: int, model: Forecaster) -> tuple[Forecaster, TrainConfig]:
        return model, self.budget.refitting(self._seed(block, 0))

    def _fitted(self, todo: Todo) -> Networks:
        by_block = {split.block: split for split in self.splits}
        models, configs = zip(*todo.values(), strict=True)
        fits = fit_many(models, [by_block[block] for block, _ in todo], configs)
        return {key: cast(Forecaster, fit.model) for key, fit in zip(todo, fits, strict=True)}


@cache
def multiply_adds(system: System, units: int, window: int) -> float:
    """Multiply-adds of one forecast of a network with so many units in its first layer."""
    return evaluation.macs(network(system, units, 0), torch.zeros(1, window, 1))


def equal_epochs(system: System, budget: Budget, deleted: int) -> int:
    """Epochs a smaller network can be trained for with the multiply-adds of training the full one and refitting it cut.

    ceil((epochs * full + refit * small) / small)
    """
    window = window_of(system, budget.view)
    full, small = (multiply_adds(system, system.units - gone, window) for gone in (0, deleted))
    return math.ceil((budget.training(system, 0).epochs * full + budget.refit_epochs * small) / small)
