"""The units of a network while a trace finds them: atoms along axes, coupled where operations bring them together.

Every entry along an axis carries an atom, a whole number; 0 stands for what stays. Each axis of a parameter starts with
atoms of its own; an operation couples the atoms that must live and die together. What is coupled in the end is a unit.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from pared.surgery.copies import held_tensors
from pared.surgery.slices import StructureError

Axis = NDArray[np.int64]
NONE: Axis = np.zeros(0, np.int64)


class Row(NamedTuple):
    """An axis of a parameter; `facet` tells apart two ways to cut one axis, as heads and their width."""

    parameter: str
    axis: int
    facet: str = ""


Rows = frozenset[Row] | None
"""Rows whose zeroing turns a value's entries into zeros; None where nothing does."""


@dataclass(frozen=True)
class Layout:
    """The atoms along each axis of a tensor, and for each axis what would silence its entries."""

    axes: tuple[Axis, ...]
    silent: tuple[Rows, ...]

    def replaced(self, axis: int, atoms: Axis, silent: Rows) -> "Layout":
        """The same layout with one axis exchanged."""
        axes, rows = list(self.axes), list(self.silent)
        axes[axis], rows[axis] = atoms, silent
        return Layout(tuple(axes), tuple(rows))

    def loud(self) -> "Layout":
        """The same atoms, of which none can be silenced any more."""
        return Layout(self.axes, (None,) * len(self.axes))


@dataclass(frozen=True)
class States:
    """Final states of a recurrent module: one layout for each layer and direction, stacked along the first axis."""

    layers: tuple[Layout, ...]


@dataclass(frozen=True)
class Size:
    """A whole number that counts the entries of an axis."""

    atoms: Axis


@dataclass(frozen=True)
class Spoiled:
    """A tensor without units that depends on how many there are: whoever uses it holds these atoms fast."""

    atoms: Axis
    why: str


class Traced(NamedTuple):
    """A value of the example's forward pass and its layout: of tensors, of tuples, of sizes."""

    value: Any
    layout: Any


def still(shape: Iterable[int]) -> Layout:
    """The layout of a tensor none of whose axes carry units."""
    axes = tuple(np.zeros(n, np.int64) for n in shape)
    return Layout(axes, (None,) * len(axes))


def union(first: Rows, second: Rows) -> Rows:
    """What silences a sum."""
    return None if first is None or second is None else first | second


class Remark(NamedTuple):
    """Atoms that must stay or mix with others, and why."""

    atoms: Axis
    why: str


@dataclass
class Atoms:
    """Collects what a trace finds; `structure_of` turns it into groups and slices.

    `literal` says that the graph knows all sizes as numbers, so that a number does not mean that the code holds it.
    """

    model: nn.Module
    literal: bool = False
    place: str = ""
    rows: dict[Row, Axis] = field(default_factory=dict)
    read: dict[Row, list[Axis]] = field(default_factory=dict)
    made: list[tuple[str, Axis]] = field(default_factory=list)
    coupled: list[tuple[Axis, Axis]] = field(default_factory=list)
    fixed: list[Remark] = field(default_factory=list)
    mixed: list[Remark] = field(default_factory=list)
    equal: list[tuple[Axis, ...]] = field(default_factory=list)
    count: int = 1

    def __post_init__(self) -> None:
        self.names = {id(tensor): name for name, tensor in reversed(held_tensors(self.model).items())}

    def fresh(self, count: int) -> Axis:
        """New atoms."""
        self.count += count
        return np.arange(self.count - count, self.count)

    def parameter(self, name: str, tensor: Tensor) -> Layout:
        """The layout of a parameter or buffer; one that has two names is known by the first."""
        name = self.names.get(id(tensor), name)
        keys = [Row(name, axis) for axis in range(tensor.dim())]
        for key, size in zip(keys, tensor.shape, strict=True):
            if key not in self.rows:
                self.rows[key] = self.fresh(size)
        return Layout(tuple(self.rows[key] for key in keys), tuple(frozenset([key]) for key in keys))

    def facet(self, parameter: str, axis: int, name: str, atoms: Axis) -> Row:
        """Another way to cut an axis of a parameter, beside the others."""
        key = Row(parameter, axis, name)
        if key in self.rows:
            self.couple(self.rows[key], atoms)
        self.rows.setdefault(key, atoms)
        return key

    def make(self, name: str, atoms: Axis) -> None:
        """A layer makes units; the name becomes their group's."""
        self.made.append((name, atoms))

    def couple(self, first: Axis, second: Axis) -> Axis:
        """Entries that meet one by one live and die together; the result carries both."""
        if len(first) != len(second):
            raise StructureError(f"{self.place} brings together axes of {len(first)} and {len(second)} entries")
        if first.all() and second.all():
            self.coupled.append((first, second))
            return first
        both = (first > 0) & (second > 0)
        if both.any():
            self.coupled.append((first[both], second[both]))
        for atoms, other in ((first, second), (second, first)):
            if (alone := (atoms > 0) & (other == 0)).any():
                self.fix(atoms[alone], f"meets entries that cannot shrink in {self.place}")
        return np.where(first > 0, first, second)

    def fix(self, atoms: Axis, why: str) -> None:
        """These atoms stay, whatever is cut."""
        if (atoms > 0).any():
            self.fixed.append(Remark(atoms[atoms > 0], why))

    def mix(self, atoms: Axis, why: str) -> None:
        """Removing one of these atoms changes what becomes of the others."""
        if (atoms > 0).any():
            self.mixed.append(Remark(atoms[atoms > 0], why))

    def reads(self, rows: Rows, atoms: Axis) -> None:
        """The atoms are summed over, so that whatever silences them is what a mask zeroes."""
        if not (atoms > 0).any():
            return
        if rows is None:
            self.fix(atoms, f"{self.place} sums over its units with no weight that could silence one")
            return
        for row in rows:
            self.read.setdefault(row, []).append(atoms)
