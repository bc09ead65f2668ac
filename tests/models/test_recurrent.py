"""The forecaster: its forward pass against a loop, its initial weights against the laws it names."""

import numpy as np
import pytest
import torch
from torch import nn

import pared
import reference
from networks import batch, forecaster
from pared.models import CELLS, Forecaster
from pared.surgery import Plan
from pared.training.stacks import stack_of


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_forward_is_the_loop(cell):
    model = forecaster(cell, recurrent=(4, 3, 2), dense=())
    x = batch(model).x
    expected, _ = reference.forecast(model, x)
    assert expected.shape == (6, 1)
    np.testing.assert_allclose(model(x).detach().numpy(), expected, atol=1e-14)


def test_the_default_is_the_papers_network():
    model = Forecaster()
    assert [(layer.input_size, layer.hidden_size) for layer in model.recurrent] == [(1, 16), (16, 4)]
    assert [tuple(layer.weight.shape) for layer in model.head] == [(4, 4), (1, 4)]
    assert sum(p.numel() for p in model.parameters()) == 1216 + 352 + 20 + 5
    assert not any(isinstance(m, (nn.ReLU, nn.Tanh)) for m in model.modules())


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_keras_weights_are_glorot_orthogonal_and_forget(cell):
    model = Forecaster(3, (6, 5), (4,), cell=cell, seed=0)
    for layer in model.recurrent:
        units, gates = layer.hidden_size, {"lstm": 4, "gru": 3, "rnn": 1}[cell]
        w, u = layer.weight_ih_l0, layer.weight_hh_l0
        bound = (6 / (layer.input_size + gates * units)) ** 0.5
        assert 0.8 * bound < w.abs().max() <= bound
        torch.testing.assert_close(u.T @ u, torch.eye(units), atol=1e-5, rtol=0)
        bias = torch.zeros(gates * units)
        if cell == "lstm":
            bias[units : 2 * units] = 1
        assert torch.equal(layer.bias_ih_l0, bias)
        assert not layer.bias_hh_l0.any()
    assert not any(layer.bias.any() for layer in model.head)


def test_torch_weights_are_pytorchs():
    torch.manual_seed(3)
    model = Forecaster(2, (4,), (), init="torch")
    torch.manual_seed(3)
    layer, head = nn.LSTM(2, 4, batch_first=True), nn.Linear(4, 1)
    assert all(torch.equal(a, b) for a, b in zip(model.recurrent[0].parameters(), layer.parameters(), strict=True))
    assert torch.equal(model.head[0].weight, head.weight)


def test_a_seed_fixes_the_weights_and_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    one, two, other = Forecaster(seed=1), Forecaster(seed=1), Forecaster(seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.recurrent[0].weight_hh_l0, other.recurrent[0].weight_hh_l0)


def test_without_a_seed_every_network_is_another_one():
    assert not torch.equal(Forecaster().recurrent[0].weight_hh_l0, Forecaster().recurrent[0].weight_hh_l0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"recurrent": ()}, "at least 1"),
        ({"recurrent": (4, 0)}, "at least 1"),
        ({"dense": (0,)}, "at least 1"),
        ({"inputs": 0}, "at least 1"),
        ({"outputs": 0}, "at least 1"),
        ({"cell": "transformer"}, "unknown cell 'transformer'; choose one of lstm, gru, rnn"),
        ({"init": "Keras"}, "unknown init 'Keras'; choose one of keras, torch"),
    ],
)
def test_impossible_networks_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Forecaster(**arguments)


def test_dropout_silences_in_training_only_and_is_no_plain_stack():
    plain, other = Forecaster(1, (8, 4), seed=0), Forecaster(1, (8, 4), seed=0, dropout=0.5)
    x = torch.randn(5, 6, 1)
    assert not torch.equal(other(x), plain(x))
    assert torch.equal(other.eval()(x), plain(x))
    assert stack_of(plain) is not None
    assert stack_of(other) is None  # the kernel would not drop anything
    structure = pared.trace(other, x[:1])
    plan = Plan({structure.groups[0].name: (0, 2, 5)})
    torch.testing.assert_close(pared.cut(other, structure, plan)(x), pared.mask(other, structure, plan)(x))
