"""Evaluation: how good a forecast is, whether one network is as good as another, and what it costs.

The naive forecasters are in `pared.evaluation.baselines`.
"""

from pared.evaluation.cost import Size, latency, macs, nonzeros, parameters, size
from pared.evaluation.direction import against_last, paper_hits
from pared.evaluation.forecast import Predictor, free_run, predictor, starts
from pared.evaluation.metrics import nrmse, rmse, valid_prediction_time
from pared.evaluation.paired import Comparison, McNemar, block_bootstrap, compare, mcnemar, wilcoxon
from pared.evaluation.scores import evaluate
from pared.evaluation.tasks import CLASSIFICATION, FORECASTING, REGRESSION, Task

__all__ = [
    "CLASSIFICATION",
    "FORECASTING",
    "REGRESSION",
    "Comparison",
    "McNemar",
    "Predictor",
    "Size",
    "Task",
    "against_last",
    "block_bootstrap",
    "compare",
    "evaluate",
    "free_run",
    "latency",
    "macs",
    "mcnemar",
    "nonzeros",
    "nrmse",
    "paper_hits",
    "parameters",
    "predictor",
    "rmse",
    "size",
    "starts",
    "valid_prediction_time",
    "wilcoxon",
]
