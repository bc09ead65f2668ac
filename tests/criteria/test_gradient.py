"""Taylor scores against finite differences, one sample and one unit at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import l1_loss, mse_loss

import reference
import reference_units as slow
from networks import batch, forecaster, mlp
from pared.criteria import predicted_ablation, taylor
from pared.surgery import trace
from pared.types import Batch

NETWORKS = {"mlp": mlp, **{cell: lambda seed, cell=cell: forecaster(cell, seed) for cell in ("lstm", "gru", "rnn")}}

EACH = [pytest.param(name, marks=() if name == "mlp" else pytest.mark.slow) for name in NETWORKS]


@pytest.mark.slow
@given(
    st.sampled_from(sorted(NETWORKS)), st.sampled_from([1, 2]), st.sampled_from(["output", "loss"]), st.integers(0, 9)
)
@settings(max_examples=12, deadline=None)
def test_taylor_is_the_finite_difference(name, power, of, seed):
    model = NETWORKS[name](seed)
    data = batch(model, samples=3, seed=seed)
    scores = taylor(model, data, mse_loss, of=of, power=power)
    expected = reference.taylor(model, trace(model, data.x), data, mse_loss if of == "loss" else None, power)
    assert scores.keys() == expected.keys()
    for group, values in expected.items():
        assert scores[group].tolist() == pytest.approx(values, rel=1e-5, abs=1e-9)


def test_samples_do_not_cancel():
    """Two mirrored samples have opposite gradients: averaged before squaring they would score nothing."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Tanh(), nn.Linear(2, 1, bias=False)).double()
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert float(taylor(model, Batch(x, x), mse_loss)["0"].min()) > 0


@pytest.mark.parametrize("path", ["values.HELD_ENTRIES", "gradients.BATCHED_ENTRIES"])
def test_many_samples_are_scored_in_chunks(monkeypatch, path):
    if path.startswith("gradients"):
        monkeypatch.setattr("pared.signals.gradients.gradients_on_values", lambda *_: {})
    model = forecaster()
    data = batch(model, samples=40)
    whole = taylor(model, data, mse_loss)
    monkeypatch.setattr(f"pared.signals.{path}", 1000)
    for name, values in taylor(model, data, mse_loss).items():
        torch.testing.assert_close(values, whole[name])


@pytest.mark.slow
def test_many_outputs_are_summed_with_random_signs():
    """As many sums as outputs would be no saving; a few, and their mean square is the exact score but for chance."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 200)).double()
    x = torch.randn(100, 3, dtype=torch.float64)
    data = Batch(x, torch.zeros(100, 200, dtype=torch.float64))
    exact = taylor(model, data, mse_loss, most_outputs=200)["0"]
    found = taylor(model, data, mse_loss)["0"]
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, rtol=0.25, atol=0)
    assert torch.equal(found, taylor(model, data, mse_loss)["0"])
    one = taylor(model, data, mse_loss, power=1)["0"]
    torch.testing.assert_close(one, taylor(model, data, mse_loss, power=1, most_outputs=200)["0"])


def test_random_sums_are_right_on_average(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 80)).double()
    x = torch.randn(20, 3, dtype=torch.float64)
    data = Batch(x, torch.zeros(20, 80, dtype=torch.float64))
    monkeypatch.setattr("pared.criteria.gradient.SUMS", 20 * 79)
    found, exact = (taylor(model, data, mse_loss, most_outputs=most)["0"] for most in (64, 80))
    torch.testing.assert_close(found, exact, rtol=0.1, atol=0)


def test_gradients_are_found_where_the_caller_switched_them_off():
    model = forecaster()
    data = batch(model)
    with torch.no_grad():
        quiet = taylor(model, data, l1_loss)
    for name, values in taylor(model, data, l1_loss).items():
        assert torch.equal(values, quiet[name])
        assert float(values.max()) > 0


@pytest.mark.parametrize(("of", "power"), [("output", 2), ("output", 1), ("loss", 1), ("loss", 2)])
@pytest.mark.parametrize("name", EACH)
def test_taylor_is_the_derivative_unit_by_unit(name, of, power):
    model = NETWORKS[name](0)
    data = batch(model, samples=3)
    scores = taylor(model, data, mse_loss, of=of, power=power)
    expected = slow.taylor(model, trace(model, data.x), data, mse_loss if of == "loss" else None, power)
    for group, values in expected.items():
        assert scores[group].tolist() == pytest.approx(values, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("name", EACH)
def test_predicted_ablation_is_the_series_unit_by_unit(name, absolute, order):
    model = NETWORKS[name](0)
    data = batch(model, samples=3)
    scores = predicted_ablation(model, data, mse_loss, order=order, absolute=absolute)
    expected = slow.foretold(model, trace(model, data.x), data, mse_loss, order, absolute)
    for group, values in expected.items():
        assert scores[group].tolist() == pytest.approx(values, rel=1e-10, abs=1e-14)


def test_first_order_sizes_are_taylors_of_the_loss():
    model = forecaster()
    data = batch(model)
    one = predicted_ablation(model, data, mse_loss, order=1, absolute=True)
    two = taylor(model, data, mse_loss, of="loss", power=1)
    for name in one:
        torch.testing.assert_close(one[name], two[name])
