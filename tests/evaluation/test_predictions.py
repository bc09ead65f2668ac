"""Measures and naive predictors of tables against the formulas read one row at a time."""

import math

import numpy as np
import pytest
import torch

from pared.data.folds import Fold
from pared.data.splits import Scaler
from pared.evaluation import CLASSIFICATION, FORECASTING, REGRESSION, compare
from pared.evaluation.paired import counting_error
from pared.outcomes import Yardstick
from pared.study import StudySettings
from pared.types import Batch


def fold(classes: int = 0, rows: int = 60) -> Fold:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(rows, 3, generator=generator)
    score = x[:, 0] - 2 * x[:, 1] + 0.3 * torch.randn(rows, generator=generator)
    y = (torch.bucketize(score, torch.tensor([-1.0, 1.5])) % classes) if classes else score[:, None]
    parts = [Batch(x[a:b], y[a:b]) for a, b in ((0, 40), (40, 50), (50, 60))]
    return Fold(*parts, Scaler(("y", "a", "b", "c"), (0.0,) * 4, (1.0,) * 4), 0, {})


def test_numbers_are_measured_as_the_formulas_read():
    own = fold()
    predicted = own.test.y[:, 0] + torch.linspace(-1, 1, 10)
    found = REGRESSION.measure(lambda x: predicted, own, own.test, True)
    truth, guess, learnt = own.test.y[:, 0].tolist(), predicted.tolist(), own.train.y[:, 0].tolist()
    squares = sum((a - b) ** 2 for a, b in zip(truth, guess, strict=True))
    spread = sum((a - sum(truth) / 10) ** 2 for a in truth)
    mean = sum(learnt) / 40
    assert found["nrmse"] == pytest.approx(
        math.sqrt(squares / 10) / math.sqrt(sum((a - mean) ** 2 for a in learnt) / 40)
    )
    assert found["r2"] == pytest.approx(1 - squares / spread)
    assert math.isnan(REGRESSION.measure(lambda x: predicted * math.inf, own, own.test, True)["nrmse"])


def test_classes_are_counted():
    own = fold(3)
    right = own.test.y.double().clone()
    wrong = right.clone()
    wrong[:3] = (wrong[:3] + 1) % 3
    found = CLASSIFICATION.measure(lambda x: wrong, own, own.test, True)
    assert found == {"error": 0.3, "accuracy": 0.7, "rows": 10}
    assert CLASSIFICATION.hits(lambda x: wrong, own.test, own.scaler).tolist() == [False] * 3 + [True] * 7
    wrong[5] = math.nan
    assert math.isnan(CLASSIFICATION.measure(lambda x: wrong, own, own.test, True)["error"])


def test_a_class_is_the_place_of_the_largest_logit_and_a_broken_network_has_none():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 3.0, 1.0], [math.nan, 1.0, 2.0], [math.inf, 0.0, 0.0]])
    found = CLASSIFICATION.predictor(lambda x: logits, fold(3).scaler)(torch.zeros(4, 3))
    assert found[:2].tolist() == [1.0, 0.0]
    assert found[2:].isnan().all()


def nearest(own: Fold) -> list[float]:
    found = []
    for x in own.test.x.double():
        j = min(range(40), key=lambda j: float(((own.train.x[j].double() - x) ** 2).sum()))
        found.append(own.train.y[j].item())
    return found


def test_naive_predictors_of_numbers():
    own = fold()
    naive = {name: predict(own.test.x).double().numpy() for name, predict in REGRESSION.naive(own).items()}
    design = np.column_stack([own.train.x.double().numpy(), np.ones(40)])
    weights = np.linalg.solve(design.T @ design, design.T @ own.train.y[:, 0].double().numpy())
    np.testing.assert_allclose(naive["linear"], own.test.x.double().numpy() @ weights[:3] + weights[3], rtol=1e-5)
    np.testing.assert_allclose(naive["mean"], sum(own.train.y[:, 0].tolist()) / 40, rtol=1e-5)
    np.testing.assert_allclose(naive["neighbour"], nearest(own), rtol=1e-6)
    assert list(naive) == ["mean", "linear", "neighbour"]


@pytest.mark.slow
def test_naive_predictors_of_classes():
    own = fold(3)
    naive = {name: predict(own.test.x).tolist() for name, predict in CLASSIFICATION.naive(own).items()}
    labels = own.train.y.tolist()
    assert naive["majority"] == [max(sorted(set(labels)), key=labels.count)] * 10
    assert naive["neighbour"] == nearest(own)
    w, b = softmax_regression(own, 3)  # scikit-learn's objective by plain gradient descent
    scores = own.test.x.double() @ w + b
    top = scores.topk(2, dim=1).values
    clear = (top[:, 0] - top[:, 1]) > 0.05
    assert clear.sum() >= 8
    assert torch.equal(torch.tensor(naive["logistic"])[clear], scores.argmax(1)[clear].float())
    assert list(naive) == ["majority", "logistic", "neighbour"]


def softmax_regression(own: Fold, classes: int):
    """min sum_i cross-entropy_i + |w|^2 / 2."""
    w, b = (torch.zeros(*shape, dtype=torch.float64, requires_grad=True) for shape in ((3, classes), (classes,)))
    optimiser = torch.optim.LBFGS([w, b], max_iter=200, line_search_fn="strong_wolfe")

    def objective():
        optimiser.zero_grad()
        logits = own.train.x.double() @ w + b
        value = torch.nn.functional.cross_entropy(logits, own.train.y, reduction="sum") + 0.5 * (w**2).sum()
        value.backward()
        return value

    optimiser.step(objective)
    return w.detach(), b.detach()


def test_every_task_compares_as_it_says():
    for task, scale, margin in (
        (FORECASTING, "log", 0.05),
        (REGRESSION, "log", 0.05),
        (CLASSIFICATION, "linear", 0.01),
    ):
        assert StudySettings(task=task).yardstick == Yardstick(task.error, scale, margin, 0.95)
        assert StudySettings(task=task, margin=0.5).yardstick.margin == 0.5


def test_agreement_on_few_rows_proves_nothing():
    same = [0.1] * 10
    assert compare(same, same, 0.01, scale="linear").verdict == "not inferior"
    few = compare(same, same, 0.01, scale="linear", least_error=counting_error(89))
    assert few.verdict == "inconclusive"
    assert few.p_value == 1
    assert few.high == pytest.approx(2.2622 / 91, rel=1e-4)  # t of 9 degrees of freedom
    assert compare(same, same, 0.01, scale="linear", least_error=counting_error(898)).verdict == "not inferior"
    wide = [0.1 + 0.05 * (k % 2) for k in range(10)]
    assert compare(wide, same, scale="linear", least_error=1e-3) == compare(wide, same, scale="linear")


def test_the_rows_of_a_block_count_once_whatever_the_seeds():
    metrics = {"test.error": 0.1, "test.rows": 20.0}
    pairs = [(metrics, metrics, block) for block in range(10) for _seed in range(3)]
    found = Yardstick("error", "linear", 0.01, 0.95).compared(pairs, "test")
    assert found.high == pytest.approx(2.2622 / 202, rel=1e-4)
    assert (found.pairs, found.clusters) == (30, 10)
