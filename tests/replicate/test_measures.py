"""What is measured, against the usual measures; the paper's blocks."""

import numpy as np
import pytest
import torch

from pared import evaluation
from pared.data import henon
from pared.evaluation import scores
from pared.evaluation.forecast import floats, free_run, predictor
from pared.models import Forecaster
from pared.replicate.junk_neuron import measures
from pared.replicate.junk_neuron.measures import LONGEST, STEPS, Truth, measure, measure_network
from pared.replicate.junk_neuron.protocol import splits_of
from pared.replicate.junk_neuron.published import SYSTEMS


def network(width, scale=1.5):
    model = Forecaster(recurrent=(width, 3), dense=(2,), seed=width)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


@pytest.mark.parametrize(
    ("name", "view"),
    [("henon", "paper")] + [pytest.param(n, "default", marks=pytest.mark.slow) for n in ("henon", "rossler")],
)
def test_measures_are_the_usual_ones(name, view, monkeypatch):
    if view == "paper":
        monkeypatch.setattr(measures, "LONGEST", 20)  # the full length takes seconds the usual way
        monkeypatch.setattr(scores, "LONGEST", 20)
    split = splits_of(SYSTEMS[name], view, 2)[1]
    truth, model = Truth(split), network(6)
    predict = predictor(model, split.scaler)
    own, usual = measure_network(model, truth), evaluation.evaluate(predict, split.test, split.scaler, truth.sd)
    assert own["hits"] == usual["direction_hits"]
    for key in ("nrmse", "direction", "vpt"):
        assert own[key] == pytest.approx(usual[key], rel=1e-4)
    assert own == pytest.approx(measure(predict, truth), rel=1e-4)
    right = []
    for run, start in zip(floats(free_run(predict, split.test.x[truth.first], 15)), truth.first, strict=True):
        steps = zip(np.diff(run), np.diff(truth.values[start : start + 15]), strict=True)
        right.append([abs(ours) >= 1e-6 and np.sign(ours) == np.sign(theirs) for ours, theirs in steps])
    assert own["free"] == pytest.approx(np.mean(right), rel=1e-4)
    assert own["free_hits"] == sum(right[0])


def test_runs_end_early_only_where_nothing_is_left_to_see():
    truth = Truth(splits_of(SYSTEMS["henon"], "paper", 1)[0])
    sizes = []

    def hopeless(x):
        sizes.append(len(x))
        return x[:, -1, 0] + 10

    found = measure(hopeless, truth)
    assert (found["vpt"], len(sizes)) == (0, 1 + STEPS)
    at = iter(range(LONGEST + 1))

    def perfect(x):
        step = next(at)
        return torch.tensor(truth.values if step == 0 else truth.runs[:, step - 1])

    found = measure(perfect, truth)
    assert (found["vpt"], found["free"], found["nrmse"], found["hits"]) == (LONGEST, 1, 0, 14)


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


def test_a_forecast_that_stands_still_has_no_direction():
    truth = Truth(splits_of(SYSTEMS["henon"], "paper", 1)[0])
    rng = np.random.default_rng(0)
    noise = 1e-8 * rng.standard_normal((30, LONGEST))
    assert truth.metrics(truth.values, 0.3 + noise)["free"] == 0
    assert truth.metrics(truth.values, truth.runs + noise)["free"] == 1
