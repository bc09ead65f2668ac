"""Criteria: plain functions `criterion(model, batch, loss, **knobs) -> scores`, higher = keep.

A key that is a parameter's name carries a score per weight, a key that is a group's name a score per unit. Any function
of this form is a criterion; nothing is registered anywhere.
"""

from pared.criteria.ablation import ablation
from pared.criteria.activation import activation
from pared.criteria.baseline import random
from pared.criteria.belsley import belsley, belsley_obs
from pared.criteria.gradient import taylor
from pared.criteria.weight import junk, magnitude

__all__ = ["ablation", "activation", "belsley", "belsley_obs", "junk", "magnitude", "random", "taylor"]
