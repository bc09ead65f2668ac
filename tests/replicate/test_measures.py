"""Many networks at once measure what each measures alone."""

import numpy as np
import pytest
import torch

from pared import evaluation
from pared.data import henon
from pared.evaluation.forecast import floats, free_run, predictor
from pared.models import Forecaster
from pared.replicate.junk_neuron import measures
from pared.replicate.junk_neuron.measures import LONGEST, Truth, measure, measure_all
from pared.replicate.junk_neuron.protocol import splits_of
from pared.replicate.junk_neuron.published import SYSTEMS
from pared.replicate.junk_neuron.stacked import forecast, stack


def networks(widths, scale=1.5):
    models = [Forecaster(recurrent=(width, 3), dense=(2,), seed=width) for width in widths]
    with torch.no_grad():
        for model in models:
            for parameter in model.parameters():
                parameter.mul_(scale)
    return models


@pytest.mark.parametrize("window", [1, 3])
def test_padded_networks_forecast_what_they_forecast_alone(window):
    models = networks((5, 1, 8, 2))
    x = torch.randn(4, 260, window)  # more windows than one pass takes
    outputs = forecast(stack(models), x)
    with torch.no_grad():
        for model, own, output in zip(models, x, outputs, strict=True):
            torch.testing.assert_close(output, model(own[..., None])[:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "view"),
    [("henon", "paper")] + [pytest.param(n, "default", marks=pytest.mark.slow) for n in ("henon", "rossler")],
)
def test_measures_of_many_are_those_of_one(name, view, monkeypatch):
    if view == "paper":
        monkeypatch.setattr(measures, "LONGEST", 20)  # the full length takes seconds one by one
    truths = [Truth(split) for split in splits_of(SYSTEMS[name], view, 2)]
    models = networks((6, 2))
    for together, model, truth in zip(measure_all(models, truths), models, truths, strict=True):
        alone = measure(predictor(model, truth.split.scaler), truth)
        assert together == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("view", ["paper", "default"])
def test_measures_are_the_usual_ones(view):
    (split,) = splits_of(SYSTEMS["henon"], view, 1)
    truth, (model,) = Truth(split), networks((6,))
    predict = predictor(model, split.scaler)
    own, usual = measure(predict, truth), evaluation.evaluate(predict, split.test, split.scaler, truth.sd)
    assert own["hits"] == usual["direction_hits"]
    for name in ("nrmse", "direction", "free_hits", "vpt"):
        assert own[name] == pytest.approx(usual[name], rel=1e-5)
    right = [
        (np.sign(run[1:] - run[:-1]) == np.sign(np.diff(truth.values[start : start + 15]))).mean()
        for run, start in zip(floats(free_run(predict, split.test.x[truth.first], 15)), truth.first, strict=True)
    ]
    assert own["free"] == pytest.approx(np.mean(right), rel=1e-5)


def test_blocks_are_the_papers():
    series = henon().values[:, 0]
    for view, low in (("paper", 0.0), ("default", -1.0)):
        split = splits_of(SYSTEMS["henon"], view, 10)[3]
        assert split.spans == {"train": (12_000, 17_000), "validation": (17_000, 17_000), "test": (17_000, 18_000)}
        rows = series[12_000:17_000]
        scaled = low + (series[17_000:18_000] - rows.min()) / np.ptp(rows) * (1 - low)
        np.testing.assert_allclose(Truth(split).values, scaled, atol=1e-6)
        np.testing.assert_allclose(split.scaler.raw(Truth(split).values), series[17_000:18_000], atol=1e-6)
        assert float(split.train.x.min()) == pytest.approx(low, abs=1e-6)


def test_a_forecast_that_blows_up_is_none_not_a_number():
    truth = Truth(splits_of(SYSTEMS["henon"], "paper", 1)[0])
    found = truth.metrics(np.full(1000, np.nan), np.full((30, LONGEST), np.nan))
    assert found["nrmse"] is None
    assert (found["free"], found["hits"], found["vpt"]) == (0, 0, 0)
