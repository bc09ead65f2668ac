"""Hypothesis strategies for random networks from everything that pared cuts."""

from random_networks.networks import KINDS, WITHOUT_WEIGHTS, Spec, specs

__all__ = ["KINDS", "WITHOUT_WEIGHTS", "Spec", "specs"]
