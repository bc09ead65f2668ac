"""Where the entries of every axis come from once units are cut, added or copied: what growing and carrying share."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pared.surgery.atoms import Axis
from pared.surgery.plan import Insert, Plan
from pared.surgery.slices import Group, Slice, StructureError
from pared.surgery.structure import Structure
from pared.surgery.units import runs

Change = Plan | Insert | Mapping[str, int] | Mapping[str, Sequence[int]]
"""A cut, how many units each group gains, or which of its units are copied."""

Origins = dict[str, dict[int, "Origin"]]
"""Parameter -> axis -> where its entries come from; axes that an edit leaves alone are not named."""


@dataclass(frozen=True)
class Origin:
    """One axis of one parameter after an edit; every array has one number for each entry.

    Entry k comes from place `source[k]` before the edit: kept ones are that entry, `new` ones are modelled on it. New
    entries that read a unit are `silent` where units are added. `share` is what a reading entry must be multiplied by
    where units are copied: one over how many of the unit there are. `like[peers[k]]` are the old places of the entries
    that do for other units what the new entry k does for its own; `peers[k]` is -1 for kept ones.
    """

    length: int
    source: Axis
    new: NDArray[np.bool_]
    silent: NDArray[np.bool_]
    share: NDArray[np.float64]
    peers: Axis
    like: tuple[Axis, ...] = ()

    def over(self, size: int) -> "Origin":
        """The same for an axis that goes on after what the slices know of: what follows is kept."""
        if size == self.length:
            return self
        rest = np.arange(self.length, size)
        still = np.zeros(len(rest), bool)
        return Origin(
            length=size,
            source=np.concatenate([self.source, rest]),
            new=np.concatenate([self.new, still]),
            silent=np.concatenate([self.silent, still]),
            share=np.concatenate([self.share, np.ones(len(rest))]),
            peers=np.concatenate([self.peers, np.full(len(rest), -1)]),
            like=self.like,
        )


def origins(structure: Structure, change: Change) -> Origins:
    """Where the entries come from on every axis that a change touches.

    Raises StructureError where the change does not fit the structure. Cost: linear in the lengths of the axes.
    """
    found: Origins = {}
    for (parameter, axis), row in _edited_rows(structure, change).items():
        found.setdefault(parameter, {})[axis] = row.origin
    return found


def grown_structure(structure: Structure, counts: Mapping[str, int] | Mapping[str, Sequence[int]]) -> Structure:
    """The structure of the network that `insert` or `widen` makes: what `trace` would find there, without tracing.

    Widths, lengths, offsets and blocks follow; names and order stay. Raises StructureError as `insert` does.
    """
    return _after(structure, counts, {name: len(units) for name, units in templates(structure, counts).items()})


def cut_structure(structure: Structure, plan: Plan) -> Structure:
    """The structure of the network that `cut` makes: what `trace` would find there, without tracing.

    It also knows how the entries of a unit lie that a cut left alone in its group. Raises StructureError as `cut` does.
    """
    return _after(structure, plan, {name: -len(units) for name, units in structure.removed(plan).items()})


def _after(structure: Structure, change: Change, gains: Mapping[str, int]) -> Structure:
    rows = _edited_rows(structure, change)
    groups = tuple(_changed_group(group, gains.get(group.name, 0), rows) for group in structure)
    notes = tuple(note._replace(units=note.units + gains.get(note.group or "", 0)) for note in structure.notes)
    return replace(structure, groups=groups, notes=notes)


def templates(
    structure: Structure, counts: Insert | Mapping[str, int] | Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """Group -> for each new unit the old one that it copies or takes the form of; groups that gain none are left out.

    Raises StructureError for groups that do not exist, units that do not, and unequal layers of one module; ValueError
    for what is neither a whole number nor some of them.
    """
    units: dict[str, tuple[int, ...]] = {}
    for name, given in (counts.counts if isinstance(counts, Insert) else counts).items():
        width = structure[name].width
        try:
            copied = (width - 1,) * given if isinstance(given, int) else tuple(map(operator.index, given))
        except TypeError as error:
            raise ValueError(
                f"group {name!r} gains a whole number of units, or copies of units named by their numbers, such as "
                f"[0, 2]; got {given!r}"
            ) from error
        if isinstance(given, int) and given < 0:
            raise StructureError(f"group {name!r} cannot gain {given} units; use cut to remove some")
        if copied and not 0 <= min(copied) <= max(copied) < width:
            raise StructureError(f"group {name!r} has units 0 to {width - 1}, copies are asked for of {list(copied)}")
        if copied:
            units[name] = copied
    for names in structure.equal:
        gains = {name: len(units.get(name, ())) for name in names if name in structure}
        if len(set(gains.values())) > 1:
            raise StructureError(
                f"one recurrent module holds the layers {', '.join(names)} and gives them one width; let them grow "
                f"alike (asked for: {', '.join(f'{k}: {v}' for k, v in gains.items())}), "
                "or build the layers as modules of their own"
            )
    return units


def moved(tensor: Tensor, axes: Mapping[int, Origin]) -> Tensor:
    """The tensor with its axes rearranged: kept entries in their new places, new ones copied from their models."""
    for axis, origin in axes.items():
        source = torch.as_tensor(origin.over(tensor.shape[axis]).source, device=tensor.device)
        tensor = tensor.index_select(axis, source)
    return tensor


def along(values: NDArray[np.generic], axis: int, like: Tensor) -> Tensor:
    """An array with one number for each entry of an axis, shaped to meet a tensor."""
    shape = [1] * like.dim()
    shape[axis] = len(values)
    return torch.as_tensor(values, device=like.device).view(shape)


def fresh_entries(after: Tensor, axes: Mapping[int, Origin]) -> Tensor:
    """Which entries of a tensor that was moved are new: True where one of its axes says so."""
    new = torch.zeros(after.shape, dtype=torch.bool, device=after.device)
    for axis, origin in axes.items():
        own = origin.over(origin.length + after.shape[axis] - len(origin.source))
        new |= along(own.new, axis, after)
    return new


def settled(group: Group) -> Group:
    """The group with the blocks that a lone unit hides told from its inner entries.

    The four rows of a single LSTM unit look like one stretch of four. Recurrent weights and attention are known by
    their names; raises StructureError where it cannot be told how a second unit would lie.
    """
    if group.width > 1:
        return group
    made = {s.parameter for s in group.slices if s.role == "in"}
    if made and not {s.parameter for s in group.slices if s.role == "out"} - made:
        raise StructureError(
            f"group {group.name!r} has one unit, and the structure does not say which layer reads it, as where it "
            "is spread over others; build the layer with two units"
        )
    last = next((s for s in group.slices if s.parameter.endswith("out_proj.weight") and s.axis == 1), None)
    slices: list[Slice] = []
    for s in group.slices:
        leaf = s.parameter.rpartition(".")[2]
        if s.blocks * s.inner == 1:
            slices.append(s)
        elif s.axis == 0 and leaf.startswith(("weight_ih", "weight_hh", "bias_ih", "bias_hh")):
            slices.append(replace(s, blocks=s.blocks * s.inner, inner=1))
        elif group.name.rpartition(".")[2] == "heads" and last is not None:
            slices += _head(s, last.inner)
        else:
            raise StructureError(
                f"group {group.name!r} has one unit, and how its {s.blocks * s.inner} entries along axis {s.axis} of "
                f"{s.parameter!r} would make room for a second cannot be told; build the layer with two units"
            )
    return replace(group, slices=tuple(slices))


def _head(s: Slice, values: int) -> Iterator[Slice]:
    """The rows of a lone head: queries and keys, then values."""
    leaf = s.parameter.rpartition(".")[2]
    if leaf not in ("in_proj_weight", "in_proj_bias"):
        yield s
        return
    keys = (s.blocks * s.inner - values) // 2
    if keys == values:
        yield replace(s, blocks=3, inner=keys)
        return
    yield replace(s, blocks=2, inner=keys)
    yield replace(s, blocks=1, inner=values, offset=s.offset + 2 * keys)


class _Row:
    """One axis while groups grow along it, one after the other."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.source = np.arange(length)
        self.new, self.silent = np.zeros(length, bool), np.zeros(length, bool)
        self.share, self.peers = np.ones(length), np.full(length, -1)
        self.like: list[Axis] = []
        self.slices: list[tuple[str, Slice]] = []
        self.units: list[Axis] = []  # for each slice the unit that owns an entry, -1 for none

    @property
    def origin(self) -> Origin:
        return Origin(self.length, self.source, self.new, self.silent, self.share, self.peers, tuple(self.like))

    def add(self, group: Group) -> None:
        for s in group.slices:
            owners = np.full(self.length, -1)
            units = range(group.width)
            owners[s.indices(group.width, units)] = np.tile(np.repeat(units, s.inner), s.blocks)
            self.slices.append((group.name, s))
            self.units.append(owners)

    def runs(self, index: int, width: int) -> list[tuple[int, int, int]]:
        """(offset, blocks, inner) of a slice where it lies now."""
        found = runs(self.units[index], width)
        assert found is not None
        _, s = self.slices[index]
        if width == 1 and len(found) == 1 and s.blocks > 1:
            offset, _, count = found[0]
            return [(offset, s.blocks, count // s.blocks)]
        return found

    def cut(self, group: Group, units: Sequence[int]) -> None:
        """The units' entries go; of all groups before any grows."""
        gone = [i for name, s in self.slices if name == group.name for i in s.indices(group.width, units)]
        left = np.flatnonzero(~np.isin(self.source, gone))
        self._take(left)
        number = np.cumsum(~np.isin(range(group.width), units)) - 1
        for index, (name, _) in enumerate(self.slices):
            labels = self.units[index][left]
            self.units[index] = np.where(labels >= 0, number[labels], -1) if name == group.name else labels

    def _take(self, order: Axis) -> None:
        self.source, self.new, self.silent = self.source[order], self.new[order], self.silent[order]
        self.share, self.peers = self.share[order], self.peers[order]

    def grow(self, group: Group, units: Sequence[int]) -> None:
        """New units at the end of every block, each in the form of an old one."""
        runs: dict[tuple[int, int, int], bool] = {}
        for index, (name, s) in enumerate(self.slices):
            if name == group.name:
                for run in self.runs(index, group.width):
                    runs[run] = runs.get(run, False) or s.role == "out"
        places, models, owners, silent, peers = [], [], [], [], []
        for (offset, blocks, inner), reads in runs.items():
            size = group.width * inner
            for start in range(offset, offset + blocks * size, size):
                self.like.append(np.unique(self.source[start : start + size]))
                count = len(units) * inner
                places += [start + size] * count
                models += [start + unit * inner + i for unit in units for i in range(inner)]
                owners += np.repeat(np.arange(group.width, group.width + len(units)), inner).tolist()
                silent += [reads] * count
                peers += [len(self.like) - 1] * count
        self._insert(group.name, np.array(places), np.array(models), np.array(owners))
        fresh = self._where(np.array(places), np.ones(len(places), bool), False)
        self.new |= fresh
        self.silent |= self._where(np.array(places), np.array(silent), False)
        self.peers = np.where(fresh, self._where(np.array(places), np.array(peers), -1), self.peers)
        self._divide(group, units)

    def _where(self, places: Axis, values: NDArray[np.generic], default: int | bool) -> NDArray[np.generic]:
        """What is inserted, among defaults for the entries that were there before."""
        return np.insert(np.full(len(self.source) - len(places), default), places, values)

    def _insert(self, name: str, places: Axis, models: Axis, owners: Axis) -> None:
        order = np.insert(np.arange(len(self.source)), places, models)
        given = np.insert(np.full(len(self.source), -1), places, owners)
        inserted = np.insert(np.zeros(len(self.source), bool), places, True)
        self._take(order)
        for index, (own, _) in enumerate(self.slices):
            labels = self.units[index][order]
            if own == name:
                labels = np.where(inserted & (labels >= 0), given, labels)
            self.units[index] = labels

    def _divide(self, group: Group, units: Sequence[int]) -> None:
        """Entries that read a unit are shared out among its copies."""
        form = np.array([*range(group.width), *units])
        shares = 1.0 / np.bincount(form, minlength=group.width)[form]
        reading = {
            tuple(self.units[index]): self.units[index]
            for index, (name, s) in enumerate(self.slices)
            if name == group.name and s.role == "out"
        }
        for owners in reading.values():
            self.share = np.where(owners >= 0, self.share * shares[owners], self.share)


def _edited_rows(structure: Structure, change: Change) -> dict[tuple[str, int], _Row]:
    """The rows that a change touches, after it."""
    cutting = isinstance(change, Plan)
    units = _cut_units(structure, change) if isinstance(change, Plan) else templates(structure, change)
    groups = [group if cutting or group.name not in units else settled(group) for group in structure]
    touched = dict.fromkeys((s.parameter, s.axis) for g in groups if g.name in units for s in g.slices)
    rows: dict[tuple[str, int], _Row] = {}
    for place in touched:
        own = [
            replace(group, slices=tuple(s for s in group.slices if (s.parameter, s.axis) == place)) for group in groups
        ]
        ends = [s.length or s.offset + s.blocks * g.width * s.inner for g in own for s in g.slices]
        rows[place] = row = _Row(max(ends))
        for group in own:
            row.add(group)
        for group in own:
            if group.slices and group.name in units:
                (row.cut if cutting else row.grow)(group, units[group.name])
    return rows


def _cut_units(structure: Structure, plan: Plan) -> dict[str, tuple[int, ...]]:
    structure.bind(plan)
    if plan.before:
        raise StructureError("the plan has other edits before its cut; give one at a time, with the structure it meets")
    return structure.removed(plan)


def _changed_group(group: Group, gain: int, rows: Mapping[tuple[str, int], _Row]) -> Group:
    """A group after the growth or the cut of its own units and of others along the same axes."""
    slices: list[Slice] = []
    seen: dict[tuple[str, int], int] = {}
    for s in (settled(group) if gain > 0 else group).slices:
        row = rows.get((s.parameter, s.axis))
        if row is None:
            slices.append(s)
            continue
        own = [index for index, (name, _) in enumerate(row.slices) if name == group.name]
        number = seen.get((s.parameter, s.axis), 0)
        seen[s.parameter, s.axis] = number + 1
        length = None if s.length is None else s.length + len(row.source) - row.length
        for offset, blocks, inner in row.runs(own[number], group.width + gain):
            new = replace(s, offset=offset, blocks=blocks, inner=inner, length=length)
            slices[-1:] = _joined(slices[-1], new, group.width + gain) if slices else [new]
    return replace(group, width=group.width + gain, slices=tuple(slices))


def _joined(before: Slice, after: Slice, width: int) -> list[Slice]:
    """Two slices as one where the second goes on with the first."""
    end = before.offset + before.blocks * width * before.inner
    if after == replace(before, offset=end, blocks=after.blocks) and width > 1:
        return [replace(before, blocks=before.blocks + after.blocks)]
    return [before, after]
