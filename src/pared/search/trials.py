"""What a search asks for and finds: tasks, what they gave, trials. Pure data."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pared.search.space import Point
from pared.types import DataError

Stage = Literal["search", "confirm", "test"]
Curves = tuple[Mapping[str, tuple[float, ...]], ...]


class SearchError(DataError):
    """A search cannot go on; the message says why and what to do."""


class Key(NamedTuple):
    """What an evaluation is for: one at most of each is ever made. Trial -1 stands for the settings to beat."""

    stage: Stage
    trial: int
    seed: int


@dataclass(frozen=True)
class Task:
    """An evaluation to be made: train at `point` with `seed`.

    `milestones` are pairs (epoch, error): training ends after that many epochs where the error is then larger.
    """

    key: Key
    point: Point
    milestones: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """What it gave.

    values   one an objective, smaller = better; infinite where a network diverged;
    blocks   the first objective on each block of the data;
    rungs    error after so many epochs, where early stopping looked; `stopped`: whether it ended the training there;
    curves   one a block: losses per epoch.
    """

    values: tuple[float, ...]
    blocks: tuple[float, ...] = ()
    rungs: Mapping[int, float] = field(default_factory=dict)
    stopped: bool = False
    curves: Curves = ()

    @property
    def error(self) -> float:
        """The first objective."""
        return self.values[0]

    @property
    def sound(self) -> bool:
        """Whether it was trained to the end and came to finite values."""
        return not self.stopped and all(map(math.isfinite, self.values))


@dataclass(frozen=True)
class Failure:
    """Why there is no evaluation: the error in one line, and where it arose."""

    reason: str
    traceback: str = ""


Result = Evaluation | Failure
Call = Callable[[Task], Evaluation]
"""Makes an evaluation; what it raises becomes a `Failure`."""


@dataclass(frozen=True)
class Trial:
    """A point that was tried, and what came of it on the seed that all trials share."""

    number: int
    point: Point
    result: Result

    @property
    def sound(self) -> bool:
        """Whether it can win."""
        return isinstance(self.result, Evaluation) and self.result.sound

    @property
    def values(self) -> tuple[float, ...]:
        """Its values, infinite where there are none."""
        return self.result.values if isinstance(self.result, Evaluation) else (math.inf,)

    @property
    def outcome(self) -> str:
        """In a word or a line."""
        if isinstance(self.result, Failure):
            return f"failed: {self.result.reason}"
        if self.result.stopped:
            return "stopped early"
        return "complete" if self.result.sound else "diverged"


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The sound trials that no other beats in one objective without losing in another, by their first objective.

    Of trials with equal values the first counts. With one objective this is the best trial.
    """
    ranked = sorted((trial for trial in trials if trial.sound), key=lambda trial: (trial.values, trial.number))
    found: list[Trial] = []
    for trial in ranked:
        if not any(all(a <= b for a, b in zip(better.values, trial.values, strict=True)) for better in found):
            found.append(trial)
    return found


def evaluation_as_dict(result: Evaluation) -> dict[str, Any]:
    """What JSON holds of an evaluation, without its curves; null for what is infinite."""
    return {
        "values": [_finite(value) for value in result.values],
        "blocks": [_finite(value) for value in result.blocks],
        "rungs": {str(epoch): _finite(value) for epoch, value in result.rungs.items()},
        "stopped": result.stopped,
    }


def evaluation_from_dict(content: Mapping[str, Any], curves: Curves) -> Evaluation:
    """An evaluation from what `evaluation_as_dict` gave."""
    return Evaluation(
        values=tuple(map(_number, content["values"])),
        blocks=tuple(map(_number, content["blocks"])),
        rungs={int(epoch): _number(value) for epoch, value in content["rungs"].items()},
        stopped=bool(content["stopped"]),
        curves=curves,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.inf if value is None else value
