"""Schedules: progress to value."""

import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pared.schedules import Constant, Cosine

PROGRESS = st.floats(0, 1)


@given(PROGRESS, st.floats(-5, 5), st.floats(-5, 5))
def test_cosine_runs_from_start_to_end_between_the_two(progress, start, end):
    schedule = Cosine(start, end)
    assert schedule(0.0) == pytest.approx(start)
    assert schedule(1.0) == pytest.approx(end, abs=1e-12)
    assert min(start, end) - 1e-12 <= schedule(progress) <= max(start, end) + 1e-12
    assert schedule(progress) == pytest.approx((start + end) / 2 + (start - end) / 2 * math.cos(math.pi * progress))


@given(PROGRESS, PROGRESS)
def test_cosine_never_turns_back(one, two):
    assert (Cosine()(one) - Cosine()(two)) * (one - two) <= 0


@given(PROGRESS, st.floats(0.01, 1))
def test_warm_up_rises_from_a_tenth_and_then_follows_the_cosine(progress, warm):
    schedule = Cosine(warm=warm)
    assert schedule(0.0) == pytest.approx(0.1)
    assert schedule(warm / 2) == pytest.approx(0.55 * Cosine()(warm / 2))
    if progress >= warm:
        assert schedule(progress) == Cosine()(progress)


@given(PROGRESS)
def test_constant_is_constant_and_both_are_data(progress):
    assert Constant(0.3)(progress) == 0.3
    assert Cosine(1, 0) == Cosine()
    with pytest.raises(FrozenInstanceError):
        Cosine().start = 2
