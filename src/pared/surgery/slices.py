"""Where units lie: slices of parameters, and groups of units that live and die together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

Role = Literal["in", "out"]
_ROLES = get_args(Role)


class StructureError(ValueError):
    """A network's structure cannot be followed or a plan does not fit it; the message names the place and a way out."""


def check_role(role: str | None) -> None:
    """Raises ValueError for what is no role, and not None either."""
    if role not in (None, *_ROLES):
        raise ValueError(f"a role is 'in' or 'out', or None for both; got {role!r}")


@dataclass(frozen=True)
class Slice:
    """Where the units of a group lie along one axis of one parameter.

    Unit j owns the indices `offset + b * width * inner + j * inner + i` for b in range(blocks) and i in range(inner):
    `blocks` counts gates (4 in an LSTM, 3 in a GRU), `inner` the entries a unit keeps together. Role "in" makes the
    unit, role "out" reads it: zeroing these entries silences the unit. `length`, where it is known, is how many entries
    the whole axis has before any cut. Raises ValueError for anything that is not such a row.
    """

    parameter: str
    axis: int
    role: Role
    blocks: int = 1
    inner: int = 1
    offset: int = 0
    length: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        least = (self.axis, 0), (self.offset, 0), (self.blocks, 1), (self.inner, 1), (self.length or 0, 0)
        if (
            not isinstance(self.parameter, str)
            or self.role not in _ROLES
            or any(not isinstance(value, int) or value < low for value, low in least)
        ):
            raise ValueError(f"a slice needs a parameter's name, a role in or out and whole numbers, got {self}")

    def indices(self, width: int, units: Sequence[int]) -> list[int]:
        """Positions along the axis that the given units own, block by block, in the order of `units`."""
        return [
            self.offset + (b * width + j) * self.inner + i
            for b in range(self.blocks)
            for j in units
            for i in range(self.inner)
        ]


@dataclass(frozen=True)
class Group:
    """Units that live and die together across parameters, named after the module that makes them."""

    name: str
    width: int
    slices: tuple[Slice, ...]
    exact: bool = True
