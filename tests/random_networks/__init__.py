"""Hypothesis strategies for random networks from everything that pared cuts."""

from random_networks.networks import Spec, specs

__all__ = ["Spec", "specs"]
