"""Dense stacks, classes and gradient descent in the compiled kernel, against autograd and the plain loop."""

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from pared.models import MLP, Forecaster
from pared.surgery import drop_layer
from pared.training import kernel
from pared.training.engines import engine_of
from pared.training.fit import TrainConfig, evaluate_loss, fit
from pared.training.fleet import predict_many
from pared.training.stacks import stack_of
from pared.types import Batch

pytest.importorskip("numba")
trains = pytest.mark.slow  # the fast suite trains dense stacks in test_fleet, where the kernel is compiled already

SHAPES = [(13, (39,), 1, "tanh"), (13, (13,), 3, "sigmoid"), (5, (7, 6), 2, "relu"), (1, (1, 1, 2), 1, "tanh")]


def draw(samples, inputs, outputs, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, inputs, generator=generator)
    y = torch.tanh(x.sum(1, keepdim=True) * torch.arange(1, outputs + 1)) + 0.3 * x[:, :1] ** 2
    return Batch(x, y.argmax(1) if classes else y)


def member(shape, classes, samples=320):
    inputs, widths, outputs, activation = shape
    split = SimpleNamespace(
        train=draw(samples, inputs, outputs, classes), validation=draw(70, inputs, outputs, classes, seed=1)
    )
    return MLP(inputs, widths, outputs, activation, seed=3), split, cross_entropy if classes else mse_loss


def curves(result):
    return np.array([*result.curves["train"], *result.curves["validation"]])


def assert_agree(one, other, tolerance=1e-5):
    np.testing.assert_allclose(curves(one), curves(other), rtol=tolerance)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max() + 1e-7


@trains
@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_is_that_of_autograd(shape, classes):
    model, split, loss = member(shape, classes, samples=100)
    twin = copy.deepcopy(model).double()
    y = split.train.y if classes else split.train.y.double()
    loss(twin(split.train.x.double()), y).backward()
    step = kernel.fit(model, split, TrainConfig(epochs=1, batch_size=100), loss)
    largest = max(parameter.grad.abs().max() for parameter in twin.parameters())
    for parameter, entry in zip(twin.parameters(), step.optimiser_state["state"].values(), strict=True):
        assert (entry["exp_avg"].double() / 0.1 - parameter.grad).abs().max() <= 1e-5 * largest
    assert step.curves["train"][0] == pytest.approx(evaluate_loss(model, split.train, loss), rel=1e-6, abs=1e-7)


@trains
@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_losses_over_200_steps_agree_with_the_loop(shape, classes):
    model, split, loss = member(shape, classes)
    config = TrainConfig(epochs=40, lr=3e-3)
    one, other = kernel.fit(model, split, config, loss), fit(model, split, config, loss)
    np.testing.assert_allclose(curves(one), curves(other), rtol=1e-4, atol=1e-6)


@trains
@pytest.mark.parametrize(
    "change",
    [
        {"weight_decay": 0.05, "optimiser": "adamw"},
        {"optimiser": "sgd", "weight_decay": 0.05},
        {"optimiser": "sgd", "clip": 0.05},
        {"patience": 2, "lr": 0.1},
        {"batch_size": 7},
    ],
    ids=str,
)
def test_configurations_agree_with_the_loop(change):
    model, split, loss = member(SHAPES[1], classes=True, samples=150)
    config = replace(TrainConfig(epochs=6, lr=1e-2), **change)
    one, other = kernel.fit(model, split, config, loss), fit(model, split, config, loss)
    assert_agree(one, other)
    assert one.optimiser_state["param_groups"] == other.optimiser_state["param_groups"]
    assert one.optimiser_state["state"].keys() == other.optimiser_state["state"].keys()
    again = replace(config, seed=5)
    assert_agree(kernel.fit(model, split, again, loss, resume=other), fit(model, split, again, loss, resume=one), 1e-4)


@trains
@given(
    inputs=st.integers(1, 9),
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    outputs=st.integers(1, 5),
    activation=st.sampled_from(["tanh", "relu", "sigmoid"]),
    samples=st.integers(1, 70),
    classes=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_any_shape_agrees_with_the_loop(inputs, widths, outputs, activation, samples, classes):
    model, split, loss = member((inputs, widths, outputs, activation), classes, samples)
    config = TrainConfig(epochs=2, batch_size=33, lr=1e-3)
    one, other = kernel.fit(model, split, config, loss), fit(model, split, config, loss)
    np.testing.assert_allclose(curves(one), curves(other), rtol=1e-5, atol=1e-6)
    (found,) = predict_many([one.model], split.validation.x)
    torch.testing.assert_close(found, one.model(split.validation.x).detach(), rtol=1e-5, atol=2e-6)


@trains
def test_a_recurrent_network_learns_classes():
    x = torch.randn(150, 4, 1, generator=torch.Generator().manual_seed(0))
    batch = Batch(x, (x.sum(1)[:, 0] > 0).long())
    model, split = (
        Forecaster(1, (5,), (), outputs=2, cell="rnn", seed=0),
        SimpleNamespace(train=batch, validation=batch),
    )
    config = TrainConfig(epochs=5)
    assert_agree(kernel.fit(model, split, config, cross_entropy), fit(model, split, config, cross_entropy))


@trains
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_divergence_ends_training_as_in_the_loop(value):
    for classes in (False, True):
        model, split, loss = member(SHAPES[1], classes)
        split.train.x[17] = value
        one, other = (engine(model, split, TrainConfig(epochs=3), loss) for engine in (kernel.fit, fit))
        assert one.diverged
        assert other.diverged
        assert len(one.curves["train"]) == len(other.curves["train"]) == 1


def test_data_that_do_not_suit_are_refused():
    model, split, _ = member(SHAPES[1], classes=True)
    assert kernel.reads(model, split, cross_entropy)
    assert not kernel.reads(model, split, mse_loss)
    wide = SimpleNamespace(train=Batch(torch.zeros(5, 14), split.train.y[:5]), validation=split.validation)
    with pytest.raises(ValueError, match=r"\(5, 14\) and y \(5,\)"):
        kernel.fit(model, wide, TrainConfig(), cross_entropy)
    for label in (-100, 3):
        split.validation.y[3] = label
        assert not kernel.reads(model, split, cross_entropy)


def test_what_is_a_dense_stack():
    linear, flat = nn.Linear(4, 3), nn.Flatten()
    assert stack_of(nn.Sequential(linear, nn.ReLU(), nn.Linear(3, 1))).activations == ("relu",)
    assert stack_of(nn.Sequential(flat, linear, nn.Tanh(), nn.Linear(3, 1))).flattens
    assert not stack_of(nn.Sequential(linear, nn.ReLU(), nn.Linear(3, 1))).flattens
    tied = nn.Linear(4, 4)
    others = [
        nn.Sequential(),
        nn.Sequential(linear),
        nn.Sequential(linear, nn.ReLU()),
        nn.Sequential(linear, nn.GELU(), nn.Linear(3, 1)),
        nn.Sequential(linear, nn.Linear(3, 1)),
        nn.Sequential(linear, nn.ReLU(), nn.Linear(3, 1, bias=False)),
        nn.Sequential(tied, nn.ReLU(), tied),
        nn.Sequential(nn.Flatten(0), linear, nn.ReLU(), nn.Linear(3, 1)),
    ]
    assert [stack_of(model) for model in others] == [None] * len(others)


LOST = {
    "lstm": (lambda: Forecaster(1, (5, 4, 3), (4,), seed=3), ("recurrent.1", "head.0"), (7, 1)),
    "mlp": (lambda: MLP(13, (6, 5, 4), 1, "relu", seed=3), ("layers.2",), (13,)),
}


@pytest.mark.parametrize("kind", ["lstm", pytest.param("mlp", marks=trains)])
def test_networks_that_lost_layers_are_trained_by_the_kernel(kind):
    build, lost, shape = LOST[kind]
    generator = torch.Generator().manual_seed(1)
    x, model = torch.randn(60, *shape, generator=generator), build()
    for name in lost:
        model, _ = drop_layer(model, name, x)
    split = SimpleNamespace(train=Batch(x, x.flatten(1)[:, :1]), validation=Batch(x[:0], x[:0, :1]))
    config = TrainConfig(epochs=3)
    assert engine_of(model, split, config).engine == "kernel"
    assert_agree(kernel.fit(model, split, config), fit(model, split, config))
