"""Dead units: what goes is what a naive search finds, and the small network computes the same."""

from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import pared
import random_networks
from networks import ACTIVATIONS, snapshot, specs, unchanged
from pared.dead import dead_units, shed_dead_units
from pared.surgery import Plan, Structure, StructureError, trace
from reference import surviving_units

QUIET = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
SMOOTH = {**ACTIVATIONS, "sigmoid": nn.Sigmoid, "elu": nn.ELU, "hardtanh": nn.Hardtanh, "silu": nn.SiLU}


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build().double().eval()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                nn.init.normal_(parameter)  # biases that are not small
    return model


@torch.no_grad()
def thinned(model, share, seed, biases=0.0):
    """The model with a share of its weights, and of its biases, at zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        gone = biases if parameter.dim() == 1 else share
        parameter.masked_fill_(torch.rand(parameter.shape, generator=generator) < gone, 0.0)
    return model


def inputs(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sheds(model, x):
    """The small network and its plan, after checking that it computes the same and that no more can go."""
    before = snapshot(model)
    small, plan = shed_dead_units(model, torch.zeros_like(x))
    unchanged(before, model)
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), atol=1e-12, rtol=1e-12)
    again = shed_dead_units(small, x)[1]
    assert not again.keep, again
    return small, plan


def dense(widths, activation, seed=0):
    def build():
        parts = []
        for a, b in pairwise(widths):
            parts += [nn.Linear(a, b), SMOOTH[activation]()]
        return nn.Sequential(*parts[:-1])

    return seeded(build, seed)


@given(
    st.lists(st.integers(1, 6), min_size=3, max_size=5), st.sampled_from(sorted(SMOOTH)), st.floats(0.3, 1.0),
    st.integers(0, 2**16),
)  # fmt: skip
@settings(QUIET, max_examples=6)
def test_a_dense_network_keeps_the_units_that_a_naive_search_keeps(widths, activation, share, seed):
    model = thinned(dense(widths, activation, seed), share, seed, biases=0.2)
    _, plan = sheds(model, inputs(5, widths[0]))
    alive = surviving_units([(m.weight, m.bias) for m in model if isinstance(m, nn.Linear)])
    for group, expected in zip(trace(model, inputs(1, widths[0])), alive, strict=True):
        units = set(plan.keep.get(group.name, range(group.width)))
        assert units == expected or (not expected and len(units) == 1), group.name


class Mean(nn.Module):
    """Over the places of an image."""

    def forward(self, x):
        return x.mean((2, 3))


def convolutions(padding, activation="tanh", mode="zeros", bias=True, flat=False, norm=False):
    def build():
        more = {"padding": padding, "padding_mode": mode}
        end = [nn.Flatten(), nn.Linear(4 * (6 if padding else 2) ** 2, 2)] if flat else [Mean(), nn.Linear(4, 2)]
        return nn.Sequential(
            nn.Conv2d(2, 5, 3, **more), *([nn.BatchNorm2d(5)] if norm else []), SMOOTH[activation](),
            nn.Conv2d(5, 4, 3, bias=bias, **more), SMOOTH[activation](), *end,
        )  # fmt: skip

    return seeded(build)


@given(
    st.sampled_from([0, 1]), st.sampled_from(["zeros", "reflect", "circular", "replicate"]),
    st.sampled_from(sorted(SMOOTH)), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**16),
)  # fmt: skip
@settings(QUIET, max_examples=6)
def test_convolutions_compute_the_same(padding, mode, activation, bias, flat, norm, seed):
    model = convolutions(padding, activation, mode, bias, flat, norm)
    with torch.no_grad():
        for parameter in model.parameters():  # whole channels: single zeros would leave none without inputs
            if parameter.dim() > 1:
                gone = torch.rand(len(parameter), generator=torch.Generator().manual_seed(seed)) < 0.4
                parameter[gone] = 0.0
    sheds(thinned(model, 0.2, seed), inputs(3, 2, 6, 6))


@torch.no_grad()
def without_inputs(layer, *units):
    for unit in units:
        layer.weight[unit] = 0.0


def test_a_channel_without_inputs_goes_into_the_bias_unless_zeros_surround_it():
    for padding, mode, goes in [(0, "zeros", True), (1, "reflect", True), (1, "zeros", False)]:
        model = convolutions(padding, mode=mode)
        without_inputs(model[0], 1)
        small, _ = sheds(model, inputs(3, 2, 6, 6))
        found = dead_units(model, inputs(3, 2, 6, 6))
        assert (small[0].out_channels == 4) == goes
        assert found.constant == ({"0": (1,)} if goes else {})
        assert found.stays == ({} if goes else {"0": {1: "'2.weight' reads it with zeros around it"}})
    model = convolutions(0, bias=False)
    without_inputs(model[0], 1)
    assert dead_units(model, inputs(1, 2, 6, 6)).stays == {"0": {1: "'2.weight' reads it without a bias of its own"}}
    with torch.no_grad():
        model[0].bias[1] = 0.0  # tanh(0) = 0 needs no bias
    assert sheds(model, inputs(1, 2, 6, 6))[1].keep == {"0": (0, 2, 3, 4)}


class Reads(nn.Module):
    """A recurrent module, and a reader of its last step or of all."""

    def __init__(self, kind, steps, **options):
        super().__init__()
        self.rnn = kind(2, 4, batch_first=True, **options)
        self.head, self.steps = nn.Linear((self.rnn.proj_size or 4) * (2 if self.rnn.bidirectional else 1), 1), steps

    def forward(self, x):
        out = self.rnn(x)[0]
        return self.head(out if self.steps else out[:, -1])


OPTIONS = [{}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True}, {"bias": False}]


@given(
    st.sampled_from([nn.LSTM, nn.GRU, nn.RNN]), st.booleans(), st.sampled_from(OPTIONS), st.floats(0.2, 1.0),
    st.integers(0, 2**16), st.sampled_from([0.0, 1.0]),
)  # fmt: skip
@settings(QUIET, max_examples=6)
def test_recurrent_networks_compute_the_same_for_every_length(kind, steps, options, share, seed, biases):
    model = seeded(lambda: Reads(kind, steps, **options), seed)
    thinned(model, share, seed, biases)
    with torch.no_grad():  # some units see nothing
        rows = torch.rand(4, generator=torch.Generator().manual_seed(seed)) < 0.4
        for name, parameter in model.rnn.named_parameters():
            if name.startswith("weight_"):
                parameter[rows.repeat(len(parameter) // 4)] = 0.0
    small, _ = sheds(model, inputs(3, 5, 2))
    for length in (1, 2, 9):
        x = inputs(2, length, 2)
        torch.testing.assert_close(small(x), model(x), atol=1e-12, rtol=1e-12)


def test_a_projection_stays_narrower_than_its_cells():
    model = seeded(lambda: Reads(nn.LSTM, False, proj_size=3))
    with torch.no_grad():
        model.rnn.weight_hr_l0[:, 1:] = 0.0
    small, _ = sheds(model, inputs(2, 5, 2))
    assert small.rnn.hidden_size != small.rnn.proj_size


@torch.no_grad()
def blinded(model, unit):
    """A recurrent unit that reads nothing and that no other unit reads."""
    gates = len(model.rnn.weight_hh_l0) // 4
    for g in range(gates):
        model.rnn.weight_ih_l0[g * 4 + unit] = 0.0
        model.rnn.weight_hh_l0[g * 4 + unit] = 0.0
    model.rnn.weight_hh_l0[:, unit] = 0.0
    return model


def test_only_a_state_that_does_not_change_is_folded():
    x = inputs(2, 5, 2)
    plain = blinded(seeded(lambda: Reads(nn.RNN, False)), 2)
    assert dead_units(plain, x).constant == {"rnn.l0": (2,)}
    assert sheds(plain, x)[0].rnn.hidden_size == 3
    for kind in (nn.LSTM, nn.GRU):
        model = blinded(seeded(lambda kind=kind: Reads(kind, False)), 2)
        found = dead_units(model, x)
        assert not found.constant
        assert "changes with time" in found.stays["rnn.l0"][2]
        with torch.no_grad():
            for bias in (model.rnn.bias_ih_l0, model.rnn.bias_hh_l0):
                bias.zero_()
        assert dead_units(model, x).constant == {"rnn.l0": (2,)}  # it stays at zero
    idle = seeded(lambda: Reads(nn.LSTM, True))
    with torch.no_grad():
        rows = torch.tensor([0, 1, 0, 1]).bool().repeat(4)
        for bias in (idle.rnn.bias_ih_l0, idle.rnn.bias_hh_l0):
            bias[rows] = 0.0
        idle.rnn.weight_ih_l0[rows] = 0.0
        idle.rnn.weight_hh_l0[rows.nonzero(), torch.tensor([0, 2])] = 0.0
    assert dead_units(idle, x).constant == {"rnn.l0": (1, 3)}  # they read each other, and stay at zero
    assert sheds(idle, x)[0].rnn.hidden_size == 2
    with torch.no_grad():
        idle.rnn.weight_hh_l0[3, 0] = 1.0  # a gate of unit 3 reads unit 0: for all that is looked at, it may move
    assert dead_units(idle, x).constant == {}
    read = blinded(seeded(lambda: Reads(nn.RNN, False)), 2)
    with torch.no_grad():
        read.rnn.weight_hh_l0[0, 2] = 1.0  # unit 0 reads zero at the first step, the constant later
    assert "not the same at all steps" in dead_units(read, x).stays["rnn.l0"][2]
    assert not sheds(read, x)[1].keep


@pytest.mark.slow
@given(specs(), st.floats(0.3, 1.0), st.sampled_from([0.0, 0.5]), st.integers(0, 2**16))
@settings(QUIET, max_examples=40)
def test_random_stacks_compute_the_same(spec, share, biases, seed):
    model, x = thinned(spec.build(), share, seed, biases), spec.input()
    try:
        trace(model, x)
    except StructureError:
        return
    sheds(model, x)


@pytest.mark.slow
@given(random_networks.specs(), st.sampled_from([0.0, 0.5, 0.9]), st.integers(0, 2**16))
@settings(QUIET, max_examples=25)
def test_networks_of_every_layer_compute_the_same(spec, share, seed):
    model, x = spec.build(), spec.input()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "parametrizations" not in name:  # a row of zeros has no weight norm
                parameter.masked_fill_(torch.rand(parameter.shape, generator=generator) < share, 0.0)
                parameter[torch.rand(len(parameter), generator=generator) < 0.4] = 0.0
    small, _ = shed_dead_units(model, x)
    for values in (x, 3 * x.flip(0) if x.is_floating_point() else (x + 1) % spec.given.width):
        for one, two in zip(tensors(small(values)), tensors(model(values)), strict=True):
            torch.testing.assert_close(one, two, atol=1e-11, rtol=1e-11)


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for part in (value.values() if isinstance(value, dict) else value) for t in tensors(part)]


def test_masks_and_a_saved_folder_come_along(tmp_path):
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 2)))
    x = inputs(4, 6)
    masks = pared.select_weights({n: p.abs() for n, p in model.named_parameters() if p.dim() > 1}, 0.85)
    masked = pared.mask_weights(model, masks)
    small, plan = shed_dead_units(masked, x)
    kept = pared.carry_tensors(masks, masked, small, Structure(plan.groups), plan)
    assert pared.density(kept) > pared.density(masks)
    pared.save(tmp_path, small, plan, kept)
    fresh = seeded(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 2)), 1)
    loaded = pared.load(tmp_path, fresh)
    assert torch.equal(loaded(x), small(x))
    again = pared.load_masks(tmp_path, loaded)
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[name], mask) for name, mask in kept.items())


def test_a_network_that_dies_as_a_whole_keeps_a_unit_of_each_layer():
    model = dense([3, 5, 4, 2], "relu")
    with torch.no_grad():
        for layer in model[::2]:
            layer.weight.zero_()
    small, plan = sheds(model, inputs(4, 3))
    assert plan.keep == {"0": (0,), "2": (0,)}
    torch.testing.assert_close(small(inputs(4, 3)), model[4].bias.expand(4, 2), atol=0, rtol=0)


def test_cells_stay_more_than_a_projection_that_is_the_output():
    class Projecting(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(3, 4, proj_size=2)

        def forward(self, x):
            return self.rnn(x)[0]

    model = seeded(Projecting)
    with torch.no_grad():
        model.rnn.weight_hr_l0[:, 1:3] = 0.0
    assert sheds(model, inputs(2, 5, 3))[0].rnn.hidden_size == 3


def test_what_is_not_known_stays():
    class Odd(nn.Module):
        """The first reader's weight is used transposed as well, and a comparison stands before the second reader."""

        def __init__(self):
            super().__init__()
            self.one, self.two, self.last = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            x = torch.tanh(self.one(x))
            x = self.two(x) + nn.functional.linear(x, self.two.weight.t())
            return self.last(torch.where(x > 0, x, 0 * x))

    model = seeded(Odd)
    without_inputs(model.one, 1)
    without_inputs(model.two, 0)
    assert not sheds(model, inputs(3, 3))[1].keep


def test_dropout_and_gates_and_tokens():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.one, self.gate = nn.Embedding(7, 4), nn.Linear(4, 5), nn.Linear(4, 5)
            self.drop, self.last = nn.Dropout(), nn.Linear(5, 2)

        def forward(self, x):
            x = self.table(x)
            return self.last(self.drop(torch.tanh(self.one(x)) * torch.sigmoid(self.gate(x))).mean(1))

    model = seeded(Gated)
    ids = torch.zeros(3, 6, dtype=torch.long)
    without_inputs(model.one, 1)
    assert not shed_dead_units(model, ids)[1].keep  # its gate sees the data
    with torch.no_grad():
        model.one.bias[1] = 0.0
    assert shed_dead_units(model, ids)[1].keep == {"one": (0, 2, 3, 4)}  # a known zero silences its gate
    with torch.no_grad():
        model.table.weight[:, 3] = 2.0  # the same for every token
    small, plan = shed_dead_units(model, ids)
    assert plan.keep["table"] == (0, 1, 2)
    x = torch.randint(0, 7, (3, 6), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(small(x), model(x), atol=1e-12, rtol=1e-12)


@pytest.mark.slow  # torch.export is asked in the end
def test_what_cannot_be_followed_is_refused():
    class Fickle(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.two(self.one(x)) if x.sum() > 0 else self.one(x)[:, :2]

    with pytest.raises(StructureError):
        shed_dead_units(Fickle(), torch.ones(1, 3))


def test_an_autocast_region_makes_no_constant_coarser():
    model = dense([3, 5, 2], "tanh").float()
    without_inputs(model[0], 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        small, plan = shed_dead_units(model, torch.zeros(1, 3))
    assert plan.keep == {"0": (0, 2, 3, 4)}
    torch.testing.assert_close(small(torch.ones(2, 3)), model(torch.ones(2, 3)), atol=1e-6, rtol=1e-6)


def test_a_network_without_hidden_units_is_refused():
    with pytest.raises(StructureError, match="no hidden units"):
        shed_dead_units(nn.Linear(3, 2), torch.ones(1, 3))


def test_a_plan_of_dead_units_joins_a_history():
    model = thinned(dense([4, 8, 6, 2], "tanh"), 0.85, 3)
    x = inputs(3, 4)
    structure = trace(model, x)
    first = structure.bind(Plan({"0": (1, 2, 3, 4, 5)}))
    smaller = pared.cut(model, structure, first)
    small, plan = shed_dead_units(smaller, x)
    again = pared.replay(first.then(plan), dense([4, 8, 6, 2], "tanh", 1))
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(x), small(x))
