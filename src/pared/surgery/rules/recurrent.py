"""Recurrent modules and cells: a unit owns a row in every gate and reads its own past."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from pared.models.factored import Factored
from pared.surgery.atoms import Atoms, Axis, Layout, Rows, States, Traced, still
from pared.surgery.rules.layouts import layout_of, module_parameter
from pared.surgery.slices import StructureError

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


class Form(NamedTuple):
    """What kind of cells a module has, and how many layers and directions."""

    kind: str
    layers: int
    directions: int


def recurrent(
    atoms: Atoms, out: Any, name: str, module: nn.RNNBase, input: Traced, hx: Traced | None = None
) -> tuple[Any, Any]:
    """Every layer and direction reads the layer below and itself; a projection puts a second width between them.

    All layers of one module share one width (`hidden_size`), and one width of projections.
    """
    if getattr(module, "batch_sizes", None) is not None:
        raise StructureError(f"{name!r} keeps batch sizes")
    form = Form(module.mode.split("_")[0], module.num_layers, 2 if module.bidirectional else 1)
    return _walked(atoms, out, name, module, form, input, hx)


def factored(
    atoms: Atoms, out: Any, name: str, module: Factored, input: Traced, hx: Traced | None = None
) -> tuple[Any, Any]:
    """As the recurrent module that it was; the places between two factors of a weight are units, too."""
    form = Form(module.kind.split("_")[0], module.layers, module.directions)
    return _walked(atoms, out, name, module, form, input, hx)


def _walked(
    atoms: Atoms, out: Any, name: str, module: nn.Module, form: Form, input: Traced, hx: Traced | None
) -> tuple[Any, Any]:
    packed = isinstance(input.value, PackedSequence)
    entering = input.layout[0] if packed else layout_of(atoms, input)
    suffixes = [f"l{k}{end}" for k in range(form.layers) for end in ("", "_reverse")[: form.directions]]
    owned = []
    for suffix in suffixes:
        weights = [_weight(atoms, name, module, f"{leaf}_{suffix}") for leaf in WEIGHTS]
        owned.append((f"{name}.{suffix}".lstrip("."), weights))
    below = entering.axes[-1], entering.silent[-1]
    above, states, cells = layers(atoms, owned, (GATES[form.kind], form.directions), below, _initial(atoms, form, hx))
    return _outputs(form, out, entering, above, states, cells, packed)


def _weight(atoms: Atoms, name: str, module: nn.Module, leaf: str) -> Traced | None:
    """A weight; one that has factors is made by the first and reads by the second."""
    makes, reads = (module_parameter(atoms, name, module, f"{leaf}_{end}") for end in ("out", "in"))
    if makes is None or reads is None:
        return module_parameter(atoms, name, module, leaf)
    first, second = layout_of(atoms, reads), layout_of(atoms, makes)
    atoms.couple(first.axes[0], second.axes[1])
    atoms.reads(second.silent[1], second.axes[1])
    atoms.make(f"{name}.{leaf}".lstrip("."), first.axes[0])
    return Traced(None, Layout((second.axes[0], first.axes[1]), (second.silent[0], first.silent[1])))


Unit = tuple[Axis, Rows]
Owned = Sequence[tuple[str, Sequence[Traced | None]]]
"""For each layer and direction the name of its group and its weights, in the order of `WEIGHTS`."""


def layers(
    atoms: Atoms, owned: Owned, shape: tuple[int, int], below: Unit, initial: Sequence[Sequence[Axis | None]]
) -> tuple[Unit, list[Unit], list[Axis]]:
    """What the last layer makes, and for each layer and direction its units and its cells.

    `shape` counts gates and directions; `initial` holds what the states start from: (h,) or (h, c), or nothing.
    """
    gates, directions = shape
    states: list[Unit] = []
    cells: list[Axis] = []
    for (group, weights), starts in zip(owned, initial, strict=True):
        cell, unit = one_layer(atoms, group, weights, gates, below)
        for axis, start in zip((unit[0], cell), starts, strict=False):
            if start is not None:
                atoms.couple(axis, start)
        states.append(unit)
        cells.append(cell)
        if len(states) % directions == 0:
            made = states[-directions:]
            below = np.concatenate([axis for axis, _ in made]), made[0][1] if directions == 1 else None
    _equal(atoms, cells)
    if owned[0][1][-1] is not None:
        _equal(atoms, [axis for axis, _ in states])
    return below, states, cells


def _equal(atoms: Atoms, axes: Sequence[Axis]) -> None:
    if len(axes) > 1:
        atoms.equal.append(tuple(axes))


def _initial(atoms: Atoms, form: Form, hx: Traced | None) -> list[list[Axis]]:
    """The atoms of the initial states: for each layer and direction (h,) or (h, c)."""
    count = form.layers * form.directions
    if hx is None:
        return [[] for _ in range(count)]
    if form.kind == "LSTM":
        pair = hx if not isinstance(hx, Traced) else _unpaired(hx)
        parts = [_by_layer(atoms, part, count) for part in pair]
    else:
        parts = [_by_layer(atoms, hx, count)]
    return [list(axes) for axes in zip(*parts, strict=True)]


def _unpaired(hx: Traced) -> Sequence[Traced]:
    return [Traced(value, layout) for value, layout in zip(hx.value, hx.layout, strict=True)]


def _by_layer(atoms: Atoms, state: Traced, count: int) -> list[Axis]:
    if isinstance(state.layout, States):
        return [layer.axes[-1] for layer in state.layout.layers]
    return [layout_of(atoms, state).axes[-1]] * count


def one_layer(
    atoms: Atoms, group: str, weights: Sequence[Traced | None], gates: int, below: tuple[Axis, Rows]
) -> tuple[Axis, tuple[Axis, Rows]]:
    """The cells of one layer and direction, and its units, which are the cells unless they are projected.

    `weights` stand in the order of `WEIGHTS`.
    """
    reading, own, *biases, projection = weights
    assert reading is not None
    assert own is not None
    cells = _gated(atoms, [w for w in (reading, own, *biases) if w is not None], gates)
    _read(atoms, reading, below[0])
    if projection is None:
        _read(atoms, own, cells)
        atoms.make(group, cells)
        return cells, (cells, None)
    _read(atoms, projection, cells)
    units = layout_of(atoms, projection)
    _read(atoms, own, units.axes[0])
    atoms.make(f"{group}.cells", cells)
    atoms.make(group, units.axes[0])
    return cells, (units.axes[0], units.silent[0])


def _gated(atoms: Atoms, weights: Sequence[Traced], gates: int) -> Axis:
    """Couples the gates' rows of each unit; returns the units."""
    first: Axis = layout_of(atoms, weights[0]).axes[0].reshape(gates, -1)[0]
    for weight in weights:
        for block in layout_of(atoms, weight).axes[0].reshape(gates, -1):
            atoms.couple(first, block)
    return first


def _read(atoms: Atoms, weight: Traced, units: Axis) -> None:
    layout = layout_of(atoms, weight)
    atoms.couple(units, layout.axes[1])
    atoms.reads(layout.silent[1], np.where(units > 0, layout.axes[1], 0))


def _outputs(
    form: Form,
    out: Any,
    entering: Layout,
    above: tuple[Axis, Rows],
    states: Sequence[tuple[Axis, Rows]],
    cells: Sequence[Axis],
    packed: bool,
) -> tuple[Any, Any]:
    samples = still((out[1][0] if form.kind == "LSTM" else out[1]).shape[1:-1])

    def state(axis: Axis, rows: Rows) -> Layout:
        return Layout((*samples.axes, axis), (*samples.silent, rows))

    whole: Any = Layout((*entering.axes[:-1], above[0]), (*(None,) * (len(entering.axes) - 1), above[1]))
    whole = (whole, *(None,) * 3) if packed else whole
    h = States(tuple(state(axis, rows) for axis, rows in states))
    return whole, (h, States(tuple(state(axis, None) for axis in cells))) if form.kind == "LSTM" else h


def cell(atoms: Atoms, out: Any, name: str, module: nn.RNNCellBase, input: Traced, hx: Any = None) -> Any:
    """One step: as a layer, with the state handed in and out."""
    weights = [module_parameter(atoms, name, module, leaf) for leaf in WEIGHTS]
    kind = type(module).__name__.removesuffix("Cell")
    return one_step(atoms, out, name or "cell", weights, GATES[kind], input, _given(hx, kind == "LSTM"))


def _given(hx: Any, pair: bool) -> Sequence[Traced]:
    if hx is None:
        return ()
    if isinstance(hx, (tuple, list)) and not isinstance(hx, Traced):
        return hx
    return _unpaired(hx) if pair else [hx]


def one_step(
    atoms: Atoms,
    out: Any,
    group: str,
    weights: Sequence[Traced | None],
    gates: int,
    input: Traced,
    states: Sequence[Traced],
) -> Any:
    """One step of one layer, whose states are handed in."""
    entering = layout_of(atoms, input)
    units, _ = one_layer(atoms, group, weights, gates, (entering.axes[-1], entering.silent[-1]))
    for state in states:
        atoms.couple(units, layout_of(atoms, state).axes[-1])
    shape = (out[0] if isinstance(out, tuple) else out).shape[:-1]
    layout = Layout((*still(shape).axes, units), (None,) * (len(shape) + 1))
    return (layout, layout) if isinstance(out, tuple) else layout


def packed(atoms: Atoms, out: PackedSequence, input: Traced, *more: Any, **options: Any) -> Any:
    """`pack_padded_sequence`: samples and steps become one axis."""
    layout = layout_of(atoms, input)
    return (Layout((np.zeros(len(out.data), np.int64), *layout.axes[2:]), (None, *layout.silent[2:])), None, None, None)


def padded_again(atoms: Atoms, out: tuple[Tensor, Tensor], sequence: Traced, *more: Any, **options: Any) -> Any:
    """`pad_packed_sequence`: back again; what is filled in is zero."""
    layout = sequence.layout[0]
    axes = still(out[0].shape[:2]).axes
    return Layout((*axes, *layout.axes[1:]), (None, None, *layout.silent[1:])), None
