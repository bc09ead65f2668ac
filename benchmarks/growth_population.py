"""Population-based training: eight tiny networks that copy the best, against random search and a default, equal steps.

On digits (64-16-10; 800 rows to train on, 400 to select on, 597 to test on, dealt out anew for each seed) and
Mackey-Glass (MLPs of 16 tanh units, 6 steps ahead from a window of 20; 600, 300 and 1,000 windows that share no value,
each seed's from a stretch of its own). 20 seeds, 60 epochs, eight networks in every arm; all of it set beforehand.
Every arm hands in the network of the lowest validation loss; test rows are looked at once and choose nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from growth_paired import ACCURACY, LOG_ERROR, Measure, accuracy, compared, log_error, measured
from growth_rows import Row, write_rows
from growth_schedules import Digits
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from pared import MLP, TrainConfig, fit_many, train_population
from pared.data import mackey_glass, windows
from pared.population import Selection
from pared.schedules import Cosine
from pared.types import Batch, Loss

SEEDS, SIZE, WINDOW, AHEAD, ROWS = range(20), 8, 20, 6, (600, 300, 1000)
CONFIG = TrainConfig(epochs=60, batch_size=64)
SPACE = {"lr": (1e-4, 1e-1), "weight_decay": (1e-6, 1e-2)}
GAP = WINDOW + AHEAD
STRETCH = sum(ROWS) + 3 * GAP
VALUES = (mackey_glass(17.0, length=len(SEEDS) * STRETCH).values - 0.9) / 0.25


@dataclass(frozen=True)
class Parts:
    """To train, select and test on."""

    train: Batch
    validation: Batch
    test: Batch


@dataclass(frozen=True)
class Task:
    """What is learned, and how it is judged."""

    name: str
    parts: Callable[[int], Parts]
    build: Callable[[int], nn.Module]
    loss: Loss
    score: Callable[[nn.Module, Batch], float]
    measure: Measure


def digits(seed: int) -> Parts:
    """Handwritten digits dealt out by a seed."""
    x, y = Digits(seed, 1200).train
    return Parts(Batch(x[:800], y[:800]), Batch(x[800:], y[800:]), Digits(seed, 1200).test)


def chaos(seed: int) -> Parts:
    """Windows in the order of time; those of two parts share no value."""
    x, _, y = windows(VALUES[seed * STRETCH : (seed + 1) * STRETCH], WINDOW, AHEAD)
    whole = Batch(torch.tensor(x.copy(), dtype=torch.float32), torch.tensor(y[:, None].copy(), dtype=torch.float32))
    ends = [sum(ROWS[: part + 1]) + part * GAP for part in range(3)]
    return Parts(*(Batch(whole.x[b - n : b], whole.y[b - n : b]) for n, b in zip(ROWS, ends, strict=True)))


TASKS = (
    Task(
        "digits", digits, lambda seed: MLP(64, (16,), 10, "relu", seed), cross_entropy, accuracy, ACCURACY
    ),
    Task(
        "Mackey-Glass, tau 17, 6 ahead", chaos, lambda seed: MLP(WINDOW, (16,), 1, "tanh", seed), mse_loss, log_error,
        LOG_ERROR,
    ),
)  # fmt: skip


def population(seed: int, task: Task, quantile: float) -> float:
    """The best of eight that copy, or (quantile 0) of eight that do not."""
    data = task.parts(seed)
    how = Selection(size=SIZE, every=3, quantile=quantile)
    found = train_population(
        lambda k: task.build(SIZE * seed + k), data, replace(CONFIG, seed=seed), SPACE, how, task.loss
    )
    return task.score(found.best.fit.model, data.test)


def fixed(seed: int, task: Task, drawn: bool) -> float:
    """The best of eight at the library's default, 1e-2 with a cosine, or at drawn settings with a cosine."""
    data, draw = task.parts(seed), np.random.default_rng(seed)
    configs = [replace(CONFIG, seed=SIZE * seed + k, schedule=Cosine()) for k in range(SIZE)]
    if drawn:
        at = [{name: float(np.exp(draw.uniform(*np.log(ends)))) for name, ends in SPACE.items()} for _ in configs]
        configs = [replace(config, **settings) for config, settings in zip(configs, at, strict=True)]
    models = [task.build(SIZE * seed + k) for k in range(SIZE)]
    fits = fit_many(models, [data] * SIZE, configs, task.loss)
    best = min((each for each in fits if not each.diverged), key=lambda each: each.curves["validation"][-1])
    return task.score(best.model, data.test)


def rows_of(task: Task) -> list[Row]:
    """The population against every control."""
    arm = partial(measured, seeds=SEEDS)
    ours = arm("population-based training, 8 networks", partial(population, task=task, quantile=0.25))
    controls = (
        arm("random search, rates constant", partial(population, task=task, quantile=0.0)),
        arm("random search, rates with a cosine", partial(fixed, task=task, drawn=True)),
        arm("8 networks at 1e-2 with a cosine", partial(fixed, task=task, drawn=False)),
    )
    source, note = "Jaderberg et al. 2017", "all arms make as many steps and hand in the best on validation rows"
    return [compared(ours, source, task.name, control, task.measure, note) for control in controls]


def main() -> None:
    """Both tasks."""
    write_rows([row for task in TASKS for row in rows_of(task)], "population")


if __name__ == "__main__":
    main()
