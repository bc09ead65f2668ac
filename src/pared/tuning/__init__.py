"""Tuning by rules: diagnosis, range test, noise scale, and the loop that tries what they propose."""

from pared.tuning.diagnosis import Diagnosis, Examination, Finding, diagnose, diagnose_fit
from pared.tuning.literal import LiteralTuning, follow
from pared.tuning.noise_scale import NoiseScale, noise_scale
from pared.tuning.range_test import RangeTest, range_test
from pared.tuning.recipe import Change, Problem, Recipe
from pared.tuning.rules import Thresholds
from pared.tuning.tuning import Step, Tuning, improve

__all__ = [
    "Change",
    "Diagnosis",
    "Examination",
    "Finding",
    "LiteralTuning",
    "NoiseScale",
    "Problem",
    "RangeTest",
    "Recipe",
    "Step",
    "Thresholds",
    "Tuning",
    "diagnose",
    "diagnose_fit",
    "follow",
    "improve",
    "noise_scale",
    "range_test",
]
