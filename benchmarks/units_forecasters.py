"""Half of a forecaster's units without retraining: `python benchmarks/units_forecasters.py [out.json] [--quick]`.

The networks of Huang, Gu & Yang (2022), LSTM layers of L1 and 4 units and linear layers of 4 and 1, are trained on ten
blocks of a series with several seeds. Units of the first layer go by each criterion, scored on 512 training windows;
the rest is left as it is (plain), repaired by least squares on the same windows (repaired), or then matched to the
uncut network's outputs as well (matched). Nothing is trained on. The figure is the one-step NRMSE on the test part of
the block over the uncut network's. Values are scaled to [0, 1] as the paper has them, or to [-1, 1] as pared does.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from studies import QUICK, finish, geometric, ratio
from torch.nn.functional import mse_loss

from pared import (
    Forecaster,
    Split,
    TrainConfig,
    compensate,
    criteria,
    cut,
    fit_many,
    match_outputs,
    predict_many,
    select,
    trace,
)  # fmt: skip
from pared.data import Framing, Protocol, builtin, protocol_for, rolling_origin
from pared.evaluation import nrmse
from pared.evaluation.forecast import floats
from pared.replicate.junk_neuron.protocol import in_unit_range
from pared.study import member_seed, scoring_batch
from pared.surgery import Structure
from pared.surgery.structure import as_units
from pared.types import Criterion

LAYER = "recurrent.0.l0"
SHARES = (0.25, 0.5, 0.75)


class Case(NamedTuple):
    """Networks of one kind; at half of the units the error is to stay below `goal` times the full network's."""

    series: str
    scale: str
    units: int
    epochs: int
    blocks: int
    seeds: int
    goal: float


UNIT, OWN = "[0, 1]", "[-1, 1]"
CASES = [
    Case("logistic-3.99", UNIT, 16, 30, 10, 10, 1.1),
    Case("logistic-3.99", UNIT, 16, 1000, 10, 10, 1.5),
    Case("logistic-3.99", OWN, 16, 30, 10, 3, 1.1),
    Case("logistic-3.99", OWN, 16, 1000, 10, 3, 1.5),
    Case("henon", UNIT, 16, 30, 10, 3, 1.1),
    Case("henon", UNIT, 32, 30, 10, 3, 1.1),
    Case("henon", UNIT, 16, 1000, 10, 3, 1.5),
    Case("henon", UNIT, 32, 1000, 10, 3, 1.5),
    Case("santa-fe", UNIT, 16, 30, 10, 3, 1.1),
    Case("santa-fe", UNIT, 32, 30, 10, 3, 1.1),
    Case("santa-fe", UNIT, 16, 1000, 10, 3, 1.5),
    Case("santa-fe", UNIT, 32, 1000, 10, 3, 1.5),
]
if QUICK:
    CASES = [Case("henon", UNIT, 8, 3, 2, 1, 1.1), Case("santa-fe", OWN, 8, 1, 2, 1, 1.1)]
MATCHED = ("random", "greedy")
"""Whose outputs are matched, too: the control and the best."""


def arms(seed: int) -> dict[str, Criterion]:
    return {
        "random": partial(criteria.random, seed=seed),
        "junk": criteria.junk,
        "magnitude": criteria.magnitude,
        "taylor": criteria.taylor,
        "greedy, plain": partial(criteria.greedy, repair=False),
        "least squares": criteria.least_squares,
        "greedy": criteria.greedy,
    }


def splits(series: str, scale: str = OWN) -> list[Split]:
    """Ten blocks: 5,000 training rows each and, on the maps, 1,000 test rows right after; on fewer rows, fewer."""
    values = builtin(series)
    framing = Framing(values.window, predict=values.predict)
    wanted = Protocol(train=5000, validation=0, test=1000, stride=4000, blocks=10, start=0)
    found = rolling_origin(values, protocol_for(len(values.values), framing, wanted), framing)
    return [in_unit_range(split) for split in found] if scale == UNIT else found


def trained(case: Case) -> list[tuple[Split, torch.nn.Module, int]]:
    parts = splits(case.series, case.scale)[: case.blocks]
    members = [(split, member_seed(split.block, s)) for split in parts for s in range(case.seeds)]
    models = [Forecaster(1, (case.units, 4), (4,), seed=seed) for _, seed in members]
    configs = [TrainConfig(epochs=case.epochs, lr=1e-2, batch_size=32, seed=seed) for _, seed in members]
    fits = fit_many(models, [split for split, _ in members], configs)
    return [(split, fit.model, seed) for (split, seed), fit in zip(members, fits, strict=True)]


def errors(
    model: torch.nn.Module, split: Split, seed: int, structure: Structure
) -> dict[tuple[str, float, str], float]:
    """(arm, share, treatment) -> NRMSE on the test part; under ("seconds", arm) what the scores took."""
    batch = scoring_batch(split)
    measure = measured(split)
    found: dict[Any, float] = {("full", 0.0, ""): measure(model)}
    for name, criterion in arms(seed).items():
        started = time.process_time()
        scores = as_units(criterion(model, batch, mse_loss), structure)
        found["seconds", 0.0, name] = time.process_time() - started
        for share in SHARES:
            plan = select({LAYER: scores[LAYER]}, structure, share)
            found[name, share, "plain"] = measure(cut(model, structure, plan))
            repaired = cut(compensate(model, structure, plan, batch.x), structure, plan)
            found[name, share, "repaired"] = measure(repaired)
            if name in MATCHED and share >= 0.5:
                found[name, share, "matched"] = measure(match_outputs(repaired, model, plan, batch.x))
    return found


def measured(split: Split) -> Callable[[torch.nn.Module], float]:
    test, truth = split.test, floats(split.scaler.value(split.test.y, split.test.x))
    spread = float(np.std(floats(split.scaler.value(split.train.y, split.train.x))))

    def measure(model: torch.nn.Module) -> float:
        (out,) = predict_many([model], test.x)
        return nrmse(truth, floats(split.scaler.value(out, test.x)), spread)

    return measure


def study(case: Case) -> dict[str, Any]:
    started = time.process_time()
    networks = trained(case)
    training = time.process_time() - started
    structure = trace(networks[0][1], networks[0][0].train.x[:1])
    each: dict[Any, list[float]] = defaultdict(list)
    for split, model, seed in networks:
        for key, value in errors(model, split, seed, structure).items():
            each[key].append(value)
    blocks = [split.block for split, _, _ in networks]
    full = each.pop(("full", 0.0, ""))
    rows = []
    for (name, share, treatment), own in each.items():
        if name != "seconds":
            margin = case.goal - 1
            rows.append({"criterion": name, "share": share, "treatment": treatment} | ratio(own, full, blocks, margin))
    others = [("junk", "plain"), ("taylor", "plain"), ("taylor", "repaired"), ("least squares", "repaired")]
    versus = [
        {"share": share, "than": f"{name}, {treatment}"}
        | ratio(each["greedy", share, "repaired"], each[name, share, treatment], blocks)
        for share in SHARES
        for name, treatment in others
    ]
    return case._asdict() | {
        "networks": len(networks),
        "NRMSE of the full network": geometric(full),
        "rows": rows,
        "greedy, repaired, over others": versus,
        "seconds a network": {
            "training": training / len(networks),
            **{name: float(np.mean(own)) for (kind, _, name), own in each.items() if kind == "seconds"},
        },
        "processor seconds": time.process_time() - started,
    }


def show(result: dict[str, Any]) -> None:
    print(
        f"\n{result['series']} {result['scale']} L1 = {result['units']}, {result['epochs']} epochs, "
        f"{result['networks']} networks, NRMSE {result['NRMSE of the full network']:.3g}, "
        f"{result['processor seconds']:.0f} s"
    )
    for row in result["rows"]:
        if row["share"] == 0.5:
            name = f"{row['criterion']:15} {row['treatment']:9}"
            print(f"{name} {row['ratio']:9.3f} [{row['low']:.3f}, {row['high']:.3f}] {row['verdict']}")


def main() -> None:
    torch.set_num_threads(1)
    results = []
    for case in CASES:
        results.append(study(case))
        show(results[-1])
        finish({"cases": results}, "units_forecasters", "numba")


if __name__ == "__main__":
    main()
