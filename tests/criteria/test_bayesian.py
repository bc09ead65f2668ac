"""Posteriors where they are known exactly, divergences by quadrature, and trainings that find what is noise."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import nn
from torch.nn.functional import mse_loss

import reference_bayesian as slow
from networks import batch, mlp, snapshot, unchanged
from pared import criteria
from pared.criteria.bayesian import kl_gamma, kl_inverse_gamma, kl_log_uniform, log_alpha
from pared.criteria.posterior import laplace_posterior, snapshot_posterior, variational_posterior
from pared.signals import CurvatureError, plain_parameters, prunable
from pared.signals.curvature import ggn
from pared.types import Batch


def linear(noise=0.1, samples=60):
    """A linear network at the mode of its posterior, and its data; two of five inputs do nothing."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 5, generator=generator, dtype=torch.float64)
    y = x[:, :3] @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)
    y = y + noise * torch.randn(samples, 1, generator=generator, dtype=torch.float64)
    model = nn.Linear(5, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.solve(2 * x.T @ x + torch.eye(5), 2 * x.T @ y).T)
    return model, Batch(x, y)


def test_posteriors_of_a_linear_network_are_exact():
    model, data = linear()
    precision = 2 * data.x.T @ data.x + torch.eye(5)  # N L = sum of squared errors, its Hessian 2 X'X
    exact = torch.linalg.inv(precision)
    for find in (laplace_posterior, partial(variational_posterior, steps=3)):
        mean, covariance = find(model, data, mse_loss, "full")
        torch.testing.assert_close(mean, model.weight.detach()[0], rtol=1e-10, atol=1e-9)
        torch.testing.assert_close(covariance, exact)
        mean, variance = find(model, data, mse_loss, "diagonal")
        torch.testing.assert_close(mean, model.weight.detach()[0], rtol=1e-10, atol=1e-9)
        torch.testing.assert_close(variance, 1 / precision.diagonal())
    moved = nn.Linear(5, 1, bias=False).double()
    mean, covariance = variational_posterior(moved, data, mse_loss, "full", steps=1)
    torch.testing.assert_close(mean, model.weight.detach()[0], rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_snr_is_twice_obd_and_twice_obs(covariance):
    """Squared, on the posterior's own precision: the identities of the methods."""
    model = mlp()
    data = batch(model, 30)
    precision = 30 * ggn(model, data, mse_loss) + torch.eye(67)
    w = prunable(model).flat(plain_parameters(model))
    h = precision.diagonal() if covariance == "diagonal" else 1 / torch.linalg.inv(precision).diagonal()
    found = prunable(model).flat(criteria.snr(model, data, mse_loss, covariance=covariance))
    torch.testing.assert_close(found.square(), w.square() * h, rtol=1e-10, atol=1e-12)


def test_variational_posteriors_do_better_than_where_they_started():
    """Off the minimum the mean goes downhill, whatever the curvature says."""
    model = mlp()
    data = batch(model, 30)
    for covariance in ("diagonal", "full"):
        mean, _ = variational_posterior(model, data, mse_loss, covariance, steps=5)
        w = prunable(model).flat(plain_parameters(model))
        values = []
        for weights in (w, mean):
            tensors = dict(model.named_parameters()) | prunable(model).named(weights)
            out = torch.func.functional_call(model, tensors, (data.x,))
            values.append(30 * float(mse_loss(out, data.y)) + float(weights.square().sum()) / 2)
        assert values[1] < values[0]
    one, two = (variational_posterior(model, data, mse_loss, "diagonal", steps=2, seed=seed)[0] for seed in (0, 1))
    assert not torch.equal(one, two)
    scores = criteria.snr(model, data, mse_loss, posterior="variational", steps=2)
    again = criteria.snr(model, data, mse_loss, posterior="variational", steps=2)
    assert torch.equal(scores["last.weight"], again["last.weight"])


def test_snapshots_have_their_own_covariance():
    model, data = linear()
    mean, root, spread = snapshot_posterior(model, data, mse_loss, count=6, between=3, lr=0.1)
    assert root.shape == (5, 6)
    torch.testing.assert_close((root @ root.T).diagonal(), spread)
    torch.testing.assert_close(root.sum(dim=1), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)
    assert float((mean - model.weight.detach()[0]).abs().max()) < 0.1
    scores = criteria.snr(model, data, mse_loss, posterior="snapshots", steps=6)["weight"][0]
    assert set(scores.argsort()[:2].tolist()) == {3, 4}


def test_bad_posteriors_are_refused():
    model, data = linear()
    with pytest.raises(ValueError, match="unknown posterior 'exact'"):
        criteria.snr(model, data, mse_loss, posterior="exact")
    with pytest.raises(ValueError, match="'diagonal' or 'full', got 'half'"):
        criteria.snr(model, data, mse_loss, covariance="half")
    with pytest.raises(CurvatureError, match="prior precision must be positive"):
        criteria.snr(model, data, mse_loss, prior=0.0)


def test_oracle_6_divergences():
    """Values of the fit, and the log-normal divergences by quadrature."""
    values = {-8: 4.636, -4: 2.634, -2: 1.541, 0: 0.431, 1: 0.178, 3: 0.0254, 6: 0.0013}
    for log, expected in values.items():
        assert float(kl_log_uniform(torch.tensor(float(log)))) == pytest.approx(expected, abs=6e-4)
    mean, variance, scale = 0.3, 0.2, 0.5
    arguments = torch.tensor(mean), torch.tensor(math.log(variance))
    assert float(kl_gamma(*arguments, scale)) == pytest.approx(2.4452, abs=1e-4)
    assert float(kl_inverse_gamma(*arguments)) == pytest.approx(0.92688, abs=1e-4)

    def density(t):
        return math.exp(-((t - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    def log_gamma(t):  # of x = exp(t), with the Jacobian
        return t / 2 - math.exp(t) / scale - math.log(math.sqrt(math.pi)) - math.log(scale) / 2

    def log_inverse(t):
        return -t / 2 - math.exp(-t) - math.log(math.sqrt(math.pi))

    for prior, found in ((log_gamma, kl_gamma(*arguments, scale)), (log_inverse, kl_inverse_gamma(*arguments))):
        value = quad(lambda t, prior=prior: density(t) * (math.log(density(t)) - prior(t)), -5, 6)[0]
        assert float(found) == pytest.approx(value, abs=1e-6)


def test_log_alpha_is_clipped():
    found = log_alpha(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, -20.0]))
    np.testing.assert_allclose(found, [0.0, 8.0, -8.0], atol=1e-6)


@pytest.mark.parametrize(
    "criterion",
    [
        pytest.param(criteria.variational_dropout, marks=pytest.mark.slow),
        pytest.param(criteria.group_jeffreys, marks=pytest.mark.slow),
        pytest.param(criteria.horseshoe, marks=pytest.mark.slow),
    ],
)
def test_trainings_find_the_inputs_that_do_nothing(criterion):
    """Two of five inputs are noise; each method gives them the lowest scores, and the same ones for a seed."""
    model, data = linear()
    loss = lambda out, y: 20 * mse_loss(out, y)  # noqa: E731 - a likelihood sharper than the unit one
    scores = criterion(model, data, loss, steps=400, lr=2e-2)["weight"][0]
    assert set(scores.argsort()[:2].tolist()) == {3, 4}
    other = criterion(model, data, loss, steps=400, lr=2e-2, seed=1)["weight"][0]
    assert not torch.equal(scores, other)
    assert set(other.argsort()[:2].tolist()) == {3, 4}


def test_trainings_follow_their_seed_and_leave_the_model():
    model = mlp()
    before = snapshot(model)
    train = partial(criteria.variational_dropout, model, batch(model), mse_loss, steps=30)
    one, again, other = train(seed=0), train(seed=0), train(seed=1)
    unchanged(before, model)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_groups_share_a_score_along_their_input():
    model = mlp()
    for criterion in (criteria.group_jeffreys, criteria.horseshoe):
        for values in criterion(model, batch(model), mse_loss, steps=3).values():
            assert torch.equal(values, values[:1].expand_as(values))


def small():
    """A network of six weights and data, for twins that go entry by entry."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1)).double()
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randn(9, k, dtype=torch.float64, generator=generator) for k in (2, 1))
    return model, Batch(x, y)


@pytest.mark.parametrize(
    ("criterion", "twin"),
    [
        (criteria.variational_dropout, slow.variational_dropout),
        (criteria.group_jeffreys, slow.group_jeffreys),
        (partial(criteria.horseshoe, tau=0.3), partial(slow.horseshoe, tau=0.3)),
    ],
)
def test_trainings_are_their_objectives_step_by_step(criterion, twin):
    model, data = small()
    found = prunable(model).flat(criterion(model, data, mse_loss, steps=6, lr=0.05, seed=4))
    expected = twin(model=model, batch=data, loss=mse_loss, steps=6, lr=0.05, seed=4)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-10, atol=1e-10)


def test_snapshots_are_the_descents():
    model, data = small()
    mean, root, spread = snapshot_posterior(model, data, mse_loss, count=5, between=3, lr=0.1, seed=2)
    expected_mean, expected = slow.snapshots(model, data, mse_loss, count=5, between=3, lr=0.1, seed=2)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-10)
    np.testing.assert_allclose(root @ root.T + torch.diag(spread), expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_variational_posteriors_are_natural_gradient_written_out(covariance):
    model, data = small()
    mean, found = variational_posterior(model, data, mse_loss, covariance, prior=0.7, steps=3)
    expected_mean, expected = slow.variational(model, data, mse_loss, covariance, prior=0.7, steps=3)
    torch.testing.assert_close(mean, expected_mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
