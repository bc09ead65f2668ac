"""The first steps looked at closely: those that `fit` takes, and gradients layer by layer and step by step."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from diagnosable import surface
from networks import snapshot, unchanged
from pared.models import MLP, Forecaster
from pared.signals.profile import gradient_profile
from pared.training import TrainConfig, fit
from pared.tuning.watch import watch
from pared.types import Batch


def test_the_gradient_of_every_hidden_layer_is_autograds():
    model, batch = MLP(4, (6, 5, 3), seed=0), surface(0).train
    h, hidden = batch.x, []
    for layer in model.layers:
        h = layer(h)
        if isinstance(layer, nn.Tanh):
            hidden.append(h)
    gradients = torch.autograd.grad(mse_loss(h, batch.y), hidden)
    found = gradient_profile(model, batch, mse_loss)
    assert found.depth == pytest.approx([float(g.norm()) for g in gradients], rel=1e-5)
    assert found.time == ()


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_the_gradient_of_every_state_is_autograds(cell):
    """A state's gradient counts all the ways on, the later states among them."""
    model = Forecaster(1, (3,), (), cell=cell, seed=0)
    g = torch.Generator().manual_seed(1)
    batch = Batch(torch.randn(7, 5, 1, generator=g), torch.randn(7, 1, generator=g))
    layer, head = model.recurrent[0], model.head
    state, states = None, []
    for t in range(5):
        _, state = layer(batch.x[:, t : t + 1], state)
        if cell == "lstm":
            h = state[0].requires_grad_()
            state = (h, state[1])
        else:
            h = state
        states.append(h)
    gradients = torch.autograd.grad(mse_loss(head(states[-1][0]), batch.y), states[:-1], allow_unused=True)
    assert gradient_profile(model, batch, mse_loss).time == pytest.approx(
        [float(g.norm()) for g in gradients], rel=1e-5
    )


def test_sigmoids_vanish_and_large_weights_explode():
    batch = surface(0).train
    deep = MLP(4, (16,) * 8, activation="sigmoid", seed=0)
    profile = gradient_profile(deep, batch, mse_loss)
    assert profile.depth[0] < 1e-3 * profile.depth[-1]
    wide = MLP(4, (64,) * 6, activation="relu", seed=0)
    with torch.no_grad():
        for layer in wide.layers:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(8.0)
    profile = gradient_profile(wide, batch, mse_loss)
    assert profile.depth[0] > 1e2 * profile.depth[-1]


@pytest.mark.parametrize("clip", [None, 0.1])
def test_the_steps_are_those_that_fit_takes(clip):
    """Losses of the first epoch average to the first point of the curve."""
    split, model = surface(0), MLP(4, (8,), seed=0)
    config = TrainConfig(epochs=5, lr=1e-2, batch_size=50, clip=clip, seed=3)
    before, state = snapshot(model), torch.random.get_rng_state()
    found = watch(model, split.train, config, steps=12)
    unchanged(before, model)
    assert torch.equal(torch.random.get_rng_state(), state)
    curve = fit(model, split, config).curves["train"]
    assert np.mean(found.losses[:8]) == pytest.approx(curve[0], rel=1e-5)
    assert len(found.losses) == len(found.norms) == 12
    assert set(found.updates) == {"layers.0.weight", "layers.2.weight"}
    assert all(1e-4 < ratio < 1 for ratio in found.updates.values())


def test_it_ends_where_the_loss_is_no_number():
    split = surface(0)
    found = watch(MLP(4, (8,), activation="relu", seed=0), split.train, TrainConfig(lr=1e6, optimiser="sgd"))
    assert len(found.losses) < 200
    assert not np.isfinite(found.losses[-1])
