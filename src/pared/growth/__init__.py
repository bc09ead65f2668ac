"""Networks that grow while they train: where units are added, what they start with, and loops that add them."""

from pared.growth.cascade import CascadeConfig, CascadeFit, fit_cascade
from pared.growth.initial import GrowthRule, copies, gradmax, random_in, zero_in
from pared.growth.loop import Growing, Growth, Stalled, grow
from pared.growth.probes import bottleneck
from pared.growth.tiny import tiny

__all__ = [
    "CascadeConfig",
    "CascadeFit",
    "Growing",
    "Growth",
    "GrowthRule",
    "Stalled",
    "bottleneck",
    "copies",
    "fit_cascade",
    "gradmax",
    "grow",
    "random_in",
    "tiny",
    "zero_in",
]
