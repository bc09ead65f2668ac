"""Criteria: plain functions `criterion(model, batch, loss, **knobs) -> scores`, higher = keep.

A key that is a parameter's name carries a score per weight, a key that is a group's name a score per unit. Any function
of this form is a criterion; nothing is registered anywhere.
"""

from pared.criteria.ablation import ablation
from pared.criteria.activation import activation
from pared.criteria.baseline import random
from pared.criteria.belsley import belsley, belsley_obs
from pared.criteria.curvature import obd, obs, woodfisher
from pared.criteria.gradient import taylor
from pared.criteria.initial import grasp, movement, snip, synflow
from pared.criteria.layerwise import layer_obs, obc, wanda
from pared.criteria.weight import deviation, junk, magnitude

# units, then weights: by size, first order, second order, layer by layer, collinearity; and the control
__all__ = [
    "ablation",
    "activation",
    "belsley",
    "belsley_obs",
    "deviation",
    "grasp",
    "junk",
    "layer_obs",
    "magnitude",
    "movement",
    "obc",
    "obd",
    "obs",
    "random",
    "snip",
    "synflow",
    "taylor",
    "wanda",
    "woodfisher",
]
