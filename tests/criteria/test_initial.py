"""First-order and at-initialisation criteria against loops, finite differences and conservation laws."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import reference_curvature as reference
from networks import batch, forecaster, mlp
from pared import criteria
from pared.signals import plain_parameters, prunable


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

    cool, step = slope(model, data, cooled, w), 1e-5
    bent = (slope(model, data, cooled, w + step * cool) - slope(model, data, cooled, w - step * cool)) / (2 * step)
    found = flat(model, criteria.grasp(model, data, mse_loss, temperature=3.0))
    np.testing.assert_allclose(found, (w * bent).numpy(), rtol=1e-5, atol=1e-9)

    total, moved = torch.zeros_like(w), w.clone()
    for _ in range(4):
        open_ = torch.ones_like(w)
        lowest = sorted(total.tolist(), reverse=True)[round(0.5 * len(w)) - 1]
        open_[total < lowest] = 0.0
        g = slope(model, data, mse_loss, moved * open_)
        total, moved = total - g * moved, moved - 0.1 * g
    found = flat(model, criteria.movement(model, data, mse_loss, steps=4, lr=0.1, density=0.5))
    np.testing.assert_allclose(found, total.numpy(), rtol=1e-9, atol=1e-12)


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
    assert ((scores["second.weight"].numpy() < 1.3) == (np.abs(w) < 1.3 * w.std())).all()
    assert (scores["last.weight"] == 0).all()
    assert "second.bias" not in scores


def test_random_scores_of_weights():
    one, two = (criteria.random(mlp(), batch(mlp()), mse_loss, of="weights", seed=seed) for seed in (1, 2))
    assert one["last.weight"].shape == (2, 5)
    assert not torch.equal(one["last.weight"], two["last.weight"])
