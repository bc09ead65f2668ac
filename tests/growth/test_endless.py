"""Boltzmann machines in training, and one that grows on the way."""

import math

import pytest
import torch

from networks import snapshot, unchanged
from pared.data import bars_and_stripes
from pared.growth import UnitByUnit, beyond, fit_endless, with_unit
from pared.models import RBM, OrderedRBM, log_likelihood
from pared.models.rbm import states
from pared.training import ContrastiveConfig, contrast, fit_contrastive
from pared.types import DataError

SEEN = states(4)[[0, 0, 15, 15, 15, 1]]
"""Three pictures, as likely as 2, 3 and 1 in six."""
SHORT = ContrastiveConfig(updates=6, batch_size=4, chains=5, seed=3)


def surprise(model, x):
    return -log_likelihood(model, x).mean().item()


def test_bars_and_stripes_are_all_there():
    pictures = bars_and_stripes(4)
    assert pictures.shape == (30, 16)
    assert len(pictures.unique(dim=0)) == 30
    grid = pictures.view(-1, 4, 4)
    assert ((grid == grid[:, :1]).all((1, 2)) | (grid == grid[:, :, :1]).all((1, 2))).all()


@pytest.mark.parametrize("chains", [0, 20])
@pytest.mark.parametrize("kind", [RBM, OrderedRBM])
def test_the_data_become_more_probable(kind, chains):
    model = kind(4, 6).double()
    config = ContrastiveConfig(updates=250, lr=0.2, batch_size=6, chains=chains, gibbs=2)
    fit = fit_contrastive(model, SEEN, config)
    best = math.log(6) - (2 * math.log(2) + 3 * math.log(3)) / 6
    assert best < surprise(fit.model, SEEN) < surprise(model, SEEN) - 0.5
    assert len(fit.particles) == chains


def test_with_the_machines_own_samples_the_gradient_is_that_of_the_likelihood():
    """Every state as often as it is probable: weights whose probabilities are eighths."""
    model, seen = RBM(2, 1).double(), states(2)[:1]
    with torch.no_grad():
        model.weight.zero_()
        model.visible_bias.copy_(torch.tensor([math.log(3.0), 0.0], dtype=torch.float64))
    made_up = states(2)[[0, 1, 2, 2, 2, 3, 3, 3]]
    torch.testing.assert_close(log_likelihood(model, states(2)).exp() * 8, torch.tensor([1.0, 1, 3, 3]).double())
    contrast(model, seen, made_up).backward()
    ours = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    (-log_likelihood(model, seen).mean()).backward()
    for one, p in zip(ours, model.parameters(), strict=True):
        torch.testing.assert_close(one, p.grad, rtol=0, atol=1e-10)


def test_training_leaves_its_arguments_alone_and_goes_on():
    model, x = RBM(4, 3).double(), bars_and_stripes(2)
    before, random = snapshot(model), torch.get_rng_state()
    one, two = (fit_contrastive(model, x, SHORT) for _ in range(2))
    unchanged(before, model)
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(one.model.weight, two.model.weight)
    more = fit_contrastive(model, x, SHORT, one)
    assert int(more.optimiser_state["state"][0]["step"]) == 12
    assert torch.equal(one.model.weight, two.model.weight)


def test_a_unit_more_changes_no_probability_and_learns():
    model = OrderedRBM(4, 3, beta=1.3, seed=1).double()
    with torch.no_grad():
        model.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    large, v = with_unit(model), states(4)
    assert large.weight.shape == (4, 4)
    torch.testing.assert_close(large(v), model(v), rtol=0, atol=1e-12)
    assert beyond(large, v) == pytest.approx(beyond(model, v) * 2 ** (1 - 1.3), rel=1e-12)
    large(v[1:]).mean().backward()
    assert large.weight.grad[3].all()


def test_it_grows_while_the_next_unit_is_probable():
    x, model = SEEN, OrderedRBM(4, 1, beta=1.3).double()
    before = snapshot(model)
    config = ContrastiveConfig(updates=200, lr=0.1, batch_size=6, chains=20)
    fit = fit_endless(model, x, config, UnitByUnit(every=5, probable=0.2))
    unchanged(before, model)
    assert fit.units == tuple(sorted(fit.units))
    assert 3 < fit.units[-1] < 50
    assert surprise(fit.model, x) < surprise(model, x) - 0.3
    never = fit_endless(model, x, SHORT, UnitByUnit(every=2, up_to=1))
    assert never.units == (1, 1, 1)
    again = fit_endless(model, x, config, UnitByUnit(every=5, probable=0.2))
    assert torch.equal(fit.model.weight, again.model.weight)


def test_what_cannot_be_learnt_is_refused():
    x = bars_and_stripes(2)
    with pytest.raises(DataError, match=r"\(samples, 3\), at least one; got \(6, 4\)"):
        fit_contrastive(RBM(3, 2), x)
    with pytest.raises(DataError, match="0 or 1"):
        fit_contrastive(RBM(4, 2), x / 2)
    with pytest.raises(ValueError, match="only an endless machine"):
        fit_endless(OrderedRBM(4, endless=False), x)
    with pytest.raises(ValueError, match="must be positive"):
        ContrastiveConfig(updates=0)
    with pytest.raises(ValueError, match="a share below 1"):
        UnitByUnit(probable=1.0)
    with pytest.raises(ValueError, match="2 to 10 rows"):
        bars_and_stripes(1)
