"""Curvature of the loss over weights: against loops, and the identities that tie the criteria together."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss, mse_loss

import reference_curvature as reference
from kinds import KINDS
from networks import batch, forecaster, mlp, snapshot, unchanged
from pared.signals import CurvatureError, prunable
from pared.signals import curvature as found
from pared.signals.layers import input_grams, kronecker
from pared.types import Batch

NETWORKS = {"mlp": mlp, "lstm": lambda seed=0: forecaster("lstm", seed, (2,), (2,)), "cnn": KINDS["cnn"].build}


def data_of(name, model, seed=0):
    return KINDS[name].batch(4) if name == "cnn" else batch(model, 4, seed)


def classes(data):
    return Batch(data.x, torch.arange(len(data.x)) % 2)


def near(a, b, rtol=1e-10):
    torch.testing.assert_close(a, b, rtol=rtol, atol=1e-11)


@pytest.mark.parametrize("name", ["mlp", "lstm", pytest.param("cnn", marks=pytest.mark.slow)])
def test_dense_matrices_are_the_loops(name):
    model = NETWORKS[name]()
    data = data_of(name, model)
    before = snapshot(model)
    whole = found.hessian(model, data, mse_loss)
    near(whole, reference.hessian(model, data, mse_loss))
    near(found.ggn(model, data, mse_loss), reference.ggn(model, data, "mse"))
    near(found.fisher(model, data, mse_loss), reference.fisher(model, data, mse_loss))
    near(found.hessian_diagonal(model, data, mse_loss), whole.diagonal())
    near(found.ggn_diagonal(model, data, mse_loss), reference.ggn(model, data, "mse").diagonal())
    near(found.fisher_diagonal(model, data, mse_loss), reference.fisher(model, data, mse_loss).diagonal())
    vectors = torch.randn(3, len(whole), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    near(found.hessian_products(model, data, mse_loss, vectors), vectors @ whole)
    unchanged(before, model)


def test_cross_entropy_has_its_own_output_curvature():
    model = mlp()
    data = classes(batch(model, 5))
    near(found.ggn(model, data, cross_entropy), reference.ggn(model, data, "cross entropy"))
    rows = found.ggn_factor(model, data, cross_entropy)
    near(rows.T @ rows, reference.ggn(model, data, "cross entropy"))


def test_many_rows_are_taken_together_by_qr(monkeypatch):
    model = nn.Linear(2, 1).double()
    data = Batch(torch.randn(50, 2, dtype=torch.float64), torch.zeros(50, 1, dtype=torch.float64))
    monkeypatch.setattr("pared.signals.layout.HELD_ENTRIES", 6)
    rows = found.ggn_factor(model, data, mse_loss)
    assert len(rows) < 10
    near(rows.T @ rows, 2 * data.x.T @ data.x / 50)


def test_what_vmap_cannot_follow_goes_sample_by_sample():
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x):
            return self.layer(x) if float(x.detach().sum()) < 1e9 else x

    model = Branching().double()
    data = Batch(torch.randn(4, 3, dtype=torch.float64), torch.zeros(4, 2, dtype=torch.float64))
    near(found.ggn(model, data, mse_loss), reference.ggn(model, data, "mse"))
    near(found.fisher(model, data, mse_loss), reference.fisher(model, data, mse_loss))


def test_hutchinson_is_right_on_average_and_the_same_for_a_seed():
    model = mlp()
    data = batch(model)
    whole = found.hessian(model, data, mse_loss)
    estimate = found.hutchinson(model, data, mse_loss, draws=400)
    spread = (2 * (whole.square().sum(0) - whole.diagonal().square()) / 400).sqrt()
    assert ((estimate - whole.diagonal()).abs() <= 5 * spread + 1e-12).all()
    assert torch.equal(estimate, found.hutchinson(model, data, mse_loss, draws=400))


def test_only_weights_are_prunable_and_the_layout_goes_both_ways():
    model = KINDS["cnn"].build()
    layout = prunable(model)
    assert "norm.weight" not in layout.shapes
    assert "first.bias" not in layout.shapes
    assert "norm.weight" in prunable(model, biases=True).shapes
    vector = torch.arange(layout.size)
    assert torch.equal(layout.flat(layout.named(vector)), vector)
    assert torch.equal(layout.named(vector)["last.weight"].flatten(), vector[layout.place("last.weight")])
    with pytest.raises(ValueError, match="has no weights to prune"):
        prunable(nn.LayerNorm(3))
    with pytest.raises(KeyError):
        layout.place("other")


def test_grams_are_those_of_the_values_that_enter():
    model = KINDS["cnn"].build()
    data = KINDS["cnn"].batch(4)
    grams = input_grams(model, data, mse_loss)
    rows = reference.patches(data.x.numpy(), 3, padding=1)
    np.testing.assert_allclose(grams["first.weight"][0], 2 / 4 * rows.T @ rows, atol=1e-12)
    seen = []
    model.depth.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().numpy()))
    model.eval()(data.x)
    for channel in range(4):
        rows = reference.patches(seen[0][:, channel : channel + 1], 3, padding=1)
        np.testing.assert_allclose(grams["depth.weight"][channel], 2 / 4 * rows.T @ rows, atol=1e-12)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrent_grams_are_those_of_the_states(cell):
    import reference as loops

    model = forecaster(cell)
    data = batch(model)
    grams = input_grams(model, data, mse_loss)
    states = loops.recurrent_states(model.recurrent[0], data.x.numpy())
    back = states[:, :-1].reshape(-1, 5)
    np.testing.assert_allclose(grams["recurrent.0.weight_hh_l0"][0], 2 / 6 * back.T @ back, atol=1e-12)
    entering = states.reshape(-1, 5)
    np.testing.assert_allclose(grams["recurrent.1.weight_ih_l0"][0], 2 / 6 * entering.T @ entering, atol=1e-12)


def test_kronecker_factors_where_they_are_exact():
    """One sample, any layer that is used once; any samples, a last layer under a squared error."""
    model = mlp()
    whole = batch(model)
    one = Batch(whole.x[:1], whole.y[:1])
    for data, names in ((one, prunable(model).shapes), (whole, ["last.weight"])):
        curvature, factors = found.ggn(model, data, mse_loss), kronecker(model, data, mse_loss)
        for name in names:
            place = prunable(model).place(name)
            near(torch.kron(factors[name].outputs[0], factors[name].inputs[0]), curvature[place, place])
    half = input_grams(model, whole, mse_loss)["last.weight"] / 2
    near(kronecker(model, whole, mse_loss)["last.weight"].inputs, half)


@given(st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_identities(seed):
    """Woodbury; mean-field SNR = 2 OBD; full SNR = 2 OBS; variance inflation = OBD / OBS; deleting is conditioning.

    Marginalising is Schur's complement of H, and the shift of a deletion is a column of P.
    """
    generator = np.random.default_rng(seed)
    n, alpha = 6, 10.0 ** generator.uniform(-4, 0)
    rows, mu = generator.standard_normal((12, n)), generator.standard_normal(n)
    h = rows.T @ rows / 12 + alpha * np.eye(n)
    p = np.linalg.inv(h)
    np.testing.assert_allclose(reference.woodbury(rows, alpha), p, rtol=1e-9)
    np.testing.assert_allclose(found.inverse(torch.from_numpy(h)).numpy(), p, rtol=1e-9)
    obd = np.diag(h) * mu**2 / 2
    obs = np.array([reference.removal(h, mu, [q])[0] for q in range(n)])
    mean_field = mu**2 / (1 / np.diag(h))
    full = mu**2 / np.diag(p)
    np.testing.assert_allclose(mean_field, 2 * obd, rtol=1e-10)
    np.testing.assert_allclose(full, 2 * obs, rtol=1e-9)
    inflation = np.diag(np.linalg.inv(p / np.sqrt(np.outer(np.diag(p), np.diag(p)))))
    np.testing.assert_allclose(inflation, np.diag(h) * np.diag(p), rtol=1e-9)
    np.testing.assert_allclose(inflation, obd / obs, rtol=1e-8)
    rest = [i for i in range(n) if i != 2]
    down = p - np.outer(p[:, 2], p[2]) / p[2, 2]
    np.testing.assert_allclose(down[np.ix_(rest, rest)], np.linalg.inv(h[np.ix_(rest, rest)]), rtol=1e-8, atol=1e-12)
    schur = h - np.outer(h[:, 2], h[2]) / h[2, 2]  # marginalising is not conditioning
    np.testing.assert_allclose(np.linalg.inv(p[np.ix_(rest, rest)]), schur[np.ix_(rest, rest)], rtol=1e-7, atol=1e-10)
    _, shift = reference.removal(h, mu, [2])
    np.testing.assert_allclose(shift, -p[:, 2] * mu[2] / p[2, 2], rtol=1e-8, atol=1e-12)
    updated = found.updated_inverse(torch.eye(n).double() / alpha, torch.from_numpy(rows).split(5))
    np.testing.assert_allclose(updated, np.linalg.inv(rows.T @ rows + alpha * np.eye(n)), rtol=1e-8, atol=1e-12)


def test_the_fisher_matrix_is_the_ggn_for_labels_of_the_model():
    """On average over labels drawn from what the model says; with true labels of a perfect fit it vanishes."""
    model = mlp()
    data = classes(batch(model, 5))
    p = torch.softmax(model(data.x), dim=1).detach()
    total = torch.zeros(67, 67, dtype=torch.float64)
    for label in range(2):
        rows = reference.gradients(model, Batch(data.x, torch.full((5,), label)), cross_entropy)
        total += torch.einsum("n,ni,nj->ij", p[:, label], rows, rows) / 5
    near(total, found.ggn(model, data, cross_entropy))
    fitted = Batch(data.x, model(data.x).detach())
    assert not found.fisher(model, fitted, mse_loss).any()
    assert found.ggn(model, fitted, mse_loss).any()


def test_a_gram_is_the_hessian_of_its_layers_own_problem():
    """(1/N) |W x - W' x|^2, for every row of W alike."""
    model = mlp()
    data = batch(model, 9)
    gram = input_grams(model, data, mse_loss)["second.weight"][0]
    w, x = model.second.weight.detach(), torch.tanh(model.first(data.x)).detach()
    own = torch.autograd.functional.hessian(lambda v: ((x @ (w - v).T) ** 2).sum() / 9, w.clone())
    for row in range(5):
        near(own[row, :, row], gram)
        assert not own[row, :, (row + 1) % 5].any()


def test_bad_matrices_and_losses_are_named(monkeypatch):
    model = mlp()
    data = batch(model)
    with pytest.raises(CurvatureError, match=r"is singular: its eigenvalues go from .* give more damping"):
        found.inverse(found.ggn(model, data, mse_loss))
    with pytest.raises(CurvatureError, match=r"is indefinite: .* or use the GGN or the Fisher"):
        found.inverse(found.hessian(model, data, mse_loss))
    with pytest.raises(CurvatureError, match="infinities or NaN"):
        found.inverse(torch.full((2, 2), torch.inf))
    with pytest.raises(CurvatureError, match="no second derivative"):
        found.hessian(model, data, l1_loss)
    with pytest.raises(CurvatureError, match="no second derivative"):
        found.ggn(model, data, l1_loss)
    with pytest.raises(CurvatureError, match="not convex in the network's output"):
        found.ggn(model, data, lambda out, y: (out - y).cos().mean())
    with pytest.raises(CurvatureError, match=r"cannot be differentiated twice: .*not implemented"):
        found.ggn(model, data, lambda out, y: torch.cdist(out, y).mean())
    monkeypatch.setattr("pared.signals.curvature.DENSE_BYTES", 10_000)
    for dense in (found.hessian, found.ggn, found.fisher):
        with pytest.raises(CurvatureError, match=r"67 weights needs 0\.0 GiB .* use obc or sparse_gpt"):
            dense(model, data, mse_loss)
