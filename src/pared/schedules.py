"""Schedules: progress in [0, 1] -> value. Frozen dataclasses, so that a configuration that holds one is plain data.

Those that follow the loss (`LossDriven`, `Plateau`) are a pure step instead: `step(state, loss) -> (value, state)`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Protocol, runtime_checkable

from pared.types import Schedule

ROUNDING = 1e-9  # progress that is a sum of parts may pass 1 by so much
State = tuple[float, ...]


@runtime_checkable
class Stateful(Protocol):
    """A schedule that follows the loss; its state is plain numbers, kept by whoever trains."""

    def begin(self) -> State: ...
    def value(self, state: State) -> float: ...
    def step(self, state: State, loss: float) -> tuple[float, State]: ...


class _Checked:
    """Refuses parameters that are not finite numbers."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, Real) or not math.isfinite(value):
                raise ValueError(f"{name} of {type(self).__name__} must be a finite number, got {value}")


def _within(progress: float) -> float:
    """Raises ValueError for progress outside [0, 1]."""
    if not -ROUNDING <= progress <= 1 + ROUNDING:
        raise ValueError(f"progress runs from 0 to 1, got {progress}; give the share of the training that is done")
    return min(max(progress, 0.0), 1.0)


def _must(holds: bool, what: str, got: object) -> None:
    if not holds:
        raise ValueError(f"{what}, got {got}")


@dataclass(frozen=True)
class Constant(_Checked):
    """The same value throughout: v(p) = value."""

    value: float = 1.0

    def __call__(self, progress: float) -> float:
        _within(progress)
        return self.value


@dataclass(frozen=True)
class Cosine(_Checked):
    """Half a cosine from `start` to `end`, after a warm-up: v(p) = (end + (start - end) (1 + cos(pi p)) / 2) r(p).

    r(p) rises on a straight line from 0.1 at p = 0 to 1 at p = `warm`, and stays there; without `warm` it is 1.
    Source: Loshchilov & Hutter, SGDR (2017), one cycle without restarts; Goyal et al. (2017) for the gradual warm-up.
    """

    start: float = 1.0
    end: float = 0.0
    warm: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _must(0 <= self.warm <= 1, "the warm-up is a share of the training from 0 to 1", self.warm)

    def __call__(self, progress: float) -> float:
        progress = _within(progress)
        risen = 0.1 + 0.9 * progress / self.warm if progress < self.warm else 1.0
        return risen * (self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2)


@dataclass(frozen=True)
class OneShot(_Checked):
    """All at once: v(0) = 0, then `end`."""

    end: float

    def __call__(self, progress: float) -> float:
        return self.end if _within(progress) > 0 else 0.0


@dataclass(frozen=True)
class Linear(_Checked):
    """As much in every step: v(p) = start + (end - start) p."""

    end: float
    start: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * _within(progress)


@dataclass(frozen=True)
class Exponential(_Checked):
    """The same share of what is left in every step: v(p) = 1 - (1 - end)^p; `end` from 0 to 1."""

    end: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _must(0 <= self.end <= 1, "the end of an Exponential is a share from 0 to 1", self.end)

    def __call__(self, progress: float) -> float:
        return float(1 - (1 - self.end) ** _within(progress))


@dataclass(frozen=True)
class Decay(_Checked):
    """Exponential approach to `end`: v(p) = end + (start - end) exp(-steepness p).

    With steepness 10 all but 5e-5 of the way is gone at p = 1; the end itself is not reached.
    Source: Morerio et al., Curriculum Dropout (2017), with gamma = steepness / T.
    """

    end: float
    start: float = 0.0
    steepness: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _must(self.steepness > 0, "the steepness of a Decay must be positive", self.steepness)

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * math.exp(-self.steepness * _within(progress))


@dataclass(frozen=True)
class Polynomial(_Checked):
    """Much at first, little at last for a power above 1: v(p) = end + (start - end) (1 - p)^power."""

    end: float
    start: float = 0.0
    power: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _must(self.power > 0, "the power of a Polynomial must be positive", self.power)

    def __call__(self, progress: float) -> float:
        return float(self.end + (self.start - self.end) * (1 - _within(progress)) ** self.power)


@dataclass(frozen=True)
class Cubic(_Checked):
    """Much at first, little at last: v(p) = end + (start - end) (1 - p)^3.

    Source: Zhu & Gupta, To prune, or not to prune (2017).
    """

    end: float
    start: float = 0.0

    def __call__(self, progress: float) -> float:
        return float(self.end + (self.start - self.end) * (1 - _within(progress)) ** 3)


@dataclass(frozen=True)
class InverseSigmoid(_Checked):
    """Slow, fast, slow: v(p) = end + (start - end) (g(p) - g(1)) / (g(0) - g(1)), g(p) = 1 / (1 + exp(s (p - middle))).

    s is the `steepness`. Source: Bengio et al., Scheduled Sampling (2015), stretched so that both ends are reached.
    """

    end: float
    start: float = 0.0
    steepness: float = 10.0
    middle: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _must(0.1 <= self.steepness <= 500, "the steepness of an InverseSigmoid runs from 0.1 to 500", self.steepness)
        _must(0 <= self.middle <= 1, "the middle of an InverseSigmoid is progress from 0 to 1", self.middle)

    def __call__(self, progress: float) -> float:
        first, last = self._open(0.0), self._open(1.0)
        share = (self._open(_within(progress)) - last) / (first - last)
        return self.end + (self.start - self.end) * share

    def _open(self, progress: float) -> float:
        return 1 / (1 + math.exp(self.steepness * (progress - self.middle)))


@dataclass(frozen=True)
class Step(_Checked):
    """A switch: v(p) = start for p < `at`, else end."""

    end: float
    start: float = 0.0
    at: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _must(0 <= self.at <= 1, "a Step is at a progress from 0 to 1", self.at)

    def __call__(self, progress: float) -> float:
        return self.start if _within(progress) < self.at else self.end


@dataclass(frozen=True)
class Cyclic(_Checked):
    """Half a cosine from `start` to `end`, again and again: v(p) = end + (start - end) (1 + cos(pi q)) / 2.

    q is the share of the running cycle that is done, 1 at p = 1. Source: Loshchilov & Hutter, SGDR (2017); Huang et
    al., Snapshot Ensembles (2017).
    """

    cycles: int
    start: float = 1.0
    end: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _must(
            type(self.cycles) is int and self.cycles >= 1,
            "a Cyclic schedule has whole cycles, at least one",
            self.cycles,
        )

    def __call__(self, progress: float) -> float:
        turns = self.cycles * _within(progress)
        done = turns - min(math.floor(turns), self.cycles - 1)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Stretch:
    """A part of a schedule: v(p) = schedule(start + length p); how training in parts follows one schedule."""

    schedule: Schedule
    start: float
    length: float

    def __post_init__(self) -> None:
        inside = min(self.start, self.length) >= 0 and self.start + self.length <= 1 + ROUNDING
        _must(inside, "a part of a schedule lies in [0, 1]", f"start {self.start}, length {self.length}")

    def __call__(self, progress: float) -> float:
        return self.schedule(self.start + self.length * _within(progress))


@dataclass(frozen=True)
class LossDriven(_Checked):
    """Anneals as the loss falls and steps pass: v_t = 1 - exp(-strength depth m_t / t), and 0 once that is below `off`.

    m_t is the moving average of the losses: m_1 = loss, then m_t = memory m_(t-1) + (1 - memory) loss; `depth` is l / L
    of layer l of L. Before the first loss the value is 1. State: (t, m_t, whether it is off), off for good.
    Source: Gulcehre et al., Mollifying Networks (2017); the paper leaves strength, memory and off open.
    """

    strength: float
    depth: float = 1.0
    memory: float = 0.9
    off: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        _must(self.strength >= 0 and 0 < self.depth <= 1, "strength >= 0 and 0 < depth <= 1 must hold", self)
        _must(0 <= self.memory < 1 and 0 <= self.off <= 1, "0 <= memory < 1 and 0 <= off <= 1 must hold", self)

    def begin(self) -> State:
        """The state before the first loss."""
        return (0.0, 0.0, 0.0)

    def value(self, state: State) -> float:
        """The value in a state."""
        count, mean, off = state
        if off:
            return 0.0
        return 1 - math.exp(-self.strength * self.depth * mean / count) if count else 1.0

    def step(self, state: State, loss: float) -> tuple[float, State]:
        """The value after one more loss (at least 0), and the new state."""
        _must(loss >= 0, "a LossDriven schedule needs losses that are not negative", loss)
        count, mean, off = state
        mean = self.memory * mean + (1 - self.memory) * loss if count else loss
        value = self.value((count + 1, mean, off))
        after = (count + 1, mean, float(off or value < self.off))
        return self.value(after), after


@dataclass(frozen=True)
class Plateau(_Checked):
    """Changes only when the loss stalls: v = start factor^n after n plateaus, not beyond `bound`.

    Values that grow (factor above 1) need a bound above `start`, which then is the highest, not the lowest.
    A plateau is `patience` losses in a row, none of them below (1 - threshold) times the best before.
    State: (best, losses since, plateaus). Source: the rule of torch's ReduceLROnPlateau.
    """

    start: float
    factor: float = 0.5
    patience: int = 10
    threshold: float = 1e-4
    bound: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _must(self.factor > 0 and self.patience >= 1, "factor > 0 and patience >= 1 must hold", self)
        _must(0 <= self.threshold < 1, "the threshold is a share below 1", self.threshold)
        beyond = self.start < self.bound if self.factor <= 1 else self.start > self.bound
        _must(not beyond, "start must not lie beyond bound, which factor leads to", self)

    def begin(self) -> State:
        """The state before the first loss; -1 stands for none yet."""
        return (-1.0, 0.0, 0.0)

    def value(self, state: State) -> float:
        """The value in a state."""
        moved = float(self.start * self.factor ** state[2])
        return max(moved, self.bound) if self.factor <= 1 else min(moved, self.bound)

    def step(self, state: State, loss: float) -> tuple[float, State]:
        """The value after one more loss (at least 0), and the new state."""
        _must(loss >= 0, "a Plateau needs losses that are not negative", loss)
        best, since, plateaus = state
        if best < 0 or loss < best * (1 - self.threshold):
            after = (loss, 0.0, plateaus)
        else:
            after = (best, since + 1, plateaus) if since + 1 < self.patience else (best, 0.0, plateaus + 1)
        return self.value(after), after


HALVED = Plateau(1.0, bound=1e-3)
"""Half the learning rate after ten epochs without progress, down to a thousandth of it."""

KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (Constant, Cosine, OneShot, Linear, Exponential, Decay, Polynomial, Cubic, InverseSigmoid, Step, Cyclic)
} | {"LossDriven": LossDriven, "Plateau": Plateau}


def as_data(schedule: Schedule | Stateful) -> dict[str, Any]:
    """A schedule of this module (no Stretch) as plain data for JSON or TOML: its fields, and its name under "kind"."""
    if type(schedule) not in KINDS.values():
        raise ValueError(f"only schedules of pared.schedules can be written down, got {schedule!r}")
    return {"kind": type(schedule).__name__, **asdict(schedule)}  # type: ignore[call-overload]


def from_data(data: Mapping[str, Any]) -> Any:
    """The schedule that `as_data` wrote. Raises ValueError for unknown kinds or fields and values out of range."""
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"unknown kind of schedule {kind!r}; choose one of {', '.join(KINDS)}")
    try:
        return KINDS[kind](**fields)
    except TypeError as error:
        raise ValueError(f"these are not the fields of {kind}: {error}") from error


def check_range(schedule: Schedule, low: float, high: float, name: str) -> None:
    """Raises ValueError where a schedule leaves [low, high], looked at in 101 places."""
    for index in range(101):
        value = schedule(index / 100)
        if not low <= value <= high:
            raise ValueError(
                f"the schedule of {name} gives {value} at progress {index / 100}; it must stay within {low} and {high}"
            )
