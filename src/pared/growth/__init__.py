"""Networks that grow while they train: where units are added, what they start with, and loops that add them."""

from pared.growth.initial import GrowthRule, copies, gradmax, random_in, zero_in
from pared.growth.loop import Growing, Growth, Stalled, grow
from pared.growth.probes import bottleneck
from pared.growth.tiny import tiny

__all__ = [
    "Growing",
    "Growth",
    "GrowthRule",
    "Stalled",
    "bottleneck",
    "copies",
    "gradmax",
    "grow",
    "random_in",
    "tiny",
    "zero_in",
]
"""Growing networks: where to add units, how to initialise them, and networks that grow."""

from pared.growth.cascade import CascadeConfig, CascadeFit, fit_cascade

__all__ = ["CascadeConfig", "CascadeFit", "fit_cascade"]
