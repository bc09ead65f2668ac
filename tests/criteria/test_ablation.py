"""Ablation against weights set to zero by hand."""

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn.functional import l1_loss, mse_loss

import reference
from networks import batch, forecaster, mlp, specs
from pared.criteria import ablation, random
from pared.surgery import trace
from pared.types import Batch

NETWORKS = {"mlp": mlp, **{cell: lambda cell=cell: forecaster(cell) for cell in ("lstm", "gru", "rnn")}}


@pytest.mark.parametrize("loss", [mse_loss, l1_loss])
@pytest.mark.parametrize("name", NETWORKS)
def test_ablation_is_the_loss_of_the_masked_network(name, loss):
    model = NETWORKS[name]()
    data = batch(model)
    scores = ablation(model, data, loss)
    for group, values in reference.ablation(model, trace(model, data.x), data, loss).items():
        assert scores[group].tolist() == pytest.approx(values, rel=1e-10, abs=1e-14)


@pytest.mark.slow
@given(specs())
@settings(max_examples=10, deadline=None)
def test_ablation_of_random_networks(spec):
    spec = spec.__class__(**{**vars(spec), "batch_first": True})
    model, x = spec.build(), spec.input()
    if not spec.recurrent and all(d.residual for d in spec.dense):
        return
    data = Batch(x, model(x).detach() + 1)
    scores = ablation(model, data, mse_loss)
    for group, values in reference.ablation(model, trace(model, x), data, mse_loss).items():
        assert scores[group].tolist() == pytest.approx(values, rel=1e-9, abs=1e-12)


def test_every_unit_meets_the_same_noise():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.b(self.a(x + torch.randn_like(x)))

    model = Noisy()
    nn.init.zeros_(model.b.weight)
    assert ablation(model, Batch(torch.ones(5, 3), torch.ones(5, 1)), mse_loss)["a"].tolist() == [0.0] * 4


def test_random_scores_follow_their_seed():
    model = mlp()
    one, two = (random(model, batch(model), mse_loss, seed=seed) for seed in (0, 1))
    assert {name: tuple(v.shape) for name, v in one.items()} == {"first": (4,), "second": (5,)}
    assert all(v.min() >= 0 and v.max() < 1 for v in one.values())
    assert not torch.equal(one["first"], two["first"])
