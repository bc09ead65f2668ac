"""All forecast metrics of one Predictor on one block: what an outcome stores."""

import math

import numpy as np

from pared.data.splits import Scaler
from pared.evaluation import forecast
from pared.evaluation.direction import against_last, paper_hits
from pared.evaluation.forecast import Predictor, floats
from pared.evaluation.metrics import Floats, nrmse, valid_prediction_time
from pared.types import Batch

LONGEST = 200  # steps of the free run that valid prediction time is read from


def evaluate(
    predict: Predictor,
    batch: Batch,
    scaler: Scaler,
    sd: float,
    steps: int = 15,
    starts: int = 30,
    recursive: bool = True,
) -> dict[str, float]:
    """One-step and free-running metrics on consecutive windows.

    `batch` holds consecutive windows, so the truth after window i is the decoded y of i, i+1, ...; `sd` is the standard
    deviation of the training target in scaled units. `steps` shrinks to the length of a short batch.
    Valid prediction time is read from a longer run: at most 200 steps, and at most half of the batch so that several
    starts remain.

    Returns:
        nrmse: one-step error, smaller is better;
        direction: share of one-step directions right against the last true value;
        direction_hits, direction_total: paper's count over the first `steps` one-step forecasts;
        and if `recursive`:
        free_direction: share of paper's directions right over recursive forecasts of `steps` points from up to
            `starts` starts;
        free_hits, free_total: paper's count for the recursive forecast from the first point;
        vpt: mean valid prediction time over the starts, in steps, cut off at the length of the run.
        A metric that is not finite is NaN: the network diverged.
    Cost: one pass over the batch and, if `recursive`, up to 215 passes over `starts` windows.
    Raises: ValueError for fewer than 2 windows, or `recursive` with extra columns.
    """
    count = len(batch.x)
    if count < 2:
        raise ValueError(f"directions need at least 2 consecutive windows, got {count}")
    truth = floats(scaler.value(batch.y, batch.x))
    one_step = floats(predict(batch.x))
    steps = min(steps, count)
    hits = paper_hits(truth[:steps], one_step[:steps])
    metrics = {
        "nrmse": nrmse(truth, one_step, sd),
        "direction": float(against_last(truth, one_step, floats(batch.x[:, -1, 0])).mean()),
        "direction_hits": float(hits.sum()),
        "direction_total": float(hits.size),
    }
    if recursive:
        near_truth, near = _runs(predict, batch, truth, steps, starts)
        free = paper_hits(near_truth, near)
        longest = min(LONGEST, max(steps, count // 2))
        far_truth, far = _runs(predict, batch, truth, longest, starts)
        metrics |= {
            "free_direction": float(free.mean()),
            "free_hits": float(free[0].sum()),  # the first start is the first point
            "free_total": float(free[0].size),
            "vpt": float(valid_prediction_time(far_truth, far, sd).mean()),
        }
    return {name: value if math.isfinite(value) else math.nan for name, value in metrics.items()}


def _runs(predict: Predictor, batch: Batch, truth: Floats, steps: int, limit: int) -> tuple[Floats, Floats]:
    """Truth and recursive forecast, both (starts, steps)."""
    first = forecast.starts(len(truth), steps, limit)
    return truth[first[:, None] + np.arange(steps)], floats(forecast.free_run(predict, batch.x[first], steps))
