"""The units of a network while a trace finds them: atoms along axes, coupled where operations bring them together.

Every entry along an axis carries an atom, a whole number; 0 stands for what stays. Each axis of a parameter starts with
atoms of its own; an operation couples the atoms that must live and die together. What is coupled in the end is a unit.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from pared.surgery.slices import Group, Role, Slice, StructureError
from pared.surgery.structure import Note, Structure

Axis = NDArray[np.int64]


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
    """Collects what a trace finds; `structure` turns it into groups and slices.

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
        self.names = {id(tensor): name for name, tensor in reversed(list(_named_tensors(self.model)))}

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

    def structure(self) -> Structure:
        """Groups of the units that may be cut, and a note for every layer that makes any."""
        return _Resolved(self).structure()


def _named_tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


class _Resolved:
    """Atoms joined to units (classes), and what holds for each of them."""

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        firsts = np.concatenate([a for a, _ in atoms.coupled] or [np.zeros(0, np.int64)])
        seconds = np.concatenate([b for _, b in atoms.coupled] or [np.zeros(0, np.int64)])
        graph = coo_matrix((np.ones(len(firsts), bool), (firsts, seconds)), shape=(atoms.count,) * 2)
        self.unit = connected_components(graph, directed=False)[1]
        self.fixed = self._remarks(atoms.fixed)
        self.mixed = self._remarks(atoms.mixed)
        self.axes = {row: self._units(axis) for row, axis in atoms.rows.items()}
        self.read = {row: np.unique(self.unit[np.concatenate(axes)]) for row, axes in atoms.read.items()}
        self.made = np.zeros(atoms.count, bool)
        for _, axis in atoms.made:
            self.made[axis] = True
        self.made[0] = False
        self.group: dict[int, str] = {}

    def _units(self, axis: Axis) -> Axis:
        """Units along an axis, -1 for what stays."""
        return np.where(axis > 0, self.unit[axis], -1)

    def _remarks(self, remarks: Iterable[Remark]) -> dict[int, str]:
        found: dict[int, str] = {}
        for atoms, why in remarks:
            for unit in np.unique(self.unit[atoms]).tolist():
                found.setdefault(unit, why)
        return found

    def _fix(self, units: Iterable[int], why: str) -> None:
        for unit in units:
            self.fixed.setdefault(unit, why)

    def structure(self) -> Structure:
        groups: list[Group] | None = None
        while groups is None:  # a group that turns out to be irregular stays, and with it what must be as wide
            self._fix_equals()
            groups = self._groups()
            if groups is not None and not self._equals_are_whole(groups):
                groups = None
        return Structure(tuple(groups), self._equal_names(), tuple(self._notes(groups)))

    def _fix_equals(self) -> None:
        changed = True
        while changed:
            changed = False
            for axes in self.atoms.equal:
                units = set(np.concatenate([self._units(axis) for axis in axes]).tolist())
                if units & self.fixed.keys() and units - self.fixed.keys():
                    why = next(self.fixed[u] for u in units if u in self.fixed)
                    self._fix(units, f"is as wide as other layers of its module, one of which {why}")
                    changed = True

    def _groups(self) -> list[Group] | None:
        """None where a group had to be given up, so that all must be looked at again."""
        names: dict[int, str] = {}
        whole: dict[str, int] = {}
        for name, axis in self.atoms.made:
            units = list(dict.fromkeys(self._units(axis).tolist()))
            whole.setdefault(name, len(units))
            for unit in units:
                if unit >= 0:
                    names.setdefault(unit, name)
        signs = self._signatures(names)
        members: dict[Any, list[int]] = {}
        for unit, name in names.items():
            if unit not in self.fixed:
                members.setdefault((name, signs[unit], unit in self.mixed), []).append(unit)
        groups, self.group = [], {}
        for (name, sign, mixed), units in members.items():
            title = self._title(name, units, whole[name])
            self.group |= dict.fromkeys(units, title)
            slices = self._slices(units, sign)
            if isinstance(slices, str):
                self._fix(units, f"lies in {slices} in an order that slices cannot express")
                return None
            groups.append(Group(title, len(units), slices, exact=not mixed))
        return groups

    def _signatures(self, units: Iterable[int]) -> dict[int, bytes]:
        """Unit -> on which axes, how often, and whether it is read there: units of a group are alike."""
        wanted = np.zeros(len(self.unit) + 1, bool)
        wanted[list(units)] = True
        rows = {row: index for index, row in enumerate(self.axes)}
        carried = np.concatenate(list(self.axes.values()) or [np.zeros(0, np.int64)])
        index = np.repeat(np.arange(len(rows)), [len(axis) for axis in self.axes.values()])
        mine = wanted[carried]
        places, counts = np.unique(carried[mine] * len(rows) + index[mine], return_counts=True)
        read = [np.zeros(0, np.int64), *(units * len(rows) + rows[row] for row, units in self.read.items())]
        table = np.column_stack([places % max(len(rows), 1), counts, np.isin(places, np.concatenate(read))])
        found = places // max(len(rows), 1)
        ends = (np.flatnonzero(np.diff(found, append=-1)) + 1).tolist()
        signs = dict.fromkeys(units, b"")
        for start, end in pairwise((0, *ends)):
            signs[int(found[start])] = table[start:end].tobytes()
        return signs

    def _title(self, name: str, units: list[int], whole: int) -> str:
        if len(units) < whole:
            orders = (self._units(axis).tolist() for made, axis in self.atoms.made if made == name)
            order = list(dict.fromkeys(next(order for order in orders if units[0] in order)))
            places = [order.index(unit) for unit in units]
            name = f"{name}[{min(places)}:{max(places) + 1}]"
        while name in self.group.values():
            name += "'"
        return name

    def _slices(self, units: list[int], sign: bytes) -> tuple[Slice, ...] | str:
        """The rows of a group whose units have this signature; the name of a parameter where they are irregular."""
        place = np.full(len(self.unit) + 1, -1)
        place[units] = np.arange(len(units))
        slices: list[Slice] = []
        rows = list(self.axes.items())
        for index in np.frombuffer(sign, np.int64)[::3].tolist():
            row, axis = rows[int(index)]
            where = place[axis]
            found = runs(where, len(units))
            if found is None:
                return row.parameter
            if not found:
                continue
            read = units[0] in self.read.get(row, ())
            roles: tuple[Role, ...] = ("in",) if not read else ("out",) if self._only_read(row) else ("in", "out")
            for role in roles:
                for offset, blocks, inner in found:
                    slices.append(Slice(row.parameter, row.axis, role, blocks, inner, offset, len(axis)))
        return tuple(dict.fromkeys(slices))

    def _only_read(self, row: Row) -> bool:
        """Whether no layer makes its units along this axis."""
        return not self.made[self.atoms.rows[row]].any()

    def _equals_are_whole(self, groups: list[Group]) -> bool:
        """Layers of one width must be one group each, or their counts could not be kept alike."""
        for axes in self.atoms.equal:
            for axis in axes:
                units = set(self._units(axis).tolist())
                names = {self.group.get(unit) for unit in units}
                if len(names) > 1:
                    self._fix(units, "is one of a module's equal layers, and its units are read in different ways")
                    return False
            units = set(np.concatenate([self._units(axis) for axis in axes]).tolist())
            if units - self.fixed.keys() and len({len(set(self._units(axis).tolist())) for axis in axes}) > 1:
                self._fix(units, "is one of a module's equal layers, of which one loses several units at a time")
                return False
        return True

    def _equal_names(self) -> tuple[tuple[str, ...], ...]:
        sets: list[dict[str, None]] = []
        for axes in self.atoms.equal:  # sets that share a group are one set
            names = [self.group.get(int(self._units(axis)[0])) for axis in axes]
            together = dict.fromkeys(name for name in names if name is not None)
            met = [other for other in sets if other.keys() & together.keys()]
            merged = dict.fromkeys(name for part in (*met, together) for name in part)
            sets = [other for other in sets if other not in met] + [merged]
        return tuple(tuple(names) for names in sets if len(names) > 1)

    def _notes(self, groups: list[Group]) -> Iterable[Note]:
        seen: set[tuple[str, str]] = set()
        for name, axis in self.atoms.made:
            units = dict.fromkeys(self._units(axis).tolist())
            fates = Counter(
                (self.group.get(unit, ""), self.fixed.get(unit) or self.mixed.get(unit, "")) for unit in units
            )
            for (group, why), count in fates.items():
                if (name, group or why) not in seen:
                    seen.add((name, group or why))
                    yield Note(name, count, group or None, why)


def runs(where: Axis, width: int) -> list[tuple[int, int, int]] | None:
    """(offset, blocks, inner) of the stretches in which places 0 to width - 1 lie in order; None where they do not."""
    found: list[tuple[int, int, int]] = []
    at = 0
    mine = np.flatnonzero(where >= 0)
    while len(mine) and at <= mine[-1]:
        at = int(mine[np.searchsorted(mine, at)])
        inner = 1
        while at + inner < len(where) and where[at + inner] == 0 and where[at] == 0 and width > 1:
            inner += 1
        if width == 1:
            inner = _same(where, at)
        block = np.repeat(np.arange(width), inner)
        blocks = 0
        while np.array_equal(where[at + blocks * len(block) : at + (blocks + 1) * len(block)], block):
            blocks += 1
        if not blocks:
            return None
        if found and found[-1][0] + found[-1][1] * found[-1][2] * width == at and found[-1][2] == inner:
            found[-1] = (found[-1][0], found[-1][1] + blocks, inner)
        else:
            found.append((at, blocks, inner))
        at += blocks * len(block)
    return found


def _same(where: Axis, at: int) -> int:
    end = at
    while end < len(where) and where[end] == where[at]:
        end += 1
    return end - at
