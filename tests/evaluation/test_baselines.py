import itertools

import numpy as np
import pytest
import torch

from pared.data.splits import Scaler, Split
from pared.evaluation.baselines import baselines, flip
from pared.evaluation.direction import against_last, paper_hits
from pared.evaluation.forecast import floats, free_run
from pared.types import Batch


def split_of(values: np.ndarray, window: int, increment: float | None = None, validation: int = 40) -> Split:
    """values (length, columns), already scaled: windows cut into train, validation, test (40)."""
    x = np.stack([values[i : i + window] for i in range(len(values) - window)])
    y = values[window:, :1]
    if increment is not None:
        y = (y - x[:, -1, :1]) / increment
    ends = [0, len(x) - 40 - validation, len(x) - 40, len(x)]
    parts = [
        Batch(torch.tensor(x[a:b], dtype=torch.float32), torch.tensor(y[a:b], dtype=torch.float32))
        for a, b in itertools.pairwise(ends)
    ]
    columns = values.shape[1]
    scaler = Scaler(tuple("abc"[:columns]), (0.0,) * columns, (1.0,) * columns, increment)
    return Split(*parts, scaler, 0, {})


def noise(length: int = 300, columns: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(length, columns))


def henon(length: int) -> np.ndarray:
    x, y = [0.1], 0.1
    while len(x) < length:
        x.append(1 - 1.4 * x[-1] ** 2 + y)
        y = 0.3 * x[-2]
    return np.array(x)[:, None]


def forecasts(split: Split) -> dict[str, np.ndarray]:
    return {name: predict(split.test.x).double().numpy() for name, predict in baselines(split).items()}


def truth(split: Split) -> np.ndarray:
    return split.scaler.value(split.test.y, split.test.x).double().numpy()


def error(split: Split, name: str) -> float:
    return float(np.sqrt(np.mean((forecasts(split)[name] - truth(split)) ** 2)))


@pytest.mark.parametrize("increment", [None, 0.5])
def test_simple_rules_read_as_their_formulas(increment):
    split = split_of(noise(columns=2), window=3, increment=increment)
    x = split.test.x[:, :, 0].double().numpy()
    got = forecasts(split)
    assert list(got) == ["persistence", "flip", "same", "mean", "ar", "analog"]
    assert all(forecast.shape == (40,) for forecast in got.values())
    np.testing.assert_array_equal(got["persistence"], x[:, 2])
    np.testing.assert_array_equal(got["flip"], x[:, 1])
    np.testing.assert_allclose(got["same"], 2 * x[:, 2] - x[:, 1], rtol=1e-5, atol=1e-6)
    total = sum(split.scaler.value(split.train.y, split.train.x).tolist())
    np.testing.assert_allclose(got["mean"], total / len(split.train.x), rtol=1e-5)


def test_flip_and_same_say_what_their_names_say():
    split = split_of(noise(), window=2)
    x, got = split.test.x[:, :, 0].double().numpy(), forecasts(split)
    np.testing.assert_array_equal(np.sign(got["flip"] - x[:, 1]), -np.sign(x[:, 1] - x[:, 0]))
    np.testing.assert_array_equal(np.sign(got["same"] - x[:, 1]), np.sign(x[:, 1] - x[:, 0]))


def test_a_window_of_one_point_falls_back_to_persistence():
    got = forecasts(split_of(noise(), window=1))
    np.testing.assert_array_equal(got["flip"], got["persistence"])
    np.testing.assert_array_equal(got["same"], got["persistence"])


@pytest.mark.parametrize("increment", [None, 0.5])
def test_ar_is_least_squares(increment):
    split = split_of(noise(columns=2), window=2, increment=increment)
    design = np.column_stack([split.train.x.reshape(-1, 4).double().numpy(), np.ones(len(split.train.x))])
    y = split.scaler.value(split.train.y, split.train.x).double().numpy()
    c = np.linalg.solve(design.T @ design, design.T @ y)  # the normal equations
    expected = split.test.x.reshape(-1, 4).double().numpy() @ c[:4] + c[4]
    np.testing.assert_allclose(forecasts(split)["ar"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("increment", [None, 0.1])
def test_ar_finds_a_linear_law_with_an_extra_column(increment):
    drive = noise(400)[:, 0]
    y = [0.0, 0.1]
    for t in range(1, 399):
        y.append(0.6 * y[t] - 0.3 * y[t - 1] + 0.4 * drive[t] + 0.05)
    assert error(split_of(np.column_stack([y, drive]), window=2, increment=increment), "ar") < 1e-5


@pytest.mark.parametrize("increment", [None, 0.5])
@pytest.mark.parametrize("window", [1, 2, 5])
def test_analog_is_the_naive_search(increment, window):
    split = split_of(henon(400), window, increment)

    def search(x, lags):
        train, y = split.train.x.double().numpy()[:, -lags:], split.train.y.double().numpy()
        found = []
        for recent in x.double().numpy():
            j = min(range(len(train)), key=lambda j: ((train[j] - recent[-lags:]) ** 2).sum())
            found.append(y[j, 0] if increment is None else recent[-1, 0] + increment * y[j, 0])
        return np.array(found)

    def goal(batch):
        return split.scaler.value(batch.y, batch.x).double().numpy()

    errors = {
        lags: np.mean((search(split.validation.x, lags) - goal(split.validation)) ** 2)
        for lags in {min(2, window), window}
    }
    expected = search(split.test.x, min(errors, key=errors.__getitem__))
    np.testing.assert_allclose(forecasts(split)["analog"], expected, rtol=1e-5, atol=1e-6)


def test_analog_beats_the_linear_rules_on_chaos_and_takes_two_lags_without_validation():
    split = split_of(henon(1500), window=6, validation=0)
    assert error(split, "analog") < 0.1 * min(error(split, "ar"), error(split, "persistence"))
    changed = split.test.x.clone()
    changed[:, :-2] = 9.0  # what lies before the last two points is not looked at
    analog = baselines(split)["analog"]
    assert torch.equal(analog(changed), analog(split.test.x))


@pytest.mark.parametrize(
    ("mu", "one_step", "free"),
    [(3.6, 100.0, 100.0), (3.7, 95.7, 71.4), (3.8, 87.1, 52.9), (3.9, 82.1, 53.6), (3.99, 67.9, 45.0)],
)
def test_flip_reaches_the_known_accuracies_on_the_papers_steps(mu, one_step, free):
    """Golden: 10 batches of 5,000 + 15 points, stride 4,000, x0 = 0.1; the paper's networks reach 57-91 %."""
    values = [0.1]
    while len(values) < 41016:
        values.append(mu * values[-1] * (1 - values[-1]))
    tests = np.array([values[k * 4000 + 4998 : k * 4000 + 5015] for k in range(10)])  # 2 known points, then 15
    known, truth = torch.tensor(tests[:, :2, None]), tests[:, 2:]
    # One step: the known rule is seen from the last true value, at the paper's 14 steps.
    hits = against_last(truth[:, 1:], tests[:, 1:-2], truth[:, :-1])
    assert round(100 * hits.mean(), 1) == one_step
    run = floats(free_run(flip, known, 15))
    assert round(100 * paper_hits(truth, run).mean(), 1) == free
