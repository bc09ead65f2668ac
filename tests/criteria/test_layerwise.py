"""Layer-wise criteria against elimination for each row and each removal anew."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import reference_curvature as reference
from kinds import KINDS
from networks import batch, mlp
from pared import criteria
from pared.criteria.layerwise import obc_trace, refitted, sparsegpt
from pared.signals.layers import input_grams
from pared.types import Batch


def problem(rows=3, size=6, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((20, size))
    return generator.standard_normal((rows, size)), 2 / 20 * x.T @ x


def test_wanda_is_size_times_length():
    model = mlp()
    data = batch(model, 9)
    entered = torch.relu(model.second(torch.tanh(model.first(data.x)))).detach()
    expected = [[abs(float(w)) * float(entered[:, j].norm()) for j, w in enumerate(row)] for row in model.third.weight]
    np.testing.assert_allclose(criteria.wanda(model, data, mse_loss)["third.weight"], expected, rtol=1e-12)


def test_layer_obs_is_the_change_of_the_layers_outputs():
    """What the score says is the mean squared change of the outputs, once the rest makes up."""
    model = nn.Sequential(nn.Linear(4, 3)).double()
    x = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = criteria.layer_obs(model, Batch(x, x[:, :3]), mse_loss, damping=0.0)["0.weight"]
    w = model[0].weight.detach().numpy()
    for i in range(3):
        for q in range(4):
            rest = [j for j in range(4) if j != q]
            gone = x[:, q].numpy() * w[i, q]
            made_up = np.linalg.lstsq(x[:, rest].numpy(), gone, rcond=None)[0]
            change = np.mean((gone - x[:, rest].numpy() @ made_up) ** 2)
            assert float(scores[i, q]) == pytest.approx(change, rel=1e-10)


def test_obc_is_elimination_row_by_row(monkeypatch):
    w, h = problem()
    order, losses = obc_trace(torch.from_numpy(w), torch.from_numpy(h))
    for i in range(3):
        expected, costs = reference.obc_row(w[i], h)
        assert order[i].tolist() == expected
        np.testing.assert_allclose(losses[i], costs, rtol=1e-10, atol=1e-12)
    monkeypatch.setattr("pared.criteria.layerwise.HELD_ENTRIES", 40)
    parts = obc_trace(torch.from_numpy(w), torch.from_numpy(h))
    assert torch.equal(parts[0], order)


def test_obc_scores_never_fall_along_a_row():
    model = KINDS["cnn"].build()
    data = KINDS["cnn"].batch(8)
    scores = criteria.obc(model, data, mse_loss)
    assert set(scores) == {"first.weight", "inner.weight", "depth.weight", "point.weight", "last.weight"}
    gram = input_grams(model, data, mse_loss)["depth.weight"][2]
    gram = gram + 1e-2 * gram.diagonal().mean() * torch.eye(9, dtype=torch.float64)
    order, losses = obc_trace(model.depth.weight[2:3].flatten(1).detach(), gram)
    own = scores["depth.weight"][2].flatten()[order[0]]
    np.testing.assert_allclose(own, np.maximum.accumulate(losses[0]), rtol=1e-10)


def test_refitted_rows_are_where_the_steps_end():
    w, h = problem(seed=2)
    keep = np.random.default_rng(0).random((3, 6)) > 0.5
    keep[1] = False
    found = refitted(torch.from_numpy(w), torch.from_numpy(h), torch.from_numpy(keep)).numpy()
    for i in range(3):
        _, shift = reference.removal(h, w[i], np.flatnonzero(~keep[i]).tolist())
        np.testing.assert_allclose(found[i], np.where(keep[i], w[i] + shift, 0.0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("block", [2, 4, 128])
def test_sparsegpt_is_the_sweep_with_inverses_taken_anew(block):
    w, h = problem(seed=4)
    keep, found = sparsegpt(torch.from_numpy(w), torch.from_numpy(h), 0.5, block)
    expected_keep, expected = reference.sparsegpt(w, h, 0.5, block)
    assert (keep.numpy() == expected_keep).all()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert int((found == 0).sum()) == 9


def test_dead_inputs_score_nothing_and_a_network_without_layers_is_refused():
    model = nn.Sequential(nn.Linear(3, 2)).double()
    x = torch.randn(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 0.0
    for criterion in (criteria.obc, criteria.layer_obs, criteria.wanda):
        scores = criterion(model, Batch(x, x[:, :2]), mse_loss)["0.weight"]
        assert scores.isfinite().all()
        if criterion is criteria.wanda:
            assert (scores[:, 1] == 0).all()
    table = nn.Embedding(4, 2).double()
    with pytest.raises(ValueError, match="no layer that multiplies or convolves"):
        criteria.wanda(table, Batch(torch.arange(4), torch.zeros(4, 2).double()), mse_loss)
