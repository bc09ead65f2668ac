"""Gradients with respect to gates on values: ordinary forward and backward passes of many samples at once."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pared.signals.gates import Gates, GroupLike, each, gated_copy, open_gates, widened
from pared.signals.private import private, tensor_of
from pared.signals.scaling import Reads, Scaled, Sums, UnfitError, Use
from pared.signals.unrolled import written_out
from pared.types import Inputs

Value = Callable[[Tensor, Tensor], Tensor]
"""One sample's output (1, ...) and target (1, ...) -> a tensor."""

Keep = Callable[[Tensor], Tensor]
"""One sample's gradients (*value's shape, units) -> what is kept of them."""

HELD_ENTRIES = 20_000_000
"""How many saved values and gradients may be held at a time: 80 MB in float32."""

TRIED, FIRST = 3, 16
"""How many samples are looked at beforehand, and are in the first chunk, after which the value's size is known."""


def gradients_on_values(
    model: nn.Module, groups: Sequence[GroupLike], x: Inputs, value: Value, y: Tensor, keep: Keep
) -> dict[str, Tensor]:
    """Per-sample gradients for the groups that only calls read in which their weights multiply something.

    There the gate of unit j, g_j = 1, is a factor on the values x_j that the weight multiplies: dv/dg_j = sum over
    calls, steps and places of x_j dv/dx_j. Every sample has gates of its own, so that one backward pass of the batch
    yields the gradients of all samples: no gradient is as large as a weight. Where the samples lie in a value is seen
    by running one sample and several; that gates on values are gates on weights, and samples independent of each other,
    is tried out on these before it is believed.

    Returns group -> (samples, *value's shape, units) without the groups that are read in another way; nothing at all
    where samples lie in no order that can be seen, or the forward pass looks at values.
    Cost: five forward passes of up to three samples; one forward pass of all and one backward pass for each entry of
    the value, in chunks that fit into memory.
    """
    if not len(y):
        return {}
    looked = written_out(private(model)).requires_grad_(False)
    try:
        forward = _tried(looked, groups, x)
    except (UnfitError, RuntimeError, TypeError, ValueError, IndexError):
        return {}
    if forward is None:
        return {}
    try:
        return _in_chunks(forward, x, value, y, keep)
    except (UnfitError, RuntimeError):  # a value of another shape; in-place changes of what the gates multiplied
        return {}


class _Place(NamedTuple):
    """Where samples lie in a value: along `axis`, each of them `times` times, all samples in turn where `turns`."""

    axis: int
    times: int = 1
    turns: bool = False


class _Forward:
    """A network as a function of gates that every sample has for itself: (samples, units)."""

    def __init__(self, model: nn.Module, groups: Sequence[GroupLike]) -> None:
        self.model, self.groups = model, list(groups)
        self.reads = Reads(model, groups)
        self.places: list[_Place | None] = []
        self.entries = 1

    def __call__(self, gates: Gates, x: Inputs) -> Tensor:
        scale = _Scale(self, gates)
        out = self.run(Scaled(self.reads, scale), x)
        if scale.calls != len(self.places) or out.dim() == 0 or len(out) != scale.samples:
            raise UnfitError("another number of calls, or outputs that are not one a sample")
        return out

    def run(self, mode: Scaled, x: Inputs) -> Tensor:
        given = each(x, torch.clone)  # a network may change its inputs in place
        with mode:
            return widened(tensor_of(self.model(*((given,) if isinstance(given, Tensor) else given))))


class _Scale:
    """Multiplies values by the gates of a forward pass, call by call."""

    def __init__(self, forward: _Forward, gates: Gates) -> None:
        self.forward, self.gates, self.calls = forward, gates, 0
        self.samples = len(next(iter(gates.values())))
        self.factors: dict[Use, Tensor | None] = {}

    def __call__(self, use: Use, start: int, value: Tensor, along: int, repeat: int) -> Tensor:
        self.calls += 1
        if self.calls > len(self.forward.places):
            raise UnfitError("another number of calls")
        factor, along = self._factor(use), along % value.dim()
        if factor is None:
            return value
        factor = factor[:, start : start + value.shape[along] // repeat].repeat(1, repeat).to(value.dtype)
        shape = [1] * value.dim()
        shape[along] = value.shape[along]
        if self.samples == 1:
            return value * factor.reshape(shape)
        place = self.forward.places[self.calls - 1]
        assert place is not None
        shape[place.axis] = self.samples * place.times
        if value.shape[place.axis] != shape[place.axis]:
            raise UnfitError("samples of unequal sizes")
        if place.times > 1:
            factor = factor.repeat(place.times, 1) if place.turns else factor.repeat_interleave(place.times, 0)
        return value * (factor if place.axis < along else factor.T).reshape(shape)

    def _factor(self, use: Use) -> Tensor | None:
        """(samples, entries along the axis), None where all are one."""
        if use not in self.factors:
            weight, found = self.forward.reads.tensors[use.parameter], None
            for group, s in self.forward.reads.of[use.parameter][use.axis]:
                if group.name in self.gates:
                    own = self.gates[group.name].repeat_interleave(s.inner, 1).repeat(1, s.blocks)
                    index = torch.tensor(s.indices(group.width, range(group.width)), device=own.device)
                    whole = own.new_ones(len(own), weight.shape[use.axis]).index_copy(1, index, own)
                    found = whole if found is None else found * whole
            self.factors[use] = found
        return self.factors[use]


class _Look:
    """Notes what a forward pass multiplies, and how many entries its backward pass would need."""

    def __init__(self, forward: _Forward, x: Inputs) -> None:
        self.values: list[tuple[Use, int, Tensor]] = []
        mode, sums = Scaled(forward.reads, self._see), Sums()
        with torch.enable_grad(), sums.hooks:
            self.out = forward.run(mode, x).detach()
        self.entries, self.elsewhere = sums.entries, mode.elsewhere

    def _see(self, use: Use, start: int, value: Tensor, along: int, repeat: int) -> Tensor:
        self.values.append((use, along % value.dim(), value.detach().clone()))
        return value.detach().requires_grad_() * 1.0  # as if it were gated


def _tried(model: nn.Module, groups: Sequence[GroupLike], x: Inputs) -> _Forward | None:
    """The forward pass of the groups whose gates are factors on values, after trying it; None where it fails."""
    forward = _Forward(model, groups)
    first = each(x, lambda part: part[:TRIED])
    count = len(first if isinstance(first, Tensor) else first[0])
    one, many = _Look(forward, each(x, lambda part: part[:1])), _Look(forward, first)
    if len(one.values) != len(many.values) or many.out.dim() == 0 or len(many.out) != count:
        return None
    unfit = many.elsewhere
    for (use, along, alone), (_, _, value) in zip(one.values, many.values, strict=True):
        forward.places.append(_place(alone, value, along, count))
        if forward.places[-1] is None:
            unfit.add(use)
    forward.entries = max(1, (many.entries - one.entries) // max(1, count - 1) if count > 1 else one.entries)
    names = forward.reads.groups(unfit) | forward.reads.unknown
    forward.groups = [group for group in groups if group.name not in names]
    return forward if forward.groups and _agrees(forward, first, one.out, many.out) else None


def _place(alone: Tensor, value: Tensor, along: int, count: int) -> _Place | None:
    """Where samples lie in a value, seen from the value of the first alone and that of several."""
    if count == 1:
        return _Place(0)
    if alone.dim() != value.dim():
        return None
    differ = [axis for axis in range(value.dim()) if alone.shape[axis] != value.shape[axis]]
    if len(differ) != 1 or differ[0] == along or value.shape[differ[0]] != count * alone.shape[differ[0]]:
        return None
    axis, times = differ[0], alone.shape[differ[0]]
    if times == 1:
        return _Place(axis)
    for turns in (False, True):
        parts = torch.unflatten(value, axis, (times, count) if turns else (count, times))
        if _near(parts.select(axis + turns, 0), alone):
            return _Place(axis, times, turns)
    return None


@torch.no_grad()
def _agrees(forward: _Forward, x: Inputs, alone: Tensor, plain: Tensor) -> bool:
    """Whether gates on values do what gates on weights do, when samples have different ones.

    Sample i has the gates r^i, where r are powers of two, which round nothing.
    """
    opened = open_gates(forward.model, forward.groups)
    chosen = {name: 0.5 ** (1 + torch.arange(len(gate)).to(gate) % 3) for name, gate in opened.items()}
    count = len(plain)
    own = {name: torch.stack([gate**i for i in range(count)]) for name, gate in chosen.items()}
    found = forward(own, x)
    call = gated_copy(forward.model, forward.groups)
    rows = [plain[0], *(call({n: gate**i for n, gate in chosen.items()}, x)[i] for i in range(1, count))]
    if count == 1:
        every = {name: gate[None] for name, gate in chosen.items()}
        return _near(forward(every, x), call(chosen, x)) and _near(alone, plain)
    return _near(found, torch.stack(rows)) and _near(alone, plain[:1])


def _near(found: Tensor, expected: Tensor) -> bool:
    """To the square root of the precision, of the largest entry."""
    if found.shape != expected.shape:
        return False
    if not expected.is_floating_point() or not expected.numel():
        return bool((found == expected).all())
    part = torch.finfo(expected.dtype).eps ** 0.5
    size = float(expected.detach().abs().amax())
    return bool(torch.allclose(found, expected, rtol=0, atol=part * size, equal_nan=True))


def _in_chunks(forward: _Forward, x: Inputs, value: Value, y: Tensor, keep: Keep) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {group.name: [] for group in forward.groups}
    units = sum(group.width for group in forward.groups)
    chunk, start = max(1, min(FIRST, HELD_ENTRIES // forward.entries)), 0
    while start < len(y):
        end = min(len(y), start + chunk)
        part = each(x, partial(torch.narrow, dim=0, start=start, length=end - start))
        gradients, shape = _rows(forward, part, value, y[start:end])
        for name, rows in gradients.items():
            found[name] += [keep(row.reshape(*shape, -1)) for row in rows]
        entries = forward.entries + units * max(1, shape.numel())
        start, chunk = end, max(1, min(256, HELD_ENTRIES // entries))
    return {name: torch.stack(rows).detach() for name, rows in found.items()}


def _rows(forward: _Forward, x: Inputs, value: Value, y: Tensor) -> tuple[dict[str, Tensor], torch.Size]:
    """Gradients of every entry of every sample's value: group -> (samples, entries, units), and the value's shape."""
    gates = {
        name: gate.expand(len(y), -1).clone().requires_grad_()
        for name, gate in open_gates(forward.model, forward.groups).items()
    }
    with torch.enable_grad():
        outputs = torch.split(forward(gates, x), 1)
        values = [value(out, target) for out, target in zip(outputs, torch.split(y, 1), strict=True)]
        sums = torch.stack([one.flatten() for one in values]).sum(dim=0).unbind()
    columns: list[list[Tensor]] = [[] for _ in gates]
    for k, total in enumerate(sums):
        rows: Sequence[Tensor | None] = [None] * len(gates)
        if total.requires_grad:
            rows = torch.autograd.grad(total, list(gates.values()), retain_graph=k + 1 < len(sums), allow_unused=True)
        for column, row, gate in zip(columns, rows, gates.values(), strict=True):
            column.append(torch.zeros_like(gate, requires_grad=False) if row is None else row)
    found = {
        name: torch.stack(column, dim=1) if column else gate.new_zeros(len(y), 0, gate.shape[1])
        for (name, gate), column in zip(gates.items(), columns, strict=True)
    }
    return found, values[0].shape
