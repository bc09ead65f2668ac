"""What trace finds, and what it refuses by name rather than guess."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from networks import mlp, snapshot, unchanged
from pared.models import Forecaster
from pared.surgery import Plan, Slice, StructureError, cut, mask, trace


def test_the_groups_of_a_forecaster_in_the_order_of_the_data():
    structure = trace(Forecaster(), torch.zeros(1, 2, 1))
    assert [(g.name, g.width) for g in structure] == [("recurrent.0.l0", 16), ("recurrent.1.l0", 4), ("head.0", 4)]
    assert set(structure["recurrent.0.l0"].slices) == {
        *(Slice(f"recurrent.0.{p}_l0", 0, "in", 4) for p in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
        Slice("recurrent.0.weight_hh_l0", 1, "out"),
        Slice("recurrent.1.weight_ih_l0", 1, "out"),
    }
    assert structure["head.0"].slices[-1] == Slice("head.1.weight", 1, "out")
    assert structure.equal == ()


def test_a_residual_add_makes_one_group():
    structure = trace(mlp(), torch.zeros(1, 3, dtype=torch.float64))
    assert [(g.name, g.width) for g in structure] == [("first", 4), ("second", 5)]
    assert {s.parameter for s in structure["second"].slices} == {
        "second.weight", "second.bias", "third.weight", "third.bias", "last.weight",
    }  # fmt: skip


def test_layers_of_one_module_are_equal_and_each_gate_a_block():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.GRU(2, 3, 2), nn.Linear(3, 1)

        def forward(self, x):
            return self.out(self.rnn(x)[1][-1])

    structure = trace(Two(), torch.zeros(4, 1, 2))
    assert structure.equal == (("rnn.l0", "rnn.l1"),)
    assert {s.blocks for s in structure["rnn.l0"].slices if s.role == "in"} == {3}


class Net(nn.Module):
    """A forward written by the test, on a few ready-made layers."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.c, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(3, 4), nn.Linear(4, 2)
        self.one = nn.Linear(4, 1)
        self.lstm, self.gru = nn.LSTM(3, 4, batch_first=True), nn.GRU(3, 4, num_layers=2, batch_first=True)
        self.next, self.norm, self.conv = nn.LSTM(4, 4, batch_first=True), nn.LayerNorm(4), nn.Conv1d(3, 4, 1)
        self.wide = nn.LSTM(3, 4, bidirectional=True, batch_first=True)
        self.projected = nn.LSTM(3, 4, proj_size=2, batch_first=True)
        self.pair = nn.Bilinear(4, 4, 4)
        self.scale = nn.Parameter(torch.linspace(1, 2, 4))
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


def row(forward):
    return forward, torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


def window(forward):
    return forward, torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))


ALIKE = {
    "keyword arguments join": row(lambda m, x: m.last(torch.add(input=m.a(x), other=m.c(x)))),
    "keyword argument of an activation": row(lambda m, x: m.last(torch.tanh(input=m.a(x)))),
    "product of gates": row(lambda m, x: m.last(m.a(x) * torch.sigmoid(m.c(x)))),
    "one gate for all": row(lambda m, x: m.last(m.a(x) * torch.sigmoid(m.one(torch.tanh(m.b(m.a(x))))))),
    "scaled by a number": row(lambda m, x: m.last(2 * m.a(x) - 1)),
    "added to itself": row(lambda m, x: m.last((lambda h: h + h.tanh())(m.a(x)))),
    "one layer called twice": row(lambda m, x: m.last(m.a(x) + m.a(x * 2))),
    "states and outputs of one layer": window(lambda m, x: (lambda r: m.last(r[0][:, -1] * r[1][0][-1]))(m.lstm(x))),
    "activation of all states": window(lambda m, x: m.last(torch.tanh(m.gru(x)[1])[-1])),
    "state with slices and dots": window(lambda m, x: m.last(m.gru(x)[1][-1, ..., :])),
    "first layer's state": window(lambda m, x: m.last(m.gru(x)[1][0] + m.gru(x)[0][:, -1])),
    "outputs at every step": window(lambda m, x: m.last(m.next(m.lstm(x)[0])[0])[:, -1]),
    "a new axis": window(lambda m, x: m.last(m.lstm(x)[0][:, -1, None])),
    "a residual around a recurrent layer": window(lambda m, x: (lambda h: m.last(h + m.next(h)[0]))(m.lstm(x)[0])),
    "several outputs": window(lambda m, x: {"y": m.last(m.lstm(x)[0])}["y"]),
}


@pytest.mark.parametrize("name", ALIKE)
def test_whatever_is_traced_is_cut_as_it_is_masked(name):
    forward, x = ALIKE[name]
    model, x = Net(forward).double(), x.double()
    structure = trace(model, x)
    plan = structure.bind(Plan({g.name: tuple(range(1, g.width)) if g.width > 1 else (0,) for g in structure}))
    assert structure.removed(plan)
    small, masked = cut(model, structure, plan), mask(model, structure, plan)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(small(x), masked(x), atol=1e-12, rtol=1e-12)
    assert not torch.equal(model(x), masked(x))


REFUSED = {
    "reshape": (row(lambda m, x: m.last(m.a(x).reshape(2, 4))), "'reshape' writes its size into the code"),
    "some of the units": (row(lambda m, x: m.one(m.a(x)[:, [0, 1, 2, 3]])), "'getitem' picks some"),
    "a part of the units": (row(lambda m, x: m.last(m.a(x)[..., :])[:, :1] + m.one(m.a(x)[:, 0:4])), "picks some"),
    "some of the states": (window(lambda m, x: m.last(m.gru(x)[1][:, :, [0, 1, 2, 3]][0])), "picks some"),
    "no rule": (row(lambda m, x: m.last(torch.fft.ifft(m.a(x)).real)), "no rule for.*fft_ifft.*units of a"),
    "mean over units": (row(lambda m, x: m.a(x).mean(-1)), "'mean' reduces over its units"),
    "summed directions": (window(lambda m, x: m.wide(x)[0].sum(-1)), "'sum_1' sums over its units"),
    "branch on data": (row(lambda m, x: m.last(m.a(x)) if x.sum() > 0 else m.last(m.c(x))), "cannot follow"),
    "unknown layer": (row(lambda m, x: m.one(m.pair(m.a(x), m.c(x)))), "'bilinear' in 'pair'.*units of a, .*c"),
    "no hidden units": (row(lambda m, x: m.a(x)), "no hidden units"),
    "hidden units are outputs": (row(lambda m, x: (m.last(h := m.a(x)), {"h": [h]})), "no hidden units"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused_by_name(name):
    (forward, x), words = REFUSED[name]
    model = Net(forward)
    before = snapshot(model)
    with pytest.raises(StructureError, match=words):
        trace(model, x)
    unchanged(before, model)


def test_units_that_meet_something_fixed_are_protected():
    _, x = row(None)
    fixed = torch.linspace(0, 1, 4)
    assert [g.name for g in trace(Net(lambda m, x: m.last(m.b(m.a(x)) * fixed)), x)] == ["a"]
    assert [g.name for g in trace(Net(lambda m, x: m.last(m.a(x) + x[:, :1] * fixed + m.b(m.c(x)))), x)] == ["c"]


def test_one_protected_layer_protects_the_module_it_belongs_to():
    """Cutting l0 alone would leave one nn.GRU with two widths."""
    structure = trace(Net(lambda m, x: (m.last(m.lstm(x)[0]), m.gru(x)[0])), torch.zeros(1, 5, 3))
    assert [g.name for g in structure] == ["lstm.l0"]
    assert structure.equal == ()


def test_merged_modules_form_one_set_of_equal_layers():
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.last = nn.RNN(2, 3, 2), nn.LSTM(3, 3, 3), nn.Linear(3, 1)

        def forward(self, x):
            x, _ = self.a(x)
            return self.last(x + self.b(x)[0])

    structure = trace(Chain(), torch.zeros(4, 1, 2))
    assert [set(names) for names in structure.equal] == [{"a.l0", "a.l1", "b.l0", "b.l1"}]
    assert {g.name for g in structure} == {"a.l0", "a.l1", "b.l0", "b.l1"}


def test_weights_in_two_places_are_cut_in_both():
    model = Net(lambda m, x: m.last(torch.tanh(m.a(x)) + m.c(x)))
    model.c.weight = model.a.weight
    structure = trace(model, torch.zeros(1, 3))
    plan = Plan({"a": (0, 3)})
    small, x = cut(model, structure, plan), torch.randn(2, 3)
    assert small.c.weight is small.a.weight
    assert small.c.weight.shape == (2, 3)
    torch.testing.assert_close(small(x), mask(model, structure, plan)(x))


def test_a_layer_under_two_names_is_one_layer():
    model = Net(lambda m, x: m.last(torch.tanh(m.a(x)) + m.c(x * 2)))
    model.c = model.a
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    structure = trace(model, x)
    plan = Plan({"a": (0, 2)})
    torch.testing.assert_close(cut(model, structure, plan)(x), mask(model, structure, plan)(x))


def test_computed_weights_are_refused():
    model = Net(lambda m, x: m.last(m.a(x)))
    torch_prune.l1_unstructured(model.a, "weight", 0.5)
    with pytest.raises(StructureError, match="cannot be copied"):
        trace(model, torch.zeros(1, 3))
    with torch.no_grad():
        model(torch.zeros(1, 3))
    with pytest.raises(StructureError, match="'a' holds weight_mask, weight_orig"):
        trace(model, torch.zeros(1, 3))
    torch_prune.remove(model.a, "weight")
    assert "a" in trace(model, torch.zeros(1, 3))


def test_a_forward_that_draws_leaves_the_random_states_alone():
    model = Net(lambda m, x: m.last(m.a(x + torch.randn(3))))
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    trace(model, torch.zeros(1, 3))
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


@pytest.mark.parametrize("way", ["torch.fx", "a layer by itself"])
def test_the_example_is_run_outside_of_the_callers_autocast_region(way, monkeypatch):
    model = Net(lambda m, x: m.last(torch.tanh(m.a(x))))
    x = torch.zeros(2, 3)
    if way == "a layer by itself":
        model, x = nn.TransformerEncoderLayer(4, 2, 6), torch.zeros(2, 3, 4)
    expected, seen, plain = trace(model, x), [], torch.nn.functional.linear

    def linear(*args):
        seen.append(torch.is_autocast_enabled("cpu"))
        return plain(*args)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = trace(model, x)
        assert torch.is_autocast_enabled("cpu")
    assert found == expected
    assert seen
    assert not any(seen)
