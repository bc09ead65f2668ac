"""pared's default beside Torch-Pruning's: `python benchmarks/units_peers.py [out.json] [--quick]`.

An MLP and a convolutional network of MNIST-5k, trained on ten folds, lose half and three quarters of the units of every
layer by `pared.prune` (Taylor scores, least-squares repair), by Torch-Pruning's default (group magnitude) and by its
Taylor importance, all to the same widths, and are trained on with the same settings, seed and number of epochs, none
included. Then LSTM forecasters, on which Torch-Pruning is tried and pared stands beside random and magnitude.
Needs `pip install --no-deps torch-pruning`.
"""

import copy
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch_pruning
from studies import MARGIN, QUICK, Fold, error, finish, folds, geometric, points, ratio
from torch import nn
from torch.nn.functional import cross_entropy
from units_forecasters import measured, splits

from pared import MLP, Forecaster, TrainConfig, criteria, evaluation, fit_many, prune
from pared.data.batches import evenly
from pared.study import member_seed, scoring_batch
from pared.types import Batch

RATIOS, EPOCHS = (0.5, 0.75), (0, 3)
TRAIN = TrainConfig(epochs=1 if QUICK else 10, lr=2e-3)
TUNE = TrainConfig(lr=1e-3)
SERIES = ("logistic-3.99", "henon", "santa-fe")
Cut = Callable[[nn.Module, Batch, float, int], nn.Module]


def cnn(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "MLP 784-100-100-10": lambda seed: MLP(784, (100, 100), 10, "relu", seed=seed),
    "CNN 8-16-64-10": cnn,
}


def by_pared(model: nn.Module, batch: Batch, share: float, seed: int) -> nn.Module:
    return prune(model, batch, ratio=share, loss=cross_entropy)


def at_random(model: nn.Module, batch: Batch, share: float, seed: int) -> nn.Module:
    return prune(model, batch, partial(criteria.random, seed=seed), share, cross_entropy, compensate=False)


def by_torch_pruning(model: nn.Module, batch: Batch, share: float, seed: int, taylor: bool = False) -> nn.Module:
    """Its base pruner with uniform ratios; the last layer is left out, as its manual says."""
    small = copy.deepcopy(model)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    if taylor:
        importance = torch_pruning.importance.GroupTaylorImportance()
        cross_entropy(small(batch.x), batch.y).backward()
    last = [module for module in small.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.BasePruner(
        small, batch.x[:1], importance=importance, pruning_ratio=share, ignored_layers=[last]
    )
    pruner.step()
    small.zero_grad(set_to_none=True)
    return small


CUTS: dict[str, Cut] = {
    "pared": by_pared,
    "Torch-Pruning": by_torch_pruning,
    "Torch-Pruning, Taylor": partial(by_torch_pruning, taylor=True),
    "random": at_random,
}


def digits(build: Callable[[int], nn.Module], chosen: Sequence[Fold]) -> dict[str, Any]:
    """One kind of network: errors of every cut beside those of pared's default, fold by fold."""
    started = time.process_time()
    configs = [replace(TRAIN, seed=fold.seed) for fold in chosen]
    full = [fit.model for fit in fit_many([build(fold.seed) for fold in chosen], chosen, configs, cross_entropy)]
    errors: dict[Any, list[float]] = defaultdict(list)
    for model, fold in zip(full, chosen, strict=True):
        batch = evenly(fold.train, 512)
        for share in RATIOS:
            small = {name: cut(model, batch, share, fold.seed) for name, cut in CUTS.items()}
            sizes = {evaluation.parameters(each) for each in small.values()}
            assert len(sizes) == 1, f"not of one size: {sizes}"
            for epochs in EPOCHS:
                for name, tuned in trained_on(small, fold, epochs).items():
                    errors[share, epochs, name].append(error(tuned, fold.test))
            errors[share, "parameters"].append(sizes.pop())
    whole = [error(model, fold.test) for model, fold in zip(full, chosen, strict=True)]
    return {
        "error of the full network": float(np.mean(whole)),
        "parameters": [evaluation.parameters(full[0]), *(errors[share, "parameters"][0] for share in RATIOS)],
        "errors": [
            {"share": share, "epochs": epochs, "cut": name} | points(errors[share, epochs, name], whole)
            for share in RATIOS for epochs in EPOCHS for name in CUTS
        ],
        "pared beside": [
            {"share": share, "epochs": epochs, "cut": name}
            | points(errors[share, epochs, "pared"], errors[share, epochs, name])
            for share in RATIOS for epochs in EPOCHS for name in CUTS if name != "pared"
        ],
        "raw": {name: [errors[s, e, name] for s in RATIOS for e in EPOCHS] for name in CUTS},
        "processor seconds": time.process_time() - started,
    }  # fmt: skip


def trained_on(small: dict[str, nn.Module], fold: Fold, epochs: int) -> dict[str, nn.Module]:
    if not epochs:
        return small
    config = replace(TUNE, epochs=epochs, seed=fold.seed)
    fits = fit_many(list(small.values()), [fold] * len(small), [config] * len(small), cross_entropy)
    return {name: fit.model for name, fit in zip(small, fits, strict=True)}


def over_all(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """pared beside each other cut by epochs trained after it, the mean over networks and shares, paired by fold."""
    rows = []
    for at, epochs in enumerate(EPOCHS):
        mean = {
            name: np.mean([errors for each in results for errors in each["raw"][name][at :: len(EPOCHS)]], axis=0)
            for name in CUTS
        }
        rows += [{"epochs": epochs, "cut": n} | points(mean["pared"], mean[n]) for n in CUTS if n != "pared"]
    return rows


def forecasters(series: str) -> dict[str, Any]:
    """Half of all units of an LSTM forecaster go; the error over that of pared's default."""
    started, parts = time.process_time(), splits(series)
    parts = parts[:2] if QUICK else parts
    seeds = [member_seed(split.block, 0) for split in parts]
    config = TrainConfig(epochs=2 if QUICK else 30, batch_size=32)
    fits = fit_many([Forecaster(seed=seed) for seed in seeds], parts, [replace(config, seed=seed) for seed in seeds])
    arms: dict[str, Callable[..., nn.Module]] = {"pared": prune}
    for repair in (False, True):
        how = "repaired" if repair else "plain"
        arms[f"magnitude, {how}"] = partial(prune, criterion=criteria.magnitude, compensate=repair)
        arms[f"random, {how}"] = partial(prune, criterion=criteria.random, compensate=repair)
    errors: dict[Any, list[float]] = defaultdict(list)
    for fit, split, seed in zip(fits, parts, seeds, strict=True):
        measure, batch = measured(split), scoring_batch(split)
        errors["full"].append(measure(fit.model))
        small = {name: arm(fit.model, batch) for name, arm in arms.items()}
        tune = replace(config, epochs=3, lr=3e-3, seed=seed)
        tuned = fit_many(list(small.values()), [split] * len(small), [tune] * len(small))
        for (name, model), after in zip(small.items(), tuned, strict=True):
            errors[0, name].append(measure(model))
            errors[3, name].append(measure(after.model))
    blocks, full = [split.block for split in parts], errors["full"]
    return {
        "series": series,
        "Torch-Pruning": attempt(fits[0].model, parts[0].train),
        "NRMSE of the full network": geometric(full),
        "over the full network": [
            {"epochs": epochs, "cut": name} | ratio(errors[epochs, name], full, blocks)
            for epochs in EPOCHS for name in arms
        ],
        "pared over": [
            {"epochs": epochs, "cut": name} | ratio(errors[epochs, "pared"], errors[epochs, name], blocks)
            for epochs in EPOCHS for name in arms if name != "pared"
        ],
        "processor seconds": time.process_time() - started,
    }  # fmt: skip


def attempt(model: nn.Module, batch: Batch) -> str:
    """What Torch-Pruning's default does with a forecaster."""
    try:
        small = by_torch_pruning(model, evenly(batch, 64), 0.5, 0)
        small(batch.x[:1])
    except Exception as problem:  # whatever another library raises
        return f"{type(problem).__name__}: {problem}".splitlines()[0]
    return f"runs, with {evaluation.parameters(small)} of {evaluation.parameters(model)} parameters left"


def show(name: str, result: dict[str, Any]) -> None:
    print(f"\n{name}, {result['processor seconds']:.0f} s")
    for rows in result.values():
        for row in rows if isinstance(rows, list) else ():
            print({k: v for k, v in row.items() if k not in ("pairs", "clusters")} if isinstance(row, dict) else row)


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    chosen, found = folds(2 if QUICK else 10), {}
    for name, build in NETWORKS.items():
        found[name] = digits(build, chosen)
        show(name, found[name])
    together = over_all(list(found.values()))
    print("\nover all", *together, sep="\n")
    results: dict[str, Any] = {"margin": MARGIN, "digits": found, "over all": together, "forecasters": []}
    for series in SERIES:
        results["forecasters"].append(forecasters(series))
        show(series, results["forecasters"][-1])
        finish(results, "units_peers", "torch-pruning", "mlxtend", "numba")


if __name__ == "__main__":
    main()
