"""Whole hidden layers taken out: `python benchmarks/layers.py [out.json] [--quick]`.

Two deep networks of MNIST-5k in ten folds lose hidden layers by `shed_layers` with each criterion for as long as the
error on the validation digits rises by at most half a point; the test digits are looked at once. Controls: as many
layers dropped at random, a network of that depth from scratch with as many epochs as both trainings together, and the
whole network trained on. Other networks of the same kinds then lose half of their hidden layers, whatever the
validation digits say, and are trained as long again; so are their controls. Then three-layer LSTM forecasters of the
Santa Fe laser, of which one layer goes: the one without which, repaired and refitted, the validation error is least.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from studies import MARGIN, QUICK, Fold, error, finish, folds, geometric, points, ratio
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from units_forecasters import measured

from pared import MLP, Fit, Forecaster, Split, TrainConfig, criteria, drop_layer, droppable, fit_many, shed_layers
from pared.data import Framing, Protocol, builtin, protocol_for, rolling_origin
from pared.lean import Lean
from pared.study import member_seed
from pared.types import Batch, Criterion, Loss, Scores

DEPTH, WIDTH = 8, 50
ALLOWED = 0.5  # points on the validation digits
TRAIN = TrainConfig(epochs=2 if QUICK else 20, lr=2e-3, weight_decay=1e-4, optimiser="adamw")
REFIT = TrainConfig(epochs=1 if QUICK else 3, lr=1e-3, weight_decay=1e-4, optimiser="adamw")
CRITERIA: dict[str, Criterion] = {
    "replaceability": criteria.replaceability,
    "cka": criteria.cka,
    "block influence": criteria.block_influence,
    "ablation": criteria.layer_ablation,
}
AGAIN = replace(TRAIN, epochs=2 if QUICK else 20)
"""What networks are trained with once half of their hidden layers are gone."""
FRESH = 2000
"""Added to the seeds of networks that lose half; how they are trained on was chosen on validation digits of others."""
SEEDS = 1 if QUICK else 2
FORECASTER = TrainConfig(epochs=1 if QUICK else 60, lr=1e-2, batch_size=64, patience=float("inf"))
FORECASTER_REFIT = replace(FORECASTER, epochs=1 if QUICK else 30, lr=3e-3)


class Block(nn.Module):
    """x + W2 relu(W1 x): a hidden layer that may be passed by."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(torch.relu(self.up(x)))
        return out


def plain(seed: int, depth: int = DEPTH) -> nn.Module:
    return MLP(784, (WIDTH,) * depth, 10, "relu", seed=seed)


def residual(seed: int, depth: int = DEPTH) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(784, WIDTH), *(Block(WIDTH) for _ in range(depth)), nn.Linear(WIDTH, 10))


def of_blocks(criterion: Criterion) -> Criterion:
    """Of a residual network its blocks, not the layers within and before them, which could be dropped as well."""

    def scores(model: nn.Module, batch: Batch, loss: Loss) -> dict[str, Tensor]:
        found = criterion(model, batch, loss)
        if isinstance(model, MLP):
            return dict(found)
        return {name: score for name, score in found.items() if isinstance(model.get_submodule(name), Block)}

    return scores


def at_random(model: nn.Module, batch: Batch, loss: Loss, seed: int) -> Scores:
    names = droppable(model, batch.x[:1])
    draw = torch.rand(len(names), generator=torch.Generator().manual_seed(seed))
    return dict(zip(names, draw, strict=True))


def shed(full: Fit, fold: Fold, criterion: Criterion, allowed: float = ALLOWED) -> Lean:
    refit = replace(REFIT, seed=fold.seed)
    return shed_layers(full, fold, refit, of_blocks(criterion), cross_entropy, error, lambda whole: whole + allowed)


def dropped_at_random(full: Fit, fold: Fold, count: int) -> nn.Module:
    """`count` layers go at random, with the same repair and refits."""
    now, model = full, full.model
    for step in range(count):
        seed = 100 * fold.seed + step
        scores = of_blocks(partial(at_random, seed=seed))(model, fold.train, cross_entropy)
        small, _ = drop_layer(model, min(scores, key=lambda name: float(scores[name])), fold.train.x[:512])
        (now,) = fit_many([small], [fold], [replace(REFIT, seed=fold.seed)], cross_entropy)
        model = now.model
    return model


def digits(build: Callable[..., nn.Module]) -> dict[str, Any]:
    """One kind of network over all folds."""
    started, chosen = time.process_time(), folds(2 if QUICK else 10)
    configs = [replace(TRAIN, seed=fold.seed) for fold in chosen]
    fits = fit_many([build(fold.seed) for fold in chosen], chosen, configs, cross_entropy)
    full = [error(fit.model, fold.test) for fit, fold in zip(fits, chosen, strict=True)]
    rows, lean = [], {}
    for name, criterion in CRITERIA.items():
        begun = time.process_time()
        lean[name] = [shed(fit, fold, criterion) for fit, fold in zip(fits, chosen, strict=True)]
        left = [DEPTH - len(each.dropped) for each in lean[name]]
        own = [error(each.fit.model, fold.test) for each, fold in zip(lean[name], chosen, strict=True)]
        seconds = (time.process_time() - begun) / len(chosen)
        rows.append({"criterion": name, "layers left": left, "seconds": seconds} | points(own, full))
    controls = [
        {"control": name} | points(own, full) for name, own in control_errors(build, fits, chosen, lean).items()
    ]
    return {
        "hidden layers": DEPTH, "width": WIDTH, "error of the full network": float(np.mean(full)), "rows": rows,
        "controls": controls, "half": half(build), "dropped": [list(each.dropped) for each in lean["replaceability"]],
        "processor seconds": time.process_time() - started,
    }  # fmt: skip


def half(build: Callable[..., nn.Module]) -> dict[str, Any]:
    """Half of the hidden layers gone by the default criterion, then training again, over all folds."""
    chosen = folds(2 if QUICK else 10)
    fits = fit_many(
        [build(FRESH + fold.seed) for fold in chosen], chosen,
        [replace(TRAIN, seed=fold.seed) for fold in chosen], cross_entropy,
    )  # fmt: skip
    full = [error(fit.model, fold.test) for fit, fold in zip(fits, chosen, strict=True)]
    errors: dict[str, list[float]] = defaultdict(list)
    left = []
    for fit, fold in zip(fits, chosen, strict=True):
        lean = shed(fit, fold, until_half(criteria.replaceability), float("inf"))
        left.append(DEPTH - len(lean.dropped))
        again = replace(AGAIN, seed=fold.seed + 1)
        spent = DEPTH // 2 * REFIT.epochs + AGAIN.epochs
        scratch = replace(TRAIN, epochs=TRAIN.epochs + spent, seed=fold.seed)
        found = fit_many(
            [
                lean.fit.model, fit.model, build(FRESH + 100 + fold.seed, DEPTH // 2),
                dropped_at_random(fit, fold, DEPTH // 2),
            ],
            [fold] * 4, [again, replace(again, epochs=spent), scratch, again], cross_entropy,
        )  # fmt: skip
        names = ("half gone", "whole, trained on", "half from scratch", "half gone at random")
        for name, trained in zip(names, found, strict=True):
            errors[name].append(error(trained.model, fold.test))
    rows = [{"network": name} | points(own, full) for name, own in errors.items()]
    beside = [{"than": name} | points(errors["half gone"], own) for name, own in errors.items() if name != "half gone"]
    return {"layers left": left, "error of the full network": float(np.mean(full)), "rows": rows, "half gone": beside}


def until_half(criterion: Criterion) -> Criterion:
    """Scores nothing once half of the hidden layers are gone."""

    def scores(model: nn.Module, batch: Batch, loss: Loss) -> dict[str, Tensor]:
        found = of_blocks(criterion)(model, batch, loss)
        left = len(found) + isinstance(model, MLP)  # its first hidden layer stays: it changes the width
        return found if left > DEPTH // 2 else {}

    return scores


def control_errors(
    build: Callable[..., nn.Module], fits: Sequence[Fit], chosen: Sequence[Fold], lean: dict[str, list[Lean]]
) -> dict[str, list[float]]:
    """Errors of what else could be had at the depths that the default criterion came to."""
    errors: dict[str, list[float]] = defaultdict(list)
    for full, fold, small in zip(fits, chosen, lean["replaceability"], strict=True):
        gone = len(small.dropped)
        on = replace(REFIT, epochs=max(1, gone) * REFIT.epochs, seed=fold.seed)
        longer = replace(TRAIN, epochs=TRAIN.epochs + gone * REFIT.epochs, seed=fold.seed + 100)
        shallow = build(fold.seed + 100, DEPTH - gone) if gone < DEPTH else nn.Linear(784, 10)
        trained = fit_many([full.model, shallow], [fold, fold], [on, longer], cross_entropy)
        errors["whole, trained on"].append(error(trained[0].model, fold.test))
        errors["from scratch"].append(error(trained[1].model, fold.test))
        errors["dropped at random"].append(error(dropped_at_random(full, fold, gone), fold.test))
    return errors


def forecasters() -> dict[str, Any]:
    """One of three LSTM layers goes; the test parts of ten blocks, paired by block and seed."""
    started, series = time.process_time(), builtin("santa-fe")
    framing = Framing(series.window, predict=series.predict)
    splits = rolling_origin(series, protocol_for(len(series.values), framing, Protocol()), framing)
    splits = splits[:2] if QUICK else splits
    members = [(split, member_seed(split.block, seed)) for split in splits for seed in range(SEEDS)]
    parts = [split for split, _ in members]
    models = [Forecaster(1, (16, 16, 16), (), seed=seed) for _, seed in members]
    fits = fit_many(models, parts, [replace(FORECASTER, seed=seed) for _, seed in members])
    refits = [replace(FORECASTER_REFIT, seed=seed) for _, seed in members]
    errors: dict[str, list[float]] = defaultdict(list)
    gone = []
    on = fit_many([fit.model for fit in fits], parts, refits)
    shallow = [Forecaster(1, (16, 16), (), seed=seed + 1) for _, seed in members]
    longer = [
        replace(FORECASTER, epochs=FORECASTER.epochs + FORECASTER_REFIT.epochs, seed=seed + 1) for _, seed in members
    ]
    scratch = fit_many(shallow, parts, longer)
    for place, (split, _) in enumerate(members):
        measure = measured(split)
        name, lean, repaired = without_one(fits[place], split, refits[place])
        gone.append(name)
        for arm, model in {
            "full": fits[place].model, "one layer less": lean.model, "one layer less, not trained on": repaired,
            "whole, trained on": on[place].model, "two layers from scratch": scratch[place].model,
        }.items():  # fmt: skip
            errors[arm].append(measure(model))
    blocks, full = [split.block for split, _ in members], errors.pop("full")
    return {
        "series": "santa-fe", "layers": 3, "units": 16, "networks": len(members),
        "NRMSE of the full network": geometric(full),
        "rows": [{"network": name} | ratio(own, full, blocks) for name, own in errors.items()],
        "less, over the whole trained on": ratio(errors["one layer less"], errors["whole, trained on"], blocks),
        "dropped": gone, "processor seconds": time.process_time() - started,
    }  # fmt: skip


def without_one(full: Fit, split: Split, refit: TrainConfig) -> tuple[str, Fit, nn.Module]:
    """The layer without which the refitted network has the least validation error; that network, and it before."""
    names = droppable(full.model, split.train.x)
    repaired = [drop_layer(full.model, name, split.train.x[:1024])[0] for name in names]
    fits = fit_many(repaired, [split] * len(names), [refit] * len(names))
    best = min(range(len(names)), key=lambda place: min(fits[place].curves["validation"]))
    return names[best], fits[best], repaired[best]


def show(name: str, result: dict[str, Any]) -> None:
    print(f"\n{name}, {result['processor seconds']:.0f} s")
    for row in [*result["rows"], *result.get("controls", [])]:
        print({key: value for key, value in row.items() if key not in ("pairs", "clusters")})
    for row in [*result.get("half", {}).get("rows", []), *result.get("half", {}).get("half gone", [])]:
        print("half:", row)
    print(result["dropped"], flush=True)


def main() -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = {"margin": MARGIN, "allowed on validation": ALLOWED}
    for name, run in {
        "MLP": partial(digits, plain), "residual MLP": partial(digits, residual), "LSTM": forecasters,
    }.items():  # fmt: skip
        results[name] = run()
        show(name, results[name])
        finish(results, "layers", "mlxtend", "numba")


if __name__ == "__main__":
    main()
