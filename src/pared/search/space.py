"""What a search may choose: parameters with their ranges, some of them only beside certain values of another.

A space is plain data, and so is a point of it: the values of its active parameters by name.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pared.types import DataError

Scalar = str | int | float | bool | None
Point = dict[str, Scalar]


@dataclass(frozen=True)
class Float:
    """Numbers from `low` to `high`, evenly or, with `log`, on the log scale; with `step`, multiples of it above low."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    kind: ClassVar[str] = "float"

    def flaw(self) -> str | None:
        """Why there is nothing to choose; None where there is."""
        if not all(_is_number(value) and math.isfinite(value) for value in (self.low, self.high)):
            return f"its bounds must be finite numbers, got {self.low!r} and {self.high!r}"
        if self.step is not None and (not _is_number(self.step) or not 0 < self.step < math.inf or self.log):
            return f"its step must be a positive number on an even scale, got {self.step!r}" + " with log" * self.log
        return _flaw_of_range(self.low, self.high, self.log)

    def values(self, levels: int) -> tuple[Scalar, ...]:
        """All multiples of the step, or `levels` values from end to end."""
        if self.step is not None:
            count = math.floor((self.high - self.low) / self.step + 1e-9) + 1
            return tuple(min(self.high, self.low + place * self.step) for place in range(count))
        return _levels(self.low, self.high, self.log, levels)

    def holds(self, value: Scalar) -> bool:
        """Whether a value may be chosen."""
        return _is_number(value) and self.low <= float(value) <= self.high  # type: ignore[arg-type]


@dataclass(frozen=True)
class Int:
    """Whole numbers from `low` to `high`, evenly or, with `log`, evenly on the log scale."""

    low: int
    high: int
    log: bool = False
    kind: ClassVar[str] = "int"

    def flaw(self) -> str | None:
        """Why there is nothing to choose; None where there is."""
        if not all(_is_whole(value) for value in (self.low, self.high)):
            return f"its bounds must be whole numbers, got {self.low!r} and {self.high!r}"
        return _flaw_of_range(self.low, self.high, self.log)

    def values(self, levels: int) -> tuple[Scalar, ...]:
        """`levels` values from end to end, rounded; all of them where there are no more."""
        if self.high - self.low < levels:
            return tuple(range(self.low, self.high + 1))
        return tuple(dict.fromkeys(map(round, _levels(self.low, self.high, self.log, levels))))

    def holds(self, value: Scalar) -> bool:
        """Whether a value may be chosen."""
        return _is_whole(value) and self.low <= value <= self.high  # type: ignore[operator]


@dataclass(frozen=True)
class PowerOfTwo:
    """Powers of two from `low` to `high`, evenly on the log scale."""

    low: int
    high: int
    kind: ClassVar[str] = "power of two"

    def flaw(self) -> str | None:
        """Why there is nothing to choose; None where there is."""
        if not all(_is_whole(value) and value > 0 and value & (value - 1) == 0 for value in (self.low, self.high)):
            return f"its bounds must be powers of two, got {self.low!r} and {self.high!r}"
        return _flaw_of_range(self.low, self.high, log=True)

    @property
    def exponents(self) -> tuple[int, int]:
        """The bounds as powers."""
        return self.low.bit_length() - 1, self.high.bit_length() - 1

    def values(self, levels: int) -> tuple[Scalar, ...]:
        """`levels` of them from end to end; all of them where there are no more."""
        low, high = self.exponents
        return tuple(2**exponent for exponent in Int(low, high).values(levels))  # type: ignore[operator]

    def holds(self, value: Scalar) -> bool:
        """Whether a value may be chosen."""
        return Int(self.low, self.high).holds(value) and value & (value - 1) == 0  # type: ignore[operator]


@dataclass(frozen=True)
class Categorical:
    """One of several values in no order."""

    choices: tuple[Scalar, ...]
    kind: ClassVar[str] = "categorical"

    def flaw(self) -> str | None:
        """Why there is nothing to choose; None where there is."""
        if not self.choices:
            return "it has no choices; give at least one"
        if strange := [value for value in self.choices if not (value is None or isinstance(value, str | int | float))]:
            return f"its choices must be text, numbers, true, false or none, got {strange[0]!r}"
        if strange := [value for value in self.choices if isinstance(value, float) and not math.isfinite(value)]:
            return f"its choices must be finite, got {strange[0]}"
        for place, value in enumerate(self.choices):
            if value in self.choices[:place]:  # 1, 1.0 and True are the same
                return f"its choice {value!r} stands there twice"
        return None

    def values(self, levels: int) -> tuple[Scalar, ...]:
        """All of them."""
        return self.choices

    def holds(self, value: Scalar) -> bool:
        """Whether a value may be chosen."""
        return any(value == choice and type(value) is type(choice) for choice in self.choices)


Domain = Float | Int | PowerOfTwo | Categorical
KINDS: dict[str, type[Domain]] = {kind.kind: kind for kind in (Float, Int, PowerOfTwo, Categorical)}


@dataclass(frozen=True)
class Conditional:
    """A parameter that is there only where the parameter `parent` takes one of `values`."""

    domain: Domain
    parent: str
    values: tuple[Scalar, ...]


Parameter = Domain | Conditional


@dataclass(frozen=True)
class Space:
    """Parameters by name, each after those that it depends on.

    Raises: DataError for a space that is empty or contradicts itself; it names the parameter.
    """

    parameters: Mapping[str, Parameter]

    def __post_init__(self) -> None:
        if not self.parameters:
            raise DataError("the space is empty; give at least one parameter")
        before: dict[str, Domain] = {}
        for name, parameter in self.parameters.items():
            flaw = _flaw(name, parameter, before)
            if flaw is not None:
                raise DataError(f"the space cannot be searched: parameter {name!r}: {flaw}")
            before[name] = domain(parameter)

    def active(self, name: str, point: Mapping[str, Scalar]) -> bool:
        """Whether a parameter is there, given the values of those before it."""
        parameter = self.parameters[name]
        return not isinstance(parameter, Conditional) or (
            parameter.parent in point and point[parameter.parent] in parameter.values
        )

    def check(self, point: Mapping[str, Scalar]) -> None:
        """Raises DataError where a point is none of this space; it says why."""
        for name, parameter in self.parameters.items():
            if name in point and not self.active(name, point):
                assert isinstance(parameter, Conditional)
                raise DataError(f"{name!r} is there only where {parameter.parent!r} is {_listed(parameter.values)}")
            if self.active(name, point) and name not in point:
                raise DataError(f"the point {dict(point)} lacks {name!r}")
            if name in point and not domain(parameter).holds(point[name]):
                raise DataError(f"{name} = {point[name]!r} lies outside of {_told(domain(parameter))}")
        if unknown := [name for name in point if name not in self.parameters]:
            raise DataError(f"unknown parameter {unknown[0]!r}; the space has {', '.join(self.parameters)}")

    def as_dict(self) -> dict[str, Any]:
        """The space as JSON holds it."""
        return {name: _as_dict(parameter) for name, parameter in self.parameters.items()}


def space_from_dict(content: Any) -> Space:
    """A space from what `as_dict` gave. Raises DataError where it cannot be read."""
    if not isinstance(content, Mapping):
        raise DataError(f"a space is an object with one entry a parameter, got {type(content).__name__}")
    return Space({str(name): _parameter(str(name), entry) for name, entry in content.items()})


def domain(parameter: Parameter) -> Domain:
    """What a parameter may be where it is there."""
    return parameter.domain if isinstance(parameter, Conditional) else parameter


def key(point: Mapping[str, Scalar]) -> str:
    """Text that is the same for the same point, whatever the order of its names."""
    return json.dumps(point, sort_keys=True, allow_nan=False)


def grid(space: Space, levels: int = 3) -> list[Point]:
    """Every point of the grid, none twice: a parameter that is not there does not multiply them.

    A continuous range gives `levels` values from end to end, on the log scale where it has one; whole numbers and
    powers of two give all where there are at most `levels`; categories give all. `grid_size` counts without listing.

    Returns: points, the last parameter varying fastest.
    Raises: DataError for fewer than 2 levels.
    """
    if levels < 2:
        raise DataError(f"a grid needs at least 2 levels of a range, got {levels}")
    return list(_points(space, list(space.parameters), {}, levels))


def grid_size(space: Space, levels: int = 3) -> int:
    """How many points `grid` has.

    Cost: one step a combination of parameters that others depend on.
    """
    parents = {each.parent for each in space.parameters.values() if isinstance(each, Conditional)}
    return _count(space, list(space.parameters), {}, parents, levels)


def _points(space: Space, names: Sequence[str], so_far: Point, levels: int) -> Iterator[Point]:
    if not names:
        yield so_far
        return
    first, rest = names[0], names[1:]
    if not space.active(first, so_far):
        yield from _points(space, rest, so_far, levels)
        return
    for value in domain(space.parameters[first]).values(levels):
        yield from _points(space, rest, so_far | {first: value}, levels)


def _count(space: Space, names: Sequence[str], so_far: Point, parents: set[str], levels: int) -> int:
    if not names:
        return 1
    first, rest = names[0], names[1:]
    if not space.active(first, so_far):
        return _count(space, rest, so_far, parents, levels)
    values = domain(space.parameters[first]).values(levels)
    if first not in parents:
        return len(values) * _count(space, rest, so_far, parents, levels)
    return sum(_count(space, rest, so_far | {first: value}, parents, levels) for value in values)


def _flaw(name: str, parameter: Parameter, before: Mapping[str, Domain]) -> str | None:
    if not name:
        return "it has no name"
    if not isinstance(domain(parameter), Domain):
        return f"it must be one of {', '.join(kind.__name__ for kind in KINDS.values())}, got {domain(parameter)!r}"
    if (flaw := domain(parameter).flaw()) is not None or not isinstance(parameter, Conditional):
        return flaw
    parent = before.get(parameter.parent)
    if parent is None:
        return f"it depends on {parameter.parent!r}, which must stand before it"
    if isinstance(parent, Float):
        return f"it depends on {parameter.parent!r}, whose values cannot be listed; depend on whole numbers or choices"
    if never := [value for value in parameter.values if not parent.holds(value)]:
        return f"it depends on {parameter.parent!r} being {never[0]!r}, which lies outside of {_told(parent)}"
    return None if parameter.values else f"it is never there: no value of {parameter.parent!r} is given"


def _flaw_of_range(low: float, high: float, log: bool) -> str | None:
    if low > high:
        return f"its range is empty: low {low} is above high {high}"
    return f"a log scale needs positive bounds, got low {low}" if log and low <= 0 else None


def _levels(low: float, high: float, log: bool, count: int) -> tuple[float, ...]:
    if low == high:
        return (low,)
    shares = [place / (count - 1) for place in range(1, count - 1)]
    between = [low * (high / low) ** share if log else low + (high - low) * share for share in shares]
    return (low, *between, high)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _listed(values: Sequence[Scalar]) -> str:
    return " or ".join(map(repr, values))


def _told(values: Domain) -> str:
    return _listed(values.choices) if isinstance(values, Categorical) else f"{values.low} to {values.high}"


def _as_dict(parameter: Parameter) -> dict[str, Any]:
    own = domain(parameter)
    fields = {name: value for name, value in asdict(own).items() if value is not None and value is not False}
    content: dict[str, Any] = {"kind": own.kind, **fields}
    if isinstance(own, Categorical):
        content["choices"] = list(own.choices)
    if isinstance(parameter, Conditional):
        content["when"] = {parameter.parent: list(parameter.values)}
    return content


def _parameter(name: str, entry: Any) -> Parameter:
    """A parameter from JSON; what its fields may be is checked by `Space`."""
    wrong = f"the space cannot be searched: parameter {name!r}: "
    if not isinstance(entry, Mapping) or entry.get("kind") not in KINDS:
        raise DataError(f"{wrong}it must say its kind, one of {', '.join(KINDS)}; got {entry!r}")
    fields = {field: value for field, value in entry.items() if field not in ("kind", "when")}
    if isinstance(fields.get("choices"), list):
        fields["choices"] = tuple(fields["choices"])
    try:
        own = KINDS[entry["kind"]](**fields)
    except TypeError as error:
        raise DataError(f"{wrong}{entry['kind']} cannot be made of {fields}: {error}") from error
    when = entry.get("when")
    if when is None:
        return own
    if not isinstance(when, Mapping) or len(when) != 1 or not isinstance(next(iter(when.values())), list):
        raise DataError(f"{wrong}'when' must name one parameter and list its values, got {when!r}")
    return Conditional(own, next(iter(when)), tuple(next(iter(when.values()))))
