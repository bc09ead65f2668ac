"""Kernel ridge regression: leave-one-out predictions against refits, classes, what it cannot read."""

import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

from diagnosable import clouds, surface
from pared.tuning.losses import example_losses
from pared.tuning.reference import _fitted, reference
from pared.types import Batch


def test_left_out_predictions_are_those_of_fits_without_the_row(monkeypatch):
    monkeypatch.setattr("pared.tuning.reference.WIDTHS", (1.0,))
    monkeypatch.setattr("pared.tuning.reference.RIDGES", (0.1,))
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = x[:, :1].sin()
    left_out, _ = _fitted(x, y, x)
    distances = torch.cdist(x, x).square()
    kernel = torch.exp(-distances / (2 * distances[distances > 0].median()))
    for i in range(20):
        rest = [j for j in range(20) if j != i]
        dual = torch.linalg.solve(kernel[rest][:, rest] + 0.1 * torch.eye(19), y[rest] - y.mean())
        torch.testing.assert_close(left_out[i], kernel[i, rest] @ dual + y.mean(), rtol=1e-9, atol=1e-9)


def test_it_comes_close_to_the_noise():
    split = surface(0, noise=0.5)
    found = reference(split.train, split.validation, mse_loss)
    assert found.validation.shape == split.validation.y.shape
    assert 0.2 < example_losses(found.validation, split.validation.y, mse_loss).mean() < 0.5


def test_classes_become_logits():
    split = clouds(0)
    found = reference(split.train, split.validation, cross_entropy)
    assert found.validation.shape == (200, 3)
    assert example_losses(found.validation, split.validation.y, cross_entropy).mean() < 0.4
    assert (found.validation.argmax(dim=1) == split.validation.y).double().mean() > 0.9


@pytest.mark.parametrize(
    "batch",
    [
        Batch(torch.zeros(20, 3, dtype=torch.int64), torch.zeros(20, 1)),
        Batch(torch.randn(5, 3), torch.randn(5, 1)),
        Batch(torch.randn(20, 3), torch.randn(20, 3, 2)),
    ],
)
def test_what_it_cannot_read_it_leaves(batch):
    assert reference(batch, batch, mse_loss) is None


def test_a_single_point_many_times_is_no_obstacle():
    batch = Batch(torch.ones(20, 3), torch.randn(20, 1, generator=torch.Generator().manual_seed(0)))
    assert reference(batch, batch, mse_loss).validation.isfinite().all()
