"""Networks that pared trains itself: plain modules without a base class."""

from pared.models.mlp import ACTIVATIONS, MLP
from pared.models.recurrent import CELLS, Forecaster

__all__ = ["ACTIVATIONS", "CELLS", "MLP", "Forecaster"]
