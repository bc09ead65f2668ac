"""`prune` from end to end on networks of the size that people bring, with a limit on its time."""

import time

import pytest
import torch
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

import pared
from networks import snapshot, unchanged
from pared.criteria import taylor
from pared.types import Batch
from zoo import MobileNetV2, ResNet18, probe


def images(count, side=32, classes=1000):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(count, 3, side, side, generator=generator), torch.randn(count, classes, generator=generator)
    return Batch(x, y)


def pruned(model, data, ratio=0.3):
    before = snapshot(model)
    small = pared.prune(model, data, ratio=ratio)
    unchanged(before, model)
    assert sum(p.numel() for p in small.parameters()) < 0.7 * sum(p.numel() for p in model.parameters())
    x = images(2).x
    assert small(x).shape == model(x).shape
    assert small(x).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: ResNet18(8, 100), lambda: MobileNetV2(0.25, 100)])
def test_prune_of_a_narrow_network_of_images(make):
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(*images(64, classes=100)), batch_size=16, shuffle=True)
    pruned(make().eval(), loader)


@pytest.mark.slow
def test_prune_of_a_whole_resnet_takes_seconds():
    """About 10 s on one thread; with gates on weights the scores of 16 samples alone took more than 200 s."""
    model, _ = probe("ResNet-18")
    start = time.perf_counter()
    pruned(model, images(512))
    assert time.perf_counter() - start < 60


def test_scores_of_many_outputs_are_made_of_few_backward_passes(monkeypatch):
    """1,000 outputs and 16 samples: 32 random sums."""
    torch.manual_seed(0)
    model, passes, plain = ResNet18(4).eval(), 0, torch.autograd.grad

    def grad(*args, **options):
        nonlocal passes
        passes += 1
        return plain(*args, **options)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    scores = taylor(model, images(16), mse_loss)
    assert passes == 32
    assert all(values.isfinite().all() and values.max() > 0 for values in scores.values())
