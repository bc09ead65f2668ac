"""Old model against challenger: who may challenge is chosen on validation rows, the test rows are looked at once."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from pared.data import Series
from pared.evaluation import Comparison, compare
from pared.evaluation.metrics import Floats
from pared.evaluation.paired import counting_error
from pared.retune.deployed import Data, Deployed, Model, Rows
from pared.retune.rows import Shares
from pared.retune.subjects import History, Subject, subject
from pared.search.book import Book
from pared.search.defaults import configured, default_space, start_point
from pared.search.driver import Evaluator, Exploration, Rules
from pared.search.space import Point, Space
from pared.search.story import LAG
from pared.search.trials import Trial
from pared.search.workers import crew
from pared.source import Config
from pared.study import member_seed
from pared.training import Fit, fit_many
from pared.types import DataError, Progress

SEEDS = 5
"""Networks of every contender: the fewest with which a claim may be made."""
APART = 1000
"""Seeds of contenders begin so far after those of the search, which they share nothing with."""
LEAST = 1e-300
"""Errors of numbers are no smaller: they are compared by their logarithms."""
BEST = 3
"""Most points of the search that contend."""


@dataclass(frozen=True)
class Contender:
    """A configuration, what it learns from, its networks, and their errors on validation rows.

    `trial` and `point` are those of the search; None: the configuration of the old model.
    """

    config: Config
    history: History
    models: tuple[Model, ...]
    fits: tuple[Fit, ...]
    validation: tuple[float, ...]
    trial: int | None = None
    point: Point | None = None

    @property
    def mean(self) -> float:
        """Mean over its networks, geometric of errors of numbers; infinite where one diverged."""
        if self.config.task.scale == "linear" or math.inf in self.validation:
            return float(np.mean(self.validation))
        return float(np.exp(np.mean(np.log(self.validation))))

    @property
    def median(self) -> int:
        """The network with the (lower) median error on validation rows."""
        return int(np.argsort(self.validation, kind="stable")[(len(self.validation) - 1) // 2])


@dataclass(frozen=True)
class Duel:
    """Errors of the old model (parts,) and of the challenger's networks (networks, parts) on test rows, compared.

    `parts`: over the parts of the test, networks averaged; `seeds`: over the networks, parts averaged.
    """

    old: Floats
    challenger: Floats
    parts: Comparison
    seeds: Comparison

    @property
    def won(self) -> bool:
        """Whether the challenger is better beyond what both the rows and the seeds leave to chance."""
        return self.parts.verdict == self.seeds.verdict == "better"


@dataclass(frozen=True)
class Contest:
    """Everything that was tried: `contenders`, the challenger among them (None: all diverged), and the trials, which
    `started` at the old configuration where the space holds one like it.
    """

    contenders: tuple[Contender, ...]
    challenger: Contender | None
    space: Space
    started: bool
    trials: tuple[Trial, ...]
    duel: Duel | None

    @property
    def won(self) -> bool:
        """Whether the challenger is to take the old model's place."""
        return self.duel is not None and self.duel.won


@dataclass(frozen=True)
class Ring:
    """What a contest is held on and by which rules; `trials` counts those of the search."""

    deployed: Deployed
    new: Data
    shares: Shares
    trials: int
    seed: int
    jobs: int


def contest(ring: Ring, progress: Progress) -> Contest:
    """Trains contenders, lets the best on validation rows challenge the old model, and compares the two, once.

    1. The old configuration is trained anew, on all rows and on the new ones alone; the better of the two histories
    is that of what follows. 2. A search begins at the old configuration and the best points of the old search. 3. Its
    best few are trained like the old configuration, on seeds of their own. 4. Of all these the one with the least
    error on validation rows is tested against the old model.

    Raises: DataError where the new rows are too few for a window, or hold outliers.
    """
    own = list(_own(ring, progress))
    leader = min(own, key=lambda each: each.mean)
    call = subject(ring.new, leader.config, ring.shares, leader.history, ring.deployed.trained)
    space = ring.deployed.space or default_space(ring.new, getattr(leader.config, "horizon", 1))
    first = start_point(space, leader.config)
    given = [*([first] if first else []), *ring.deployed.points]
    trials = _searched(ring, call, space, given, progress)
    ranked = sorted((trial for trial in trials if trial.sound), key=lambda trial: (trial.values, trial.number))
    others = []
    for trial in ranked[:BEST]:
        others.append(_contender(ring, call, leader.history, trial))
        progress("training the best few anew", len(others), len(ranked[:BEST]))
    contenders = (*own, *others)
    challenger = min(contenders, key=lambda each: each.mean)
    if math.isinf(challenger.mean):
        return Contest(contenders, None, space, first is not None, tuple(trials), None)
    return Contest(contenders, challenger, space, first is not None, tuple(trials), duel(ring, challenger))


def duel(ring: Ring, challenger: Contender) -> Duel:
    """The one look at the test rows; the margin plays no part, as only "better" promotes."""
    task, parts = challenger.config.task, ring.shares.test
    old = _errors(ring, ring.deployed.model, parts)
    if not np.isfinite(old).all():
        raise DataError(
            f"{ring.new.name}: the old model gives no finite prediction for some of the newest rows; correct them or "
            "leave them out"
        )
    found = np.array([_errors(ring, model, parts) for model in challenger.models])
    places = np.broadcast_to(np.arange(len(parts)), found.shape)
    seeds = np.broadcast_to(np.arange(len(found))[:, None], found.shape)
    least = counting_error(len(ring.shares.tested)) if task.scale == "linear" else 0.0

    def against(clusters: Rows) -> Comparison:
        pairs = found.ravel(), np.broadcast_to(old, found.shape).ravel()
        level = challenger.config.level
        return compare(*pairs, task.margin, clusters.ravel().tolist(), task.scale, level, least)

    return Duel(old, found, against(places), against(seeds))


def _own(ring: Ring, progress: Progress) -> Iterator[Contender]:
    """The old configuration on every history that there is. Raises DataError where there is none."""
    found, flaw = 0, None
    for history in get_args(History):
        if history == "new rows" and not len(ring.shares.known):
            continue  # they are all rows
        try:
            call = subject(ring.new, ring.deployed.settings, ring.shares, history, ring.deployed.trained)
        except DataError as error:
            flaw = error
            continue
        found += 1
        yield _contender(ring, call, history, None)
        progress("training the old configuration anew", found, found + (history == "all rows"))
    if not found and flaw is not None:
        raise flaw


def _contender(ring: Ring, call: Subject, history: History, trial: Trial | None) -> Contender:
    """Trains the networks of a configuration and measures them on validation rows."""
    config = configured(call.base, trial.point) if trial else call.base
    (block,) = call.blocks(config, False)  # type: ignore[arg-type]  # settings of its own kind
    seeds = [member_seed(0, ring.seed + APART + k) for k in range(SEEDS)]
    nets = [call.build(config, seed) for seed in seeds]  # type: ignore[arg-type]
    configs = [replace(config.training, seed=seed) for seed in seeds]
    fits = fit_many(nets, [block] * SEEDS, configs, config.task.loss, jobs=ring.jobs)
    window = block.train.x.shape[1] if isinstance(ring.new, Series) else 0
    models = tuple(Model(fit.model, block.scaler, window, ring.deployed.model.encoding) for fit in fits)
    validation = tuple(
        math.inf if fit.diverged else float(_errors(ring, model, [ring.shares.validation])[0])
        for fit, model in zip(fits, models, strict=True)
    )
    own = (trial.number, trial.point) if trial else (None, None)
    return Contender(config, history, models, tuple(fits), validation, *own)


def _searched(ring: Ring, call: Subject, space: Space, given: Sequence[Point], progress: Progress) -> list[Trial]:
    """The trials of the search, the given points first."""
    rules = Rules(seed=ring.seed, lag=LAG)
    progress("searching", 0, ring.trials)
    with crew(call, ring.jobs) as workers:
        exploration = Exploration(space, rules, 1, call.base.epochs, Evaluator(Book(), workers), given)
        return exploration.upto(ring.trials, lambda done: progress("searching", done, ring.trials))


def _errors(ring: Ring, model: Model, parts: Sequence[Rows]) -> Floats:
    """(parts,): root mean squared error over the standard deviation of the target, or the share that is wrong."""
    losses = model.losses(ring.new)
    means = np.array([losses[rows].mean() for rows in parts])
    if ring.deployed.settings.task.scale == "linear":
        return np.asarray(np.nan_to_num(means, nan=math.inf))
    target = ring.new.values[:, 0] if isinstance(ring.new, Series) else ring.new.target
    spread = float(target[np.concatenate(list(parts))].std()) or 1.0
    return np.asarray(np.maximum(np.nan_to_num(np.sqrt(means) / spread, nan=math.inf), LEAST))
