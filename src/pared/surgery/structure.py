"""Structure: which units of a network may be cut, as data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pared.surgery.copies import held_tensors
from pared.surgery.plan import Plan
from pared.surgery.slices import Group, Role, Slice, StructureError, check_role


class Note(NamedTuple):
    """What became of a layer's units: the group they belong to, or None where they stay; and why."""

    layer: str
    units: int
    group: str | None
    why: str = ""


class Side(NamedTuple):
    """One axis of a projection: entries that stay, and how many entries each unit of a group has on it."""

    fixed: int
    each: Mapping[str, int]

    def left(self, counts: Mapping[str, int]) -> int:
        """Its length where this many units of each group stay."""
        return self.fixed + sum(many * counts[name] for name, many in self.each.items())


@dataclass(frozen=True)
class Structure:
    """The groups of a network that may be cut, in the order in which data flow through them.

    `equal` names groups that share one width because one module holds them (the layers of a multi-layer recurrent
    module); a plan must keep the same number of units in each of them. `projecting` holds the shapes (projected, cells)
    of the weights by which LSTMs project their cells. `notes` say of every layer what became of it.
    """

    groups: tuple[Group, ...]
    equal: tuple[tuple[str, ...], ...] = ()
    projecting: Mapping[str, tuple[int, int]] = field(default_factory=dict, hash=False)
    notes: tuple[Note, ...] = field(default=(), compare=False)

    def __getitem__(self, name: str) -> Group:
        for group in self.groups:
            if group.name == name:
                return group
        raise StructureError(f"there is no group {name!r}; the groups are {', '.join(g.name for g in self.groups)}")

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def __contains__(self, name: object) -> bool:
        return any(group.name == name for group in self.groups)

    def alike(self, name: str) -> tuple[str, ...]:
        """The groups that must be as wide as a group, itself among them."""
        return next((names for names in self.equal if name in names), (name,))

    @property
    def units(self) -> int:
        """How many units the groups hold together."""
        return sum(group.width for group in self.groups)

    def projections(self) -> list[tuple[Side, Side]]:
        """(cells, projected) of every projection of an LSTM of which units may go.

        PyTorch cannot run an LSTM whose projection is as wide as its cells: their numbers must differ.
        """
        found = []
        for name, (projected, cells) in self.projecting.items():
            sides = self._side(name, 1, cells), self._side(name, 0, projected)
            if any(side.each for side in sides):
                found.append(sides)
        return found

    def _side(self, parameter: str, axis: int, length: int) -> Side:
        each = {}
        for group in self.groups:
            mine = {(s.offset, s.blocks * s.inner) for s in group.slices if (s.parameter, s.axis) == (parameter, axis)}
            if mine:
                each[group.name] = sum(many for _, many in mine)
        return Side(length - sum(many * self[name].width for name, many in each.items()), each)

    def explain(self) -> str:
        """Every layer that makes units, a line each: its group, what is coupled with it, or why it cannot be cut."""
        together: dict[str, list[str]] = {}
        for note in self.notes:
            if note.group is not None and note.layer != note.group:
                together.setdefault(note.group, []).append(note.layer)
        lines = []
        for layer, units, group, why in self.notes:
            if group is None:
                lines.append((layer, units, f"stays: {why}"))
                continue
            text = f"cut as {group!r}" if group == layer else f"moves with {group!r}"
            if group == layer and group in together:
                text += f", with it {', '.join(together[group])}"
            if why:
                text += f"; not exact: {why}"
            lines.append((layer, units, text))
        for names in self.equal:
            lines.append((names[0], self[names[0]].width, f"one module gives one width to {', '.join(names)}"))
        wide = max((len(layer) for layer, _, _ in lines), default=0)
        return "\n".join(f"{layer:{wide}}  {units:5d} units  {text}" for layer, units, text in lines)

    def bind(self, plan: Plan) -> Plan:
        """The plan with the slices it touches, after checking that it fits this structure."""
        _check_plan(plan, self)
        return Plan(plan.keep, tuple(self[name] for name in plan.keep), plan.before)

    def removed(self, plan: Plan) -> dict[str, tuple[int, ...]]:
        """Group -> units that the plan removes; groups that lose nothing are left out."""
        gone = {}
        for name, units in plan.keep.items():
            kept = set(units)
            gone[name] = tuple(j for j in range(self[name].width) if j not in kept)
        return {name: units for name, units in gone.items() if units}


def _check_plan(plan: Plan, structure: Structure) -> None:
    for name, units in plan.keep.items():
        group = structure[name]
        if not units:
            raise StructureError(f"the plan empties group {name!r}; keep at least one of its {group.width} units")
        if len(set(units)) < len(units) or not 0 <= units[0] <= units[-1] < group.width:
            raise StructureError(
                f"group {name!r} has units 0 to {group.width - 1}, the plan keeps {list(units)}; "
                "name each kept unit once"
            )
    for names in structure.equal:
        widths = {name: len(plan.keep.get(name, range(structure[name].width))) for name in names if name in structure}
        if len(set(widths.values())) > 1:
            raise StructureError(
                f"one recurrent module holds the layers {', '.join(names)} and gives them one width, the plan leaves "
                f"{', '.join(f'{k}: {v}' for k, v in widths.items())}; "
                "keep equal numbers or build the layers as modules of their own"
            )


def check_fits(model: nn.Module, structure: Structure) -> None:
    """Raises StructureError unless every slice lies within a parameter or buffer of the model."""
    tensors = named_tensors(model)
    for group in structure:
        for s in group.slices:
            if s.parameter not in tensors:
                raise StructureError(
                    f"group {group.name!r} belongs to a parameter {s.parameter!r} that this network does not have; "
                    "use the structure or plan of this very network"
                )
            shape = tuple(tensors[s.parameter].shape)
            end = s.offset + s.blocks * group.width * s.inner
            if s.axis >= len(shape) or shape[s.axis] < end or s.length not in (None, shape[s.axis]):
                raise StructureError(
                    f"group {group.name!r} takes {s.length or end} entries of axis {s.axis} of {s.parameter!r}, "
                    f"which is shaped {shape}; use the structure or plan of this very network "
                    "(a fresh, uncut one for replay and load)"
                )


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, buffers, and weights computed by parametrisations, by name."""
    found = held_tensors(model)
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for leaf in module.parametrizations:
                found[f"{path}.{leaf}".lstrip(".")] = getattr(module, leaf)
    return found


def check_scores(scores: Mapping[str, Tensor], structure: Structure) -> None:
    """Raises ValueError unless scores are those of groups: names that exist, one number a unit, no NaN."""
    for name, values in scores.items():
        group = structure[name]
        if tuple(values.shape) != (group.width,):
            raise ValueError(f"group {name!r} has {group.width} units, its scores are shaped {tuple(values.shape)}")
        if values.isnan().any():
            raise ValueError(f"the scores of group {name!r} hold NaN (unit {int(values.isnan().nonzero()[0])})")


def as_units(scores: Mapping[str, Tensor], structure: Structure) -> Mapping[str, Tensor]:
    """Scores of units as they are, those of weights by `by_unit`. Raises ValueError for others and for NaN."""
    if any(values.dim() == 0 for values in scores.values()):
        raise ValueError(
            f"the criterion scores whole layers ({', '.join(map(repr, scores))}), not units; take one that scores "
            "units or weights, such as taylor or magnitude"
        )
    found = scores if any(name in structure for name in scores) else by_unit(scores, structure)
    if not found:
        raise ValueError(
            f"the criterion scores {', '.join(map(repr, scores)) or 'nothing'}; it must score groups "
            f"({', '.join(group.name for group in structure)}) or parameters that make or read their units"
        )
    check_scores(found, structure)
    return found


def by_unit(scores: Mapping[str, Tensor], structure: Structure, role: Role | None = None) -> dict[str, Tensor]:
    """Reduces scores per weight to scores per unit: the mean over all weights that make or read the unit.

    `role` "in" takes only the weights that make it, "out" only those that read it. Groups none of whose weights are
    scored are left out. Returns group -> (units,). Raises ValueError for scores not shaped like their parameter.
    """
    check_role(role)
    reduced: dict[str, Tensor] = {}
    for group in structure:
        total: Tensor | float = 0.0
        count = 0
        for s in group.slices:
            if s.parameter in scores and role in (None, s.role):
                own = _of_units(scores[s.parameter], s, group.width)
                total = total + own.sum(dim=[d for d in range(own.dim()) if d != s.axis + 1])
                count += own.numel() // group.width
        if isinstance(total, Tensor):
            reduced[group.name] = total / count
    return reduced


def _of_units(scores: Tensor, s: Slice, width: int) -> Tensor:
    """The part of a parameter's scores that a slice holds, its axis as (blocks, width, inner)."""
    stretch = s.blocks * width * s.inner
    size = scores.shape[s.axis] if s.axis < scores.dim() else 0
    if size < s.offset + stretch or s.length not in (None, size):
        raise ValueError(
            f"the scores of {s.parameter!r} are shaped {tuple(scores.shape)}, while axis {s.axis} of the parameter has "
            f"{s.length or s.offset + stretch} entries; scores are shaped like their parameter"
        )
    return torch.unflatten(scores.narrow(s.axis, s.offset, stretch), s.axis, (s.blocks, width, s.inner))
