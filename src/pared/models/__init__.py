"""Networks that pared trains itself: plain modules without a base class."""

from pared.models.autoencoder import Autoencoder
from pared.models.capnorm import CapNorm
from pared.models.depth import StochasticDepth, survivals
from pared.models.experts import Experts
from pared.models.many_task import ManyTask
from pared.models.mlp import ACTIVATIONS, MLP
from pared.models.mollified import Mollified, MollifiedGRU, MollifiedLSTM
from pared.models.rbm import RBM, OrderedRBM, gibbs, log_likelihood, log_partition
from pared.models.recurrent import CELLS, Forecaster

__all__ = [
    "ACTIVATIONS",
    "CELLS",
    "MLP",
    "RBM",
    "Autoencoder",
    "CapNorm",
    "Experts",
    "Forecaster",
    "ManyTask",
    "Mollified",
    "MollifiedGRU",
    "MollifiedLSTM",
    "OrderedRBM",
    "StochasticDepth",
    "gibbs",
    "log_likelihood",
    "log_partition",
    "survivals",
]
