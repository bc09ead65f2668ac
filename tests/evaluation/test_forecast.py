import math

import numpy as np
import pytest
import torch
from torch import nn

from pared.data.splits import Scaler
from pared.evaluation.forecast import CHUNK, free_run, predictor, starts
from pared.evaluation.scores import evaluate
from pared.types import Batch

VALUES = Scaler(("y",), (0.0,), (1.0,), None)
INCREMENTS = Scaler(("y",), (0.0,), (1.0,), 0.5)


class Noisy(nn.Module):
    """Dropout, a frozen part and a way to fail: what evaluation must leave alone."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(2, 1)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.BatchNorm1d(1)
        self.frozen.eval()

    def forward(self, x):
        if not torch.isfinite(x).all():
            raise RuntimeError("not finite")
        return self.frozen(self.drop(self.line(x[..., 0])))


def logistic(count: int, start: float = 0.3) -> np.ndarray:
    values = [start]
    while len(values) < count:
        values.append(3.99 * values[-1] * (1 - values[-1]))
    return np.array(values)


def windows(values: np.ndarray, window: int) -> Batch:
    x = np.lib.stride_tricks.sliding_window_view(values[:-1], window)
    return Batch(
        torch.tensor(x[..., None].copy(), dtype=torch.float64), torch.tensor(values[window:, None], dtype=torch.float64)
    )


def the_map(x):
    return 3.99 * x[:, -1, 0] * (1 - x[:, -1, 0])


def snapshot(model):
    return (
        [module.training for module in model.modules()],
        {name: value.clone() for name, value in model.state_dict().items()},
        [p.requires_grad for p in model.parameters()],
    )


@pytest.mark.parametrize("x", [torch.randn(7, 2, 1), torch.full((7, 2, 1), math.nan)], ids=["works", "fails"])
def test_predictor_leaves_the_model_as_it_was(x):
    model = Noisy().train()
    model.frozen.eval()
    before, random = snapshot(model), torch.get_rng_state()
    predict = predictor(model, VALUES)
    if x.isnan().any():
        with pytest.raises(RuntimeError, match="not finite"):
            predict(x)
    else:
        assert torch.equal(predict(x), predict(x))  # no dropout
        assert not predict(x).requires_grad
    after = snapshot(model)
    assert after[0] == before[0] == [True, True, True, False]
    assert all(torch.equal(after[1][name], value) for name, value in before[1].items())
    assert after[2] == before[2]
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_predictor_decodes_increments_and_chunks_change_nothing():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1))
    x = torch.randn(CHUNK + 3, 2, 1)
    with torch.no_grad():
        expected = x[:, -1, 0] + 0.5 * model(x)[:, 0]
    torch.testing.assert_close(predictor(model, INCREMENTS)(x), expected)


def test_free_run_is_the_naive_loop():
    x = torch.rand(5, 4, 1, dtype=torch.float64)

    def predict(w):
        return 0.3 * w[:, 0, 0] - 0.7 * w[:, 2, 0] + w[:, 3, 0] ** 2

    got = free_run(predict, x, 6)
    for i in range(5):
        history = x[i, :, 0].tolist()
        for step in range(6):
            history.append(0.3 * history[-4] - 0.7 * history[-2] + history[-1] ** 2)
            assert got[i, step].item() == pytest.approx(history[-1], rel=1e-12)
    assert x.shape == (5, 4, 1)


def test_free_run_refuses_extra_columns():
    with pytest.raises(ValueError, match="target alone"):
        free_run(the_map, torch.zeros(3, 2, 2), 5)
    with pytest.raises(ValueError, match="at least 1"):
        free_run(the_map, torch.zeros(3, 2, 1), 0)


@pytest.mark.parametrize("available", [1, 2, 14, 15, 16, 44, 45, 500, 1000])
@pytest.mark.parametrize("steps", [1, 15, 200])
@pytest.mark.parametrize("limit", [1, 2, 30])
def test_starts_fit_and_are_even(available, steps, limit):
    if steps > available:
        with pytest.raises(ValueError, match="no run"):
            starts(available, steps, limit)
        return
    found = starts(available, steps, limit)
    gaps = np.diff(found)
    assert found[0] == 0
    assert len(found) == min(limit, available - steps + 1)
    assert (found + steps <= available).all()
    assert (gaps > 0).all()
    if len(found) > 1:
        assert found[-1] == available - steps
        assert gaps.max() - gaps.min() <= 1


def test_evaluate_is_the_naive_loop():
    values = logistic(302)
    batch = windows(values, 2)
    truth = values[2:]

    def near(x):
        return the_map(x) + 1e-3

    got = evaluate(near, batch, VALUES, sd=2.0, steps=15, starts=4)
    assert got["nrmse"] == pytest.approx(1e-3 / 2.0)
    f = [3.99 * v * (1 - v) + 1e-3 for v in values[1:-1]]
    right = [(f[i] > values[i + 1]) == (truth[i] > values[i + 1]) for i in range(300)]
    assert got["direction"] == pytest.approx(sum(right) / 300)
    assert got["direction_hits"] == sum((f[i] > f[i - 1]) == (truth[i] > truth[i - 1]) for i in range(1, 15))
    assert got["direction_total"] == got["free_total"] == 14

    def run(start, steps):
        point, path = values[start + 1], []
        for _ in range(steps):
            point = 3.99 * point * (1 - point) + 1e-3
            path.append(point)
        return path

    hits = []
    for start in (0, 95, 190, 285):
        path = run(start, 15)
        future = truth[start : start + 15]
        hits.append(sum((path[i] > path[i - 1]) == (future[i] > future[i - 1]) for i in range(1, 15)))
    assert got["free_hits"] == hits[0]
    assert got["free_direction"] == pytest.approx(sum(hits) / 56)
    times = []
    for start in (0, 50, 100, 150):
        path = run(start, 150)
        times.append(next(i for i in range(150) if not abs(path[i] - truth[start + i]) <= 0.4 * 2.0))
    assert got["vpt"] == pytest.approx(np.mean(times))


def test_evaluate_a_perfect_forecast_is_not_cut_at_fifteen_steps():
    got = evaluate(lambda x: 0.9 * x[:, -1, 0], windows(0.9 ** np.arange(1001.0), 1), VALUES, sd=1.0)
    assert got["vpt"] == 200
    assert got["free_direction"] == got["direction"] == 1
    assert got["free_hits"] == got["direction_hits"] == 14


def test_evaluate_short_batches_directions_only_and_divergence():
    batch = windows(logistic(7), 2)
    short = evaluate(the_map, batch, VALUES, sd=1.0)
    assert short["direction_total"] == short["free_total"] == short["direction_hits"] == 4
    assert short["vpt"] == 5
    assert set(short) == {
        "nrmse", "direction", "direction_hits", "direction_total", "free_direction", "free_hits", "free_total", "vpt"
    }  # fmt: skip
    plain = evaluate(the_map, batch, VALUES, sd=1.0, recursive=False)
    assert set(plain) == {"nrmse", "direction", "direction_hits", "direction_total"}
    for broken in (math.nan, math.inf):
        diverged = evaluate(lambda x, broken=broken: the_map(x) * broken, batch, VALUES, sd=1.0)
        assert math.isnan(diverged["nrmse"])
        assert diverged["free_hits"] == diverged["vpt"] == 0
    with pytest.raises(ValueError, match="at least 2"):
        evaluate(the_map, Batch(batch.x[:1], batch.y[:1]), VALUES, sd=1.0)
