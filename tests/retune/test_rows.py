"""Which rows are new, what they are for, and what changed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pared.data import Encoding, Series, Table
from pared.retune.drift import _shift
from pared.retune.rows import FEWEST, PARTS, needed, new_rows, shared
from pared.types import DataError

ENCODING = Encoding("y", (), ("a",), ((),))
whole = st.integers(0, 3).map(float)


def series(values) -> Series:
    return Series("s", np.array(values, dtype=float)[:, None], ("value",), 3, "values", None, "made up")


def table(rows) -> Table:
    cells = np.array(rows, dtype=float)
    return Table("t", cells[:, 1:], cells[:, 0], ENCODING, "made up")


@given(st.lists(whole, min_size=2, max_size=12), st.lists(whole, max_size=12), st.integers(0, 11))
@settings(deadline=None, max_examples=40)
def test_what_follows_the_old_series_is_new(old, fresh, start):
    tail = old[min(start, len(old) - 1) :]
    found = new_rows(series(tail + fresh), series(old)).tolist()
    naive = next(
        count
        for count in range(len(tail + fresh), -1, -1)
        if any((tail + fresh)[:count] == old[s : s + count] and s + count <= len(old) for s in range(len(old)))
        and (count == len(tail + fresh) or (tail + fresh)[:count] == old[len(old) - count :])
    )
    assert found == list(range(naive, len(tail + fresh)))


@given(st.lists(st.tuples(whole, whole), min_size=2, max_size=12), st.lists(st.tuples(whole, whole), max_size=12))
@settings(deadline=None, max_examples=40)
def test_rows_of_a_table_are_new_where_there_are_more_of_them(old, fresh):
    both = [(9.0, 9.0), (8.0, 8.0)]  # no target is constant
    found = new_rows(table([*both, *old, *fresh]), table([*both, *old]))
    assert found.tolist() == list(range(len(old) + 2, len(old) + 2 + len(fresh)))
    assert not len(new_rows(table([*both, *old[::-1]]), table([*both, *old])))


@pytest.mark.parametrize("count", [FEWEST, 101, 333])
def test_every_new_row_is_for_one_thing(count):
    rows = np.arange(50, 50 + count)
    for data in (series(np.arange(50 + count)), table([(k, k % 7) for k in range(50 + count)])):
        found = shared(rows, data)
        assert len(found.test) == PARTS
        used = np.concatenate([found.train, found.validation, *found.test])
        assert sorted(used.tolist()) == rows.tolist()
        assert found.known.tolist() == list(range(50))
        assert min(map(len, found.test)) >= 8
        assert np.array_equal(np.sort(used), np.sort(np.concatenate([found.looked_at, found.tested])))
        if isinstance(data, Series):
            assert used.tolist() == rows.tolist()  # learnt from, chosen on, tested on, in time order
    with pytest.raises(DataError, match=f"{FEWEST - 1} new rows are too few"):
        shared(rows[: FEWEST - 1], data)


def test_how_many_new_rows_a_look_is_worth():
    assert needed(10) == FEWEST
    assert needed(5000) == 1000


def walk(seed: int, count: int) -> np.ndarray:
    """Values that resemble their neighbours: tau is about 19."""
    drawn, found = np.random.default_rng(seed).normal(size=count + 200), [0.0]
    for value in drawn:
        found.append(0.9 * found[-1] + value)
    return np.array(found[-count:])


def test_columns_of_a_series_are_thinned_before_they_are_tested():
    """Of forty pairs of equal law one at most is called changed at 1 %; row by row it would be most of them."""
    pairs = [(walk(2 * k, 3000), walk(2 * k + 1, 400)) for k in range(40)]
    thinned = [_shift("x", old, now, 1, ordered=True) for old, now in pairs]
    every = [_shift("x", old, now, 1, ordered=False) for old, now in pairs]
    assert sum(each.p_value < 0.01 for each in thinned) <= 1
    assert sum(each.p_value < 0.01 for each in every) > 20
    assert all(10 < each.step < 40 for each in thinned)


def test_a_change_is_seen_and_p_values_count_the_columns():
    old, now = np.random.default_rng(0).normal(size=(2, 400))
    assert _shift("x", old, now + 1, 1, ordered=True).p_value < 1e-6
    one, many = (_shift("x", old, now + 0.2, columns, ordered=False) for columns in (1, 7))
    assert many.p_value == pytest.approx(min(1.0, 7 * one.p_value))
    assert replace(many, p_value=one.p_value) == one
