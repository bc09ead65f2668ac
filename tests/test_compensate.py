"""Least-squares repair against `np.linalg.lstsq` on states collected by a loop."""

import weakref

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import reference
from kinds import KINDS
from networks import batch, forecaster, mlp, plans, snapshot, specs, unchanged
from pared.compensate import compensate
from pared.data.batches import example
from pared.moments import Moments
from pared.signals import tensor_of
from pared.surgery import Plan, StructureError, cut, mask, trace
from pared.types import Batch


def called(model, x):
    return tensor_of(model(*((x,) if isinstance(x, Tensor) else x)))


def weights(model):
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


@pytest.mark.parametrize("ridge", [1e-6, 1e-2])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_repair_is_the_least_squares_fit(cell, ridge):
    model = forecaster(cell)
    data = batch(model, samples=30)
    kept = {"recurrent.0.l0": [0, 2, 4], "recurrent.1.l0": [1, 2], "head.0": [0, 3]}
    lost = {"recurrent.0.l0": [1, 3], "recurrent.1.l0": [0], "head.0": [1, 2]}
    plan = Plan({name: tuple(units) for name, units in kept.items()})
    new, old = weights(compensate(model, trace(model, data.x), plan, data.x, ridge)), weights(model)

    _, (first, second) = reference.forecast(model, data.x)
    last = second[:, -1]
    hidden = last @ old["head.0.weight"].T + old["head.0.bias"]
    readers = [
        ("recurrent.0.l0", "recurrent.0.weight_hh_l0", "recurrent.0.bias_hh_l0", first[:, :-1].reshape(-1, 5), False),
        ("recurrent.0.l0", "recurrent.1.weight_ih_l0", "recurrent.1.bias_ih_l0", first.reshape(-1, 5), True),
        ("recurrent.1.l0", "recurrent.1.weight_hh_l0", "recurrent.1.bias_hh_l0", second[:, :-1].reshape(-1, 3), False),
        ("recurrent.1.l0", "head.0.weight", "head.0.bias", last, True),
        ("head.0", "head.1.weight", "head.1.bias", hidden, True),
    ]
    expected = dict(old)
    for group, weight, bias, values, intercept in readers:
        expected[weight], expected[bias] = reference.repaired(
            old[weight], old[bias], values, kept[group], lost[group], ridge, intercept
        )
    assert new.keys() == expected.keys()
    for name in new:
        np.testing.assert_allclose(new[name], expected[name], rtol=1e-6, atol=1e-8, err_msg=name)


@given(specs(), st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_repair_changes_only_what_reads_removed_units(spec, data):
    model, x = spec.build(), spec.input()
    try:
        structure = trace(model, x)
    except StructureError:
        return
    plan = data.draw(plans(structure))
    before, state = snapshot(model), torch.get_rng_state()
    repaired = compensate(model, structure, plan, x)
    unchanged(before, model)
    assert torch.equal(torch.get_rng_state(), state)
    assert cut(repaired, structure, plan)(x).isfinite().all()
    readers = {s.parameter for name in structure.removed(plan) for s in structure[name].slices if s.role == "out"}
    may = readers | {name.replace("weight", "bias") for name in readers if "weight_hh" not in name}
    for name, parameter in repaired.named_parameters():
        assert name in may or torch.equal(parameter, model.get_parameter(name)), name
        assert parameter.requires_grad


def twins(model, structure):
    """Makes unit 1 of the first group a copy of unit 0, in everything that makes it."""
    group = structure.groups[0]
    with torch.no_grad():
        for s in group.slices:
            if s.role == "in":
                rows = model.get_parameter(s.parameter).movedim(s.axis, 0)
                rows[s.indices(group.width, [1])] = rows[s.indices(group.width, [0])]
    return group


@pytest.mark.parametrize("build", [mlp, forecaster, lambda: forecaster("gru"), lambda: forecaster("rnn")])
def test_a_unit_that_repeats_another_goes_without_loss(build):
    model = build()
    data = batch(model, samples=40)
    structure = trace(model, data.x)
    group = twins(model, structure)
    plan = Plan({group.name: (0, *range(2, group.width))})
    small = cut(compensate(model, structure, plan, data.x, ridge=1e-13), structure, plan)
    torch.testing.assert_close(small(data.x), model(data.x), atol=1e-8, rtol=1e-8)
    plain = cut(model, structure, plan)
    assert (plain(data.x) - model(data.x)).abs().max() > 1e-3


@pytest.mark.parametrize("bias", [True, False])
def test_a_constant_unit_is_taken_over_by_the_bias(bias):
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1, bias=bias)).double()
    with torch.no_grad():
        model[0].weight[1] = 0.0
        model[0].bias[1] = 1.0
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    structure, plan = trace(model, x), Plan({"0": (0, 2)})
    small = cut(compensate(model, structure, plan, x), structure, plan)
    error = (small(x) - model(x)).abs().max()
    assert error < 1e-10 if bias else error > 1e-3


def test_repair_lowers_the_error_of_the_cut():
    model = forecaster(recurrent=(12, 6))
    data = batch(model, samples=200)
    structure = trace(model, data.x)
    plan = Plan({"recurrent.0.l0": tuple(range(6)), "recurrent.1.l0": (0, 1, 2)})
    whole = model(data.x)
    plain, repaired = (
        (cut(m, structure, plan)(data.x) - whole).square().mean()
        for m in (model, compensate(model, structure, plan, data.x))
    )
    assert repaired < plain / 4


@pytest.mark.parametrize("x", [torch.zeros(6, 4, 2), torch.ones(1, 4, 2), torch.ones(6, 1, 2)])
def test_few_or_dead_samples_still_give_finite_weights(x):
    model = forecaster().float()
    with torch.no_grad():
        for parameter in model.parameters():
            if x.abs().sum() == 0:
                parameter.zero_()
    plan = Plan({"recurrent.0.l0": (0, 3), "head.0": (1,)})
    repaired = compensate(model, trace(model, x), plan, x)
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in repaired.parameters())


@pytest.mark.parametrize("keep", [{"head.0": ()}, {"head.0": (9,)}, {"nowhere": (0,)}])
def test_wrong_plans_are_refused(keep):
    model = forecaster()
    data = batch(model)
    before = snapshot(model)
    with pytest.raises(StructureError):
        compensate(model, trace(model, data.x), Plan(keep), data.x)
    unchanged(before, model)


class Convolved(nn.Module):
    """Three convolutions, the last one transposed."""

    def __init__(self, bias):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 4, (2, 3), bias=bias)
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)

    def forward(self, x):
        return self.up(torch.tanh(self.second(torch.tanh(self.first(x)))))


@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_are_repaired_channel_by_channel(bias):
    torch.manual_seed(0)
    model, x = Convolved(bias).double(), torch.randn(4, 2, 7, 8, dtype=torch.float64)
    plan = Plan({"first": (0, 2, 4), "second": (1, 3)})
    new, old = weights(compensate(model, trace(model, x), plan, x, ridge=1e-3)), weights(model)
    h = torch.tanh(model.first(x))
    g = torch.tanh(model.second(h))
    h, g = (v.detach().movedim(1, -1).reshape(-1, v.shape[1]).numpy() for v in (h, g))
    expected = dict(old)
    second = reference.repaired_convolution(
        old["second.weight"], old.get("second.bias"), h, [0, 2, 4], [1, 3], ridge=1e-3
    )
    expected |= {"second.weight": second[0]} | ({"second.bias": second[1]} if bias else {})
    turned = reference.repaired_convolution(old["up.weight"].swapaxes(0, 1), None, g, [1, 3], [0, 2], ridge=1e-3)
    expected["up.weight"] = turned[0].swapaxes(0, 1)
    for name in new:
        np.testing.assert_allclose(new[name], expected[name], rtol=1e-9, atol=1e-11, err_msg=name)


REDUNDANT = [
    ("mlp", "0"), ("mlp", "2"), ("cnn", "point"), ("cnn", "up"), ("lstm", "rnn.l0"), ("gru", "rnn.l0"),
    ("gru", "rnn.l1"), ("bidirectional", "rnn.l0"), ("bidirectional", "rnn.l0_reverse"), ("bidirectional", "rnn.l1"),
    ("projected", "rnn.l0.cells"), ("projected", "rnn.l0"), ("started", "encoder.l0"), ("cells", "lstm"),
    ("cells", "gru"), ("transformer", "layer.linear1"), ("transformer", "layer.self_attn.heads"),
    ("transformer", "layer.self_attn.values"), ("attention", "attention.heads"), ("attention", "attention.out_proj"),
    ("weight norm", "first"), ("two inputs", "a"), ("relu", "rnn.l0"), ("packed", "rnn.l0"),
    ("packed", "rnn.l1_reverse"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "group"), REDUNDANT)
def test_a_unit_that_repeats_another_goes_without_loss_from_every_kind(name, group):
    model, data = KINDS[name].build(), KINDS[name].batch(40)
    structure = trace(model, example(data.x))
    if name == "started":  # its decoder is of one group with it
        data = data._replace(x=data.x[:, :4])
    twin_of(model, structure[group])
    names = next((names for names in structure.equal if group in names), (group,))
    for other in names:
        twin_of(model, structure[other])
    plan = Plan({other: (0, *range(2, structure[other].width)) for other in names})
    whole = called(model, data.x)
    edit = mask if name == "projected" else cut
    small = edit(compensate(model, structure, plan, data, ridge=1e-13), structure, plan)
    torch.testing.assert_close(called(small, data.x), whole, atol=1e-7, rtol=1e-7)
    assert (called(edit(model, structure, plan), data.x) - whole).abs().max() > 1e-6


@torch.no_grad()
def twin_of(model, group):
    """Makes unit 1 a copy of unit 0, in everything that makes it."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for s in group.slices:
        if s.role == "in":
            at = [s.indices(group.width, [j]) for j in (0, 1)]
            path, _, leaf = s.parameter.rpartition(".")
            tensor = (
                tensors[s.parameter] if s.parameter in tensors else getattr(model.get_submodule(path), leaf).clone()
            )
            rows = tensor.movedim(s.axis, 0)
            rows[at[1]] = rows[at[0]]
            if s.parameter not in tensors:
                setattr(model.get_submodule(path), leaf, tensor)


KEPT = [
    ("grouped", "first", {"inner.weight"}),  # a grouped convolution
    ("cnn", "first", {"depth.weight"}),  # a depthwise one
    ("tied", "first", {"first.weight", "second.weight"}),  # both make and read
    ("tied", "second", {"first.weight", "second.weight"}),
    ("attention", "attention.keys", {"attention.q_proj_weight", "attention.k_proj_weight", "attention.in_proj_bias"}),
]


@pytest.mark.parametrize(("name", "group", "kept"), KEPT)
def test_what_cannot_be_refitted_keeps_its_weights(name, group, kept):
    model, data = KINDS[name].build(), KINDS[name].batch()
    structure = trace(model, data.x[:1])
    before = snapshot(model)
    new = compensate(model, structure, Plan({group: (0,)}), data)
    unchanged(before, model)
    for parameter in kept:
        assert torch.equal(new.get_parameter(parameter), model.get_parameter(parameter)), parameter


def test_a_weight_without_inverse_is_kept_bit_for_bit():
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    nn.utils.parametrize.register_parametrization(model[2], "weight", Doubled())
    x = torch.randn(9, 3, dtype=torch.float64)
    structure = trace(model, x)
    before = snapshot(model)
    new = compensate(model, structure, Plan({"0": (0, 1)}), x)
    unchanged(before, model)
    assert all(torch.equal(a, b) for a, b in zip(new.parameters(), model.parameters(), strict=True))


def loaders(data, size):
    """The same data in every form that is taken."""
    parts = [Batch(data.x[n : n + size], data.y[n : n + size]) for n in range(0, len(data.y), size)]
    return {
        "tensor": data.x,
        "batch": data,
        "pair": (data.x, data.y),
        "list": parts,
        "loader": DataLoader(TensorDataset(data.x, data.y), size),
        "shuffled": DataLoader(TensorDataset(data.x, data.y), size, shuffle=True),
        "generator": (part for part in parts),
    }


@pytest.mark.parametrize("rows", [1, 7, 10_000])
@pytest.mark.parametrize("form", ["tensor", "batch", "pair", "list", "loader", "shuffled", "generator"])
def test_data_stream_in_any_form_and_size(form, rows, monkeypatch):
    monkeypatch.setattr("pared.moments.BUFFERED_VALUES", 5 * rows)
    model = forecaster()
    data = batch(model, samples=23)
    structure, plan = trace(model, data.x), Plan({"recurrent.0.l0": (0, 2), "head.0": (1, 3)})
    expected = compensate(model, structure, plan, data.x)
    state = torch.get_rng_state()
    found = compensate(model, structure, plan, loaders(data, 4)[form])
    assert torch.equal(state, torch.get_rng_state())
    for one, two in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


def test_memory_does_not_grow_with_the_data(monkeypatch):
    """No more batches than one, and no more rows than the buffer, are alive at a time."""
    monkeypatch.setattr("pared.moments.BUFFERED_VALUES", 64 * 6)
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def stream():
        nonlocal most
        for _ in range(50):
            x = torch.randn(32, 3, dtype=torch.float64)
            alive.append(weakref.ref(x))
            yield x, x[:, :2]
            del x
            most = max(most, sum(ref() is not None for ref in alive))

    structure = trace(model, torch.zeros(1, 3, dtype=torch.float64))
    compensate(model, structure, Plan({"0": (0, 1, 2)}), stream())
    assert len(alive) == 50
    assert most <= 2


def test_several_inputs_are_a_tuple_within_a_batch():
    model, data = KINDS["two inputs"].build(), KINDS["two inputs"].batch(30)
    structure, plan = trace(model, example(data.x)), Plan({"a": (1, 3)})
    one = compensate(model, structure, plan, data)
    (a, b), y = data
    two = compensate(model, structure, plan, [((a[:7], b[:7]), y[:7]), ((a[7:], b[7:]), y[7:])])
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11)
    assert not torch.equal(one.last.weight, model.last.weight)


def test_a_bias_that_two_layers_share_takes_no_intercept():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(2, 4), nn.Linear(4, 2), nn.Linear(4, 2)
            self.c.bias = self.b.bias

        def forward(self, x):
            h = torch.sigmoid(self.a(x))
            return self.b(h) * self.c(h)

    torch.manual_seed(0)
    model, x = Shared().double(), torch.randn(20, 2, dtype=torch.float64)
    new = compensate(model, trace(model, x), Plan({"a": (0, 1)}), x)
    assert torch.equal(new.b.bias, model.b.bias)
    values = torch.sigmoid(model.a(x)).detach().numpy()
    expected, _ = reference.repaired(
        model.b.weight.detach().numpy(), np.zeros(2), values, [0, 1], [2, 3], 1e-6, intercept=False
    )
    np.testing.assert_allclose(new.b.weight.detach().numpy(), expected, rtol=1e-7)


@pytest.mark.parametrize("data", [7, "text", [torch.ones(2)], None])
def test_data_of_other_kinds_are_refused(data):
    model = forecaster()
    structure = trace(model, batch(model).x)
    with pytest.raises(TypeError):
        compensate(model, structure, Plan({"head.0": (0,)}), data)


@pytest.mark.parametrize("bias", ["a bias", None])
def test_wide_values_are_multiplied_in_their_own_precision_and_summed_in_float64(bias, monkeypatch):
    monkeypatch.setattr("pared.moments.WIDE", 8)
    monkeypatch.setattr("pared.moments.BUFFERED_VALUES", 8 * 50)
    values = 3 + torch.randn(1000, 8, generator=torch.Generator().manual_seed(0))
    moments = Moments()
    moments.add(values, bias)
    kept, lost = torch.arange(5), torch.arange(5, 8)
    matrix, shift = moments.regression(kept, lost, 1e-6)
    exact = values.double().numpy()
    found = reference.ridge_fit(exact[:, :5], exact[:, 5:], 1e-6, bias is not None)
    np.testing.assert_allclose(matrix, found[0], atol=1e-5)
    np.testing.assert_allclose(shift, found[1], atol=1e-5)
    assert moments.squares.dtype == torch.float64
