"""What the private looks at a network yield, against loops, and that they leave it alone."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import reference
from kinds import KINDS
from networks import batch, forecaster, mlp, plans, snapshot, specs, unchanged
from pared.data.batches import example
from pared.signals import (
    Reading,
    Watched,
    gated,
    gradients,
    open_gates,
    plain_parameters,
    read_values,
    tensor_of,
    unit_gradients,
    unrolled,
)
from pared.signals.values import gradients_on_values
from pared.surgery import Group, Slice, StructureError, mask, trace

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
every_kind = pytest.mark.parametrize("name", KINDS)


def called(model, x):
    return tensor_of(model(*((x,) if isinstance(x, Tensor) else x)))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_loop_twin_is_pytorchs_layer(cell):
    """The reference itself: if it were wrong, so would be everything that leans on it."""
    model = forecaster(cell)
    x = batch(model).x
    output, states = reference.forecast(model, x)
    np.testing.assert_allclose(model(x).detach().numpy(), output, atol=1e-14)
    np.testing.assert_allclose(model.recurrent[0](x)[0].detach().numpy(), states[0], atol=1e-14)


def agree(model, written_out, call):
    """Both networks give the same values and gradients."""
    assert [n for n, _ in written_out.named_parameters()] == [n for n, _ in model.named_parameters()]
    torch.testing.assert_close(call(written_out), call(model), atol=1e-12, rtol=1e-12)
    for net in (model, written_out):
        sum(part.square().sum() for part in flat(call(net))).backward()
    for one, two in zip(model.parameters(), written_out.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(two.grad, one.grad, atol=1e-10, rtol=1e-10)


def flat(value):
    return [value] if isinstance(value, Tensor) else [t for part in value for t in flat(part)]


@given(specs())
@settings(QUIET, max_examples=30)
def test_unrolled_networks_agree_in_value_and_gradient(spec):
    model, x = spec.build(), spec.input()
    agree(model, unrolled(model), lambda net: net(x))


FORMS = [
    {"kind": kind, "num_layers": layers, "bidirectional": both, "bias": bias, "batch_first": first}
    for kind in (nn.LSTM, nn.GRU, nn.RNN)
    for layers, both, bias, first in ((1, False, True, False), (2, True, True, True), (3, True, False, False))
] + [
    {"kind": nn.LSTM, "num_layers": 2, "bidirectional": both, "proj_size": 2, "batch_first": both}
    for both in (False, True)
]  # fmt: skip


@pytest.mark.parametrize("given_states", [False, True])
@pytest.mark.parametrize("how", ["batched", "single", "packed", "sorted"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_recurrent_module_written_out(form, how, given_states):
    torch.manual_seed(0)
    options = {key: value for key, value in form.items() if key != "kind"}
    module = form["kind"](2, 3, **options).double()
    samples, directions = (() if how == "single" else (4,)), 1 + options["bidirectional"]
    widths = (options.get("proj_size") or 3, 3) if form["kind"] is nn.LSTM else (3,)
    states = [torch.randn(options["num_layers"] * directions, *samples, w).double() for w in widths]
    hx = (tuple(states) if len(states) > 1 else states[0]) if given_states else None
    x = torch.randn(*((5, *samples) if not options["batch_first"] else (*samples, 5)), 2).double()

    def call(net):
        if how not in ("packed", "sorted"):
            return net(x, hx)
        lengths, first = torch.tensor([5, 4, 2, 2] if how == "sorted" else [2, 5, 1, 4]), options["batch_first"]
        packed = pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=how == "sorted")
        out, final = net(packed, hx)
        return pad_packed_sequence(out, batch_first=first)[0], final

    agree(module, unrolled(module), call)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell, lambda a, b: nn.RNNCell(a, b, False, "relu")])
@pytest.mark.parametrize("samples", [(), (4,)])
def test_cells_written_out(kind, samples):
    torch.manual_seed(0)
    cell, x = kind(2, 3).double(), torch.randn(*samples, 2).double()

    def call(net):
        return net(x, net(x))

    agree(cell, unrolled(cell), call)


@given(specs(), st.data())
@settings(QUIET, max_examples=25)
def test_closed_gates_are_the_mask(spec, data):
    model, x = spec.build(), spec.input()
    try:
        structure = trace(model, x)
    except StructureError:
        return
    plan = data.draw(plans(structure))
    before = snapshot(model)
    call, opened = gated(model, structure), open_gates(model, structure)
    torch.testing.assert_close(call(opened, x), model(x), atol=1e-13, rtol=1e-13)
    for name, units in structure.removed(plan).items():
        opened[name][list(units)] = 0.0
    torch.testing.assert_close(call(opened, x), mask(model, structure, plan)(x), atol=1e-13, rtol=1e-13)
    unchanged(before, model)


@every_kind
@given(data=st.data())
@settings(QUIET, max_examples=4)
def test_closed_gates_are_the_mask_on_every_kind(name, data):
    model, x = KINDS[name].build(), KINDS[name].batch().x
    structure = trace(model, example(x))
    plan = data.draw(plans(structure))
    before = snapshot(model)
    call, opened = gated(model, structure), open_gates(model, structure)
    torch.testing.assert_close(call(opened, x), called(model, x), atol=1e-13, rtol=1e-13)
    for group, units in structure.removed(plan).items():
        opened[group][list(units)] = 0.0
    torch.testing.assert_close(call(opened, x), called(mask(model, structure, plan), x), atol=1e-12, rtol=1e-12)
    unchanged(before, model)


def flattened(out, y):
    return out.flatten()


@every_kind
def test_gradients_of_gates_are_finite_differences(name):
    """Of every output and unit; one by one or all at once, whole or reduced."""
    model, data = KINDS[name].build(), KINDS[name].batch(3)
    structure = trace(model, example(data.x))
    before = snapshot(model)
    found = unit_gradients(model, structure, data.x, flattened, data.y)
    alone = gradients._one_by_one(model, list(structure), data.x, flattened, data.y, lambda rows: rows)
    sizes = unit_gradients(model, structure, data.x, flattened, data.y, lambda rows: rows.abs().sum(0))
    unchanged(before, model)
    call, step = gated(model, structure), 1e-6
    for group in structure:
        torch.testing.assert_close(alone[group.name], found[group.name], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(sizes[group.name], found[group.name].abs().sum(1), rtol=1e-9, atol=1e-12)
        for j in range(group.width):
            up, down = (open_gates(model, structure) for _ in range(2))
            up[group.name][j] += step
            down[group.name][j] -= step
            slope = (call(up, data.x) - call(down, data.x)) / (2 * step)
            torch.testing.assert_close(found[group.name][..., j], slope.flatten(1), rtol=1e-5, atol=1e-8)


ELSEWHERE = ("packed", "tied")
"""Kinds whose samples lie in no order, or whose weights are used transposed: gates on values are none on weights."""


@every_kind
@pytest.mark.parametrize("samples", [1, 2, 7])
def test_gates_on_values_are_gates_on_weights(name, samples):
    model, data = KINDS[name].build(), KINDS[name].batch(samples)
    groups = list(trace(model, example(data.x)))
    before = snapshot(model)
    found = gradients_on_values(model, groups, data.x, flattened, data.y, lambda rows: rows)
    unchanged(before, model)
    assert set(found) == (set() if name in ELSEWHERE else {group.name for group in groups})
    expected = gradients._on_weights(model, groups, data.x, flattened, data.y, lambda rows: rows)
    for group, values in found.items():
        torch.testing.assert_close(values, expected[group], rtol=1e-10, atol=1e-14)


class Mixed(nn.Module):
    """A layer read by a linear layer, and one read by a matrix that is transposed first."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x):
        return torch.tanh(self.b(torch.tanh(self.a(x)))) @ self.c.weight.t()


def test_each_group_goes_the_way_that_it_can():
    model, x = Mixed().double(), torch.randn(6, 3, dtype=torch.float64)
    groups = list(trace(model, x))
    fast = gradients_on_values(model, groups, x, flattened, x, lambda rows: rows)
    assert list(fast) == ["a"]
    found = unit_gradients(model, groups, x, flattened, x)
    assert list(found) == ["a", "b"]
    for name, values in gradients._on_weights(model, groups, x, flattened, x, lambda rows: rows).items():
        torch.testing.assert_close(found[name], values, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("how", [
    lambda h: h - h.mean(dim=0),
    lambda h: h.flip(0),
    lambda h: h * (2.0 if h.sum() > 0 else 1.0),
    lambda h: torch.stack([*h[1:], h[0]]),
])  # fmt: skip
def test_samples_that_meet_each_other_are_looked_at_one_by_one(how):
    class Meeting(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(how(torch.tanh(self.a(x))))

    model, x = Meeting().double(), torch.randn(6, 3, dtype=torch.float64)
    groups = [Group("a", 4, (Slice("b.weight", 1, "out"),))]
    assert gradients_on_values(model, groups, x, flattened, x, lambda rows: rows) == {}
    alone = unit_gradients(model, groups, x, flattened, x)["a"]
    rows = [unit_gradients(model, groups, x[n : n + 1], flattened, x[n : n + 1])["a"][0] for n in range(6)]
    torch.testing.assert_close(alone, torch.stack(rows))


@pytest.mark.parametrize("name", ["mlp", "cnn", "gru", "transformer"])
def test_no_gradient_is_as_large_as_the_gated_weights(name, monkeypatch):
    """Gates on weights are never tried where gates on values do."""

    def never(*_):
        raise AssertionError("gates on weights")

    monkeypatch.setattr(gradients, "_on_weights", never)
    model, data = KINDS[name].build(), KINDS[name].batch(3)
    unit_gradients(model, trace(model, example(data.x)), data.x, flattened, data.y)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "packed"])
def test_gradients_are_vectorised_where_pytorch_can(name, monkeypatch):
    def never(*_):
        raise AssertionError("one by one")

    monkeypatch.setattr(gradients, "_one_by_one", never)
    model, data = KINDS[name].build(), KINDS[name].batch(3)
    gradients._on_weights(model, list(trace(model, example(data.x))), data.x, flattened, data.y, lambda rows: rows)


def test_a_forward_that_looks_at_its_values_is_differentiated_sample_by_sample():
    class Looking(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            h = torch.tanh(self.a(x))
            return self.b(h) * (2.0 if float(x.sum()) > 0 else 1.0)

    model, plain = Looking().double(), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    plain.load_state_dict({key.replace("a.", "0.").replace("b.", "2."): v for key, v in model.state_dict().items()})
    groups = [Group("0", 4, (Slice("b.weight", 1, "out"),))]
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = unit_gradients(model, groups, x, flattened, x)["0"]
    factor = torch.where(x.sum(1) > 0, 2.0, 1.0)[:, None, None]
    torch.testing.assert_close(found, factor * unit_gradients(plain, trace(plain, x), x, flattened, x)["0"])


def test_gates_reach_every_block_and_inner_entry_of_a_unit():
    """A reader laid out as 2 blocks of 2 units with 3 entries each, as after a flatten."""
    model = nn.Sequential(nn.Linear(12, 1)).double()
    group = Group("g", 2, (Slice("0.weight", 1, "out", blocks=2, inner=3),))
    x = torch.eye(12, dtype=torch.float64)
    factors = {"g": torch.tensor([2.0, 5.0], dtype=torch.float64)}
    expected = torch.tensor([2.0] * 3 + [5.0] * 3, dtype=torch.float64).repeat(2)
    found = gated(model, [group])(factors, x)[:, 0] - model[0].bias
    torch.testing.assert_close(found, expected * model[0].weight[0])


def rows_of(array):
    """Rows in an order of their own, so that two sets of rows can be compared."""
    array = np.asarray(array).reshape(-1, np.asarray(array).shape[-1])
    return array[np.lexsort(array.round(9).T)]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_read_values_are_the_states_of_a_loop(cell):
    model = forecaster(cell)
    x = batch(model).x
    values = read_values(model, trace(model, x), x)
    _, (first, second) = reference.forecast(model, x)
    expected = {
        "recurrent.0.weight_hh_l0": first[:, :-1],
        "recurrent.1.weight_ih_l0": first,
        "recurrent.1.weight_hh_l0": second[:, :-1],
        "head.0.weight": second[:, -1],
        "head.1.weight": second[:, -1] @ model.head[0].weight.detach().numpy().T + model.head[0].bias.detach().numpy(),
    }
    assert values.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_allclose(rows_of(values[name]), rows_of(rows), atol=1e-14)
        assert not values[name].requires_grad


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("batch_first", [True, False])
def test_read_values_of_each_layer_of_one_module(kind, batch_first):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = kind(2, 3, num_layers=3, dropout=0.5, batch_first=batch_first)
            self.last = nn.Linear(3, 1)

        def forward(self, x):
            return self.last(self.rnn(x)[0])

    model = Net().double()
    x = torch.randn(4, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values = read_values(model, trace(model, x), x)
    entering = x.numpy() if batch_first else x.numpy().swapaxes(0, 1)
    for k in range(3):
        states = reference.recurrent_states(model.rnn, entering, layer=k)
        for which, expected in ({"hh": states[:, :-1]} | ({"ih": entering} if k else {})).items():
            found = values[f"rnn.weight_{which}_l{k}"].numpy()
            np.testing.assert_allclose(rows_of(found), rows_of(expected), atol=1e-13)
        entering = states


def test_both_directions_read_their_own_past():
    model, x = KINDS["bidirectional"].build(), KINDS["bidirectional"].batch().x
    values = read_values(model, trace(model, x), x)
    out = x
    for k in range(2):
        single = nn.LSTM(out.shape[-1], 4, bidirectional=True, batch_first=True).double()
        single.load_state_dict(
            {n.replace(f"l{k}", "l0"): v for n, v in model.rnn.state_dict().items() if f"_l{k}" in n}
        )
        if k:
            np.testing.assert_allclose(rows_of(values["rnn.weight_ih_l1"]), rows_of(out), atol=1e-13)
            np.testing.assert_allclose(rows_of(values["rnn.weight_ih_l1_reverse"]), rows_of(out), atol=1e-13)
        out = single(out)[0].detach()
        there, back = out[..., :4], out[..., 4:]
        np.testing.assert_allclose(rows_of(values[f"rnn.weight_hh_l{k}"]), rows_of(there[:, :-1]), atol=1e-13)
        np.testing.assert_allclose(rows_of(values[f"rnn.weight_hh_l{k}_reverse"]), rows_of(back[:, 1:]), atol=1e-13)


def test_packed_sequences_are_read_without_their_padding():
    model, (x, lengths) = KINDS["packed"].build(), KINDS["packed"].batch().x
    values = read_values(model, trace(model, (x, lengths)), (x, lengths))
    alone = [model.rnn(x[n : n + 1, : int(lengths[n])])[0][0].detach() for n in range(len(x))]
    there = torch.cat([states[:-1, :4] for states in alone])
    back = torch.cat([states[1:, 4:] for states in alone])
    np.testing.assert_allclose(rows_of(values["rnn.weight_hh_l1"]), rows_of(there), atol=1e-13)
    np.testing.assert_allclose(rows_of(values["rnn.weight_hh_l1_reverse"]), rows_of(back), atol=1e-13)
    assert len(values["rnn.weight_ih_l1"]) == int(lengths.sum())


def test_cells_are_read_as_layers_are():
    model, data = KINDS["cells"].build(), KINDS["cells"].batch()
    values = read_values(model, trace(model, data.x[:1]), data.x)
    lstm, gru = nn.LSTM(3, 4, batch_first=True).double(), nn.GRU(4, 3, batch_first=True).double()
    for layer, cell in ((lstm, model.lstm), (gru, model.gru)):
        layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    first = lstm(data.x[:, :4])[0].detach()
    second = gru(first)[0].detach()
    for name, rows in (
        ("lstm.weight_hh", first[:, :-1]),
        ("gru.weight_ih", first),
        ("gru.weight_hh", second[:, :-1]),
        ("last.weight", second[:, -1]),
    ):
        np.testing.assert_allclose(rows_of(values[name]), rows_of(rows), atol=1e-13)


def test_projections_read_cells_and_states_given_count():
    model, x = KINDS["projected"].build(), KINDS["projected"].batch().x
    values = read_values(model, trace(model, x), x)
    out = model.rnn(x)[0].detach()
    for suffix, made, past in (("l0", out[..., :3], out[:, :-1, :3]), ("l0_reverse", out[..., 3:], out[:, 1:, 3:])):
        cells, weight = values[f"rnn.weight_hr_{suffix}"], getattr(model.rnn, f"weight_hr_{suffix}").detach()
        np.testing.assert_allclose(rows_of(cells @ weight.T), rows_of(made), atol=1e-13)
        np.testing.assert_allclose(rows_of(values[f"rnn.weight_hh_{suffix}"]), rows_of(past), atol=1e-13)
    model, x = KINDS["started"].build(), KINDS["started"].batch().x
    values = read_values(model, trace(model, x), x)["decoder.weight_hh_l0"]
    states, final = model.encoder(x)[0].detach(), model.encoder(x)[1]
    later = model.decoder(x, final)[0].detach()
    expected = torch.cat([states[:, -1:], later[:, :-1]], 1)
    np.testing.assert_allclose(rows_of(values), rows_of(expected), atol=1e-13)


def test_convolutions_read_channels_at_every_place():
    model, x = KINDS["cnn"].build(), KINDS["cnn"].batch().x
    values = read_values(model, trace(model, x), x)
    h = torch.relu(model.norm(model.first(x)))
    summed = h + torch.relu(model.inner(h))
    deep = torch.relu(model.depth(summed))
    point = torch.tanh(model.point(deep))
    made = torch.tanh(model.up(point))
    for name, read in (("inner.weight", h), ("point.weight", deep), ("up.weight", point)):
        np.testing.assert_allclose(rows_of(values[name]), rows_of(read.detach().movedim(1, -1)), atol=1e-13)
    pooled = nn.functional.max_pool2d(made, 2).flatten(1).detach()
    np.testing.assert_allclose(rows_of(values["last.weight"]), rows_of(pooled), atol=1e-13)


def test_attentions_last_projection_reads_heads_and_its_queries_are_made():
    model, x = KINDS["attention"].build(), KINDS["attention"].batch().x
    values = read_values(model, trace(model, x), x)
    query = torch.tanh(model.first(x)).detach()
    attention = model.attention
    q = query @ attention.q_proj_weight.T + attention.in_proj_bias[:4]
    np.testing.assert_allclose(rows_of(values["attention.out_proj.weight"] @ attention.out_proj.weight.detach().T
                                       + attention.out_proj.bias.detach()),
                               rows_of(attention(query, x, x)[0].detach()), atol=1e-13)  # fmt: skip
    seen = []
    Watched(model, trace(model, x), seen.append)(x)
    found = {(reading.parameter, reading.axis): reading for reading in seen}
    np.testing.assert_allclose(found["attention.q_proj_weight", 0].values, q.detach(), atol=1e-13)
    assert not found["attention.q_proj_weight", 0].linear
    torch.testing.assert_close(found["attention.q_proj_weight", 1].values, query)


def test_transformer_layers_are_read_without_their_fused_kernel():
    model, x = KINDS["transformer"].build(), KINDS["transformer"].batch().x
    seen: list[Reading] = []
    watched = Watched(model, trace(model, x), seen.append)
    watched(x)
    found = {(reading.parameter, reading.axis) for reading in seen}
    assert found >= {
        ("layer.self_attn.in_proj_weight", 0),
        ("layer.self_attn.in_proj_weight", 1),
        ("layer.self_attn.out_proj.weight", 1),
        ("layer.linear1.weight", 1),
        ("layer.linear2.weight", 1),
        ("last.weight", 1),
    }


def test_weights_used_elsewhere_are_named():
    model, x = KINDS["tied"].build(), KINDS["tied"].batch().x
    watched = Watched(model, trace(model, x), lambda reading: None)
    watched(x)
    assert watched.elsewhere == {"first.weight", "second.weight"}


def test_computed_weights_are_plain_in_copies_and_the_class_stays():
    """`remove_parametrizations` on a copy would take the weight away from the model: they share a class."""
    model, data = KINDS["weight norm"].build(), KINDS["weight norm"].batch()
    before, out = snapshot(model), model(data.x)
    tensors = plain_parameters(model)
    assert list(tensors) == ["first.bias", "first.weight", "last.bias", "last.weight"]
    torch.testing.assert_close(tensors["first.weight"], model.first.weight)
    read_values(model, trace(model, data.x), data.x)
    unchanged(before, model)
    assert torch.equal(model(data.x), out)


def test_a_layer_called_twice_is_looked_at_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 3), nn.Linear(3, 1)

        def forward(self, x):
            return self.b(self.a(x)) + self.b(self.a(-x))

    model, x = Twice(), torch.randn(5, 2)
    rows = read_values(model, trace(model, x), x)["b.weight"]
    torch.testing.assert_close(rows, torch.cat([model.a(x), model.a(-x)]))


def test_unit_gradients_have_one_row_a_sample():
    model = mlp()
    data = batch(model)
    found = unit_gradients(model, trace(model, data.x), data.x, lambda out, y: (out - y).flatten(), data.y)
    assert {name: tuple(g.shape) for name, g in found.items()} == {"first": (6, 2, 4), "second": (6, 2, 5)}
    alone = unit_gradients(model, trace(model, data.x), data.x[2:3], lambda out, y: (out - y).flatten(), data.y[2:3])
    torch.testing.assert_close(alone["first"][0], found["first"][2])


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: (t, None), lambda t: {"a": [t]}, lambda t: [[], (t, t + 1)]])
def test_the_first_tensor_is_the_output(wrap):
    t = torch.ones(2)
    assert tensor_of(wrap(t)) is t


@pytest.mark.parametrize("nothing", [None, {}, (None, 3), "text"])
def test_an_output_without_a_tensor_is_refused(nothing):
    with pytest.raises(TypeError, match="the first tensor of what forward returns"):
        tensor_of(nothing)
