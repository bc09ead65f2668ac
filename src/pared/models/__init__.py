"""Networks that pared trains itself: plain modules without a base class."""

from pared.models.recurrent import CELLS, Forecaster

__all__ = ["CELLS", "Forecaster"]
