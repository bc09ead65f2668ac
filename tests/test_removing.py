"""What scores remove: units and weights against naive twins, and training that leaves gone weights at zero."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import mse_loss

from networks import batch, forecaster, snapshot, unchanged
from pared import compensate, criteria
from pared.models import MLP, Forecaster
from pared.reconstruct import refit_layers
from pared.removing import Units, Weights, held_at_zero
from pared.surgery import Plan, cut, mask, trace
from pared.training import TrainConfig, fit
from pared.training.fleet import fit_many
from pared.types import Batch


def data(model, samples=24, seed=0):
    shape = (samples, 3, 1) if isinstance(model, Forecaster) else (samples, 3)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    return Batch(x, torch.randn(samples, 1, generator=generator))


def test_units_go_from_every_layer_lowest_first_and_the_rest_computes_what_the_masked_network_does():
    model = forecaster()
    found = batch(model)
    removal = Units(model, found, mse_loss)
    assert removal.shapes == {"recurrent.0.l0": (5,), "recurrent.1.l0": (3,), "head.0": (4,)}
    scores = removal.scores(criteria.taylor)
    before = snapshot(model)
    removed = removal.remove(scores, 0.4)
    keep = {name: tuple(sorted(v.argsort()[round(0.4 * len(v)) :].tolist())) for name, v in scores.items()}
    structure = trace(model, found.x[:1])
    torch.testing.assert_close(removed.plain(found.x), mask(model, structure, Plan(keep))(found.x))
    twin = cut(compensate(model, structure, Plan(keep), found.x), structure, Plan(keep))
    torch.testing.assert_close(removed.repaired(found.x), twin(found.x))
    assert removed.resume is None
    unchanged(before, model)


def test_kept_groups_are_neither_scored_nor_cut():
    model = forecaster()
    removal = Units(model, batch(model), mse_loss, keep=("recurrent.*",))
    assert removal.shapes == {"head.0": (4,)}
    small = removal.remove(removal.at_random(0), 0.5).plain
    assert small.recurrent[0].hidden_size == 5
    assert small.head[0].out_features == 2


def test_scores_of_weights_become_scores_of_units_and_other_scores_are_refused():
    model = forecaster()
    removal = Units(model, batch(model), mse_loss)
    assert removal.scores(criteria.magnitude).keys() == removal.shapes.keys()
    with pytest.raises(ValueError, match="it scores whole layers, not units"):
        removal.scores(lambda *_: {"head.0": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="it scores no units of this network; its scores are of nothing"):
        removal.scores(lambda *_: {})
    with pytest.raises(ValueError, match="it scores no weights of this network; its scores are of 'recurrent"):
        Weights(model, batch(model), mse_loss).scores(criteria.taylor)


def test_weights_go_from_every_matrix_and_biases_stay():
    model = forecaster()
    removal = Weights(model, batch(model), mse_loss)
    scores = removal.scores(criteria.magnitude)
    assert all(len(shape) > 1 for shape in removal.shapes.values())
    assert removal.at_random(1).keys() == scores.keys()
    removed = removal.remove(scores, 0.5)
    weights = dict(removed.plain.named_parameters())
    for name, own in model.named_parameters():
        gone = set(own.abs().flatten().argsort()[: round(0.5 * own.numel())].tolist()) if name in scores else set()
        zero = set((weights[name].flatten() == 0).nonzero().flatten().tolist())
        assert zero == gone
    masks = {name: weights[name] != 0 for name in scores}
    twin = refit_layers(model, batch(model), mse_loss, masks).model
    for name, weight in removed.repaired.named_parameters():
        assert torch.equal(weight, twin.get_parameter(name))


def test_a_weight_of_every_matrix_stays():
    model = MLP(3, (2,), seed=0)
    removal = Weights(model, data(model), mse_loss)
    scores = removal.scores(criteria.magnitude)
    small = removal.remove(scores, 0.9).plain
    assert [int((small.get_parameter(name) != 0).sum()) for name in scores] == [1, 1]
    with pytest.raises(ValueError, match="removes nothing from so few weights"):
        removal.remove(scores, 0.01)


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.9), optimiser=st.sampled_from(["adam", "adamw"]))
def test_training_that_starts_held_is_training_with_masks(seed, share, optimiser):
    model = MLP(3, (4, 3), seed=seed % 100)
    generator = torch.Generator().manual_seed(seed)
    masks = {n: torch.rand(p.shape, generator=generator) > share for n, p in model.named_parameters() if p.dim() > 1}
    found = data(model)
    split = SimpleNamespace(train=found, validation=data(model, 8, 1))
    config = TrainConfig(epochs=2, batch_size=8, optimiser=optimiser, weight_decay=0.01, clip=0.5, seed=seed)
    alone = fit(model, split, config, masks=masks)
    start = held_at_zero(model, masks)
    for fitted in (
        fit(model, split, config, resume=start),
        *fit_many([model] * 2, [split] * 2, [config] * 2, resume=[start] * 2, engine="batched"),
    ):
        for name, weight in fitted.model.named_parameters():
            torch.testing.assert_close(weight, alone.model.get_parameter(name), rtol=1e-4, atol=1e-6)
            assert bool((weight[~masks[name]] == 0).all()) if name in masks else True


@pytest.mark.parametrize("cell", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_the_kernel_holds_weights_at_zero_too(cell):
    model = Forecaster(1, (4, 3), (2,), cell=cell, seed=1)
    generator = torch.Generator().manual_seed(0)
    masks = {n: torch.rand(p.shape, generator=generator) > 0.5 for n, p in model.named_parameters() if p.dim() > 1}
    split = SimpleNamespace(train=data(model), validation=data(model, 8, 1))
    config = TrainConfig(epochs=3, batch_size=8)
    alone = fit(model, split, config, masks=masks)
    (fitted,) = fit_many([model], [split], [config], resume=[held_at_zero(model, masks)], engine="kernel")
    for name, weight in fitted.model.named_parameters():
        torch.testing.assert_close(weight, alone.model.get_parameter(name), rtol=1e-3, atol=1e-5)
        assert bool((weight[~masks[name]] == 0).all()) if name in masks else True


def test_masks_of_other_parameters_are_refused():
    with pytest.raises(ValueError, match="there is no parameter 'other' to mask"):
        held_at_zero(MLP(3, (4,), seed=0), {"other": torch.ones(1, dtype=torch.bool)})
