"""The gradient noise scale: free of bias where the truth is known, and what follows from it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from diagnosable import generator
from networks import snapshot, unchanged
from pared.tuning.noise_scale import NoiseScale, batch_size_for, noise_scale, rescaled_lr
from pared.types import Batch


def problem(noise=2.0, count=4000, seed=0):
    """A linear model without bias at w = 0: the gradient of example i is -2 y_i x_i, y = x w* + noise."""
    g = generator(seed)
    x = torch.randn(count, 3, generator=g)
    y = x @ torch.tensor([[1.0], [0.5], [-0.5]]) + noise * torch.randn(count, 1, generator=g)
    model = nn.Linear(3, 1, bias=False)
    nn.init.zeros_(model.weight)
    return model, Batch(x, y)


def test_signal_and_noise_are_those_of_single_gradients():
    model, batch = problem()
    single = (-2 * batch.y * batch.x).double()
    signal, noise = float(single.mean(dim=0).square().sum()), float(single.var(dim=0).sum())
    found = [noise_scale(model, batch, draws=8, seed=seed) for seed in range(25)]
    assert np.mean([f.noise for f in found]) == pytest.approx(noise, rel=0.05)
    assert np.mean([f.signal for f in found]) == pytest.approx(signal, rel=0.1)
    assert found[0].examples == pytest.approx(found[0].noise / found[0].signal)


@pytest.mark.slow
def test_a_plain_square_of_the_large_batch_would_be_biased():
    """At pure noise |g_B|^2 is noise / B; the estimate of the signal has mean zero."""
    _, batch = problem(seed=1)
    model, batch = problem()[0], Batch(batch.x, torch.randn(len(batch.y), 1, generator=generator(2)))
    signals = [noise_scale(model, batch, draws=4, seed=seed).signal for seed in range(60)]
    of_all = float((-2 * batch.y * batch.x).mean(dim=0).square().sum())  # what the sample holds of it
    assert abs(np.mean(signals) - of_all) < 3 * np.std(signals) / np.sqrt(60)
    assert min(signals) < 0


def test_undetermined_is_said():
    assert NoiseScale(-0.1, 2.0).examples is None
    assert batch_size_for(NoiseScale(-0.1, 2.0), {8: 1.0}) is None


def test_the_model_stays_as_it_is():
    model, batch = problem(count=300)
    before, state = snapshot(model), torch.random.get_rng_state()
    assert noise_scale(model, batch, mse_loss) == noise_scale(model, batch, mse_loss)
    unchanged(before, model)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("examples", "seconds", "expected"),
    [
        (100.0, {8: 1.0, 16: 0.5, 32: 0.3, 64: 0.29, 128: 0.1}, 64),
        (100.0, {8: 0.2, 16: 0.2, 32: 0.2, 64: 0.3, 128: 0.1}, 32),
        (5.0, {8: 1.0, 16: 0.1}, 8),
        (1e9, {8: 1.0, 16: 0.5}, 16),
    ],
)
def test_the_largest_useful_batch_that_is_about_as_fast_as_any(examples, seconds, expected):
    assert batch_size_for(NoiseScale(1.0, examples), seconds) == expected


def test_the_rate_follows_the_batch():
    assert rescaled_lr(0.01, 32, 128, "sgd") == pytest.approx(0.04)
    assert rescaled_lr(0.01, 32, 128, "adam") == pytest.approx(0.02)


def test_too_few_examples_are_refused():
    model, batch = problem(count=12)
    with pytest.raises(ValueError, match="two small ones"):
        noise_scale(model, batch)
