"""Training: one network (`fit`) or many (`fit_many`, `predict_many`); `engine_of` says what trains a network."""

from pared.training.bound import Bound
from pared.training.contrastive import ContrastiveConfig, ContrastiveFit, contrast, fit_contrastive
from pared.training.engines import engine_of
from pared.training.fit import Fit, TrainConfig, fit
from pared.training.fleet import fit_each, fit_many, predict_many
from pared.training.snapshots import Ensemble, snapshots

__all__ = [
    "Bound",
    "ContrastiveConfig",
    "ContrastiveFit",
    "Ensemble",
    "Fit",
    "TrainConfig",
    "contrast",
    "engine_of",
    "fit",
    "fit_contrastive",
    "fit_each",
    "fit_many",
    "predict_many",
    "snapshots",
]
