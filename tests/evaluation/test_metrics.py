import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pared.evaluation.direction import against_last, paper_hits
from pared.evaluation.metrics import nrmse, rmse, valid_prediction_time

few = settings(max_examples=40, deadline=None)
# A coarse grid, so that equal neighbours and values exactly at a threshold do occur.
grid = st.integers(-8, 8).map(lambda k: k / 4)
runs = arrays(np.float64, (2, 3, 6), elements=grid)
runs_with_nan = arrays(np.float64, (2, 3, 6), elements=grid | st.just(math.nan))


def sign(value: float) -> float:
    return math.nan if math.isnan(value) else int(value > 0) - int(value < 0)


@few
@given(runs)
def test_rmse_is_its_formula(pair):
    truth, forecast = pair
    total = sum((f - t) ** 2 for t, f in zip(truth.ravel(), forecast.ravel(), strict=True))
    assert rmse(truth, forecast) == pytest.approx(math.sqrt(total / truth.size))
    assert nrmse(truth, forecast, 0.25) == pytest.approx(4 * rmse(truth, forecast))


def test_rmse_does_not_average_over_what_is_missing():
    assert math.isnan(rmse(np.zeros(3), np.array([0.0, math.nan, 1.0])))


@few
@given(runs_with_nan)
def test_valid_prediction_time_is_the_naive_loop(pair):
    truth, forecast = np.nan_to_num(pair[0]), pair[1]
    expected = []
    for t, f in zip(truth, forecast, strict=True):
        steps = 0
        while steps < len(t) and abs(f[steps] - t[steps]) <= 0.5 * 2.0:
            steps += 1
        expected.append(steps)
    np.testing.assert_array_equal(valid_prediction_time(truth, forecast, 2.0, 0.5), expected)


def test_valid_prediction_time_never_exceeded_is_the_length_and_nan_is_exceeded():
    forecast = np.zeros((3, 4))
    forecast[1, 2], forecast[2, 0] = math.nan, math.inf
    assert valid_prediction_time(np.zeros((3, 4)), forecast, 1.0).tolist() == [4, 2, 0]


@few
@given(runs_with_nan)
def test_directions_are_the_naive_loop(pair):
    truth, forecast = np.nan_to_num(pair[0]), pair[1]
    hits = paper_hits(truth, forecast)
    last = np.roll(truth, 1, axis=1)
    seen = against_last(truth, forecast, last)
    assert hits.shape == (3, 5)
    assert seen.shape == (3, 6)
    truth, forecast, last = truth.tolist(), forecast.tolist(), last.tolist()
    for i in range(3):
        for t in range(6):
            assert seen[i, t] == (sign(forecast[i][t] - last[i][t]) == sign(truth[i][t] - last[i][t]))
            if t > 0:
                up = sign(truth[i][t] - truth[i][t - 1])
                assert hits[i, t - 1] == (sign(forecast[i][t] - forecast[i][t - 1]) == up)


def test_the_two_counts_differ_on_a_lagging_forecast():
    truth = np.sin(np.arange(15) / 8)  # smooth: rises up to step 12, then falls
    last = np.sin((np.arange(15) - 1) / 8)
    assert paper_hits(truth[:12], last[:12]).all()  # persistence looks perfect against its own past
    assert not against_last(truth[:12], last[:12], last[:12]).any()  # and never says where it goes


def test_infinite_forecasts_never_hit():
    rising = np.arange(3.0)
    assert paper_hits(rising, np.array([0.0, math.inf, math.inf])).tolist() == [True, False]


@pytest.mark.parametrize(
    "call",
    [
        lambda: rmse(np.zeros(3), np.zeros((3, 1))),
        lambda: rmse(np.zeros(0), np.zeros(0)),
        lambda: nrmse(np.zeros(3), np.zeros(3), 0.0),
        lambda: nrmse(np.zeros(3), np.zeros(3), math.nan),
        lambda: valid_prediction_time(np.zeros(3), np.zeros(3), 1.0),
        lambda: valid_prediction_time(np.zeros((1, 3)), np.zeros((1, 3)), -1.0),
        lambda: paper_hits(np.zeros(3), np.zeros(4)),
        lambda: paper_hits(np.zeros((3, 1)), np.zeros((3, 1))),
        lambda: against_last(np.zeros(3), np.zeros(3), np.zeros((3, 1))),
    ],
)
def test_wrong_shapes_and_scales_are_refused(call):
    with pytest.raises(ValueError, match=r"shape|positive"):
        call()
