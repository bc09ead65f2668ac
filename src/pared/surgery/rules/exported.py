"""Operations that only torch.export writes: whole recurrent modules with their weights as arguments, and those whose
arguments stand in another order or hold sizes as numbers."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pared.surgery.atoms import Atoms, Axis, Layout, States, Traced, still
from pared.surgery.rules import dense, norms, recurrent, shape
from pared.surgery.rules.layouts import group_name, labelled, layout_of
from pared.surgery.rules.recurrent import one_step


def lstm(atoms: Atoms, out: Any, input: Traced, hx: Sequence[Traced], params: Sequence[Traced], *more: Any) -> Any:
    """A whole LSTM, with its weights as arguments."""
    return _recurrent(atoms, out, input, hx, params, 4, *more)


def gru(atoms: Atoms, out: Any, input: Traced, hx: Traced, params: Sequence[Traced], *more: Any) -> Any:
    """A whole GRU, with its weights as arguments."""
    return _recurrent(atoms, out, input, [hx], params, 3, *more)


def rnn(atoms: Atoms, out: Any, input: Traced, hx: Traced, params: Sequence[Traced], *more: Any) -> Any:
    """A whole simple recurrent network, with its weights as arguments."""
    return _recurrent(atoms, out, input, [hx], params, 1, *more)


def _recurrent(
    atoms: Atoms,
    out: Any,
    input: Traced,
    hx: Sequence[Traced],
    params: Sequence[Traced],
    gates: int,
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    directions = 2 if bidirectional else 1
    count = layers * directions
    each = len(params) // count
    owned = []
    for own in (params[each * k :][:each] for k in range(count)):
        weights = [*own[:2], *(own[2:4] if has_biases else (None, None)), own[-1] if each % 2 else None]
        owned.append((_group(own[0]), weights))
    entering = layout_of(atoms, input)
    initial = [[_start(atoms, state, k) for state in hx] for k in range(count)]
    start = entering.axes[-1], entering.silent[-1]
    below, states, cells = recurrent.layers(atoms, owned, (gates, directions), start, initial)
    samples = still(out[1].shape[1:-1]).axes
    h, c = (
        States(tuple(Layout((*samples, axis), (None,) * (len(samples) + 1)) for axis in axes))
        for axes in ([axis for axis, _ in states], cells)
    )
    whole = Layout((*entering.axes[:-1], below[0]), (*(None,) * (len(entering.axes) - 1), below[1]))
    return (whole, h, c) if gates == 4 else (whole, h)


def _group(weight: Traced) -> str:
    """`rnn.weight_ih_l0` makes the group `rnn.l0`."""
    path, _, leaf = group_name(weight).rpartition(".")
    return f"{path}.{leaf.removeprefix('weight_ih_')}".lstrip(".")


def _start(atoms: Atoms, state: Traced, index: int) -> Axis | None:
    """Zeros that the module made are as wide as it is: whether they shrink with it is tried out."""
    if isinstance(state.layout, States):
        return state.layout.layers[index].axes[-1]
    return layout_of(atoms, state).axes[-1] if labelled(state.layout) else None


def lstm_cell(atoms: Atoms, out: Any, input: Traced, hx: Sequence[Traced], *weights: Traced) -> Any:
    """One step of an LSTM."""
    return _cell(atoms, out, input, hx, weights, 4)


def gru_cell(atoms: Atoms, out: Any, input: Traced, hx: Traced, *weights: Traced) -> Any:
    """One step of a GRU."""
    return _cell(atoms, out, input, [hx], weights, 3)


def rnn_cell(atoms: Atoms, out: Any, input: Traced, hx: Traced, *weights: Traced) -> Any:
    """One step of a simple recurrent network."""
    return _cell(atoms, out, input, [hx], weights, 1)


def _cell(atoms: Atoms, out: Any, input: Traced, hx: Sequence[Traced], weights: Sequence[Traced], gates: int) -> Any:
    given = [state for state in hx if labelled(state.layout)]
    own = [*weights, *(None,) * (5 - len(weights))]
    return one_step(atoms, out, _group(weights[0]).removesuffix(".weight_ih"), own, gates, input, given)


def batch_norm(
    atoms: Atoms, out: Tensor, input: Traced, weight: Any, bias: Any, mean: Any, variance: Any, *more: Any
) -> Layout:
    """Batch and instance normalisation with the weights before the statistics."""
    return norms.channels(atoms, out, input, mean, variance, weight, bias)


def group_norm(
    atoms: Atoms, out: Tensor, input: Traced, groups: int, weight: Any = None, bias: Any = None, *more: Any
) -> Layout:
    """The number of groups is a number here; whether it shrinks is tried out."""
    return norms.in_groups(atoms, input, groups, (weight, bias))


def embedding(atoms: Atoms, out: Tensor, weight: Traced, indices: Traced, *more: Any) -> Layout:
    """Rows of a weight that comes first."""
    return dense.embedding(atoms, out, indices, weight)


RULES: dict[str, Callable[..., Any]] = {
    "lstm": lstm,
    "gru": gru,
    "rnn_tanh": rnn,
    "rnn_relu": rnn,
    "lstm_cell": lstm_cell,
    "gru_cell": gru_cell,
    "rnn_tanh_cell": rnn_cell,
    "rnn_relu_cell": rnn_cell,
    "batch_norm": batch_norm,
    "instance_norm": batch_norm,
    "group_norm": group_norm,
    "embedding": embedding,
    "numpy_T": shape.turned,
    "layer_norm": norms.last_axes,
    "rms_norm": norms.last_axes,
}
