"""Data, networks and training: the paper's four problems, and three others on which variants were chosen."""

import zlib
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from pared.training import TrainConfig, fit
from pared.types import Batch, Loss

Array = NDArray[Any]

LEVELS = tuple(range(0, 101, 2))
"""Per cent of the weights that are removed."""

PRIOR = 1.0
"""Precision of the weights' prior, in training (as weight decay) and in every posterior."""


@dataclass(frozen=True)
class Problem:
    """A data set and a network for it: pure data.

    `hidden` units of tanh, none for a linear network; no biases, as in the paper's eq. 2.2. `margin`: what the measure
    may lose, points of accuracy for "classes", a share of the RMSE for "numbers". `figure`: the data set's name in the
    paper's figures. `choosing`: on it variants were chosen, so that the others stay a test. `given`: the synthetic
    design whose weights and posterior are drawn, not learnt.
    """

    name: str
    task: Literal["classes", "numbers"]
    hidden: int
    figure: str = ""
    choosing: bool = False
    given: Literal["", "printed", "fitting"] = ""

    @property
    def margin(self) -> float:
        """3 points of accuracy, or a tenth of the RMSE."""
        return 3.0 if self.task == "classes" else 0.1

    @property
    def loss(self) -> Loss:
        """What its networks minimise."""
        return cross_entropy if self.task == "classes" else mse_loss


PROBLEMS: dict[str, Problem] = {
    problem.name: problem
    for problem in (
        Problem("wine", "classes", 13, "Wine"),
        Problem("boston", "numbers", 39, "Boston"),
        Problem("synthetic-printed", "numbers", 0, "Data1", given="printed"),
        Problem("synthetic-fitting", "numbers", 0, "Data1", given="fitting"),
        Problem("breast-cancer", "classes", 13, choosing=True),
        Problem("diabetes", "numbers", 39, choosing=True),
        Problem("digits", "classes", 6, choosing=True),
    )
}


@dataclass(frozen=True)
class Subject:
    """A network to prune, what it learnt from, and what it is tested on.

    `unit`: what one unit of the network's output is in the target's own. `precision`: a triangular factor of the
    weights' posterior precision where the design gives it.
    """

    problem: Problem
    model: nn.Module
    train: Batch
    test: Batch
    unit: float = 1.0
    precision: Array | None = None


def table(name: str) -> tuple[Array, Array]:
    """Inputs (samples, features) and targets of a data set; of the digits the first 500."""
    if name == "boston":
        from mlxtend.data import boston_housing_data

        x, y = boston_housing_data()
        return np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    datasets = import_module("sklearn.datasets")  # here, since it takes a second to import
    x, y = getattr(datasets, f"load_{name.replace('-', '_')}")(return_X_y=True)
    limit = 500 if name == "digits" else len(x)
    return np.asarray(x[:limit], dtype=float), np.asarray(y[:limit])


def seed_of(problem: Problem, seed: int, purpose: int) -> int:
    """A seed of its own for each use: 0 the split, 1 the network, 2 noise on inputs, 3 random removal."""
    parts = [zlib.crc32(problem.name.encode()), seed, purpose]
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def subject(problem: Problem, seed: int) -> Subject:
    """The trained (or drawn) network of a seed, on its own split of 80 : 20."""
    generator = np.random.default_rng(seed_of(problem, seed, 0))
    return synthetic(problem, generator) if problem.given else _trained(problem, seed, generator)


def _trained(problem: Problem, seed: int, generator: np.random.Generator) -> Subject:
    x, y = table(problem.name)
    order = generator.permutation(len(x))
    train, test = np.split(order, [round(0.8 * len(x))])
    spread = x[train].std(axis=0)
    x = (x - x[train].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    classes = problem.task == "classes"
    unit = 1.0 if classes else float(y[train].std())
    if not classes:
        y = ((y - y[train].mean()) / unit)[:, None]
    parts = [
        Batch(_tensor(x[part]), torch.as_tensor(y[part]) if classes else _tensor(y[part])) for part in (train, test)
    ]
    outputs = int(y.max()) + 1 if classes else 1
    model = network(x.shape[1], problem.hidden, outputs, seed_of(problem, seed, 1))
    config = TrainConfig(epochs=300, batch_size=64, weight_decay=PRIOR / len(train), seed=seed_of(problem, seed, 1))
    trained = fit(model, _Parts(*parts), config, problem.loss).model
    return Subject(problem, trained.double(), parts[0], parts[1], unit)


@dataclass(frozen=True)
class _Parts:
    """What `fit` reads: no validation data, the last epoch's weights are taken."""

    train: Batch
    test: Batch

    @property
    def validation(self) -> Batch:
        return Batch(self.train.x[:0], self.train.y[:0])


def network(inputs: int, hidden: int, outputs: int, seed: int) -> nn.Sequential:
    """Linear, tanh, Linear, or one Linear; without biases."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = partial(nn.Linear, bias=False)
        parts = [linear(inputs, hidden), nn.Tanh(), linear(hidden, outputs)] if hidden else [linear(inputs, outputs)]
    return nn.Sequential(*parts)


def synthetic(problem: Problem, generator: np.random.Generator, inputs: int = 100, rows: int = 10_000) -> Subject:
    """The paper's synthetic design: weights and posterior are given, the target is the first input (eq. 5.1, 5.2).

    "printed": w ~ N(m, A), x ~ N(1, I), A with 0.95 between all weights but the first. "fitting": the same posterior,
    but independent weights (1, then of deviation 0.1) and centred inputs of deviation 0.29, which is what the errors in
    the figures fit. The pruned network is tested on the last fifth of the rows.
    """
    mean = np.full(inputs, 0.0025)
    mean[0] = 1.0
    covariance = np.full((inputs, inputs), 0.95)
    covariance[0] = covariance[:, 0] = 1e-3
    np.fill_diagonal(covariance, 1.0)
    if problem.given == "printed":
        weights = generator.multivariate_normal(mean, covariance)
        x = generator.normal(1.0, 1.0, (rows, inputs))
    else:
        weights = mean + np.where(np.arange(inputs) > 0, 0.1, 0.0) * generator.standard_normal(inputs)
        x = generator.normal(0.0, 0.29, (rows, inputs))
    model = network(inputs, 0, 1, 0)
    with torch.no_grad():
        model[0].get_parameter("weight").copy_(_tensor(weights[None]))
    cut = round(0.8 * rows)
    parts = [Batch(_tensor(x[part]), _tensor(x[part, :1])) for part in (slice(cut), slice(cut, None))]
    factor = np.linalg.cholesky(np.linalg.inv(covariance)).T
    return Subject(problem, model.double(), parts[0], parts[1], precision=factor)


def _tensor(values: Array) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
