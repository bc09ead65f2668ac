"""Verdicts where the truth is known: re-seeded identical networks, and a difference exactly at the margin."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

PATH = Path(__file__).parent.parent / "docs" / "calibration.py"
SPEC = importlib.util.spec_from_file_location("calibration", PATH)
calibration = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(calibration)


def test_the_tolerance_is_that_of_a_binomial_count():
    assert stats.binom.sf(calibration.TOLERATED, calibration.TRIALS, calibration.NOMINAL) < 0.02
    assert stats.binom.sf(calibration.TOLERATED - 1, calibration.TRIALS, calibration.NOMINAL) > 0.02


def test_the_count_notices_intervals_that_are_too_narrow():
    pairs = np.exp(np.random.default_rng(0).normal(0, 0.3, (200, 2, 1)).repeat(10, axis=2))
    assert calibration.verdicts(pairs, 1.0)["better"] > calibration.TOLERATED  # ten copies of one block are no evidence


@pytest.mark.slow
@pytest.mark.timeout(900)  # 40 s of one processor
def test_identical_networks_are_seldom_called_better_and_inferior_ones_seldom_accepted():
    pairs = calibration.errors()
    assert pairs.shape == (200, 2, 10)
    assert len(np.unique(pairs)) == pairs.size
    assert calibration.verdicts(pairs, 1.0)["better"] <= calibration.TOLERATED
    assert calibration.accepted(calibration.verdicts(pairs, 1 + calibration.MARGIN)) <= calibration.TOLERATED
    mirrored = pairs[:, ::-1]
    assert calibration.verdicts(mirrored, 1.0)["better"] <= calibration.TOLERATED
