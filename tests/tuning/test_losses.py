"""Losses example by example, the standard error of values in a row, effects of changes."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, huber_loss, mse_loss

from pared.tuning.losses import Effect, effect, example_losses, mean_of


@pytest.mark.parametrize("loss", [mse_loss, huber_loss])
def test_losses_of_numbers_are_those_of_one_example_at_a_time(loss):
    out, y = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(0))
    expected = [float(loss(out[i : i + 1], y[i : i + 1])) for i in range(7)]
    assert example_losses(out, y, loss) == pytest.approx(expected, rel=1e-6)


def test_losses_of_classes_average_to_the_loss_of_the_batch():
    g = torch.Generator().manual_seed(0)
    out, y = torch.randn(9, 4, generator=g), torch.randint(4, (9,), generator=g)
    assert example_losses(out, y, cross_entropy).mean() == pytest.approx(float(cross_entropy(out, y)), rel=1e-6)


def test_a_loss_that_looks_at_values_is_called_example_by_example():
    def looks(out, y):
        return (out - y).abs().mean() if float(out.sum()) > 0 else mse_loss(out, y)

    out, y = torch.tensor([[1.0], [-2.0]]), torch.zeros(2, 1)
    assert example_losses(out, y, looks).tolist() == [1.0, 4.0]


def test_the_standard_error_of_independent_values_is_the_usual_one():
    values = np.random.default_rng(3).normal(size=400)
    mean, error = mean_of(values)
    assert mean == values.mean()
    assert error == pytest.approx(values.std(ddof=1) / 20, rel=0.1)


def test_values_that_last_have_a_wider_error():
    """x_t = 0.9 x_{t-1} + e: the mean of n values has deviation sd(e) / (0.1 sqrt(n))."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(30):
        x = [0.0]
        for e in rng.normal(size=2000):
            x.append(0.9 * x[-1] + e)
        found.append(mean_of(np.array(x[1:])).error)
    assert np.mean(found) == pytest.approx(10 / math.sqrt(2000), rel=0.25)


def test_one_value_tells_nothing():
    assert mean_of(np.array([2.0])) == (2.0, math.inf)


def test_an_effect_needs_agreement_over_examples_and_seeds():
    rng = np.random.default_rng(0)
    before = [rng.normal(2.0, 0.1, 200) for _ in range(3)]
    assert effect(before, [losses - 0.5 for losses in before]).helps(0.1)
    assert not effect(before, [losses - 0.01 for losses in before]).helps(0.1)  # beyond chance, but too small
    of_one_seed = [before[0] - 3.0, before[1] + 0.2, before[2] + 0.2]
    assert not effect(before, of_one_seed).helps(0.1)
    of_few_examples = [losses - 100.0 * (np.arange(200) == 7) for losses in before]
    assert not effect(before, of_few_examples).helps(0.1)


def test_divergence_is_the_worst_and_the_end_of_it_the_best():
    sound, broken = np.ones(5), np.full(5, np.inf)
    assert effect([sound], [broken]).gain == -math.inf
    assert effect([broken], [sound]).helps(0.1)
    assert not effect([broken], [broken]).helps(0.0)
    assert Effect(0.0, 0.0, 0.0).share == 0.0
