"""Belsley's path, its readings and its extension: against full decompositions, and against the paper's table 1."""

import time
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn.functional import mse_loss

import reference_belsley as reference
from networks import batch, forecaster, mlp
from pared import criteria
from pared.criteria.belsley import (
    belsley_order,
    collinearity,
    inflation,
    laplace_factor,
    single_order,
    snapshot_factor,
    surgeon_path,
    variational_factor,
)
from pared.criteria.posterior import snapshot_posterior, variational_posterior
from pared.criteria.removal import removal, removal_of_factor
from pared.signals import CurvatureError, plain_parameters, prunable
from pared.signals.curvature import ggn


def scaled(matrix):
    d = np.sqrt(np.diag(matrix))
    return matrix / np.outer(d, d)


def factor_of(size, condition, seed=0):
    """F of unit columns (rows, size) whose square has about this condition number."""
    generator = np.random.default_rng(seed)
    left, right = (np.linalg.qr(generator.standard_normal((size, size)))[0] for _ in range(2))
    factor = left * condition ** (-np.arange(size) / (2 * size - 2)) @ right
    return factor / np.linalg.norm(factor, axis=0)


def table_1():
    """Correlation of sin, cos, 2 + cos, 2 + sin, cos + sin and x over 0, 0.02, ..., 20."""
    x = np.linspace(0, 20, 1001)
    return np.corrcoef([np.sin(x), np.cos(x), 2 + np.cos(x), 2 + np.sin(x), np.cos(x) + np.sin(x), x])


def test_table_1_of_the_paper():
    """Oracle 3: its condition indices and its last column are those of the correlation matrix; the rest is rounding."""
    table = collinearity(table_1())
    assert table.indices[:3] == pytest.approx([1, 1.547, 3.323], abs=6e-4)
    assert table.shares[:3, 5] == pytest.approx([3.625e-4, 3.187e-2, 0.9678], rel=2e-3)
    np.testing.assert_allclose(table.shares.sum(axis=0), 1)
    assert (table.indices[3:] > 1e14).all()
    steady = collinearity(table_1(), ridge=1e-3)
    assert steady.indices[3:] == pytest.approx([3082] * 3, rel=1e-3)


def test_the_stable_answer_to_table_1_is_the_sum_of_sine_and_cosine():
    inflated = inflation(table_1(), ridge=1e-3)
    assert inflated == pytest.approx([579.97, 582.82, 582.82, 579.97, 675.29, 1.038], rel=1e-3)
    first = removal(table_1() + 1e-3 * np.eye(6))
    assert first.order[0] == 4
    assert first.ties[0] == 3
    assert first.margins[0] > 0.1
    for order in ([3, 5, 0, 4, 2, 1], [5, 4, 3, 2, 1, 0]):
        shuffled = table_1()[np.ix_(order, order)] + 1e-3 * np.eye(6)
        assert order[removal(shuffled).order[0]] == 4
    with pytest.raises(CurvatureError, match="is singular"):
        inflation(table_1())


def test_the_printed_answer_to_table_1_is_an_accident_of_rounding():
    """Noise of 1e-15 and the order of the rows decide which of five parameters the printed rule finds."""
    generator = np.random.default_rng(0)
    victims = []
    for _ in range(60):
        noise, order = 1e-15 * generator.standard_normal((6, 6)), generator.permutation(6)
        table = collinearity((table_1() + noise + noise.T)[np.ix_(order, order)])
        victims.append(int(order[table.shares[-1].argmax()]))
    assert set(victims) == {0, 1, 2, 3, 4}
    assert max(victims.count(k) for k in range(5)) < 30
    with pytest.raises(CurvatureError, match=r"rounding hides .* give the factor whose square it is, or a ridge"):
        removal(table_1())


@example(18, 10.0, 362)  # the last two correlate by 1e-5, which leaves their directions to rounding
@given(st.integers(2, 25), st.sampled_from([10.0, 1e4, 1e8]), st.integers(0, 999))
@settings(max_examples=12, deadline=None)
def test_the_fast_path_is_the_slow_one(size, condition, seed):
    factor = factor_of(size, condition, seed)
    matrix = factor.T @ factor
    order, margins = reference.order(matrix)
    fast, rooted = removal(matrix), removal_of_factor(factor)
    for path in (fast, rooted):
        assert path.order.tolist() == order
        np.testing.assert_allclose(path.margins[:-1], margins[:-1], atol=1e-12 * condition)
        assert abs(path.margins[-1]) < 1e-6  # the last two have equal shares, whatever they are
        assert (path.ties[margins != 0] >= 1).all()
    assert fast.condition == pytest.approx(np.linalg.cond(matrix), rel=1e-3)


@pytest.mark.parametrize("condition", [1e3, pytest.param(1e9, marks=pytest.mark.slow)])
def test_many_removals_go_between_decompositions(condition, monkeypatch):
    """More than a block, and the rank-one updates carry on as decompositions would."""
    import scipy.linalg

    factor = factor_of(90, condition, 1)
    calls = []
    plain = scipy.linalg.eigh
    monkeypatch.setattr(scipy.linalg, "eigh", lambda *a, **k: calls.append(1) or plain(*a, **k))
    path = removal(factor.T @ factor)
    assert len(calls) < 6
    assert path.order.tolist() == reference.order(factor.T @ factor)[0]


@pytest.mark.parametrize("rank", [3, 9])
def test_tied_eigenvalues_do_not_depend_on_the_vectors_chosen(rank):
    """A ridge on a matrix of low rank: its null space ties, and the order follows any relabelling."""
    generator = np.random.default_rng(rank)
    rows = generator.standard_normal((rank, 12))
    matrix = rows.T @ rows + 1e-3 * np.eye(12)
    path = removal(matrix)
    assert path.ties[: 12 - rank].tolist() == [*range(12 - rank, 1, -1), 1]
    assert path.order.tolist() == reference.order(matrix)[0]
    for seed in range(5):
        other = np.random.default_rng(seed).permutation(12)
        again = removal(matrix[np.ix_(other, other)])
        assert other[again.order][:-2].tolist() == path.order[:-2].tolist()


def test_what_cannot_be_told_apart_has_no_margin():
    """The paper's synthetic design: 99 weights correlated alike. Every choice among them is arbitrary, and says so."""
    matrix = np.full((100, 100), 0.95) + 0.05 * np.eye(100)
    matrix[0, 1:] = matrix[1:, 0] = 1e-3
    matrix[0, 0] = 1.0
    path = removal(matrix)
    assert path.ties[0] == 98
    assert path.margins[:90].max() < 1e-6
    assert 0 in path.order[-2:]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_ill_conditioned_orders_come_from_the_factor(seed):
    """Condition 1e15: the order of exact arithmetic is found from F, while M = F'F is refused."""
    factor = factor_of(9, 1e15, seed)
    exact = reference.exact_order(factor)
    assert removal_of_factor(factor).order.tolist() == exact
    assert belsley_order(factor).order.tolist() == exact
    with pytest.raises(CurvatureError, match="rounding hides"):
        removal(factor.T @ factor)


def test_factors_with_dependent_columns_and_crooked_matrices_are_refused():
    factor = factor_of(5, 10.0)
    factor[:, 1] = factor[:, 0]
    with pytest.raises(CurvatureError, match=r"rounding hides \(above 1e\+24\).*; give a ridge"):
        removal_of_factor(factor)
    with pytest.raises(CurvatureError, match="rounding hides"):
        removal_of_factor(factor[:3])
    with pytest.raises(CurvatureError, match="must be symmetric"):
        removal(np.triu(np.ones((3, 3))))
    with pytest.raises(CurvatureError, match="not positive definite"):
        surgeon_path(np.ones(2), -np.eye(2))
    with pytest.raises(ValueError, match="between 0 and 1"):
        surgeon_path(np.ones(2), np.eye(2), share=2.0)


@pytest.mark.parametrize("network", ["mlp", "lstm"])
@pytest.mark.parametrize("reading", ["covariance", "correlation", "precision"])
def test_readings_are_what_they_say(network, reading):
    model = mlp() if network == "mlp" else forecaster("lstm", 0, (2,), (2,))
    data = batch(model, 40)
    precision = (40 * ggn(model, data, mse_loss)).numpy() + 0.5 * np.eye(prunable(model).size)
    covariance = np.linalg.inv(precision)
    matrix = {"covariance": covariance, "correlation": scaled(covariance), "precision": precision}[reading]
    matrix = matrix + 1e-6 * np.mean(np.diag(matrix)) * np.eye(len(matrix))
    half = partial(laplace_factor, prior=0.5)
    scores = criteria.belsley(model, data, mse_loss, reading=reading, posterior=half, ridge=1e-6)
    places = prunable(model).flat(scores).numpy()
    order, margins = reference.order(matrix)
    clear = next((k for k, margin in enumerate(margins) if margin < 1e-6), len(margins))
    assert clear > 5
    assert places.argsort()[:clear].tolist() == order[:clear]
    once = prunable(model).flat(
        criteria.belsley(model, data, mse_loss, reading=reading, posterior=half, recompute=False)
    )
    assert sorted(once.tolist()) == list(range(len(order)))


def test_posteriors_are_those_of_the_signal_to_noise_ratio():
    """What Belsley's order is found from: besides Laplace's posterior a variational one, or snapshots with a ridge."""
    model = mlp()
    data = batch(model, 40)
    _, variational = variational_posterior(model, data, mse_loss, "full", 0.5, 2)
    _, root, spread = snapshot_posterior(model, data, mse_loss, 5)
    snapshots = root @ root.T + torch.diag(spread)
    snapshots = snapshots + 1e-3 * snapshots.diagonal().mean() * torch.eye(67)
    cases = [
        (partial(variational_factor, prior=0.5, steps=2), variational),
        (partial(snapshot_factor, count=5, ridge=1e-3), snapshots),
    ]
    for posterior, covariance in cases:
        factor = posterior(model, data, mse_loss)
        np.testing.assert_allclose(np.linalg.inv(factor.T @ factor), covariance, rtol=1e-6, atol=1e-9)
        places = prunable(model).flat(criteria.belsley(model, data, mse_loss, posterior=posterior)).numpy()
        order, margins = reference.order(covariance.numpy())
        clear = next((k for k, margin in enumerate(margins) if margin < 1e-6), len(margins))
        assert clear > 3
        assert places.argsort()[:clear].tolist() == order[:clear]


def test_the_single_decomposition_is_the_loop():
    factor = factor_of(20, 1e4)
    assert single_order(factor).tolist() == reference.single(factor.T @ factor)


@pytest.mark.parametrize(("size", "share"), [(12, 0.1), (12, 0.0), (70, 0.1), (70, 1.0)])
def test_belsley_obs_is_the_loop(size, share):
    factor = factor_of(size, 1e4, 3)
    mean = np.random.default_rng(1).standard_normal(size)
    precision = factor.T @ factor
    order, means = reference.surgeon(mean, np.linalg.inv(precision), share)
    path, last = surgeon_path(mean, precision, share)
    assert path.tolist() == order
    np.testing.assert_allclose(last, means[-1], atol=1e-9)
    _, some = surgeon_path(mean, precision, share, count=5)
    np.testing.assert_allclose(some, means[4], atol=1e-9)
    assert (some[path[:5]] == 0).all()


def test_conditioning_is_the_best_shift_of_what_is_left():
    """Whatever the order, the mean afterwards minimises the quadratic under the zeros."""
    factor, mean = factor_of(10, 100.0), np.arange(1.0, 11.0)
    precision = factor.T @ factor
    order, shifted = surgeon_path(mean, precision, count=4)
    rest = np.sort(order[4:])
    best = mean[rest] + np.linalg.solve(
        precision[np.ix_(rest, rest)], precision[np.ix_(rest, order[:4])] @ mean[order[:4]]
    )
    np.testing.assert_allclose(shifted[rest], best, rtol=1e-10)


def test_belsley_obs_scores_places():
    model = mlp()
    data = batch(model, 40)
    scores = criteria.belsley_obs(model, data, mse_loss)
    covariance = np.linalg.inv((40 * ggn(model, data, mse_loss)).numpy() + np.eye(67))
    mean = prunable(model).flat(plain_parameters(model)).numpy()
    order, _ = reference.surgeon(mean, covariance)
    assert prunable(model).flat(scores).argsort().tolist()[:-2] == order[:-2]  # the last two are independent: a tie
    assert sorted(torch.cat([s.flatten() for s in scores.values()]).tolist()) == list(range(67))
    with pytest.raises(ValueError, match="prior precision must be positive"):
        criteria.belsley_obs(model, batch(model), mse_loss, prior=0.0)
    with pytest.raises(ValueError, match="unknown reading 'cov'"):
        criteria.belsley(model, batch(model), mse_loss, reading="cov")


@pytest.mark.slow
def test_the_fast_path_is_fast():
    """At 600 weights, in processor time; benchmarks/belsley.py measures more."""
    factor = factor_of(600, 1e6)
    matrix = factor.T @ factor
    start = time.process_time()
    removal(matrix)
    fast = time.process_time() - start
    start = time.process_time()
    for size in range(600, 2, -20):
        np.linalg.eigh(matrix[:size, :size])
    assert 20 * (time.process_time() - start) > 3 * fast
