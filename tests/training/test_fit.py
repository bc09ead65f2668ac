"""The plain training loop: against a loop by hand, deterministic, and kind to its arguments."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import l1_loss, mse_loss

from networks import snapshot, unchanged
from pared.models import Forecaster
from pared.schedules import Constant, Plateau
from pared.training import TrainConfig, fit, fit_many
from pared.training.fit import evaluate_loss, sample_orders
from pared.types import Batch
from pausing import assert_equal_fits, in_stretches


def data(samples=30, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 3, 1, generator=generator, dtype=dtype)
    return Batch(x, x[:, -1] * 0.5 + x[:, 0].square())


def split(samples=30, dtype=torch.float32):
    return SimpleNamespace(train=data(samples, 0, dtype), validation=data(12, 1, dtype))


def model(cell="gru"):
    return Forecaster(1, (4,), (), cell=cell, seed=0)


class Dropped(nn.Module):
    """A network with dropout."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, x):
        return self.layers(x)


def same(one, two):
    return one.curves == two.curves and all(
        torch.equal(a, b) for a, b in zip(one.model.state_dict().values(), two.model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("clip", [None, 0.05])
def test_sgd_is_the_loop_by_hand(clip):
    config = TrainConfig(epochs=3, lr=0.1, batch_size=8, optimiser="sgd", clip=clip, seed=4)
    parts = split(dtype=torch.float64)
    trained = fit(model().double(), parts, config)
    net, curve = model().double(), []
    for epoch, order in enumerate(sample_orders(30, config)):
        lr, losses = 0.1 * (1 + math.cos(math.pi * epoch / 3)) / 2, []
        for start in range(0, 30, 8):
            index = order[start : start + 8]
            value = mse_loss(net(parts.train.x[index]), parts.train.y[index])
            gradients = torch.autograd.grad(value, list(net.parameters()))
            norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
            factor = 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))
            with torch.no_grad():
                for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                    parameter -= lr * factor * gradient
            losses += [value.item()] * len(index)
        curve.append(float(np.mean(losses)))
    assert trained.curves["train"] == pytest.approx(curve, rel=1e-10)
    for one, two in zip(trained.model.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
    expected = float(mse_loss(trained.model(parts.validation.x), parts.validation.y))
    assert trained.curves["validation"][-1] == pytest.approx(expected, rel=1e-12)


def test_every_epoch_sees_every_sample_once_in_an_order_of_its_own():
    orders = list(sample_orders(20, TrainConfig(epochs=3, seed=1)))
    assert all(sorted(order.tolist()) == list(range(20)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 3
    again = list(sample_orders(20, TrainConfig(epochs=5, seed=1)))
    assert all(torch.equal(a, b) for a, b in zip(orders, again, strict=False))


@pytest.mark.parametrize("build", [model, Dropped])
@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_the_seed_alone_decides(build, optimiser):
    net, config = build(), TrainConfig(epochs=2, batch_size=8, optimiser=optimiser, seed=3)
    one = fit(net, split(), config)
    torch.manual_seed(99)
    torch.rand(5)
    assert same(one, fit(net, split(), config))
    assert not same(one, fit(net, split(), TrainConfig(epochs=2, batch_size=8, optimiser=optimiser, seed=4)))


class LossError(Exception):
    """What the loss raises."""


@pytest.mark.parametrize("fails", [False, True])
def test_law_1_nothing_passed_in_changes(fails):
    net = Dropped()
    net.layers[1].eval()
    net.layers[3].weight.requires_grad_(False)
    net(data().x).sum().backward()
    parts = split()
    before, rows = snapshot(net), [part.clone() for part in (*parts.train, *parts.validation)]
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()

    def loss(output, target):
        if fails:
            raise LossError
        return l1_loss(output, target)

    if fails:
        with pytest.raises(LossError):
            fit(net, parts, TrainConfig(epochs=2), loss)
    else:
        trained = fit(net, parts, TrainConfig(epochs=2), loss)
        assert trained.model is not net
        assert torch.equal(trained.model.layers[3].weight, net.layers[3].weight)
        assert trained.model.training == net.training
    unchanged(before, net)
    assert all(torch.equal(a, b) for a, b in zip(rows, (*parts.train, *parts.validation), strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_resuming_is_going_on():
    """Two halves with one optimiser state and the orders of their own seeds are what the loop by hand does."""
    parts = split(dtype=torch.float64)
    halves = [TrainConfig(epochs=2, lr=0.01, batch_size=8, schedule=Constant(), seed=seed) for seed in (1, 2)]
    first = fit(model().double(), parts, halves[0])
    kept = snapshot(first.model)
    steps = [int(s["step"]) for s in first.optimiser_state["state"].values()]
    second = fit(model().double(), parts, halves[1], resume=first)
    unchanged(kept, first.model)
    assert [int(s["step"]) for s in first.optimiser_state["state"].values()] == steps

    net = model().double()
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    for config in halves:
        for order in sample_orders(30, config):
            for index in order.split(8):
                adam.zero_grad()
                mse_loss(net(parts.train.x[index]), parts.train.y[index]).backward()
                adam.step()
    for one, two in zip(second.model.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)
    assert len(second.curves["train"]) == 2


@pytest.mark.parametrize("patience", [3, math.inf])
def test_patience_returns_the_best_epoch(patience):
    config = TrainConfig(epochs=60, lr=0.5, batch_size=8, patience=patience, schedule=Constant(), seed=0)
    trained = fit(model(), split(), config)
    curve = trained.curves["validation"]
    best = int(np.argmin(curve))
    assert len(curve) == min(best + 1 + patience, 60)
    assert best < len(curve) - 1
    assert evaluate_loss(trained.model, split().validation) == pytest.approx(curve[best], rel=1e-6)


def test_without_validation_data_there_is_no_validation_curve():
    parts = split()
    parts.validation = data(0)
    assert fit(model(), parts, TrainConfig(epochs=3)).curves["validation"] == ()


def test_divergence_stops_and_is_said():
    trained = fit(model("rnn"), split(), TrainConfig(epochs=50, lr=1e25, optimiser="sgd"))
    assert trained.diverged
    assert len(trained.curves["train"]) < 50
    assert not all(math.isfinite(curve[-1]) for curve in trained.curves.values())
    assert not fit(model(), split(), TrainConfig(epochs=1)).diverged


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "positive"),
        ({"batch_size": 0}, "positive"),
        ({"lr": 0.0}, "positive"),
        ({"optimiser": "lion"}, "unknown optimiser 'lion'; choose one of adam"),
    ],
)
def test_impossible_configurations_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**settings)


def test_an_empty_training_set_is_refused():
    parts = split()
    parts.train = Batch(parts.train.x[:0], parts.train.y[:0])
    with pytest.raises(ValueError, match="training set is empty"):
        fit(model(), parts, TrainConfig(epochs=1))


def test_evaluation_is_the_mean_over_samples_in_chunks_and_restores_the_mode():
    net = Dropped().double().train()
    net.layers[2].eval()
    batch = data(10, dtype=torch.float64)
    before = snapshot(net)
    value = evaluate_loss(net, batch, mse_loss, chunk=4)
    unchanged(before, net)
    assert value == pytest.approx(float(mse_loss(net.eval()(batch.x), batch.y)), rel=1e-12)
    assert math.isnan(evaluate_loss(net, Batch(batch.x[:0], batch.y[:0])))


def test_a_validation_loss_beyond_all_numbers_counts_as_diverged():
    assert fit(model(), split(), TrainConfig(epochs=2, lr=1e30, optimiser="sgd")).diverged


def test_resuming_takes_the_new_weight_decay_and_the_old_moments():
    first = fit(model(), split(), TrainConfig(epochs=1, batch_size=10))
    again = fit(first.model, split(), TrainConfig(epochs=1, batch_size=10, weight_decay=0.5), resume=first)
    assert again.optimiser_state["param_groups"][0]["weight_decay"] == 0.5
    assert float(again.optimiser_state["state"][0]["step"]) == 2 * 3


def test_patience_keeps_weights_and_moments_of_the_same_epoch():
    config = TrainConfig(epochs=60, lr=0.3, patience=3, batch_size=10)
    fitted = fit(model(), split(), config)
    best = 1 + int(np.argmin(fitted.curves["validation"]))
    assert best < len(fitted.curves["validation"])
    assert float(fitted.optimiser_state["state"][0]["step"]) == 3 * best


def test_patience_without_validation_data_is_refused():
    bare = SimpleNamespace(train=data(), validation=data(0))
    with pytest.raises(ValueError, match="patience"):
        fit(model(), bare, TrainConfig(epochs=1, patience=2))


def test_modes_of_submodules_are_as_they_were():
    network = Dropped().train()
    network.layers[2].eval()
    fitted = fit(network, split(), TrainConfig(epochs=1))
    assert [m.training for m in fitted.model.modules()] == [m.training for m in network.modules()]


@pytest.mark.parametrize(("samples", "size"), [(9, 1), (9, 4), (9, 8), (1, 8)])
@pytest.mark.parametrize("train", [fit, lambda *a: fit_many(*([part] for part in a))], ids=["fit", "fleet"])
def test_a_batch_of_one_that_cannot_be_normalised_is_refused_before_training(samples, size, train):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    before = snapshot(network)
    with pytest.raises(ValueError, match=f"{samples} examples in batches of {size} leave a batch of one.*batch_size"):
        train(network, split(samples), TrainConfig(epochs=1, batch_size=size))
    unchanged(before, network)


@pytest.mark.parametrize(("layers", "samples"), [
    ((nn.Flatten(), nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1)), 10),  # the last batch has two
    ((nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(3, 1)), 10),
    ((nn.Unflatten(1, (1, 3)), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(3, 1)), 9),  # three values a channel
    ((nn.Flatten(), nn.Linear(3, 1)), 9),
])  # fmt: skip
def test_batches_of_one_are_trained_where_they_can_be(layers, samples):
    found = fit(nn.Sequential(*layers), split(samples), TrainConfig(epochs=1, batch_size=8))
    assert not found.diverged


@pytest.mark.parametrize("patience", [None, 2])
@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_a_training_that_pauses_comes_to_the_same_bits(patience, optimiser):
    lr = 0.3 if optimiser == "adam" else 0.1
    plateau = Plateau(1.0, patience=1)
    config = TrainConfig(epochs=12, lr=lr, batch_size=7, optimiser=optimiser, patience=patience, plateau=plateau)
    parts = split()
    for start in (Dropped(), model()):
        left_alone = fit(start, parts, config)
        assert left_alone.states["lr"][2] > 0
        before = torch.get_rng_state()
        assert_equal_fits(in_stretches(fit, start, parts, config), left_alone)
        assert torch.equal(torch.get_rng_state(), before)
