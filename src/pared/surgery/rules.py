"""What each kind of layer and operation does to the axes that carry units; the one place that knows layer types.

A tensor's `Layout` names, axis by axis, the units that lie along it (None: nothing that could be cut). A rule reads the
layouts of a node's arguments, tells the builder which parameters read or make units, and returns the result's layout.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from pared.surgery.structure import Group, Role, Slice, Structure, StructureError


@dataclass(frozen=True)
class Segment:
    """A stretch of an axis: `width` units of a group with `inner` entries each; `group` None = entries that stay."""

    group: str | None
    width: int
    inner: int = 1


Axis = tuple[Segment, ...] | None
Layout = tuple[Axis, ...]


@dataclass(frozen=True)
class States:
    """The layout of a recurrent module's final states: one layout a layer, stacked along the first axis."""

    layers: tuple[Layout, ...]


@dataclass
class Builder:
    """Collects groups and slices while a trace walks the graph."""

    widths: dict[str, int] = field(default_factory=dict)
    slices: dict[str, list[Slice]] = field(default_factory=dict)
    equal: list[tuple[str, ...]] = field(default_factory=list)
    protected: set[str] = field(default_factory=set)
    readers: dict[str, Axis] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)

    def make(self, name: str, width: int, slices: list[Slice]) -> tuple[Segment, ...]:
        """A new group; making it again (a module called twice) is harmless."""
        if name not in self.widths:
            self.widths[name], self.slices[name] = width, slices
        return (Segment(name, width),)

    def read(self, axis: Axis, parameter: str, parameter_axis: int = 1) -> None:
        """The parameter's axis multiplies what lies along `axis`."""
        if parameter in self.readers and self.readers[parameter] != axis:
            raise StructureError(
                f"{parameter!r} reads two different layers' units, which pared cannot cut; give each its own module"
            )
        if parameter in self.readers or axis is None:
            self.readers[parameter] = axis
            return
        self.readers[parameter] = axis
        offset = 0
        for segment in axis:
            if segment.group is not None:
                role: Role = "out"
                self.slices[segment.group].append(
                    Slice(parameter, parameter_axis, role, inner=segment.inner, offset=offset)
                )
            offset += segment.width * segment.inner

    def merge(self, first: Axis, second: Axis, place: str) -> Axis:
        """Two axes met element by element: their units become one group."""
        if first is None or second is None:
            for segment in (first or ()) + (second or ()):
                self.protect(segment.group)
            return first or second
        shape = [(s.width, s.inner) for s in first]
        if shape != [(s.width, s.inner) for s in second]:
            raise StructureError(
                f"{place} joins axes made up differently, {first} and {second}; pared cannot couple them"
            )
        for a, b in zip(first, second, strict=True):
            if a.group is None or b.group is None:
                self.protect(a.group)
                self.protect(b.group)
            elif self.find(a.group) != self.find(b.group):
                self.alias[self.find(b.group)] = self.find(a.group)
        return first

    def find(self, group: str) -> str:
        """The name under which a merged group goes on."""
        while group in self.alias:
            group = self.alias[group]
        return group

    def protect(self, group: str | None) -> None:
        """A group of which something reads that cannot shrink."""
        if group is not None:
            self.protected.add(group)

    def structure(self) -> Structure:
        """The groups that may be cut, with merged and protected ones resolved."""
        equal: list[dict[str, None]] = []
        for names in self.equal:  # sets that share a group are one set
            together = dict.fromkeys(self.find(name) for name in names)
            met = [other for other in equal if other.keys() & together.keys()]
            equal = [other for other in equal if other not in met] + [dict.fromkeys(chain(*met, together))]
        protected = {self.find(name) for name in self.protected}
        for together in equal:
            if protected & together.keys():  # where one keeps its width, all do
                protected |= together.keys()
        slices: dict[str, list[Slice]] = {}
        for name in self.widths:
            slices.setdefault(self.find(name), []).extend(self.slices[name])
        groups = tuple(
            Group(name, self.widths[name], tuple(dict.fromkeys(rows)))
            for name, rows in slices.items()
            if name not in protected
        )
        return Structure(groups, tuple(tuple(names) for names in equal if not protected & names.keys()))


def linear(builder: Builder, name: str, module: nn.Linear, x: Layout) -> Layout:
    """Reads the last axis of its input, makes `out_features` units."""
    _check_plain(name, module, {"weight", "bias"})
    builder.read(x[-1], f"{name}.weight")
    made = [Slice(f"{name}.{p}", 0, "in") for p, _ in module.named_parameters()]
    return (*x[:-1], builder.make(name, module.out_features, made))


def recurrent(builder: Builder, name: str, module: nn.RNNBase, x: Layout) -> tuple[Layout, Any]:
    """Every layer reads the one below and itself, and makes `hidden_size` units in as many blocks as it has gates."""
    if module.bidirectional or module.proj_size:
        what = "bidirectional" if module.bidirectional else "projected (proj_size)"
        raise StructureError(f"{name!r} is {what}; pared follows recurrent layers of one direction without projection")
    _check_plain(name, module, {f"{p}_l{k}" for p in RECURRENT for k in range(module.num_layers)})
    gates = module.get_parameter("weight_ih_l0").shape[0] // module.hidden_size
    below, groups = x[-1], []
    for k in range(module.num_layers):
        builder.read(below, f"{name}.weight_ih_l{k}")
        own = [p for p, _ in module.named_parameters() if p.endswith(f"_l{k}")]
        made = [Slice(f"{name}.{p}", 0, "in", blocks=gates) for p in own]
        group = f"{name}.l{k}"
        below = builder.make(group, module.hidden_size, made)
        builder.read(below, f"{name}.weight_hh_l{k}")
        groups.append(group)
    if len(groups) > 1 and tuple(groups) not in builder.equal:
        builder.equal.append(tuple(groups))
    samples = (None,) * (len(x) - 2)  # the batch axis, where there is one
    states = States(tuple((*samples, (Segment(group, module.hidden_size),)) for group in groups))
    return (*x[:-1], below), (states, states) if isinstance(module, nn.LSTM) else states


RECURRENT = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _check_plain(name: str, module: nn.Module, expected: set[str]) -> None:
    more = sorted({*dict(module.named_parameters()), *dict(module.named_buffers())} - expected)
    if more:
        raise StructureError(
            f"{name!r} holds {', '.join(more)}: its weights are computed from others (torch.nn.utils.prune, "
            "weight_norm), which pared cannot cut; make them plain first, as with torch.nn.utils.prune.remove"
        )


MODULES: dict[type[nn.Module], Callable[..., Any]] = {
    nn.Linear: linear,
    nn.LSTM: recurrent,
    nn.GRU: recurrent,
    nn.RNN: recurrent,
}

POINTWISE_MODULES: tuple[type[nn.Module], ...] = (
    nn.Identity, nn.Dropout, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.LogSigmoid,
)  # fmt: skip

_F = nn.functional
POINTWISE_FUNCTIONS = {
    torch.relu, torch.tanh, torch.sigmoid, torch.exp, torch.sin, torch.cos, torch.abs, torch.square, torch.clamp,
    operator.neg, _F.relu, _F.relu6, _F.leaky_relu, _F.elu, _F.selu, _F.celu, _F.gelu, _F.silu, _F.mish, _F.tanh,
    _F.sigmoid, _F.softplus, _F.softsign, _F.hardtanh, _F.hardsigmoid, _F.hardswish, _F.dropout,
}  # fmt: skip
POINTWISE_METHODS = {
    "relu", "tanh", "sigmoid", "exp", "abs", "square", "neg", "clamp", "clone", "contiguous", "detach", "float",
    "double", "to",
}  # fmt: skip
JOINING = {operator.add, operator.sub, operator.mul, torch.add, torch.sub, torch.mul}
JOINING_METHODS = {"add", "sub", "mul"}


def joined(builder: Builder, place: str, result: Tensor, layouts: list[tuple[Layout, Tensor]]) -> Layout:
    """Element by element: axes that meet are merged; an axis broadcast from size 1 takes the other's units."""
    out: list[Axis] = []
    for back in range(result.dim(), 0, -1):
        met = [layout[-back] for layout, value in layouts if value.dim() >= back and value.shape[-back] != 1]
        axis = met[0] if met else None
        for other in met[1:]:
            axis = builder.merge(axis, other, place)
        out.append(axis)
    return tuple(out)


def indexed(layout: Layout | States | tuple[Any, ...], index: Any, place: str) -> Any:
    """`value[index]` for tensors, final states and tuples of them; indexing along units is refused."""
    if isinstance(layout, States):
        first, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        if not isinstance(first, int):
            raise StructureError(f"{place} takes several layers of a recurrent state; take one, as in h_n[-1]")
        return indexed(layout.layers[first], tuple(rest), place)
    items = list(index) if isinstance(index, tuple) else [index]
    if any(item is Ellipsis for item in items):
        at = next(i for i, item in enumerate(items) if item is Ellipsis)
        consumed = sum(item is not None for item in items) - 1
        items[at : at + 1] = [slice(None)] * (len(layout) - consumed)
    out: list[Axis] = []
    axes = iter(layout)
    for item in items:
        if item is None:
            out.append(None)
            continue
        axis = next(axes)
        if axis is not None and item != slice(None):
            raise StructureError(f"{place} picks some of the units of {axis}; pared cannot follow them from there")
        if isinstance(item, slice):
            out.append(axis)
        elif not isinstance(item, int):
            raise StructureError(f"{place} indexes with {item!r}; pared follows integers, slices, None and '...'")
    return (*out, *axes)


def resize(module: nn.Module) -> None:
    """Sets a layer's size attributes from the shapes of its parameters, after a cut."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.RNNBase):
        widths = {p.shape[1] for name, p in module.named_parameters() if name.startswith("weight_hh")}
        if len(widths) > 1:
            raise StructureError(
                f"one recurrent module gives its layers one width, the plan leaves {sorted(widths)}; "
                "keep equal numbers or build the layers as modules of their own"
            )
        module.hidden_size = module.get_parameter("weight_hh_l0").shape[1]
        module.input_size = module.get_parameter("weight_ih_l0").shape[1]
