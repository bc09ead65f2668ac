"""Structure: which entries of which parameters belong to a unit, as data. Plans: which units stay."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor, nn
from torch.nn.utils import parametrize

Role = Literal["in", "out"]


class StructureError(ValueError):
    """A network's structure cannot be followed or a plan does not fit it; the message names the place and a way out."""


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
            or self.role not in get_args(Role)
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


@dataclass(frozen=True)
class Plan:
    """Which units each group keeps; a group that is not named keeps all of them.

    `groups` carries the slices the plan touches, so that `replay` needs no tracing: plans made by `select` carry them,
    `structure.bind(plan)` adds them to a plan written by hand.
    """

    keep: Mapping[str, tuple[int, ...]]
    groups: tuple[Group, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", {name: tuple(sorted(map(int, units))) for name, units in self.keep.items()})

    def to_json(self) -> str:
        """The plan as JSON text; `Plan.from_json` reads it back."""
        return json.dumps(self.as_dict(), indent=1)

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data: a list of edits, each with the slices it touches."""
        groups = {group.name: group for group in self.groups}
        edits = []
        for name, units in self.keep.items():
            edit: dict[str, Any] = {"edit": "keep", "group": name, "units": list(units)}
            if name in groups:
                edit |= {"width": groups[name].width, "exact": groups[name].exact}
                edit["slices"] = [asdict(s) for s in groups[name].slices]
            edits.append(edit)
        return {"format": 1, "edits": edits}

    @staticmethod
    def from_json(text: str) -> "Plan":
        """Raises ValueError where the text is not a plan."""
        try:
            data = json.loads(text)
            edits = data["edits"]
            if data["format"] != 1 or any(e["edit"] != "keep" for e in edits):
                raise ValueError("it holds edits that this version of pared does not know; use a newer one")
            groups = tuple(
                Group(e["group"], e["width"], tuple(Slice(**s) for s in e["slices"]), e["exact"])
                for e in edits
                if "slices" in e
            )
            if not all(isinstance(unit, int) for e in edits for unit in (e.get("width", 1), *e["units"])):
                raise ValueError("widths and units must be whole numbers")
            return Plan({e["group"]: tuple(e["units"]) for e in edits}, groups)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"this is not a plan written by pared: {error!r}") from error


class Note(NamedTuple):
    """What became of a layer's units: the group they belong to, or None where they stay; and why."""

    layer: str
    units: int
    group: str | None
    why: str = ""


@dataclass(frozen=True)
class Structure:
    """The groups of a network that may be cut, in the order in which data flow through them.

    `equal` names groups that share one width because one module holds them (the layers of a multi-layer recurrent
    module); a plan must keep the same number of units in each of them. `notes` say of every layer what became of it.
    """

    groups: tuple[Group, ...]
    equal: tuple[tuple[str, ...], ...] = ()
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

    @property
    def units(self) -> int:
        """How many units the groups hold together."""
        return sum(group.width for group in self.groups)

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
        return Plan(plan.keep, tuple(self[name] for name in plan.keep))

    def removed(self, plan: Plan) -> dict[str, tuple[int, ...]]:
        """Group -> units that the plan removes; groups that lose nothing are left out."""
        gone = {
            name: tuple(j for j in range(self[name].width) if j not in set(units)) for name, units in plan.keep.items()
        }
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
    tensors = _tensors(model)
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


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, buffers, and weights computed by parametrisations, by name."""
    found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    found |= dict(model.named_buffers(remove_duplicate=False))
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for leaf in module.parametrizations:
                found[f"{path}.{leaf}".lstrip(".")] = getattr(module, leaf)
    return found
