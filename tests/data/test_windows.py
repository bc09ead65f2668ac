"""Windows against a loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pared.data import windows
from pared.types import DataError


def naive_windows(values, window: int, horizon: int):
    x, last, target = [], [], []
    for start in range(len(values)):
        end = start + window  # one past the window
        if end - 1 + horizon < len(values):
            x.append(values[start:end])
            last.append(values[end - 1][0])
            target.append(values[end - 1 + horizon][0])
    return np.array(x), np.array(last), np.array(target)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 12), st.integers(1, 3))
def test_windows_match_the_loop(window: int, horizon: int, more: int, columns: int) -> None:
    values = np.random.default_rng(more).standard_normal((window + horizon + more, columns))
    for ours, naive in zip(windows(values, window, horizon), naive_windows(values, window, horizon), strict=True):
        np.testing.assert_array_equal(ours, naive)
    assert windows(values, window, horizon)[0].shape == (more + 1, window, columns)


def test_refused() -> None:
    with pytest.raises(DataError, match=r"4 rows .* at least 5"):
        windows(np.ones((4, 1)), 3, 2)
    with pytest.raises(DataError, match="2 rows"):
        windows(np.ones((2, 1)), 5, 1)
    for window, horizon in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            windows(np.ones((4, 1)), window, horizon)
