"""The learning-rate range test: against a loop by hand, kind to its model, sensible in its advice."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

from diagnosable import surface
from networks import snapshot, unchanged
from pared.models import MLP
from pared.training import TrainConfig, fit
from pared.training.fit import sample_orders
from pared.tuning import range_test
from pared.tuning.range_test import _smoothed

CONFIG = TrainConfig(batch_size=50, seed=4)


def model(seed=0):
    return MLP(4, (16,), seed=seed)


def test_losses_are_those_of_a_loop_by_hand():
    split, config = surface(0), TrainConfig(batch_size=100, optimiser="sgd", epochs=3, seed=4)
    found = range_test(model(), split.train, config, low=1e-4, high=1e-1, steps=8, seeds=1, smooth=1.0, explosion=1e9)
    net, fresh, losses, without, orders = model(), model(), [], [], list(sample_orders(400, config))
    for rate, index in zip(np.geomspace(1e-4, 1e-1, 8), torch.cat(orders).split(100), strict=False):
        value = mse_loss(net(split.train.x[index]), split.train.y[index])
        gradients = torch.autograd.grad(value, list(net.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter -= rate * gradient
        losses.append(value.item())
        without.append(mse_loss(fresh(split.train.x[index]), split.train.y[index]).item())
    assert found.smoothed[0] == pytest.approx(np.array(losses) - without + np.mean(without), rel=1e-5)


def test_smoothing_is_a_running_mean_without_bias():
    losses = [4.0, 2.0, 3.0]
    expected = [4.0, (0.1 * 0.9 * 4 + 0.1 * 2) / 0.19, (0.081 * 4 + 0.09 * 2 + 0.1 * 3) / 0.271]
    assert _smoothed(np.array(losses), 0.1, 1e9) == pytest.approx(expected)
    assert len(_smoothed(np.array([1.0, 1.0, 100.0, 1.0]), 1.0, 4.0)) == 3


def test_model_and_random_state_stay_as_they_are():
    net, before, state = model(), snapshot(model()), torch.random.get_rng_state()
    before = snapshot(net)
    first = range_test(net, surface(0).train, CONFIG)
    unchanged(before, net)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert range_test(net, surface(0).train, CONFIG) == first


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_its_suggestion_trains_and_ten_times_the_lowest_does_not(optimiser):
    split, net = surface(0, noise=0.1), model()
    config = TrainConfig(epochs=20, batch_size=50, optimiser=optimiser)
    found = range_test(net, split.train, config)
    assert found.suggestion == min(found.steepest, found.lowest / 10)
    good, bad = (
        fit(net, split, TrainConfig(epochs=20, lr=lr, batch_size=50, optimiser=optimiser)).curves["validation"][-1]
        for lr in (found.suggestion, 10 * found.lowest)
    )
    assert good < 0.9
    assert not bad < 2 * good


def test_where_nothing_falls_there_is_no_suggestion():
    split = surface(0)
    flat = copy.deepcopy(split)
    flat.train = flat.train._replace(y=torch.zeros_like(flat.train.y))
    net = model()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert range_test(net, flat.train, CONFIG).suggestion is None


@pytest.mark.parametrize("wrong", [{"steps": 2}, {"seeds": 0}, {"low": 1.0, "high": 0.1}, {"low": 0.0}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match="a range test needs"):
        range_test(model(), surface(0).train, CONFIG, **wrong)
