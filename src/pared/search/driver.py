"""The driver: it alone asks and tells, in order, so that a seed gives the same trials from run to run.

Trial n is asked for once trial n - lag was told, whoever is faster. What the book holds from before is not evaluated
again: a search that was killed goes through the same questions to the same answers.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pared.search.samplers import Proposals, Sampler
from pared.search.space import Point, Space, grid, key
from pared.search.stopping import Stopping
from pared.search.trials import Evaluation, Key, Result, SearchError, Task, Trial
from pared.search.workers import Crew
from pared.types import DataError

if TYPE_CHECKING:
    from pared.search.book import Book

HOPELESS = 10
"""So many trials, and none of them came to an end: the search is not worth going on with."""
DUPLICATES = 50
"""So many proposals in a row that were tried before: the space is taken to be exhausted."""


@dataclass(frozen=True)
class Rules:
    """What decides which trials a search makes: pure data.

    `lag`: how many trials may be asked for before the first of them is told; `levels`: of a range in a grid.
    """

    sampler: Sampler = "tpe"
    seed: int = 0
    stopping: Stopping = Stopping()
    lag: int = 1
    levels: int = 3

    def __post_init__(self) -> None:
        if self.seed < 0 or self.lag < 1:
            raise DataError(f"the seed counts from 0 and the lag from 1, got {self.seed} and {self.lag}")


@dataclass
class Evaluator:
    """Looks evaluations up in the book, has the missing ones made, and writes them down as they come."""

    book: "Book"
    crew: Crew
    _results: dict[Key, Result] = field(default_factory=dict)

    def request(self, task: Task) -> None:
        """Begins with a task unless its result is known."""
        found = self.book.find(task)
        if found is not None:
            self._results[task.key] = found
        else:
            self.crew.submit(task)

    def result(self, wanted: Key) -> Result:
        """The result of a requested task; what else is finished meanwhile is kept."""
        while wanted not in self._results:
            task, found, seconds = self.crew.collect()
            self.book.write(task, found, seconds)
            self._results[task.key] = found
        return self._results[wanted]


class Exploration:
    """The trials of a search, made one after another; `upto` goes on until there are so many.

    A proposal that was tried before takes its result and counts as no trial.
    """

    def __init__(
        self, space: Space, rules: Rules, objectives: int, epochs: int, evaluator: Evaluator, first: Sequence[Point]
    ) -> None:
        self.trials: list[Trial] = []
        self._proposals = Proposals(space, rules.sampler, rules.seed, objectives)
        self._rules, self._epochs, self._evaluator = rules, epochs, evaluator
        self._given = deque(grid(space, rules.levels) if rules.sampler == "grid" else first)
        self._points: list[Point] = []
        self._places: dict[str, int] = {}
        self._asked: deque[tuple[int, int]] = deque()
        self._repeats = 0

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing new to try."""
        return self._repeats >= DUPLICATES or (self._rules.sampler == "grid" and not self._given)

    def upto(self, count: int, progress: Callable[[int], None]) -> list[Trial]:
        """Goes on to `count` trials, or to the end of the space. Raises SearchError where all trials fail."""
        while True:
            while self._may_ask(count):
                self._ask()
            if not self._asked:
                return self.trials
            self._tell(*self._asked.popleft())
            progress(len(self.trials))

    def _may_ask(self, count: int) -> bool:
        lag = 1 if self._proposals.full else self._rules.lag
        return len(self._asked) < lag and len(self._points) < count and not self.exhausted

    def _ask(self) -> None:
        """Asks for a point and, unless it was asked for before, has it evaluated."""
        number, point = self._proposals.ask(self._given.popleft() if self._given else None)
        place = self._places.setdefault(key(point), len(self._points))
        self._asked.append((number, place))
        if place < len(self._points):
            self._repeats += 1
            return
        self._repeats = 0
        self._points.append(point)
        self._evaluator.request(Task(self._key(place), point, self._milestones(place)))

    def _milestones(self, place: int) -> tuple[tuple[int, float], ...]:
        """Where early stopping looks at a trial, and the bars that earlier ones have set."""
        stopping = self._rules.stopping
        if stopping.rule == "none":
            return ()
        earlier = [(t.number, t.result.rungs) for t in self.trials if isinstance(t.result, Evaluation)]
        return stopping.milestones(place, self._epochs, earlier)

    def _tell(self, number: int, place: int) -> None:
        result = self._evaluator.result(self._key(place))
        told = self._proposals.tell(number, result)
        if place == len(self.trials):
            self.trials.append(Trial(place, self._points[place], result))
            self._evaluator.book.mirror(told)
            if len(self.trials) == HOPELESS:
                check_any(self.trials)

    def _key(self, place: int) -> Key:
        return Key("search", place, self._rules.seed)


def check_any(trials: Sequence[Trial]) -> None:
    """Raises SearchError where no trial came to an end, with what they ended in most often."""
    if any(trial.sound for trial in trials):
        return
    (reason, times), *_ = Counter(trial.outcome for trial in trials).most_common(1)
    raise SearchError(
        f"none of the first {len(trials)} trials came to an end, so the search stops; {times} of them {reason}. Mend "
        "the data or the space, and start anew"
    )
