"""Folds: no row in two roles anywhere, classes evenly dealt, nothing fitted on what is set aside."""

import itertools
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pared.data import Encoding, Table, classic, folds
from pared.types import DataError

PARTS = ("train", "validation", "test")


def table(rows: int, classes: int = 0, seed: int = 0) -> Table:
    """Two columns of numbers and one of two texts; a target of numbers, or of so many classes of uneven size."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(2, size=rows)
    inputs = np.column_stack([rng.normal(5, 3, rows), rng.exponential(100, rows), colour == 0, colour == 1])
    target = np.sort(rng.integers(classes, size=rows) if classes else rng.normal(-2, 9, rows))
    if classes:
        target[: 10 * classes] = np.repeat(np.arange(classes), 10)
    encoding = Encoding("y", tuple("abcdef"[:classes]), ("u", "v", "colour"), ((), (), ("blue", "red")))
    return Table("mine", inputs, target, encoding, "made up")


cases = st.builds(table, st.integers(40, 250), st.sampled_from([0, 2, 3]), st.integers(0, 9))


@settings(max_examples=25, deadline=None)
@given(cases)
def test_no_row_is_tested_on_twice_nor_chosen_on_and_tested_on(table) -> None:
    found = folds(table)
    assert len(found) == min(10, len(table.target) // 16)
    for fold in found:
        rows = [row for part in PARTS for row in fold.rows[part]]
        assert sorted(rows) == list(range(len(table.target)))  # each row has one role in a fold
    aside = [row for fold in found for part in ("validation", "test") for row in fold.rows[part]]
    assert sorted(aside) == list(range(len(table.target)))  # and is set aside once in all
    sizes = [len(fold.rows[part]) for fold in found for part in ("validation", "test")]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 8


@settings(max_examples=25, deadline=None)
@given(cases)
def test_classes_are_dealt_out_evenly(table) -> None:
    for place in range(len(table.encoding.classes)):
        counts = [
            sum(table.target[row] == place for row in fold.rows[part])
            for fold in folds(table)
            for part in ("validation", "test")
        ]
        assert max(counts) - min(counts) <= 1


@settings(max_examples=25, deadline=None)
@given(cases, st.integers(0, 9))
def test_what_is_set_aside_changes_nothing_that_is_learnt_from(table, seed) -> None:
    for fold in folds(table)[:2]:
        aside = np.array(fold.rows["validation"] + fold.rows["test"])
        inputs, target = table.inputs.copy(), table.target.copy()
        rng = np.random.default_rng(seed)
        inputs[aside] = rng.normal(0, 50, (len(aside), inputs.shape[1]))
        if not table.encoding.classes:
            target[aside] = rng.normal(0, 50, len(aside))
        other = folds(Table("mine", inputs, target, table.encoding, ""))[fold.block]
        assert other.scaler == fold.scaler
        assert torch.equal(other.train.x, fold.train.x)
        assert torch.equal(other.train.y, fold.train.y)
        assert not torch.equal(other.test.x, fold.test.x)


@pytest.mark.parametrize("classes", [0, 3])
def test_batches_are_scaled_one_by_one_as_the_training_rows_say(classes) -> None:
    own = table(120, classes)
    for fold in folds(own)[:3]:
        train = own.inputs[list(fold.rows["train"])]
        for part in PARTS:
            batch = getattr(fold, part)
            for i, row in enumerate(fold.rows[part]):
                expected = [(own.inputs[row, j] - train[:, j].mean()) / train[:, j].std() for j in (0, 1)]
                np.testing.assert_allclose(batch.x[i], [*expected, *own.inputs[row, 2:]], rtol=1e-5, atol=1e-6)
                target = own.target[row]
                if classes:
                    assert batch.y[i].item() == target
                else:
                    learnt = own.target[list(fold.rows["train"])]
                    assert batch.y[i].item() == pytest.approx((target - learnt.mean()) / learnt.std(), abs=1e-5)
                    assert fold.scaler.raw(batch.y[i].item()) == pytest.approx(target, abs=1e-4)
        assert batch.y.dtype == (torch.int64 if classes else torch.float32)


def test_folds_are_the_same_again_and_others_with_another_seed() -> None:
    own = table(100)
    one, two, other = folds(own), folds(own), folds(own, seed=1)
    assert [fold.rows for fold in one] == [fold.rows for fold in two]
    assert one[0].rows != other[0].rows


def test_constant_inputs_stay_finite() -> None:
    own = table(100)
    inputs = own.inputs.copy()
    inputs[:, 0] = 0.1  # its standard deviation rounds to something else than 0
    fold = folds(Table("mine", inputs, own.target, own.encoding, ""))[0]
    assert fold.test.x[:, 0].abs().max() < 1e-12


def test_tables_that_cannot_be_split() -> None:
    with pytest.raises(DataError, match="mine: 31 rows are too few; at least 32"):
        folds(table(31))
    own = table(200, 2)
    target = np.zeros(200)
    target[:9] = 1
    with pytest.raises(DataError, match="class 'b' of 'y' has 9 rows, fewer than the 10 folds"):
        folds(Table("mine", own.inputs, target, own.encoding, ""))
    numbers = table(200)
    target = np.zeros(200)
    target[folds(numbers)[3].rows["test"][0]] = 1
    with pytest.raises(DataError, match=r"constant \(0\) in the training rows of fold 3"):
        folds(Table("mine", numbers.inputs, target, numbers.encoding, ""))
    inputs = numbers.inputs.copy()
    inputs[7, 1] = 1e300
    with pytest.raises(DataError, match=r"row 8, column 'v': 1e\+300 lies so far"):
        folds(Table("mine", inputs, numbers.target, numbers.encoding, ""))


def test_boston_without_its_package(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    classic.cache_clear()
    with pytest.raises(DataError, match="boston comes with the package mlxtend, which is missing; pip install"):
        classic("boston")


@pytest.mark.slow
def test_boston() -> None:
    pytest.importorskip("mlxtend")
    classic.cache_clear()
    boston = classic("boston")
    assert (boston.inputs.shape, boston.task, boston.encoding.target) == ((506, 13), "regression", "MEDV")
    assert (boston.target.min(), boston.target.max()) == (5, 50)


@pytest.mark.slow
def test_the_built_in_tables() -> None:
    wine, diabetes = classic("wine"), classic("diabetes")
    assert (wine.inputs.shape, Counter(wine.target)) == ((178, 13), {0: 59, 1: 71, 2: 48})
    assert wine.task == "classification"
    assert (diabetes.inputs.shape, diabetes.task) == ((442, 10), "regression")
    assert diabetes.inputs[0, 0] == 59  # years, not scaled on all rows
    assert all(len(fold.rows["test"]) in (8, 9) for fold in folds(wine))
    for a, b in itertools.pairwise(folds(wine)):
        assert set(a.rows["test"]).isdisjoint(b.rows["validation"])
    with pytest.raises(DataError, match="no built-in table 'iris'"):
        classic("iris")
