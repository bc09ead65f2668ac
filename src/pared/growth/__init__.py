"""Networks that grow while they train: where units are added, what they start with, and loops that add them.

For rules of your own (`examples/own_growth_rule.py`): `check_growth` refuses what cannot grow, `pared.insert` and
`grown_structure` make room, `newest` names the new units, `makers`, `readers` and `places_of` say where their weights
lie, `values_at` reads and `with_values` writes them; `answer`, `gradients_at`, `linear_gradients` look at the network.
"""

from pared.growth.cascade import CascadeConfig, CascadeFit, fit_cascade
from pared.growth.columns import Progressive, add_column
from pared.growth.endless import EndlessFit, UnitByUnit, beyond, fit_endless, with_unit
from pared.growth.entries import (
    Places,
    answer,
    check_growth,
    gradients_at,
    makers,
    newest,
    places_of,
    readers,
    values_at,
    with_values,
)
from pared.growth.experts import GrownExperts, MixtureLoss, grow_experts, split_expert
from pared.growth.fans import fan_penalty
from pared.growth.initial import GrowthRule, copies, gradmax, random_in, uniform_in, zero_in
from pared.growth.intrinsic_replay import ClassCode, class_code, intrinsic_replay
from pared.growth.levels import fit_stacked
from pared.growth.loop import Growing, Growth, Stalled, grow
from pared.growth.neurogenesis import (
    Learnt,
    Neurogenesis,
    NeurogenesisFit,
    begin_neurogenesis,
    learn_class,
    level_errors,
    with_level_units,
)
from pared.growth.nonparametric import Nonparametric, NonparametricFit, fit_nonparametric, with_zero_units
from pared.growth.probes import bottleneck, linear_gradients
from pared.growth.specialists import Specialists, confusable, confusion, fit_specialists, specialise
from pared.growth.splitting import firefly, splits, splitting
from pared.growth.tiny import tiny
from pared.surgery.origins import grown_structure

__all__ = [
    "CascadeConfig",
    "CascadeFit",
    "ClassCode",
    "EndlessFit",
    "Growing",
    "GrownExperts",
    "Growth",
    "GrowthRule",
    "Learnt",
    "MixtureLoss",
    "Neurogenesis",
    "NeurogenesisFit",
    "Nonparametric",
    "NonparametricFit",
    "Places",
    "Progressive",
    "Specialists",
    "Stalled",
    "UnitByUnit",
    "add_column",
    "answer",
    "begin_neurogenesis",
    "beyond",
    "bottleneck",
    "check_growth",
    "class_code",
    "confusable",
    "confusion",
    "copies",
    "fan_penalty",
    "firefly",
    "fit_cascade",
    "fit_endless",
    "fit_nonparametric",
    "fit_specialists",
    "fit_stacked",
    "gradients_at",
    "gradmax",
    "grow",
    "grow_experts",
    "grown_structure",
    "intrinsic_replay",
    "learn_class",
    "level_errors",
    "linear_gradients",
    "makers",
    "newest",
    "places_of",
    "random_in",
    "readers",
    "specialise",
    "split_expert",
    "splits",
    "splitting",
    "tiny",
    "uniform_in",
    "values_at",
    "with_level_units",
    "with_unit",
    "with_values",
    "with_zero_units",
    "zero_in",
]
