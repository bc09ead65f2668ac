"""Criteria: plain functions `criterion(model, batch, loss, **knobs) -> scores`, higher = keep.

A key that is a parameter's name carries a score per weight, a key that is a group's name a score per unit. Any function
of this form is a criterion; nothing is registered anywhere.
"""

from pared.criteria.ablation import ablation
from pared.criteria.activation import activation, entropy
from pared.criteria.baseline import random
from pared.criteria.bayesian import group_jeffreys, horseshoe, variational_dropout
from pared.criteria.belsley import belsley, belsley_obs
from pared.criteria.curvature import group_obs, obd, obs, woodfisher
from pared.criteria.gated import learned_gate
from pared.criteria.gradient import predicted_ablation, taylor
from pared.criteria.greedy import greedy, reranked
from pared.criteria.initial import gradient_covariance, grasp, movement, snip, synflow
from pared.criteria.layers import (
    block_influence,
    cka,
    layer_ablation,
    probe_gain,
    recovery,
    reinitialisation,
    replaceability,
)
from pared.criteria.layerwise import layer_obs, obc, wanda
from pared.criteria.posterior import snr
from pared.criteria.redundancy import determinantal, least_squares, sample_diverse, similarity
from pared.criteria.weight import deviation, junk, magnitude, norm

# of units, weights and layers; the names of the scores tell which
__all__ = [
    "ablation",
    "activation",
    "belsley",
    "belsley_obs",
    "block_influence",
    "cka",
    "determinantal",
    "deviation",
    "entropy",
    "gradient_covariance",
    "grasp",
    "greedy",
    "group_jeffreys",
    "group_obs",
    "horseshoe",
    "junk",
    "layer_ablation",
    "layer_obs",
    "learned_gate",
    "least_squares",
    "magnitude",
    "movement",
    "norm",
    "obc",
    "obd",
    "obs",
    "predicted_ablation",
    "probe_gain",
    "random",
    "recovery",
    "reinitialisation",
    "replaceability",
    "reranked",
    "sample_diverse",
    "similarity",
    "snip",
    "snr",
    "synflow",
    "taylor",
    "variational_dropout",
    "wanda",
    "woodfisher",
]
