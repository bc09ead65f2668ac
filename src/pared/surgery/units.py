"""Groups of units from the atoms that a trace found: what is coupled is a unit, units that lie alike are a group."""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from pared.surgery.atoms import NONE, Atoms, Axis, Remark, Row
from pared.surgery.slices import Group, Role, Slice
from pared.surgery.structure import Note, Structure


def structure_of(atoms: Atoms) -> Structure:
    """Groups of the units that may be cut, and a note for every layer that makes any."""
    return _Resolved(atoms).structure()


class _Resolved:
    """Atoms joined to units (classes), and what holds for each of them.

    Arrays over units have one entry more, at -1, for what is no unit.
    """

    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        firsts = np.concatenate([a for a, _ in atoms.coupled] or [NONE])
        seconds = np.concatenate([b for _, b in atoms.coupled] or [NONE])
        graph = coo_matrix((np.ones(len(firsts), bool), (firsts, seconds)), shape=(atoms.count,) * 2)
        self.count, self.unit = connected_components(graph, directed=False)
        self.unit[0] = -1  # what stays
        self.reasons = {"": 0}
        self.fixed, self.mixed = self._remarks(atoms.fixed), self._remarks(atoms.mixed)
        self.axes = {row: self.unit[axis] for row, axis in atoms.rows.items()}
        self.read = {row: self.unit[np.concatenate(axes)] for row, axes in atoms.read.items()}
        self.makers = [(name, self.unit[axis]) for name, axis in atoms.made]
        self.equal = [[self.unit[axis] for axis in axes] for axes in atoms.equal]
        self.made = np.zeros(atoms.count, bool)
        self.made[np.concatenate([NONE, *(axis for _, axis in atoms.made)])] = True
        self.made[0] = False
        self.titles: list[str] = []
        self.group = np.zeros(self.count + 1, np.int64)

    def _reason(self, why: str) -> int:
        return self.reasons.setdefault(why, len(self.reasons))

    def _remarks(self, remarks: Sequence[Remark]) -> Axis:
        """For each unit the number of the first reason given for it, 0 where there is none."""
        found = np.zeros(self.count + 1, np.int64)
        for atoms, why in reversed(remarks):
            found[self.unit[atoms]] = self._reason(why)
        return found

    def _fix(self, units: Axis, why: str) -> None:
        self.fixed[units[self.fixed[units] == 0]] = self._reason(why)

    def structure(self) -> Structure:
        groups: list[Group] | None = None
        while groups is None:  # a group that turns out to be irregular stays, and with it what must be as wide
            self._fix_equals()
            groups = self._groups()
            if groups is not None and not self._equals_are_whole():
                groups = None
        return Structure(tuple(groups), self._equal_names(), self._projecting(), tuple(self._notes()))

    def _projecting(self) -> dict[str, tuple[int, int]]:
        lengths = {row: len(axis) for row, axis in self.atoms.rows.items()}
        names = [row.parameter for row in lengths if row.axis == 0 and ".weight_hr_l" in f".{row.parameter}"]
        return {name: (lengths[Row(name, 0)], lengths[Row(name, 1)]) for name in names}

    def _fix_equals(self) -> None:
        changed = True
        while changed:
            changed = False
            for units in map(np.concatenate, self.equal):
                held = self.fixed[units]
                if held.any() and not held.all():
                    why = list(self.reasons)[held[held > 0][0]]
                    self._fix(units, f"is as wide as other layers of its module, one of which {why}")
                    changed = True

    def _groups(self) -> list[Group] | None:
        """None where a group had to be given up, so that all must be looked at again."""
        names = {name: number for number, name in enumerate(dict.fromkeys(name for name, _ in self.makers))}
        makers = np.concatenate([NONE, *(np.full(len(units), names[name]) for name, units in self.makers)])
        units, first, _ = firsts_of(np.concatenate([NONE, *(units for _, units in self.makers)]))
        free = (units >= 0) & (self.fixed[units] == 0)
        units, makers = units[free], makers[first][free]
        kinds, rows = self._signatures(units)
        alike = (makers * len(rows) + kinds[units]) * 2 + (self.mixed[units] > 0)
        groups, self.titles = [], [""]
        self.group = np.zeros(self.count + 1, np.int64)
        for key in firsts_of(alike)[0]:
            members = units[alike == key]
            self.titles.append(self._title(list(names)[key // 2 // len(rows)], members))
            self.group[members] = len(self.titles) - 1
            slices = self._slices(members, rows[key // 2 % len(rows)])
            if isinstance(slices, str):
                self._fix(members, f"lies in {slices} in an order that slices cannot express")
                return None
            groups.append(Group(self.titles[-1], len(members), slices, exact=not key % 2))
        return groups

    def _signatures(self, units: Axis) -> tuple[Axis, list[list[int]]]:
        """The kind of each unit, and the rows in which units of that kind lie.

        A kind says in which rows, how often, and whether it is read there: units of a group are alike.
        """
        many = max(len(self.axes), 1)
        wanted = np.zeros(self.count + 1, bool)
        wanted[units] = True
        carried = np.concatenate([*self.axes.values(), NONE])
        row = np.repeat(np.arange(len(self.axes)), [len(axis) for axis in self.axes.values()])
        mine = wanted[carried]
        places, counts = np.unique(carried[mine] * many + row[mine], return_counts=True)
        number = {row: index for index, row in enumerate(self.axes)}
        read = np.concatenate([NONE, *(units * many + number[row] for row, units in self.read.items())])
        entries = (counts * 2 + np.isin(places, read)) * many + places % many
        found, start, lengths = np.unique(places // many, return_index=True, return_counts=True)
        table = np.full((len(found), max(lengths, default=0)), -1)  # a line for each unit
        table[np.repeat(np.arange(len(found)), lengths), np.arange(len(places)) - np.repeat(start, lengths)] = entries
        heads = np.ones(len(table), bool)  # lines unlike the one before: neighbours are mostly alike
        heads[1:] = (table[1:] != table[:-1]).any(1)
        lines, kind = np.unique(table[heads], axis=0, return_inverse=True)
        kinds = np.full(self.count + 1, len(lines))  # the last kind lies in no row
        kinds[found] = kind.ravel()[np.cumsum(heads) - 1]
        return kinds, [[*(line[line >= 0] % many).tolist()] for line in lines] + [[]]

    def _title(self, name: str, units: Axis) -> str:
        orders = [own for made, own in self.makers if made == name]
        if len(units) < len(orders[0]) and len(units) < len(np.unique(orders[0])):
            order = firsts_of(next(own for own in orders if units[0] in own))[0].tolist()
            places = [order.index(unit) for unit in units.tolist()]
            name = f"{name}[{min(places)}:{max(places) + 1}]"
        while name in self.titles:
            name += "'"
        return name

    def _slices(self, units: Axis, numbers: Iterable[int]) -> tuple[Slice, ...] | str:
        """What a group's units take of these rows; the name of a parameter where they are irregular."""
        place = np.full(self.count + 1, -1)
        place[units] = np.arange(len(units))
        slices: list[Slice] = []
        rows = list(self.axes.items())
        stretches: dict[bytes, list[tuple[int, int, int]] | None] = {}  # many axes hold the same units
        for row, axis in (rows[number] for number in numbers):
            key = axis.tobytes()
            if key not in stretches:
                stretches[key] = runs(place[axis], len(units))
            found = stretches[key]
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

    def _equals_are_whole(self) -> bool:
        """Layers of one width must be one group each, or their counts could not be kept alike."""
        for axes in self.equal:
            each = [np.unique(axis) for axis in axes]
            for units in each:
                if len(np.unique(self.group[units])) > 1:
                    self._fix(units, "is one of a module's equal layers, and its units are read in different ways")
                    return False
            units = np.concatenate(each)
            if not self.fixed[units].all() and len({len(own) for own in each}) > 1:
                self._fix(units, "is one of a module's equal layers, of which one loses several units at a time")
                return False
        return True

    def _equal_names(self) -> tuple[tuple[str, ...], ...]:
        sets: list[dict[str, None]] = []
        for axes in self.equal:  # sets that share a group are one set
            numbers = [self.group[axis[0]] for axis in axes]
            together = dict.fromkeys(self.titles[number] for number in numbers if number)
            met = [other for other in sets if other.keys() & together.keys()]
            merged = dict.fromkeys(name for part in (*met, together) for name in part)
            sets = [other for other in sets if other not in met] + [merged]
        return tuple(tuple(names) for names in sets if len(names) > 1)

    def _notes(self) -> Iterable[Note]:
        seen: set[tuple[str, str]] = set()
        reasons = list(self.reasons)
        because = np.where(self.fixed > 0, self.fixed, self.mixed)
        for name, axis in self.makers:
            units = firsts_of(axis)[0]
            fates, _, counts = firsts_of(self.group[units] * len(reasons) + because[units])
            for fate, count in zip(fates.tolist(), counts.tolist(), strict=True):
                group, why = self.titles[fate // len(reasons)], reasons[fate % len(reasons)]
                if (name, group or why) not in seen:
                    seen.add((name, group or why))
                    yield Note(name, count, group or None, why)


def firsts_of(values: Axis) -> tuple[Axis, Axis, Axis]:
    """The distinct values in the order in which they come, where each comes first, and how often it comes."""
    distinct, first, counts = np.unique(values, return_index=True, return_counts=True)
    order = np.argsort(first)
    return distinct[order], first[order], counts[order]


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
