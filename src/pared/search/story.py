"""The story of a search: try, confirm on fresh seeds, crown, test once on data that no trial has seen."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pared.data import Series, Table
from pared.evaluation import Comparison, compare
from pared.evaluation.paired import Scale, counting_error
from pared.search.actors import Cluster, actors
from pared.search.checkpoints import FOLDER as CHECKPOINTS
from pared.search.defaults import check_names, configured, default_space, start_point
from pared.search.driver import Evaluator, Exploration, Rules, check_any
from pared.search.honest import Finalist, finalists, race, standings, transformed
from pared.search.samplers import Sampler
from pared.search.space import Point, Space, grid_size
from pared.search.stopping import Stopping
from pared.search.subject import Kept, OfSeries, OfTable, fingerprint, subject_of
from pared.search.trials import Call, Evaluation, Key, Task, Trial, front
from pared.search.workers import Crew, Queue, crew
from pared.settings import RunConfig, TableConfig
from pared.types import DataError, Progress

if TYPE_CHECKING:
    from pared.search.book import Book
    from pared.search.places import Place

Config = RunConfig | TableConfig
Jobs = int | Cluster | Queue
FORMAT = 1
EPOCHS = 60
"""Epochs of a training in a search, unless told otherwise."""
LAG = 8
"""The same for any number of jobs, for it decides the trials; benchmarks/search.py says what it costs."""
TEST_SEEDS = 2
START = -1
"""The trial that stands for the settings to beat."""


@dataclass(frozen=True)
class SearchSettings:
    """What a search is told: pure data.

    trials      evaluations in all, a training on every block at a time; `share` of them confirm the best;
    sampler     who proposes points: tpe, random, quasi-random, gp, nsga2, cmaes, grid (`levels` values of a range);
    objectives  error, and perhaps parameters or latency (milliseconds) after it: all are made small;
    stopping    whether hopeless trials end early;
    retries     how often a trial that raised is tried again;
    lag         how many trials are asked for before the first of them is told: so many can be trained at a time.
    """

    trials: int = 60
    sampler: Sampler = "tpe"
    seed: int = 0
    objectives: tuple[str, ...] = ("error",)
    stopping: Stopping = Stopping()
    share: float = 0.2
    retries: int = 0
    levels: int = 3
    lag: int = LAG
    quick: bool = False

    def __post_init__(self) -> None:
        if self.trials < 1 or self.lag < 1 or self.retries < 0 or not 0 <= self.share < 1:
            raise DataError(
                "trials and the lag count from 1, retries from 0, and the share that confirms lies in [0, 1); got "
                f"{self.trials}, {self.lag}, {self.retries}, {self.share}"
            )

    @property
    def confirming(self) -> int:
        """How many evaluations are kept for confirmation; none where that would be a single one."""
        kept = round(self.share * self.trials)
        return kept if kept > 1 else 0


@dataclass(frozen=True)
class Tested:
    """Errors on test data, (block, seed) -> error, of the winner and of the settings to beat; None: it is these."""

    winner: dict[tuple[int, int], float]
    start: dict[tuple[int, int], float]
    comparison: Comparison | None


@dataclass(frozen=True)
class Found:
    """What a search found.

    `finalists` are best first, the winner among them; empty where nothing was confirmed, and then the winner is the
    trial with the best score. `config` are the settings of a run with the winner, `test` what it came to on test data;
    None where a function of the user's was searched. `about` is what was searched, as JSON holds it.
    """

    trials: tuple[Trial, ...]
    finalists: tuple[Finalist, ...]
    winner: Trial
    confirmed: Finalist | None
    config: Config | None
    test: Tested | None
    evaluations: int
    scale: Scale
    settings: SearchSettings
    about: Mapping[str, Any]

    @property
    def point(self) -> Point:
        """The winner's point."""
        return self.winner.point

    @property
    def optimism(self) -> float | None:
        """How far the winner's score flattered: expected error minus score, of the score on the log scale.

        0.1 is 10 % more error than the search said, or 0.1 more on the linear scale.
        """
        if self.confirmed is None or (self.scale == "log" and self.confirmed.score == 0):
            return None
        if self.scale == "log":
            return self.confirmed.expected / self.confirmed.score - 1
        return self.confirmed.expected - self.confirmed.score


@dataclass(frozen=True)
class _Plan:
    """Everything that a search is about."""

    call: Call
    space: Space
    settings: SearchSettings
    base: Config | None
    scale: Scale
    margin: float
    about: Mapping[str, Any]


def search(
    data: Series | Table | Callable[[Point, int], float | Sequence[float]],
    space: Space | None = None,
    settings: SearchSettings = SearchSettings(),
    base: Config | None = None,
    folder: "Path | Place | None" = None,
    jobs: Jobs = 1,
    progress: Progress = lambda stage, done, total: None,
) -> Found:
    """Finds settings of a network for a series or a table, or a point that makes a function small.

    1. Trials are proposed and evaluated, all on the same seeds and blocks. 2. The best few are trained again on fresh
    seeds, more or fewer as the noise demands. 3. The winner is the one with the least error there; of several
    objectives, the leanest whose error is within the margin of the least. 4. It is tested, once, beside the settings to
    beat (`base`, by default those of a run) on data that no trial has seen.

    A function takes a point and a seed and returns its error, or one value an objective; give its space. Its winner is
    not tested. With `folder` every evaluation is kept in its study.db (`Place(folder, server)`: in PostgreSQL), and the
    same call goes on where it was stopped.
    `jobs` evaluations are made at a time, each in a process of its own, or by the actors of a Ray `Cluster`, or by what
    other machines take from a `Queue` in PostgreSQL; in the search no more than `settings.lag`. The result depends on
    `settings` only, not on `jobs` nor on which is faster (latencies aside).

    Returns: `Found`. Raises: DataError for data and spaces that cannot be searched, among them SearchError where all
    trials fail, where the folder holds another search, or cannot be written.
    """
    from pared.search.book import opened  # SQLAlchemy takes its time to load, which not every command should wait for

    plan = _plan(data, space, settings, base)
    if isinstance(jobs, Queue):
        _check_queue(data, folder)
    rules = Rules(settings.sampler, settings.seed, settings.stopping, settings.lag, settings.levels)
    with opened(folder, plan.about, len(settings.objectives)) as book, _crew(plan, data, folder, jobs, book) as workers:
        evaluator = Evaluator(book, workers)
        first = start_point(plan.space, plan.base) if plan.base else None
        epochs = plan.base.epochs if plan.base else 1
        exploration = Exploration(
            plan.space, rules, len(settings.objectives), epochs, evaluator, [first] if first else []
        )
        return _carried_out(plan, exploration, evaluator, progress)


def _check_queue(data: object, folder: "Path | Place | None") -> None:
    """Raises DataError for what workers on other machines cannot take part in; nothing is begun then."""
    from pared.search.places import Place, found_in

    place = Place(folder) if isinstance(folder, Path) else folder
    known = None if place is None else found_in(place)
    if not isinstance(data, Series | Table):
        raise DataError("a function cannot be sent through a database; search it with local workers, or with Ray")
    if (known.schema if known else place and place.server) is None:
        raise DataError(
            "workers on other machines meet in a PostgreSQL database; begin the search with "
            "--book postgresql://user@host/database"
        )


def _crew(
    plan: _Plan, data: object, folder: "Path | Place | None", jobs: Jobs, book: "Book"
) -> AbstractContextManager[Crew]:
    """Who makes the evaluations."""
    settings = plan.settings
    if isinstance(jobs, Cluster):
        return actors(plan.call, jobs, settings.lag, settings.retries)
    call = _keeping(plan.call, folder)
    if isinstance(jobs, int):
        return crew(call, jobs, settings.retries)
    from pared.search.queue import queued

    assert isinstance(data, Series | Table)
    assert book.database is not None
    return queued(call, data, book.database, jobs, settings.retries)


def _keeping(call: Call, folder: "Path | Place | None") -> Call:
    """What makes evaluations, and keeps checkpoints of long ones in the folder of the search."""
    if folder is None or not isinstance(call, OfSeries | OfTable):
        return call
    own = folder if isinstance(folder, Path) else folder.folder
    return Kept(call, own.resolve() / CHECKPOINTS)


def identity(data: Series | Table, settings: SearchSettings, base: Config) -> Mapping[str, Any]:
    """What a search of the default space is about, as the book of its folder holds it."""
    return _plan(data, None, settings, base).about


def _carried_out(plan: _Plan, exploration: Exploration, evaluator: Evaluator, progress: Progress) -> Found:
    settings = plan.settings
    count = settings.trials - settings.confirming
    progress("searching", 0, count)
    trials = exploration.upto(count, lambda done: progress("searching", done, count))
    check_any(trials)
    errors = _confirmed(plan, trials, evaluator, progress)
    spent = sum(map(len, errors.values()))
    ranked = standings(errors, {trial.number: trial.values[0] for trial in trials}, plan.scale)
    confirmed = _crowned(ranked, trials, plan)
    winner = trials[confirmed.trial] if confirmed else front(trials)[0]
    return Found(
        trials=tuple(trials),
        finalists=tuple(ranked),
        winner=winner,
        confirmed=confirmed,
        config=configured(plan.base, winner.point) if plan.base else None,
        test=_tested(plan, plan.base, winner, evaluator, progress) if plan.base else None,
        evaluations=len(trials) + spent,
        scale=plan.scale,
        settings=settings,
        about=plan.about,
    )


def _confirmed(
    plan: _Plan, trials: Sequence[Trial], evaluator: Evaluator, progress: Progress
) -> dict[int, list[float]]:
    """The race of the best few."""
    budget = plan.settings.confirming
    if not budget:
        return {}
    several = len(plan.settings.objectives) > 1
    entrants = [trial.number for trial in _entrants(plan, trials, finalists(budget))]
    done = 0
    progress("confirming on fresh seeds", 0, budget)

    def measure(numbers: Sequence[int], turn: int) -> dict[int, float]:
        nonlocal done
        seed = plan.settings.seed + 1 + turn
        keys = {number: Key("confirm", number, seed) for number in numbers}
        for number, key in keys.items():
            evaluator.request(Task(key, trials[number].point))
        found = {}
        for number, key in keys.items():
            result = evaluator.result(key)
            found[number] = result.error if isinstance(result, Evaluation) else float("inf")
            done += 1
            progress("confirming on fresh seeds", done, budget)
        return found

    slack = float(transformed([1 + plan.margin], "log")[0]) if plan.scale == "log" else plan.margin
    return race(entrants, measure, budget, plan.scale, slack if several else 0.0)


def _entrants(plan: _Plan, trials: Sequence[Trial], count: int) -> Sequence[Trial]:
    """Who races: the best scores; of several objectives, in place of half of them, the leanest near the best."""
    ranked = sorted((trial for trial in trials if trial.sound), key=lambda trial: (trial.values, trial.number))
    limit = _limit(plan, ranked[0].values[0])
    leaner = [trial for trial in reversed(front(trials)[1:]) if trial.values[0] <= limit][: count // 2]
    return [*leaner, *(trial for trial in ranked if trial not in leaner)][:count]


def _limit(plan: _Plan, error: float) -> float:
    """The error that is still as good as another."""
    return error * (1 + plan.margin) if plan.scale == "log" else error + plan.margin


def _crowned(ranked: Sequence[Finalist], trials: Sequence[Trial], plan: _Plan) -> Finalist | None:
    """The first; of several objectives the leanest of those within the margin of the first."""
    if not ranked:
        return None
    if len(plan.settings.objectives) == 1:
        return ranked[0]
    limit = _limit(plan, ranked[0].mean)
    near = [each for each in ranked if each.mean <= limit and len(each.fresh) == len(ranked[0].fresh)]
    return min(near, key=lambda each: trials[each.trial].values[1:])


def _tested(plan: _Plan, base: Config, winner: Trial, evaluator: Evaluator, progress: Progress) -> Tested:
    """The winner and the settings to beat on test data."""
    arms: dict[int, Point] = {winner.number: winner.point}
    if configured(base, winner.point) != base:
        arms[START] = {}
    seeds = range(plan.settings.seed + 1, plan.settings.seed + 1 + TEST_SEEDS)
    tasks = [Task(Key("test", number, seed), point) for number, point in arms.items() for seed in seeds]
    progress("testing", 0, len(tasks))
    for task in tasks:
        evaluator.request(task)
    errors: dict[int, dict[tuple[int, int], float]] = {winner.number: {}, START: {}}
    for done, task in enumerate(tasks, 1):
        result = evaluator.result(task.key)
        if isinstance(result, Evaluation):
            own = {(block, task.key.seed): error for block, error in enumerate(result.blocks)}
            errors[task.key.trial] |= {place: error for place, error in own.items() if error < float("inf")}
        progress("testing", done, len(tasks))
    return Tested(errors[winner.number], errors[START], _compared(plan, base, errors[winner.number], errors[START]))


def _compared(
    plan: _Plan, base: Config, first: Mapping[tuple[int, int], float], second: Mapping[tuple[int, int], float]
) -> Comparison | None:
    both = [place for place in first if place in second]
    if not both:
        return None
    rows = sum(len(part) for part in plan.call.aside) if isinstance(plan.call, OfTable) else 0
    return compare(
        [first[place] for place in both],
        [second[place] for place in both],
        plan.margin,
        [block for block, _ in both],
        plan.scale,
        base.level,
        counting_error(rows) if plan.scale == "linear" else 0.0,
    )


@dataclass(frozen=True)
class _Function:
    """A user's function as what evaluates a task."""

    function: Callable[[Point, int], float | Sequence[float]]

    def __call__(self, task: Task) -> Evaluation:
        found = self.function(dict(task.point), task.key.seed)
        values = [found] if isinstance(found, int | float) else list(found)
        return Evaluation(tuple(float(value) if value == value else float("inf") for value in values))


def base_settings(data: Series | Table, epochs: int | None = None, horizon: int = 1) -> Config:
    """The settings of a run on these data, with as many epochs as a search trains."""
    epochs = EPOCHS if epochs is None else epochs
    if isinstance(data, Series):
        return RunConfig(horizon=horizon, epochs=epochs)
    if horizon != 1:
        raise DataError("a table has no steps ahead; leave the horizon out")
    return TableConfig(data.task, epochs=epochs)


def _plan(
    data: Series | Table | Callable[[Point, int], float | Sequence[float]],
    space: Space | None,
    settings: SearchSettings,
    base: Config | None,
) -> _Plan:
    call: OfSeries | OfTable | _Function
    if isinstance(data, Series | Table):
        base = base or base_settings(data)
        horizon = base.horizon if isinstance(base, RunConfig) else 1
        space = space or default_space(data, horizon)
        check_names(space, base)
        call = subject_of(data, base, settings.objectives, space)
        base, scale, margin = call.base, call.base.task.scale, call.base.study.yardstick.margin
        what: dict[str, Any] = fingerprint(data)
    elif space is None:
        raise DataError("a function needs a space to be searched in: search(function, Space({...}))")
    else:
        base, scale, margin, call = None, "linear", 0.05, _Function(data)
        what = {"function": getattr(data, "__qualname__", type(data).__qualname__)}
    _check_grid(space, settings)
    about: dict[str, Any] = {"format": FORMAT, "data": what, "space": space.as_dict(), "settings": asdict(settings)}
    about["trials"] = about["settings"].pop("trials")  # may grow when the search goes on
    about["base"] = asdict(base) if base else None
    return _Plan(call, space, settings, base, scale, margin, json.loads(json.dumps(about)))


def _check_grid(space: Space, settings: SearchSettings) -> None:
    if settings.sampler != "grid":
        return
    size, count = grid_size(space, settings.levels), settings.trials - settings.confirming
    if size > count:
        raise DataError(
            f"the grid has {size:,} points, and {settings.trials} trials leave {count} to search with; take more "
            "trials, fewer levels, a smaller space, or another sampler"
        )
