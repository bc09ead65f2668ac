"""Second-order criteria against elimination, loops and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import reference_curvature as reference
from networks import batch, forecaster, mlp
from pared import criteria, unit_masks
from pared.criteria.curvature import obs_step
from pared.reconstruct import refit_weights
from pared.signals import CurvatureError, plain_parameters, prunable
from pared.signals import curvature as signals
from pared.surgery import Plan, StructureError, by_unit, cut, trace
from pared.types import Batch

TANH = (np.tanh, lambda a: 1 - np.tanh(a) ** 2, lambda a: -2 * np.tanh(a) * (1 - np.tanh(a) ** 2))


def chain(seed=0, outputs=2):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(3, 4), nn.Tanh(), nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()), nn.Linear(3, outputs)
        ).double()


def data(samples=5, outputs=2):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 3, dtype=torch.float64, generator=generator)
    return Batch(x, torch.randn(samples, outputs, dtype=torch.float64, generator=generator))


def forecaster_of_two():
    return forecaster("lstm", 0, (2,), (2,))


def flat(model, scores):
    return prunable(model).flat(scores).numpy()


def weights_of(model):
    return prunable(model).flat(plain_parameters(model)).numpy()


@pytest.mark.parametrize("make", [mlp, lambda: forecaster("gru", 0, (2,), (2,))])
def test_obd_is_half_h_w_squared(make):
    model = make()
    given_ = batch(model, 8)
    w, h = weights_of(model), reference.hessian(model, given_, mse_loss).diagonal().numpy()
    with pytest.warns(UserWarning, match=r"\d+ of \d+ second derivatives are negative .* count as 0"):
        exact = flat(model, criteria.obd(model, given_, mse_loss, diagonal="exact"))
    np.testing.assert_allclose(exact, np.maximum(h, 0) * w**2 / 2, atol=1e-12)
    ggn = reference.ggn(model, given_, "mse").diagonal().numpy()
    np.testing.assert_allclose(flat(model, criteria.obd(model, given_, mse_loss)), ggn * w**2 / 2, atol=1e-12)
    fisher = reference.fisher(model, given_, mse_loss).diagonal().numpy()
    found = flat(model, criteria.obd(model, given_, mse_loss, diagonal="fisher", gradient=True))
    g = signals.gradient(model, given_, mse_loss).numpy()
    np.testing.assert_allclose(found, fisher * w**2 / 2 - g * w, atol=1e-12)
    with pytest.raises(ValueError, match="unknown diagonal 'full'"):
        criteria.obd(model, given_, mse_loss, diagonal="full")


@pytest.mark.parametrize("levenberg", [False, True])
def test_lecuns_recursion_is_the_loop(levenberg):
    model, given_ = chain(), data()
    arrays = {name: p.detach().numpy() for name, p in model.named_parameters()}
    sigmoid = (
        reference_sigmoid := lambda a: 1 / (1 + np.exp(-a)),
        lambda a: reference_sigmoid(a) * (1 - reference_sigmoid(a)),
        lambda a: reference_sigmoid(a) * (1 - reference_sigmoid(a)) * (1 - 2 * reference_sigmoid(a)),
    )
    layers = [(arrays["0.weight"], arrays["0.bias"]), TANH, (arrays["2.0.weight"], arrays["2.0.bias"]), sigmoid]
    layers.append((arrays["3.weight"], arrays["3.bias"]))
    totals = 0.0
    for x, y in zip(given_.x, given_.y, strict=True):
        error = (model(x) - y).detach().numpy()
        totals = totals + np.concatenate(
            [h.flatten() for h in reversed(reference.lecun(layers, x.numpy(), [1.0, 1.0], error, levenberg))]
        )
    h = signals_recursion(model, given_, levenberg)
    np.testing.assert_allclose(h, totals / len(given_.x), rtol=1e-10)
    exact = signals.hessian_diagonal(model, given_, mse_loss).numpy()
    np.testing.assert_allclose(h[-6:], exact[-6:], rtol=1e-10)
    assert levenberg or not np.allclose(h, exact)
    if levenberg:
        assert (h >= 0).all()


def signals_recursion(model, given_, levenberg):
    from pared.signals.recursion import backward_diagonal

    return backward_diagonal(model, given_, mse_loss, levenberg).numpy()


def test_lecuns_recursion_says_what_it_follows():
    with pytest.raises(CurvatureError, match=r"follows an nn.Sequential .* this is a MLP; use diagonal='ggn'"):
        criteria.obd(mlp(), batch(mlp()), mse_loss, diagonal="lecun")
    with pytest.raises(CurvatureError, match=r"follows an nn.Sequential"):
        criteria.obd(nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1)).double(), data(), mse_loss, diagonal="lecun")
    scores = criteria.obd(chain(), Batch(data().x, torch.arange(5) % 2), cross_entropy, diagonal="levenberg")
    assert min(float(s.min()) for s in scores.values()) >= 0


@pytest.mark.parametrize("matrix", ["ggn", "fisher"])
def test_obs_is_what_elimination_finds(matrix):
    model, given_ = chain(), data(40)
    whole = (
        reference.ggn(model, given_, "mse") if matrix == "ggn" else reference.fisher(model, given_, mse_loss)
    ).numpy()
    whole = whole + 1e-2 * np.mean(np.diag(whole)) * np.eye(len(whole))
    w, g = weights_of(model), signals.gradient(model, given_, mse_loss).numpy()
    found = flat(model, criteria.obs(model, given_, mse_loss, matrix=matrix, damping=1e-2))
    np.testing.assert_allclose(found, [reference.removal(whole, w, [q])[0] for q in range(len(w))], rtol=1e-10)
    found = flat(model, criteria.obs(model, given_, mse_loss, matrix=matrix, damping=1e-2, gradient=True))
    np.testing.assert_allclose(
        found, [reference.removal(whole, w, [q], g)[0] for q in range(len(w))], rtol=1e-10, atol=1e-12
    )
    with pytest.raises(ValueError, match="unknown matrix"):
        criteria.obs(model, given_, mse_loss, matrix="full")
    with pytest.raises(CurvatureError, match="indefinite"):
        criteria.obs(model, given_, mse_loss, matrix="hessian")


@given(st.integers(0, 999), st.integers(1, 4), st.booleans())
@settings(max_examples=25, deadline=None)
def test_oracle_1_obs_on_a_quadratic(seed, count, sloped):
    """The predicted increase is the actual one, what goes is exactly zero, and no other shift does better."""
    generator = np.random.default_rng(seed)
    rows, w = generator.standard_normal((9, 6)), generator.standard_normal(6)
    h, g = rows.T @ rows, generator.standard_normal(6) if sloped else None
    gone = generator.permutation(6)[:count].tolist()
    increase, shift = obs_step(
        torch.from_numpy(w), torch.from_numpy(np.linalg.inv(h)), gone, None if g is None else torch.from_numpy(g)
    )
    shift = shift.numpy()
    assert ((w + shift)[gone] == 0).all()
    actual = (0 if g is None else g @ shift) + shift @ h @ shift / 2
    assert increase == pytest.approx(actual, rel=1e-7, abs=1e-9)
    expected, best = reference.removal(h, w, gone, g)
    assert increase == pytest.approx(expected, rel=1e-7, abs=1e-9)
    np.testing.assert_allclose(shift, best, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("block", [None, 7])
def test_woodfisher_is_woodburys_recursion_block_by_block(block):
    model, given_ = chain(), data(12)
    w, size = weights_of(model), prunable(model).size
    rows = signals.fisher_factor(model, given_, mse_loss).numpy() * np.sqrt(12)
    g = signals.gradient(model, given_, mse_loss).numpy()
    plain, sloped = [], []
    for start in range(0, size, block or size):
        span = slice(start, start + (block or size))
        inverse = reference.woodbury(rows[:, span], 1e-2)
        plain += list(w[span] ** 2 / (2 * np.diag(inverse)))
        free = inverse @ g[span]
        sloped += list((w[span] - free) ** 2 / (2 * np.diag(inverse)) - g[span] @ free / 2)
    found = flat(model, criteria.woodfisher(model, given_, mse_loss, damping=1e-2, block=block))
    np.testing.assert_allclose(found, plain, rtol=1e-10)
    found = flat(model, criteria.woodfisher(model, given_, mse_loss, damping=1e-2, block=block, gradient=True))
    np.testing.assert_allclose(found, sloped, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="damping must be positive"):
        criteria.woodfisher(model, given_, mse_loss, damping=0.0)


@pytest.mark.parametrize("matrix", ["ggn", "fisher"])
def test_the_recursion_over_samples_arrives_at_the_inverse(matrix):
    model, given_ = chain(), data(40)
    whole = (
        reference.ggn(model, given_, "mse") if matrix == "ggn" else reference.fisher(model, given_, mse_loss)
    ).numpy()
    ridge = 1e-2 * np.mean(np.diag(whole))
    found = signals.recursive_inverse(model, given_, mse_loss, 1e-2, matrix == "fisher").numpy()
    np.testing.assert_allclose(found, np.linalg.inv(whole + ridge * np.eye(len(whole))), rtol=1e-10, atol=1e-9)
    rows = (signals.fisher_factor if matrix == "fisher" else signals.ggn_factor)(model, given_, mse_loss).numpy()
    one_by_one = reference.woodbury(rows * np.sqrt(len(rows)), ridge)
    np.testing.assert_allclose(found, one_by_one, rtol=1e-10, atol=1e-9)
    plain, recursive = (
        flat(model, criteria.obs(model, given_, mse_loss, matrix=matrix, damping=1e-2, recursive=r))
        for r in (False, True)
    )
    np.testing.assert_allclose(recursive, plain, rtol=1e-10)


def test_the_recursion_says_what_it_needs():
    with pytest.raises(ValueError, match="no sum over samples' rows"):
        criteria.obs(chain(), data(), mse_loss, matrix="hessian", recursive=True)
    with pytest.raises(CurvatureError, match="both must be positive; got 0 and"):
        criteria.obs(chain(), data(), mse_loss, damping=0.0, recursive=True)


def near_minimum(model, given_):
    """Targets that the network nearly meets, so that the exact Hessian is nearly positive."""
    return given_._replace(y=(model(given_.x) + 1e-3 * given_.y).detach())


@pytest.mark.parametrize("role", [None, "out", "in"])
@pytest.mark.parametrize(("make", "matrix"), [(mlp, "ggn"), (mlp, "hessian"), (forecaster_of_two, "fisher")])
def test_group_obs_removes_all_of_a_units_weights_at_once(make, matrix, role):
    model = make()
    given_ = near_minimum(model, batch(model, 8))
    whole = {
        "ggn": lambda: reference.ggn(model, given_, "mse"),
        "fisher": lambda: reference.fisher(model, given_, mse_loss),
        "hessian": lambda: reference.hessian(model, given_, mse_loss),
    }[matrix]().numpy()
    whole = whole + 1e-1 * np.mean(np.diag(whole)) * np.eye(len(whole))
    w, structure = weights_of(model), trace(model, given_.x[:1])
    scores = criteria.group_obs(model, given_, mse_loss, matrix=matrix, damping=1e-1, role=role)
    assert scores.keys() == {group.name for group in structure}
    for group in structure:
        for j, places in enumerate(reference.unit_weights(model, group, role)):
            p = np.linalg.inv(whole)[np.ix_(places, places)]
            formula = w[places] @ np.linalg.inv(p) @ w[places] / 2
            assert float(scores[group.name][j]) == pytest.approx(formula, rel=1e-10)
            assert float(scores[group.name][j]) == pytest.approx(reference.removal(whole, w, places)[0], rel=1e-10)


def test_group_obs_with_the_gradient_and_its_shift():
    """What a score foretells is what the quadratic model gives at the weights that `refit_weights` finds."""
    model = mlp()
    given_ = near_minimum(model, batch(model, 40))
    structure = trace(model, given_.x)
    w, g = weights_of(model), signals.gradient(model, given_, mse_loss).numpy()
    for matrix in ("ggn", "fisher", "hessian"):
        h = {"ggn": signals.ggn, "fisher": signals.fisher, "hessian": signals.hessian}[matrix]
        h = h(model, given_, mse_loss).numpy()
        ridge = 1e-2 * np.mean(np.diag(h))
        h = h + ridge * np.eye(len(h))
        scores = criteria.group_obs(model, given_, mse_loss, matrix=matrix, damping=1e-2, gradient=True)
        plan = Plan({"first": (0, 1, 3)})
        masks = unit_masks(model, structure, plan, None)
        found = refit_weights(model, given_, mse_loss, masks, matrix=matrix, ridge=ridge, first_order=True)
        shift = weights_of(found.model) - w
        assert float(scores["first"][2]) == pytest.approx(g @ shift + shift @ h @ shift / 2, rel=1e-10)
        small = cut(found.model, structure, plan)
        torch.testing.assert_close(small(given_.x), found.model(given_.x), rtol=1e-12, atol=1e-12)


def test_unit_masks_close_what_makes_and_reads_a_unit():
    model = mlp()
    structure = trace(model, batch(model).x)
    plan = Plan({"first": (0, 2)})
    masks = unit_masks(model, structure, plan, None)
    assert masks.keys() == prunable(model).shapes.keys()
    assert masks["first.weight"].all(dim=1).tolist() == [True, False, True, False]
    assert masks["second.weight"].all(dim=0).tolist() == [True, False, True, False]
    assert masks["last.weight"].all()
    reading = unit_masks(model, structure, plan)
    assert reading["first.weight"].all()
    assert torch.equal(reading["second.weight"], masks["second.weight"])
    with pytest.raises(StructureError, match="keep at least one"):
        unit_masks(model, structure, Plan({"first": ()}))
    for call in (
        lambda: unit_masks(model, structure, plan, "both"),
        lambda: criteria.group_obs(model, batch(model), mse_loss, role="both"),
        lambda: by_unit(criteria.magnitude(model, batch(model), mse_loss), structure, "both"),
    ):
        with pytest.raises(ValueError, match="a role is 'in' or 'out', or None for both; got 'both'"):
            call()


def test_group_obs_of_a_network_too_large_names_what_to_use(monkeypatch):
    monkeypatch.setattr("pared.signals.curvature.DENSE_BYTES", 10_000)
    model = mlp()
    with pytest.raises(CurvatureError, match=r"67 weights needs 0\.0 GiB .* use least_squares \(units, one small"):
        criteria.group_obs(model, batch(model), mse_loss)
    with pytest.raises(ValueError, match="unknown matrix 'gnn'"):
        criteria.group_obs(model, batch(model), mse_loss, matrix="gnn")
