"""What new units start with: a student of 5 units grows to 10, one every 200 steps, to match a teacher of 10.

Evci et al.'s protocol: teacher 10-10-10, ReLU, no biases, weights from U[-1, 1]; 1,000 inputs from N(0, 1); full-batch
SGD at 0.1 for 1,500 steps. The measure is the training error, as theirs is: nothing is claimed about new data. Rows
compare neighbours in the order that was stated beforehand, paired by seed. Amplitudes of TINY were set before, but its
line search got the sign on both sides, inputs and outputs, after a look at 6 of its 20 seeds. Copies without noise were
added when those with 1 % of it, the rule's default, had come out ahead of their stated place.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from growth_rows import Row, write_rows
from scipy.stats import t as student
from torch import Tensor, nn

from pared.growth import Growing, GrowthRule, copies, gradmax, grow, random_in, tiny, zero_in
from pared.schedules import Constant
from pared.training import TrainConfig, fit
from pared.types import Batch

SEEDS, MEASURE = 20, "training MSE, lower is better"
CONFIG = TrainConfig(epochs=1500, lr=0.1, batch_size=1000, optimiser="sgd", schedule=Constant())
LOOKED = "; TINY's line search got the sign on both sides after a look at 6 of these seeds"
GROWING = Growing({"0": 1}, 200, {"0": 10})


@dataclass(frozen=True)
class Taught:
    """Inputs and a teacher's answers; no validation data."""

    train: Batch
    validation: Batch


def taught(seed: int) -> Taught:
    """The data of one seed."""
    generator = torch.Generator().manual_seed(seed)
    first, last = (2 * torch.rand(10, 10, generator=generator) - 1 for _ in range(2))
    x = torch.randn(1000, 10, generator=generator)
    y: Tensor = torch.relu(x @ first) @ last
    return Taught(Batch(x, y), Batch(x[:0], y[:0]))


def student_of(width: int, seed: int) -> nn.Module:
    """A network of one hidden layer without biases."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(10, width, bias=False), nn.ReLU(), nn.Linear(width, 10, bias=False))


def fixed(width: int, seed: int) -> float:
    """The error of a network that does not grow."""
    return fit(student_of(width, seed), taught(seed), CONFIG).curves["train"][-1]


def grown(rule: GrowthRule, seed: int) -> float:
    """The error of one that grows from 5 units to 10."""
    return grow(student_of(5, seed), taught(seed), CONFIG, rule, GROWING).losses[-1]


ARMS: dict[str, tuple[str, Callable[[int], float]]] = {
    "TINY": ("Verbockhaven et al. 2024", partial(grown, tiny)),
    "GradMax": ("Evci et al. 2022", partial(grown, gradmax)),
    "zero-in, random-out": ("control of Evci et al. 2022", partial(grown, zero_in)),
    "random-in, zero-out": ("Philipp & Carbonell 2017", partial(grown, random_in)),
    "Net2Wider copies": ("Chen et al. 2016", partial(grown, copies)),
    "Net2Wider copies without noise": ("Chen et al. 2016", partial(grown, partial(copies, noise=0.0))),
    "5 units that never grow": ("control", partial(fixed, 5)),
    "10 units from the start": ("control", partial(fixed, 10)),
}
PAIRS = [
    ("TINY", "GradMax"),
    ("GradMax", "zero-in, random-out"),
    ("zero-in, random-out", "random-in, zero-out"),
    ("random-in, zero-out", "Net2Wider copies"),
    ("random-in, zero-out", "Net2Wider copies without noise"),
    ("Net2Wider copies", "5 units that never grow"),
    ("TINY", "10 units from the start"),
    ("TINY", "random-in, zero-out"),
]


def row(one: str, two: str, errors: dict[str, list[float]], costs: dict[str, float]) -> Row:
    """One arm against another."""
    d = np.array(errors[one]) - np.array(errors[two])
    effect, half = float(d.mean()), float(student.ppf(0.975, SEEDS - 1) * d.std(ddof=1) / SEEDS**0.5)
    verdict = "better" if effect + half < 0 else "inferior" if effect - half > 0 else "inconclusive"
    note = f"{np.mean(errors[one]):.3f} against {np.mean(errors[two]):.3f} (means over {SEEDS} seeds)"
    note += LOOKED if one == "TINY" else ""
    return Row(
        f"growth, 5 to 10 units: {one}", ARMS[one][0], "teacher and student, 10-10-10", SEEDS, MEASURE, effect,
        effect - half, effect + half, two, costs[one], costs[two], verdict, note,
    )  # fmt: skip


def main() -> None:
    """All arms on all seeds."""
    errors: dict[str, list[float]] = {}
    costs: dict[str, float] = {}
    for name, (_, arm) in ARMS.items():
        started = time.perf_counter()
        errors[name] = [arm(seed) for seed in range(SEEDS)]
        costs[name] = (time.perf_counter() - started) / SEEDS
    write_rows([row(one, two, errors, costs) for one, two in PAIRS], "initialisers")


if __name__ == "__main__":
    main()
