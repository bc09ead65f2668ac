"""Training: one network (`fit`) or many (`fit_many`, `predict_many`)."""

from pared.training.fit import Fit, TrainConfig, fit
from pared.training.fleet import fit_many, predict_many

__all__ = ["Fit", "TrainConfig", "fit", "fit_many", "predict_many"]
