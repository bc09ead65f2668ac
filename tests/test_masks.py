"""Weights that are gone: selection, masked copies, training in which they stay zero, and gradual removal."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.utils import parametrizations

import pared
from networks import batch, forecaster, mlp, snapshot, unchanged
from pared import Count, Ratio, Steps, Threshold, criteria
from pared.schedules import Constant, Cubic, Exponential, Linear, OneShot
from pared.signals import prunable
from pared.training.fit import OPTIMISERS, TrainConfig, fit
from pared.types import Batch


def split_of(model, samples=32):
    data = batch(model, samples)
    return SimpleNamespace(train=data, validation=Batch(data.x[:0], data.y[:0]))


@given(st.integers(0, 99), st.floats(0.01, 0.99), st.sampled_from(["global", "layer", "row"]))
@settings(max_examples=40, deadline=None)
def test_the_lowest_go(seed, ratio, scope):
    generator = torch.Generator().manual_seed(seed)
    scores = {"a": torch.rand(4, 5, generator=generator), "b": torch.rand(3, 2, 2, generator=generator)}
    masks = pared.select_weights(scores, ratio, scope)
    pools = {
        "global": [
            (torch.cat([s.flatten() for s in scores.values()]), torch.cat([m.flatten() for m in masks.values()]))
        ],
        "layer": [(scores[k].flatten(), masks[k].flatten()) for k in scores],
        "row": [(s, m) for k in scores for s, m in zip(scores[k].flatten(1), masks[k].flatten(1), strict=True)],
    }[scope]
    for values, kept in pools:
        gone = round(ratio * len(values))
        assert int((~kept).sum()) == gone
        if 0 < gone < len(values):
            assert float(values[~kept].max()) <= float(values[kept].min())


def test_thresholds_counts_and_what_is_gone_already():
    scores = {"a": torch.tensor([[0.1, 0.5], [0.9, 0.3]]), "b": torch.tensor([[4.0, 2.0]])}
    assert pared.select_weights(scores, Threshold(0.5))["a"].tolist() == [[False, True], [True, False]]
    relative = pared.select_weights(scores, Threshold(1.0, relative=True), "layer")
    assert relative["a"].tolist() == [[False, True], [True, False]]
    assert relative["b"].tolist() == [[True, False]]
    gone = {"b": torch.tensor([[False, True]])}
    again = pared.select_weights(scores, Count(2), masks=gone)
    assert again["b"].tolist() == [[False, True]]
    assert again["a"].tolist() == [[False, True], [True, True]]
    assert pared.select_weights(scores, Threshold(0.0), masks=gone)["b"].tolist() == [[False, True]]
    assert pared.density(again) == pytest.approx(4 / 6)
    assert pared.density({}) == 1
    with pytest.raises(ValueError, match="3 weights cannot go where there are 2"):
        pared.select_weights(scores, Count(3), "layer")
    with pytest.raises(ValueError, match=r"scores of 'a' hold NaN \(weight \[1, 0\]\)"):
        pared.select_weights({"a": torch.tensor([[0.0, 1.0], [torch.nan, 1.0]])}, 0.5)
    with pytest.raises(ValueError, match="must hold booleans shaped"):
        pared.select_weights(scores, 0.5, masks={"a": torch.ones(3, dtype=torch.bool)})


def test_masked_copies_are_zero_where_the_mask_is_and_the_model_stays():
    model = parametrizations.weight_norm(nn.Linear(4, 3).double())
    before = snapshot(model)
    mask = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    masked = pared.mask_weights(model, {"weight": mask})
    unchanged(before, model)
    assert (masked.weight[~mask] == 0).all()
    torch.testing.assert_close(masked.weight[mask], model.weight[mask])
    with pytest.raises(ValueError, match="no parameter 'other' to mask"):
        pared.mask_weights(model, {"other": mask})
    with pytest.raises(ValueError, match="must hold booleans"):
        pared.mask_weights(model, {"weight": mask.double()})


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_masked_weights_stay_exactly_zero(optimiser, monkeypatch):
    """Though an earlier training left momentum and weight decay pulls; the others learn."""
    monkeypatch.setitem(OPTIMISERS, "sgd", lambda p, **k: torch.optim.SGD(p, momentum=0.9, **k))
    model = forecaster()
    split = split_of(model)
    config = TrainConfig(epochs=2, batch_size=8, optimiser=optimiser, weight_decay=1e-2)
    first = fit(model, split, config)
    masks = pared.select_weights(criteria.magnitude(first.model, split.train, mse_loss), 0.6)
    before = snapshot(first.model)
    second = fit(model, split, config, resume=first, masks=masks)
    unchanged(before, first.model)
    for k, (name, parameter) in enumerate(second.model.named_parameters()):
        assert (parameter[~masks[name]] == 0).all()
        for moment in second.optimiser_state["state"][k].values():
            if moment.shape == parameter.shape:
                assert (moment[~masks[name]] == 0).all()
        if masks[name].any():
            assert not torch.equal(parameter[masks[name]], first.model.get_parameter(name)[masks[name]])
    with pytest.raises(ValueError, match="no parameter 'x' to mask"):
        fit(model, split, config, masks={"x": torch.ones(1, dtype=torch.bool)})


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        (OneShot(0.75), [0.75, 0.75, 0.75, 0.75]),
        (Linear(0.8), [0.2, 0.4, 0.6, 0.8]),
        (Exponential(0.9375), [0.5, 0.75, 0.875, 0.9375]),
        (Cubic(0.64), [0.37, 0.56, 0.63, 0.64]),
    ],
)
def test_gradual_removal_follows_its_schedule(schedule, shares):
    assert [schedule(p) for p in (0.25, 0.5, 0.75, 1.0)] == pytest.approx(shares)
    assert schedule(0.0) == 0.0
    model = mlp()
    split = split_of(model)
    seen = []

    def criterion(model, data, loss):
        zeros = sum(int((p == 0).sum()) for n, p in model.named_parameters() if p.dim() > 1)
        seen.append(zeros / prunable(model).size)
        return {n: p.detach().abs() for n, p in model.named_parameters() if p.dim() > 1}

    before = snapshot(model)
    found = pared.gradual(model, split, criterion, Steps(schedule, 4), TrainConfig(epochs=1, batch_size=16))
    unchanged(before, model)
    assert [0.0, *shares[:-1]] == pytest.approx(seen, abs=0.02)
    assert 1 - pared.density(found.masks) == pytest.approx(shares[-1], abs=0.02)
    assert len(found.fits) == 4
    for earlier, later in zip(found.fits, found.fits[1:], strict=False):
        for one, two in zip(earlier.model.parameters(), later.model.parameters(), strict=True):
            assert one.dim() == 1 or (two[one == 0] == 0).all()


def test_synflow_in_rounds_keeps_every_layer_alive():
    """At 97 % and 40 rounds on the exponential schedule no layer is empty, while magnitude's one shot empties one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 2)).double()
    nn.init.uniform_(model[4].weight, -1e-3, 1e-3)
    split = split_of(mlp())
    found = pared.gradual(model, split, criteria.synflow, Steps(Exponential(0.97), 40))
    assert not found.fits
    assert all(mask.any() for mask in found.masks.values())
    shot = pared.gradual(model, split, criteria.magnitude, Steps(OneShot(0.97), 1))
    assert not shot.masks["4.weight"].any()


def test_dropout_follows_the_connections_that_are_left():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.4), nn.Linear(4, 2), nn.Dropout(0.2)).double()
    quarter = torch.arange(16).reshape(4, 4) < 4
    adapted = pared.adapt_dropout(model, {"0.weight": quarter, "2.weight": torch.ones(2, 4, dtype=torch.bool)})
    assert [adapted[1].p, adapted[3].p] == pytest.approx([0.2, 0.2])
    assert model[1].p == 0.4
    data = Batch(torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64))
    split = SimpleNamespace(train=data, validation=Batch(data.x[:0], data.y[:0]))
    steps = Steps(Linear(0.75), 3, scope="layer", dropout=True)
    found = pared.gradual(model, split, criteria.deviation, steps, TrainConfig(epochs=1))
    assert [found.model[1].p, found.model[3].p] == pytest.approx([0.2, 0.1])


def test_steps_are_at_least_one():
    with pytest.raises(ValueError, match="at least one step"):
        Steps(Linear(0.5), 0)
    assert pared.select_weights({"a": torch.ones(2, 2)}, Ratio(0.5))["a"].tolist() == [[False, False], [True, True]]


def test_scores_of_units_or_of_other_shapes_are_refused():
    model = mlp()
    steps = Steps(OneShot(0.5), 1)
    with pytest.raises(ValueError, match=r"scores 'first', which is no parameter; .* \(units go by select and cut\)"):
        pared.gradual(model, split_of(model), criteria.taylor, steps)
    with pytest.raises(ValueError, match=r"'last.weight' are shaped \(5, 2\), the parameter is shaped \(2, 5\)"):
        pared.gradual(model, split_of(model), lambda *_: {"last.weight": torch.rand(5, 2)}, steps)


def test_hans_thresholds_go_again_after_every_training():
    """What lies within s standard deviations of its layer's weights goes, step after step, written out."""
    model = mlp()
    split = split_of(model)
    steps = Steps(Constant(0.6), 3, rule=Threshold)
    config = TrainConfig(epochs=2, batch_size=16)
    found = pared.gradual(model, split, criteria.deviation, steps, config)
    current, fits = model, []
    gone = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in prunable(model).shapes.items()}
    for _ in range(3):
        for name in gone:
            w = current.get_parameter(name).detach()
            gone[name] |= w.abs() < 0.6 * w.std(correction=0)
        masks = {name: ~closed for name, closed in gone.items()}
        current = pared.mask_weights(current, masks)
        resume = replace(fits[-1], model=current) if fits else None
        fits.append(fit(current, split, config, resume=resume, masks=masks))
        current = fits[-1].model
    assert all(torch.equal(found.masks[name], ~gone[name]) for name in gone)
    for one, two in zip(found.model.parameters(), current.parameters(), strict=True):
        assert torch.equal(one, two)
    counts = [sum(int((p == 0).sum()) for p in f.model.parameters() if p.dim() > 1) for f in found.fits]
    assert counts == sorted(counts)


def test_a_schedule_that_leaves_nothing_is_refused_before_training():
    called = []
    with pytest.raises(ValueError, match=r"a ratio lies between 0 and 1 .* got 1\.0"):
        pared.gradual(mlp(), split_of(mlp()), lambda *a: called.append(a), Steps(Linear(1.0), 4), TrainConfig(epochs=1))
    assert not called
