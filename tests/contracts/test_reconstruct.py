"""Every function that solves for weights, on an MLP, a CNN and recurrent networks: the laws, zeros, docstrings."""

import inspect
from functools import partial

import pytest
import torch
from torch.nn.functional import mse_loss

import pared
from kinds import KINDS
from networks import batch, forecaster, mlp, snapshot, unchanged
from pared import criteria, reconstruct, select_weights
from pared.signals import plain_parameters, prunable

NETWORKS = {
    "mlp": mlp,
    "lstm": partial(forecaster, "lstm", 0, (3, 2), (2,)),
    "gru": partial(forecaster, "gru", 0, (3, 2), (2,)),
    "cnn": KINDS["cnn"].build,
}


def with_masks(function, **options):
    def call(model, data, loss):
        masks = select_weights(criteria.deviation(model, data, loss), 0.5)
        return function(model, data, loss, masks, **options)

    return call


FUNCTIONS = {
    "surgeon": partial(reconstruct.surgeon, ratio=0.3, rounds=2),
    "belsley-obs": partial(reconstruct.surgeon, ratio=0.3, rounds=2, share=0.1),
    "refit_weights": with_masks(reconstruct.refit_weights),
    "refit_weights fisher": with_masks(reconstruct.refit_weights, matrix="fisher", first_order=True, ridge=1.0),
    "refit_layers": with_masks(reconstruct.refit_layers),
    "sparse_gpt": partial(reconstruct.sparse_gpt, ratio=0.5),
    "chita": partial(reconstruct.chita, ratio=0.5, stages=2),
    "net_trim": partial(reconstruct.net_trim, steps=50),
}
FAST = ("refit_layers", "refit_weights", "sparse_gpt")


def data_of(network, model):
    return KINDS[network].batch(12) if network == "cnn" else batch(model, 24)


def states():
    return torch.get_rng_state().clone()


PAIRS = [
    pytest.param(f, n, marks=() if f in FAST and n == "mlp" else pytest.mark.slow) for f in FUNCTIONS for n in NETWORKS
]


@pytest.mark.parametrize(("function", "network"), PAIRS)
def test_the_laws_hold(function, network):
    """Law 1; the same twice; masks name and shape weights, and where they are closed the weights are exactly zero."""
    model = NETWORKS[network]().train()
    data = data_of(network, model)
    before, state = snapshot(model), states()
    one, two = (FUNCTIONS[function](model, data, mse_loss) for _ in range(2))
    unchanged(before, model)
    assert torch.equal(state, states())
    weights, again = plain_parameters(one.model), plain_parameters(two.model)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert one.masks.keys() <= prunable(model).shapes.keys()
    for name, mask in one.masks.items():
        assert mask.dtype == torch.bool
        assert (weights[name][~mask] == 0).all()
        assert weights[name].isfinite().all()
    assert sum(int((~mask).sum()) for mask in one.masks.values())
    assert one.model.training == model.training
    one.model(data.x)


@pytest.mark.parametrize("function", FAST)
def test_a_layer_that_never_fires_is_no_obstacle(function):
    """All inputs of the last layer are zero: its second moments are singular, and its weights do nothing."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).double()
    torch.nn.init.constant_(model[0].bias, -100.0)
    found = FUNCTIONS[function](model, batch(mlp(), 12), mse_loss)
    assert all(p.isfinite().all() for p in found.model.parameters())


def test_every_function_says_what_it_costs_and_where_it_is_from():
    functions = [
        f for _, f in inspect.getmembers(reconstruct, inspect.isfunction) if f.__module__ == reconstruct.__name__
    ]
    public = [f for f in functions if not f.__name__.startswith("_")]
    assert {f.__name__ for f in public} <= {name.split()[0] for name in FUNCTIONS}
    for function in (*public, pared.compensate, pared.merge, pared.gradual, pared.drop_layer):
        text = inspect.getdoc(function)
        assert "Cost:" in text, function.__name__
        assert "Source:" in text, function.__name__
