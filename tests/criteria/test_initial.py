"""First-order and at-initialisation criteria against loops, finite differences and conservation laws."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import reference_curvature as reference
from networks import batch, forecaster, mlp
from pared import criteria
from pared.signals import plain_parameters, prunable
from pared.types import Batch


def flat(model, scores):
    return prunable(model).flat(scores).numpy()


def slope(model, data, loss, weights):
    written, layout, _ = reference.plain(model)
    at = weights.clone().requires_grad_()
    return torch.autograd.grad(loss(reference.called(written, layout, at, data.x), data.y), at)[0]


@pytest.mark.parametrize("make", [mlp, lambda: forecaster("lstm", 0, (2,), (2,))])
def test_snip_grasp_and_movement_are_their_formulas(make):
    model = make()
    data = batch(model, 8)
    w = prunable(model).flat(plain_parameters(model))
    g = slope(model, data, mse_loss, w)
    size = (g * w).abs().numpy()
    np.testing.assert_allclose(flat(model, criteria.snip(model, data, mse_loss)), size / size.sum(), rtol=1e-10)

    def cooled(out, y):
        return mse_loss(out / 3, y)

    bent = reference.hessian(model, data, cooled) @ slope(model, data, cooled, w)
    found = flat(model, criteria.grasp(model, data, mse_loss, temperature=3.0))
    np.testing.assert_allclose(found, (w * bent).numpy(), rtol=1e-10, atol=1e-15)

    total, moved = torch.zeros_like(w), w.clone()
    for _ in range(4):
        open_ = torch.ones_like(w)
        lowest = sorted(total.tolist(), reverse=True)[round(0.5 * len(w)) - 1]
        open_[total < lowest] = 0.0
        g = slope(model, data, mse_loss, moved * open_)
        total, moved = total - g * moved, moved - 0.1 * g
    found = flat(model, criteria.movement(model, data, mse_loss, steps=4, lr=0.1, density=0.5))
    np.testing.assert_allclose(found, total.numpy(), rtol=1e-10, atol=1e-14)


def test_grasp_removes_what_lengthens_the_gradient_least_last():
    """To first order, removing weight i changes g'g by -2 score: the sign that is stated."""
    model = mlp()
    data = batch(model, 8)
    w = prunable(model).flat(plain_parameters(model))
    scores = flat(model, criteria.grasp(model, data, mse_loss))
    for i in (0, 20, 40):
        step = torch.zeros_like(w)
        step[i] = 1e-6 * w[i]
        lengths = [float(slope(model, data, mse_loss, w + sign * step).square().sum()) for sign in (-1, 1)]
        assert (lengths[0] - lengths[1]) / 2e-6 == pytest.approx(-2 * scores[i], rel=1e-4, abs=1e-9)


def test_synflow_is_the_sum_over_paths_and_is_conserved():
    """Oracle 8: with ReLU and linear layers every layer's scores sum to the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    data = batch(mlp(), 3)
    data = data._replace(x=torch.randn(3, 4, dtype=torch.float64))
    scores = criteria.synflow(model, data, mse_loss)
    expected = reference.synflow([p.detach().numpy() for p in model.parameters() if p.dim() > 1])
    for found, values in zip(scores.values(), expected, strict=True):
        np.testing.assert_allclose(found, values, rtol=1e-12)
    sums = [float(s.sum()) for s in scores.values()]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-12)
    other = data._replace(x=data.x + 5)
    assert torch.equal(criteria.synflow(model, other, mse_loss)["0.weight"], scores["0.weight"])


def test_deviation_is_hans_threshold():
    model = mlp()
    nn.init.constant_(model.last.weight, 0.5)
    scores = criteria.deviation(model, batch(model), mse_loss)
    w = model.second.weight.detach().numpy()
    np.testing.assert_allclose(scores["second.weight"], np.abs(w) / w.std(), rtol=1e-12)
    assert (scores["last.weight"] == 0).all()
    assert "second.bias" not in scores


def test_random_scores_of_weights():
    one, two = (criteria.random(mlp(), batch(mlp()), mse_loss, of="weights", seed=seed) for seed in (1, 2))
    assert one["last.weight"].shape == (2, 5)
    assert not torch.equal(one["last.weight"], two["last.weight"])


@pytest.mark.parametrize("make", [mlp, lambda: forecaster("lstm", 0, (2,), (2,))])
def test_gradient_covariance_is_its_formula(make):
    model = make()
    data = batch(model, 8)
    rows = reference.gradients(model, data, mse_loss).numpy()
    variances = np.diag(np.cov(rows.T, bias=True))
    w = prunable(model).flat(plain_parameters(model)).numpy()
    score = partial(criteria.gradient_covariance, model, data, mse_loss)
    np.testing.assert_allclose(flat(model, score(reading="variance")), variances, rtol=1e-10, atol=1e-16)
    np.testing.assert_allclose(flat(model, score()), variances * w**2 / 2, rtol=1e-10, atol=1e-16)


def test_gradient_covariance_on_the_way_is_the_recursion():
    model = mlp()
    data = batch(model, 12)
    generator = torch.Generator().manual_seed(3)
    picks = [torch.randperm(12, generator=generator)[:3].tolist() for _ in range(5)]
    covariance = reference.gradient_covariance(model, data, mse_loss, picks, lr=0.05).diagonal().numpy()
    found = criteria.gradient_covariance(model, data, mse_loss, reading="variance", steps=5, lr=0.05, seed=3)
    np.testing.assert_allclose(flat(model, found), covariance, rtol=1e-10, atol=1e-16)


def test_the_recursion_finds_the_covariance_on_average():
    """Over all minibatches of S of N samples and all of their first ones: (S - 1) / S of the unbiased variance."""
    model = mlp()
    data, size = batch(model, 5), 3
    rows = reference.gradients(model, data, mse_loss).numpy()
    total = [
        np.square(rows[pick[0]] - rows[list(pick)].mean(axis=0)) for pick in itertools.permutations(range(5), size)
    ]
    expected = (size - 1) / size * np.var(rows, axis=0, ddof=1)
    np.testing.assert_allclose(np.mean(total, axis=0), expected, rtol=1e-10, atol=1e-16)
    found = flat(model, criteria.gradient_covariance(model, data, mse_loss, reading="variance"))
    np.testing.assert_allclose(found, np.mean(total, axis=0) * size / (size - 1) * 4 / 5, rtol=1e-10, atol=1e-16)


def test_at_a_minimum_gradient_covariance_is_optimal_brain_damage():
    """There the gradients' mean is zero, and their covariance the empirical Fisher matrix."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(30, k, dtype=torch.float64, generator=generator) for k in (4, 1))
    model = nn.Linear(4, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    data = Batch(x, y)
    found = criteria.gradient_covariance(model, data, mse_loss)["weight"]
    torch.testing.assert_close(found, criteria.obd(model, data, mse_loss, diagonal="fisher")["weight"])


def test_ranks_taken_for_numbers_order_otherwise():
    """The thesis' example: variances 0.3, 0.2, 0.25 have ranks 3, 1, 2; as a list they send the third weight first."""
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.ones(1, 3))
    x = torch.diag(torch.tensor([0.3, 0.2, 0.25], dtype=torch.float64).sqrt())
    data = Batch(torch.cat([x, -x]), torch.zeros(6, 1, dtype=torch.float64))
    score = partial(criteria.gradient_covariance, model, data, lambda out, y: (out - y).mean())
    assert score(reading="variance")["weight"][0].argsort().tolist() == [1, 2, 0]
    assert score(reading="ranks")["weight"][0].argsort().tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="unknown reading 'rank'"):
        score(reading="rank")
