"""Weights that make up for others: against elimination, all subsets, and the optimality of convex programs."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import reference_belsley
import reference_curvature as reference
from kinds import KINDS
from networks import batch, forecaster, mlp, snapshot, unchanged
from pared import criteria, select_weights
from pared.criteria.nettrim import net_trim_layer
from pared.criteria.sparse import hard_thresholding, increase, on_support
from pared.reconstruct import chita, net_trim, refit_layers, refit_weights, sparse_gpt, surgeon
from pared.signals import plain_parameters, prunable
from pared.signals.curvature import fisher, ggn, gradient
from pared.signals.layers import input_grams
from pared.types import Batch


def flat(model):
    return prunable(model).flat(plain_parameters(model)).numpy()


def taught(make, samples=40):
    """A network and data that another one made."""
    model = make()
    data = batch(model, samples)
    with torch.no_grad():
        y = make(1)(data.x)
    return model, Batch(data.x, y)


def test_surgeon_of_one_round_is_the_path_of_the_posterior():
    model, data = taught(mlp)
    precision = 40 * ggn(model, data, mse_loss).numpy() + 0.5 * np.eye(67)
    for share in (0.0, 0.1):
        before = snapshot(model)
        found = surgeon(model, data, mse_loss, 0.3, share=share, prior=0.5, rounds=1)
        unchanged(before, model)
        _, means = reference_belsley.surgeon(flat(model), np.linalg.inv(precision), share)
        np.testing.assert_allclose(flat(found.model), means[19], atol=1e-10)
        for name, mask in found.masks.items():
            assert (found.model.get_parameter(name)[~mask] == 0).all()


def test_rounds_take_the_rest_anew():
    model, data = taught(mlp)
    one, many = (surgeon(model, data, mse_loss, 0.7, rounds=rounds) for rounds in (1, 10))
    for found in (one, many):
        assert sum(int((~m).sum()) for m in found.masks.values()) == 47
    assert float(mse_loss(many.model(data.x), data.y)) < float(mse_loss(one.model(data.x), data.y))
    with pytest.raises(ValueError, match="a ratio lies between 0 and 1"):
        surgeon(model, data, mse_loss, 1.0)


@pytest.mark.parametrize("matrix", ["ggn", "fisher"])
@pytest.mark.parametrize("first_order", [False, True])
def test_refitted_weights_are_the_elimination(matrix, first_order):
    model, data = taught(mlp)
    whole = (ggn if matrix == "ggn" else fisher)(model, data, mse_loss).numpy() + 1e-3 * np.eye(67)
    masks = select_weights(criteria.magnitude(model, data, mse_loss), 0.5)
    masks = {name: mask for name, mask in masks.items() if name in prunable(model).shapes}
    gone = np.flatnonzero(~prunable(model).flat(masks).numpy()).tolist()
    g = gradient(model, data, mse_loss).numpy() if first_order else None
    found = refit_weights(model, data, mse_loss, masks, matrix=matrix, ridge=1e-3, first_order=first_order)
    _, shift = reference.removal(whole, flat(model), gone, g)
    np.testing.assert_allclose(flat(found.model), flat(model) + shift, rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="unknown matrix 'hesse'"):
        refit_weights(model, data, mse_loss, masks, matrix="hesse")


def test_both_ways_to_solve_on_a_support_agree():
    generator = torch.Generator().manual_seed(0)
    rows, w = torch.randn(8, 12, generator=generator).double(), torch.randn(12, generator=generator).double()
    for kept in (3, 10):
        keep = torch.arange(12) < kept
        h = (rows.T @ rows + 0.1 * torch.eye(12).double()).numpy()
        _, shift = reference.removal(h, w.numpy(), list(range(kept, 12)), np.ones(12))
        found = on_support(rows, w, keep, 0.1, torch.ones(12).double())
        np.testing.assert_allclose(found, shift, rtol=1e-10)


@pytest.mark.parametrize("seed", range(6))
def test_hard_thresholding_beats_magnitude_and_nears_the_best_subset(seed):
    generator = torch.Generator().manual_seed(seed)
    rows, w = torch.randn(20, 8, generator=generator).double(), torch.randn(8, generator=generator).double()
    found = hard_thresholding(rows, w, 4, 0.01)
    assert int((found != 0).sum()) <= 4
    h = (rows.T @ rows + 0.01 * torch.eye(8).double()).numpy()
    best = reference.removal(h, w.numpy(), reference.best_subset(h, w.numpy(), 4))[0]
    largest = torch.zeros(8, dtype=torch.bool).index_fill(0, w.abs().argsort()[4:], True)
    plain = float(increase(rows, on_support(rows, w, largest, 0.01), 0.01))
    assert best - 1e-9 <= float(increase(rows, found - w, 0.01)) <= plain + 1e-9
    twin = reference.hard_thresholding(h, w.numpy(), 4)
    np.testing.assert_allclose(found, twin, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("stages", [1, 4])
def test_chita_keeps_as_many_weights_as_it_was_told(stages):
    model, data = mlp(), batch(mlp(), 40)
    data = Batch(data.x, (model(data.x) + 0.1 * data.y).detach())  # near a minimum
    found = chita(model, data, mse_loss, 0.6, stages=stages)
    assert sum(int(m.sum()) for m in found.masks.values()) == 67 - round(0.6 * 67)
    masks = select_weights({n: s for n, s in criteria.magnitude(model, data, mse_loss).items() if s.dim() > 1}, 0.6)
    plain = refit_weights(model, data, mse_loss, masks, matrix="fisher")
    losses = [float(mse_loss(m(data.x), data.y)) for m in (found.model, plain.model)]
    assert losses[0] < losses[1]


@pytest.mark.parametrize("network", ["mlp", "lstm", "cnn"])
def test_layers_are_refitted_row_by_row_and_lose_less(network):
    make = {"mlp": mlp, "lstm": lambda: forecaster("lstm", 0, (3, 2), (2,)), "cnn": KINDS["cnn"].build}[network]
    model = make().eval()
    data = KINDS["cnn"].batch(12) if network == "cnn" else batch(model, 30)
    masks = select_weights(criteria.obc(model, data, mse_loss), 0.5, "layer")
    before = snapshot(model)
    found, swept = refit_layers(model, data, mse_loss, masks), sparse_gpt(model, data, mse_loss, 0.5)
    unchanged(before, model)
    full = model(data.x)
    from pared import mask_weights

    plain = mask_weights(model, masks)
    apart = [float((m(data.x) - full).square().mean()) for m in (found.model, plain)]
    assert apart[0] < apart[1]
    for part in (found, swept):
        assert part.masks.keys() == masks.keys()
        for name, mask in part.masks.items():
            assert (part.model.get_parameter(name)[~mask] == 0).all()
            assert abs(float(mask.double().mean()) - 0.5) < 0.2


def net_trim_problem():
    generator = np.random.default_rng(0)
    x, w = generator.standard_normal((400, 30)), generator.standard_normal((6, 30)) * (generator.random((6, 30)) < 0.4)
    w = w + 0.02 * generator.standard_normal((6, 30))
    return (torch.from_numpy(a) for a in (x, w))


def test_net_trim_keeps_its_constraints_and_is_sparser():
    """Oracle of the reference: the sum of sizes falls, the bound is met and active, silent outputs stay below zero."""
    x, w = net_trim_problem()
    y = torch.relu(x @ w.T)
    epsilon = 0.06 * float(y.norm())
    found = net_trim_layer(x, y, w, epsilon, relu=True)
    on, off = y > 0, y == 0
    assert float(found.abs().sum()) < 0.95 * float(w.abs().sum())
    assert int((found != 0).sum()) < 0.6 * w.numel()
    assert float((x @ found.T - y)[on].norm()) == pytest.approx(epsilon, rel=1e-2)
    assert float((x @ found.T)[off].max()) < 1e-2


def test_net_trim_is_the_convex_programs_optimum():
    """No feasible step lowers the sum of sizes: weak duality with the multiplier of the bound (no ReLU)."""
    x, w = net_trim_problem()
    y = x @ w.T
    epsilon = 0.1 * float(y.norm())
    found = net_trim_layer(x, y, w, epsilon, relu=False, steps=4000)
    slope = x.T @ (x @ found.T - y)
    live = found.T != 0
    multiplier = float((-slope[live] * found.T[live].sign()).median())
    torch.testing.assert_close(-slope[live], multiplier * found.T[live].sign(), rtol=2e-2, atol=0)
    assert float(slope[~live].abs().max()) <= multiplier * 1.02


def test_net_trim_of_a_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 2)).double()
    x = torch.randn(80, 3, dtype=torch.float64)
    before = snapshot(model)
    found = net_trim(model, Batch(x, model(x).detach()), mse_loss, gain=0.05)
    unchanged(before, model)
    error = float((found.model(x) - model(x)).norm() / model(x).norm())
    assert error < 0.3
    assert sum(int((~m).sum()) for m in found.masks.values()) > 0
    for name, mask in found.masks.items():
        assert torch.equal(mask, found.model.get_parameter(name) != 0)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_surgeon_in_rounds_is_the_path_taken_anew(share):
    model, data = taught(mlp)
    found = surgeon(model, data, mse_loss, 0.3, share=share, prior=0.5, rounds=3)
    w, left = flat(model), list(range(67))
    for count in (7, 13, 20):
        at = mlp()
        with torch.no_grad():
            for name, value in prunable(model).named(torch.from_numpy(w)).items():
                at.get_parameter(name).copy_(value)
        precision = (40 * ggn(at, data, mse_loss).numpy() + 0.5 * np.eye(67))[np.ix_(left, left)]
        order, means = reference_belsley.surgeon(w[left], np.linalg.inv(precision), share)
        going = count - (67 - len(left))
        w[left] = means[going - 1]
        left = sorted(left[k] for k in order[going:])
    np.testing.assert_allclose(flat(found.model), w, rtol=1e-8, atol=1e-10)


def test_layers_are_the_loops_over_their_rows():
    model, data = taught(mlp)
    masks = select_weights(criteria.obc(model, data, mse_loss), 0.5, "layer")
    refit, swept = refit_layers(model, data, mse_loss, masks), sparse_gpt(model, data, mse_loss, 0.5, block=2)
    for name, grams in input_grams(model, data, mse_loss).items():
        h = grams[0].numpy() + 1e-2 * np.mean(np.diag(grams[0])) * np.eye(len(grams[0]))
        w = model.get_parameter(name).detach().numpy()
        for row, (before, keep) in enumerate(zip(w, masks[name].numpy(), strict=True)):
            _, shift = reference.removal(h, before, np.flatnonzero(~keep).tolist())
            after = refit.model.get_parameter(name).detach().numpy()[row]
            np.testing.assert_allclose(after, np.where(keep, before + shift, 0.0), rtol=1e-10, atol=1e-12)
        keep, expected = reference.sparsegpt(w, h, 0.5, 2)
        assert (swept.masks[name].numpy() == keep).all()
        np.testing.assert_allclose(swept.model.get_parameter(name).detach(), expected, rtol=1e-10, atol=1e-12)


def test_chita_is_hard_thresholding_of_the_fisher_matrix():
    model, data = taught(mlp)
    found = chita(model, data, mse_loss, 0.6, ridge=1e-2)
    h = fisher(model, data, mse_loss).numpy() + 1e-2 * np.eye(67)
    expected = reference.hard_thresholding(h, flat(model), 67 - round(0.6 * 67))
    np.testing.assert_allclose(flat(found.model), expected, rtol=1e-8, atol=1e-10)
