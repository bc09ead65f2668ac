"""Who proposes the next point: Optuna's samplers, by one word, each ask with a seed of its own.

A sampler that goes on drawing from one seed repeats itself once a search is taken up again. Here the draw of trial n
depends on the search's seed, on n and on what was told before, and on nothing else.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

from pared.search.space import Categorical, Float, Int, Point, PowerOfTwo, Space, domain
from pared.search.trials import Evaluation, Result
from pared.seeds import seed_of
from pared.types import DataError

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

Sampler = Literal["tpe", "random", "quasi-random", "gp", "nsga2", "cmaes", "grid"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
MOST_TRIALS, BEST, NEWEST = 1500, 250, 750
"""At so many trials tpe forgets all but the best and the newest: a proposal takes time in proportion to them."""
POPULATION = 12
"""Trials a generation of nsga2; Optuna's 50 would be half of a usual search."""


class Proposals:
    """An Optuna study in memory: `ask` for a point, `tell` what came of it.

    The same calls in the same order give the same points, in whatever process, and after whatever interruption.
    """

    def __init__(self, space: Space, sampler: Sampler, seed: int, objectives: int) -> None:
        import optuna  # takes a third of a second, which not every command should wait for

        if sampler not in SAMPLERS:
            raise DataError(f"unknown sampler {sampler!r}; choose one of {', '.join(SAMPLERS)}")
        if sampler == "cmaes" and objectives > 1:
            raise DataError("cmaes takes one objective; choose nsga2 or tpe for several")
        self._space, self._sampler, self._seed, self._objectives = space, sampler, seed, objectives
        self._asked: dict[int, Trial] = {}
        self._count = self._known = 0
        with quiet():
            self._study = optuna.create_study(directions=["minimize"] * objectives)

    @property
    def full(self) -> bool:
        """Whether every trial must be told before the next is asked for, as old ones are about to be forgotten."""
        return self._sampler == "tpe" and self._known >= MOST_TRIALS

    def ask(self, fixed: Point | None = None) -> tuple[int, Point]:
        """The next trial's number and point; the point is `fixed` where one is given."""
        with quiet():
            if self.full:
                self._forget()
            if fixed is not None:
                self._study.enqueue_trial(_encoded(self._space, fixed))
            self._study.sampler = _MAKERS[self._sampler](self._seed, seed_of(self._seed, self._count))
            trial = self._asked[self._count] = self._study.ask()
            self._count += 1
            self._known += 1
            return self._count - 1, suggested(trial, self._space)

    def tell(self, number: int, result: Result) -> "FrozenTrial":
        """What came of a trial. Returns it as Optuna keeps it."""
        from optuna.trial import TrialState

        trial = self._asked.pop(number)
        with quiet():
            if not isinstance(result, Evaluation):
                trial.set_user_attr("reason", result.reason)
                return self._study.tell(trial, state=TrialState.FAIL)
            if len(result.values) != self._objectives:
                raise DataError(f"there are {self._objectives} objectives, but the function gave {result.values}")
            if self._objectives == 1:  # Optuna takes no reports on several
                for epoch, error in result.rungs.items():
                    trial.report(error, epoch)
            if result.stopped:
                return self._study.tell(trial, state=TrialState.PRUNED)
            return self._study.tell(trial, list(result.values))

    def _forget(self) -> None:
        """A study of the best and the newest trials takes the place of the one of all."""
        import optuna

        known = [
            trial for trial in self._study.get_trials(deepcopy=False) if trial.state == optuna.trial.TrialState.COMPLETE
        ]
        newest, older = known[-NEWEST:], known[:-NEWEST]
        best = sorted(sorted(older, key=lambda trial: trial.values)[:BEST], key=lambda trial: trial.number)
        self._study = optuna.create_study(directions=["minimize"] * self._objectives)
        self._study.add_trials([*best, *newest])
        self._known = len(best) + len(newest)


def suggested(trial: "Trial", space: Space) -> Point:
    """The point that an Optuna trial takes, parameter by parameter."""
    point: Point = {}
    for name, parameter in space.parameters.items():
        if not space.active(name, point):
            continue
        match domain(parameter):
            case Categorical(choices):
                point[name] = trial.suggest_categorical(name, choices)
            case PowerOfTwo() as powers:
                point[name] = 2 ** trial.suggest_int(f"log2 {name}", *powers.exponents)
            case Int(low, high, log):
                point[name] = trial.suggest_int(name, low, high, log=log)
            case Float(low, high, log, step) as numbers:
                last = high if step is None else float(numbers.values(2)[-1])  # type: ignore[arg-type]
                point[name] = trial.suggest_float(name, low, last, log=log, step=step)
    return point


def _encoded(space: Space, point: Point) -> dict[str, Any]:
    """A point as Optuna's parameters."""
    return {
        f"log2 {name}" if isinstance(domain(space.parameters[name]), PowerOfTwo) else name: (
            value.bit_length() - 1
            if isinstance(value, int) and isinstance(domain(space.parameters[name]), PowerOfTwo)
            else value
        )
        for name, value in point.items()
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna neither logs what it does nor warns of what is known; its settings are put back."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _random(base: int, seed: int) -> "BaseSampler":
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _tpe(base: int, seed: int) -> "BaseSampler":
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


def _quasi_random(base: int, seed: int) -> "BaseSampler":
    """Sobol's sequence, scrambled by the search's seed, goes on from trial to trial."""
    from optuna.samplers import QMCSampler

    return QMCSampler(
        seed=base, scramble=True, independent_sampler=_random(base, seed), warn_independent_sampling=False
    )


def _gp(base: int, seed: int) -> "BaseSampler":
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, independent_sampler=_random(base, seed))


def _nsga2(base: int, seed: int) -> "BaseSampler":
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=POPULATION)


def _cmaes(base: int, seed: int) -> "BaseSampler":
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(seed=seed, independent_sampler=_random(base, seed), warn_independent_sampling=False)


_MAKERS: dict[str, Callable[[int, int], "BaseSampler"]] = {
    "tpe": _tpe,
    "random": _random,
    "quasi-random": _quasi_random,
    "gp": _gp,
    "nsga2": _nsga2,
    "cmaes": _cmaes,
    "grid": _random,  # every point is given
}
"""Word -> sampler of the search's seed and the trial's own."""
