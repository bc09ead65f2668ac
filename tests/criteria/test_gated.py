"""Learned gates: against training written out, and the ends of a gate against networks with and without the layer."""

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import reference
import reference_layers as slow
from deep_networks import NETWORKS, data, deep, residual
from networks import snapshot, unchanged
from pared import criteria
from pared.criteria.gated import hard_concrete, open_probability, stand_ins
from pared.signals.standins import Mixed, aligned
from pared.surgery import StructureError, drop_layer, droppable


def test_gates_are_trained_as_written_out():
    """An MLP whose last two of three layers are gated by hand; P by the normal equations."""
    model, batch = deep(), data("deep")
    model.requires_grad_(False)
    fits = []
    for k in (0, 2, 4):
        enters, leaves = model[:k](batch.x), model[: k + 2](batch.x)
        matrix, shift = reference.ridge_fit(enters.numpy(), leaves.numpy(), 1e-6, intercept=True)
        fits.append((torch.from_numpy(matrix), torch.from_numpy(shift)))

    def value(z):
        x = batch.x
        for k, (matrix, shift) in enumerate(fits):
            x = z[k] * model[2 * k : 2 * k + 2](x) + (1 - z[k]) * (x @ matrix.T + shift)
        return mse_loss(model[6](x), batch.y)

    found = criteria.learned_gate(model, batch, mse_loss, steps=8, lr=0.1, seed=3, penalty=2.0)
    expected = slow.gates(value, 3, steps=8, lr=0.1, seed=3, penalty=2.0)
    assert list(found) == ["0", "2", "4"]
    torch.testing.assert_close(torch.stack(list(found.values())), expected.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_open_gate_is_the_network_and_a_closed_one_the_layer_dropped(name):
    model, batch = NETWORKS[name](), data(name)
    before = snapshot(model)
    for layer in droppable(model, batch.x):
        call = Mixed(model, {layer: stand_ins(model, layer, batch.x)})
        one, none = (call({layer: torch.tensor(z, dtype=torch.float64)}, batch.x) for z in (1.0, 0.0))
        torch.testing.assert_close(one, model(batch.x), rtol=1e-12, atol=1e-12)
        if not layer.endswith("up"):  # behind which a function, no module, is left by `drop_layer`
            torch.testing.assert_close(none, drop_layer(model, layer, batch.x)[0](batch.x), rtol=1e-8, atol=1e-9)
    unchanged(before, model)


def test_an_idle_layer_closes_and_a_needed_one_stays_open():
    """One block adds nothing; targets are the network's own outputs."""
    model, batch = residual(), data("residual")
    nn.init.zeros_(model[2].down.weight)
    nn.init.zeros_(model[2].down.bias)
    batch = batch._replace(y=model(batch.x).detach())
    found = criteria.learned_gate(model, batch, mse_loss, steps=60, lr=0.2)
    assert float(found["2"]) < 0.3 < 0.7 < float(found["1"])
    free = criteria.learned_gate(model, batch, mse_loss, penalty=0.0, steps=60, lr=0.2)
    assert float(free["1"]) > float(found["1"]) - 1e-6


def test_hard_concrete_gates_close_as_often_as_they_should():
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    for log_a in (-3.0, -1.0, 0.0, 2.0):
        at = torch.tensor(log_a, dtype=torch.float64)
        drawn = hard_concrete(at, u)
        assert drawn.min() >= 0
        assert drawn.max() <= 1
        assert float((drawn > 0).double().mean()) == pytest.approx(float(open_probability(at)), abs=2e-4)


def test_what_enters_is_aligned_with_what_is_read():
    x = torch.arange(24.0).reshape(2, 4, 3)
    assert torch.equal(aligned(x, torch.zeros(2, 4, 5)), x)
    assert torch.equal(aligned(x, torch.zeros(2, 5)), x[:, -1])
    assert torch.equal(aligned(x.movedim(1, 0), torch.zeros(2, 5), batch_first=False), x[:, -1])
    with pytest.raises(ValueError, match="neither the same rows nor their last step"):
        aligned(x, torch.zeros(7, 5))


def test_networks_without_layers_are_refused():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).double()
    with pytest.raises(StructureError, match="no hidden layer or residual block"):
        criteria.learned_gate(model, data("convolutional"), mse_loss)
