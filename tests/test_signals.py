"""What the private looks at a network yield, against loops, and that they leave it alone."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import reference
from networks import batch, forecaster, mlp, plans, snapshot, specs, unchanged
from pared.signals import gated, open_gates, read_values, single_layers, unit_gradients, unrolled
from pared.surgery import Group, Slice, StructureError, mask, trace

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_the_loop_twin_is_pytorchs_layer(cell):
    """The reference itself: if it were wrong, so would be everything that leans on it."""
    model = forecaster(cell)
    x = batch(model).x
    output, states = reference.forecast(model, x)
    np.testing.assert_allclose(model(x).detach().numpy(), output, atol=1e-14)
    np.testing.assert_allclose(model.recurrent[0](x)[0].detach().numpy(), states[0], atol=1e-14)


@given(specs())
@settings(QUIET, max_examples=30)
def test_unrolled_networks_agree_in_value_and_gradient(spec):
    model, x = spec.build(), spec.input()
    written_out = unrolled(model)
    assert [n for n, _ in written_out.named_parameters()] == [n for n, _ in model.named_parameters()]
    torch.testing.assert_close(written_out(x), model(x), atol=1e-12, rtol=1e-12)
    model(x).square().sum().backward()
    written_out(x).square().sum().backward()
    for one, two in zip(model.parameters(), written_out.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(two.grad, one.grad, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_unrolled_final_states_and_unbatched_inputs(kind):
    torch.manual_seed(0)
    module = kind(2, 3, num_layers=2)
    for x in (torch.randn(4, 1, 2), torch.randn(4, 2)):
        torch.testing.assert_close(unrolled(module)(x), module(x))


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
    call, gates = gated(model, structure), open_gates(model, structure)
    torch.testing.assert_close(call(gates, x), model(x), atol=1e-13, rtol=1e-13)
    for name, units in structure.removed(plan).items():
        gates[name][list(units)] = 0.0
    torch.testing.assert_close(call(gates, x), mask(model, structure, plan)(x), atol=1e-13, rtol=1e-13)
    unchanged(before, model)


def test_gates_reach_every_block_and_inner_entry_of_a_unit():
    """A reader laid out as 2 blocks of 2 units with 3 entries each, as after a flatten."""
    model = nn.Sequential(nn.Linear(12, 1)).double()
    group = Group("g", 2, (Slice("0.weight", 1, "out", blocks=2, inner=3),))
    x = torch.eye(12, dtype=torch.float64)
    gates = {"g": torch.tensor([2.0, 5.0], dtype=torch.float64)}
    expected = torch.tensor([2.0] * 3 + [5.0] * 3, dtype=torch.float64).repeat(2)
    found = gated(model, [group])(gates, x)[:, 0] - model[0].bias
    torch.testing.assert_close(found, expected * model[0].weight[0])


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_read_values_are_the_states_of_a_loop(cell):
    model = forecaster(cell)
    x = batch(model).x
    values = read_values(model, trace(model, x), x)
    _, (first, second) = reference.forecast(model, x)
    expected = {
        "recurrent.0.weight_hh_l0": first[:, :-1].reshape(-1, 5),
        "recurrent.1.weight_ih_l0": first.reshape(-1, 5),
        "recurrent.1.weight_hh_l0": second[:, :-1].reshape(-1, 3),
        "head.0.weight": second[:, -1],
        "head.1.weight": second[:, -1] @ model.head[0].weight.detach().numpy().T + model.head[0].bias.detach().numpy(),
    }
    assert values.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_allclose(values[name].numpy(), rows, atol=1e-14)
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
        rows = {"hh": states[:, :-1]} | ({"ih": entering} if k else {})
        for which, expected in rows.items():
            ordered = expected if batch_first else expected.swapaxes(0, 1)
            np.testing.assert_allclose(
                values[f"rnn.weight_{which}_l{k}"].numpy(), ordered.reshape(-1, expected.shape[-1]), atol=1e-13
            )
        entering = states


def test_single_layers_chain_to_the_whole_and_draw_nothing():
    module = nn.RNN(2, 3, num_layers=2, bias=False, nonlinearity="relu").eval()
    state = torch.get_rng_state()
    layers = single_layers(module)
    assert torch.equal(torch.get_rng_state(), state)
    x = torch.randn(4, 1, 2)
    torch.testing.assert_close(layers[1](layers[0](x)[0])[0], module(x)[0])


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
