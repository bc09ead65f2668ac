"""Plans: which units stay, and what else was done to a network, as data."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from pared.surgery.slices import Group, Slice


@dataclass(frozen=True)
class Plan:
    """Which units each group keeps; a group that is not named keeps all of them.

    `groups` carries the slices the plan touches, so that `replay` needs no tracing: plans made by `select` carry them,
    `structure.bind(plan)` adds them to a plan written by hand. `before` holds what was done to the network earlier, in
    order; `then` writes such histories.
    """

    keep: Mapping[str, tuple[int, ...]]
    groups: tuple[Group, ...] = field(default=(), compare=False)
    before: tuple["Edit", ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", {name: tuple(sorted(map(int, units))) for name, units in self.keep.items()})

    def to_json(self) -> str:
        """The plan as JSON text; `Plan.from_json` reads it back."""
        return json.dumps(self.as_dict(), indent=1)

    def then(self, edit: "Edit") -> "Plan":
        """The history of this plan followed by another edit: `Plan({}).then(split).then(plan)`."""
        past: tuple[Edit, ...] = (*self.before, Plan(self.keep, self.groups)) if self.keep else self.before
        if isinstance(edit, Plan):
            return Plan(edit.keep, edit.groups, (*past, *edit.before))
        return Plan({}, (), (*past, edit))

    @property
    def unbound(self) -> list[str]:
        """Groups whose slices the plan does not carry."""
        own = {*self.keep} - {group.name for group in self.groups}
        earlier = {name for edit in self.before if isinstance(edit, Plan) for name in edit.unbound}
        return sorted(own | earlier)

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data: a list of edits, each with the slices it touches."""
        groups = {group.name: group for group in self.groups}
        edits = [_edit_as_dict(edit) for edit in self.before]
        for name, units in self.keep.items():
            edit: dict[str, Any] = {"edit": "keep", "group": name, "units": list(units)}
            if name in groups:
                edit |= {key: value for key, value in asdict(groups[name]).items() if key != "name"}
            edits.append(edit)
        return {"format": 1, "edits": edits}

    @staticmethod
    def from_json(text: str) -> "Plan":
        """Raises ValueError where the text is not a plan."""
        try:
            return _plan(json.loads(text))
        except (KeyError, TypeError, ValueError, RecursionError, AttributeError) as error:
            raise ValueError(f"this is not a plan written by pared: {error!r}") from error


@dataclass(frozen=True)
class Split:
    """A recurrent module of several layers becomes a stack of modules of one layer each, which may differ in width."""

    module: str


class Reader(NamedTuple):
    """A weight that reads `width` entries along its second axis once a layer before it is gone."""

    parameter: str
    width: int


@dataclass(frozen=True)
class Drop:
    """Modules that pass their input on, and the weights that read it instead of what the modules made."""

    modules: tuple[str, ...]
    readers: tuple[Reader, ...] = ()


@dataclass(frozen=True)
class Deepen:
    """A layer that changes nothing yet is put after a module: `kind` is linear, relu, lstm, gru or rnn."""

    module: str
    width: int
    kind: str = "linear"


@dataclass(frozen=True)
class Insert:
    """New units at the end of groups, inserted or copied: `Plan({}).then(Insert({"lstm.l0": 4}, structure.groups))`."""

    counts: Mapping[str, int]
    groups: tuple[Group, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Factor:
    """Linear layers by name, and weights of recurrent modules, that become products of this rank."""

    ranks: Mapping[str, int]


Edit = Plan | Split | Drop | Deepen | Insert | Factor
_KINDS: dict[str, type[Any]] = {"split": Split, "drop": Drop, "deepen": Deepen, "insert": Insert, "factor": Factor}


def _edit_as_dict(edit: Edit) -> dict[str, Any]:
    if isinstance(edit, Plan):
        return {"edit": "cut", "plan": edit.as_dict()}
    return {"edit": type(edit).__name__.lower()} | asdict(edit)


def _plan(data: Mapping[str, Any]) -> Plan:
    if data["format"] != 1:
        raise ValueError("it is written in a form that this version of pared does not know; use a newer one")
    edits = data["edits"]
    keeps = [e for e in edits if e["edit"] == "keep"]
    if not all(isinstance(unit, int) for e in keeps for unit in (e.get("width", 1), *e["units"])):
        raise ValueError("widths and units must be whole numbers")
    groups = tuple(_group({"name": e["group"]} | e) for e in keeps if "slices" in e)
    before = tuple(_edit(e) for e in edits if e["edit"] != "keep")
    return Plan({e["group"]: tuple(e["units"]) for e in keeps}, groups, before)


def _group(data: Mapping[str, Any]) -> Group:
    return Group(data["name"], data["width"], tuple(Slice(**s) for s in data["slices"]), data["exact"])


def _edit(data: Mapping[str, Any]) -> Edit:
    kind, fields = data["edit"], {key: value for key, value in data.items() if key != "edit"}
    if kind == "cut":
        return _plan(fields["plan"])
    if kind not in _KINDS:
        raise ValueError(f"it holds the edit {kind!r}, which this version of pared does not know; use a newer one")
    if kind == "insert":
        return Insert(fields["counts"], tuple(map(_group, fields["groups"])))
    if kind == "drop":
        return Drop(tuple(fields["modules"]), tuple(Reader(*reader) for reader in fields["readers"]))
    if kind == "factor":
        return Factor({name: int(rank) for name, rank in fields["ranks"].items()})
    edit: Edit = _KINDS[kind](**fields)
    return edit
