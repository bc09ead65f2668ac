"""Done-when 6 of the main job: what least-squares repair is worth where nothing is trained afterwards."""

import math

import pytest
import torch
from torch.nn.functional import mse_loss

from pared import criteria
from pared.compensate import compensate
from pared.data import load
from pared.data.splits import Framing, Protocol, rolling_origin
from pared.models import Forecaster
from pared.selection import select
from pared.study import scoring_batch
from pared.surgery import cut, trace
from pared.training import TrainConfig, fit_many

SEEDS = range(10)


def nrmse(model, batch):
    """Root mean squared error over the standard deviation of the target."""
    with torch.no_grad():
        return math.sqrt(mse_loss(model(batch.x), batch.y).item() / batch.y.var(correction=0).item())


def factor(model, split):
    """NRMSE on test data of the plain cut over that of the repaired one."""
    batch = scoring_batch(split)
    structure = trace(model, batch.x[:1])
    scores = criteria.junk(model, batch, mse_loss)
    plan = select({"recurrent.0.l0": scores["recurrent.0.l0"]}, structure, 0.5)
    assert len(plan.keep["recurrent.0.l0"]) == 8
    plain = cut(model, structure, plan)
    repaired = cut(compensate(model, structure, plan, batch.x), structure, plan)
    return nrmse(plain, split.test) / nrmse(repaired, split.test)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic-3.99", "henon"])
def test_repair_is_worth_ten_times_the_error(name, record_property):
    series = load(name)
    split = rolling_origin(series, Protocol(blocks=1, start=0), Framing(series.window, predict="values"))[0]
    models = [Forecaster(seed=seed) for seed in SEEDS]
    configs = [TrainConfig(epochs=30, seed=seed) for seed in SEEDS]
    fits = fit_many(models, [split] * len(models), configs, jobs=2)
    factors = [factor(fit.model, split) for fit in fits]
    mean = math.exp(sum(map(math.log, factors)) / len(factors))
    record_property("factor", mean)
    assert mean >= 10, f"{name}: {mean:.1f} times ({min(factors):.1f} to {max(factors):.1f})"
