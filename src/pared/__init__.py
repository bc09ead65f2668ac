"""pared finds the smallest neural network that predicts as well as the large one, and proves it.

The public names, in the order in which data flow through them.
"""

from pared import criteria, data, evaluation, growth, models, reconstruct, schedules
from pared.compare_criteria import CriteriaSettings, compare_criteria
from pared.compensate import compensate
from pared.counting import WeightCount, WeightTable, compare_weights, count_weights
from pared.cutting import Layers, Units, Weights
from pared.data import Series, Split
from pared.dead import DeadUnits, dead_units, shed_dead_units
from pared.distill import adapt, born_again, distill, hint
from pared.evaluation import Comparison, compare
from pared.export import SizeTable, compare_sizes, quantise, to_onnx
from pared.gradual import Steps, gradual
from pared.growth import CascadeConfig, CascadeFit, Growing, Growth, fit_cascade, grow
from pared.kept import CriteriaComparison
from pared.lean import Lean, fit_watching_layers, shed_layers
from pared.lottery import early_bird, lottery_ticket
from pared.lowrank import LowRank, low_rank
from pared.masks import Sparse, adapt_dropout, density, mask_weights, select_weights, unit_masks
from pared.matching import match_outputs
from pared.merging import merge
from pared.models import MLP, Forecaster
from pared.outcomes import Outcome
from pared.population import Selection, train_population
from pared.rewiring import Rewiring, evolved, fit_sparse, rigl
from pared.search import SearchSettings, search
from pared.selection import Budget, Count, Ratio, Ratios, Threshold, cost_of, select
from pared.shape import Shaped, ShapeSettings, shape
from pared.sizes import Bisection, LayerByLayer, OneByOne
from pared.study import Refit, StudySettings, prune, study
from pared.successive import AnchoredLoss, Successive, fit_anchored, successive
from pared.surgery import (
    Group,
    Plan,
    Slice,
    Structure,
    StructureError,
    by_unit,
    carry,
    carry_tensors,
    cut,
    deepen,
    drop_layer,
    droppable,
    insert,
    load,
    load_masks,
    mask,
    replay,
    save,
    split_layers,
    trace,
    widen,
)
from pared.targets import Bounded, Mixed, Soft
from pared.training import Bound, Fit, TrainConfig, engine_of, fit, fit_each, fit_many, predict_many
from pared.types import Batch, DataError, DivergedError, Masks

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "AnchoredLoss",
    "Batch",
    "Bisection",
    "Bound",
    "Bounded",
    "Budget",
    "CascadeConfig",
    "CascadeFit",
    "Comparison",
    "Count",
    "CriteriaComparison",
    "CriteriaSettings",
    "DataError",
    "DeadUnits",
    "DivergedError",
    "Fit",
    "Forecaster",
    "Group",
    "Growing",
    "Growth",
    "LayerByLayer",
    "Layers",
    "Lean",
    "LowRank",
    "Masks",
    "Mixed",
    "OneByOne",
    "Outcome",
    "Plan",
    "Ratio",
    "Ratios",
    "Refit",
    "Rewiring",
    "SearchSettings",
    "Selection",
    "Series",
    "ShapeSettings",
    "Shaped",
    "SizeTable",
    "Slice",
    "Soft",
    "Sparse",
    "Split",
    "Steps",
    "Structure",
    "StructureError",
    "StudySettings",
    "Successive",
    "Threshold",
    "TrainConfig",
    "Units",
    "WeightCount",
    "WeightTable",
    "Weights",
    "adapt",
    "adapt_dropout",
    "born_again",
    "by_unit",
    "carry",
    "carry_tensors",
    "compare",
    "compare_criteria",
    "compare_sizes",
    "compare_weights",
    "compensate",
    "cost_of",
    "count_weights",
    "criteria",
    "cut",
    "data",
    "dead_units",
    "deepen",
    "density",
    "distill",
    "drop_layer",
    "droppable",
    "early_bird",
    "engine_of",
    "evaluation",
    "evolved",
    "fit",
    "fit_anchored",
    "fit_cascade",
    "fit_each",
    "fit_many",
    "fit_sparse",
    "fit_watching_layers",
    "gradual",
    "grow",
    "growth",
    "hint",
    "insert",
    "load",
    "load_masks",
    "lottery_ticket",
    "low_rank",
    "mask",
    "mask_weights",
    "match_outputs",
    "merge",
    "models",
    "predict_many",
    "prune",
    "quantise",
    "reconstruct",
    "replay",
    "rigl",
    "save",
    "schedules",
    "search",
    "select",
    "select_weights",
    "shape",
    "shed_dead_units",
    "shed_layers",
    "split_layers",
    "study",
    "successive",
    "to_onnx",
    "trace",
    "train_population",
    "unit_masks",
    "widen",
]
