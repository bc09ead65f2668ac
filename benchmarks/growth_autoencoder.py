"""Tied against untied autoencoders of digits at as many training steps, paired by seed.

Fixed beforehand: 1200 rows to train on, dealt out anew for each seed, the other 597 looked at once, after the last
epoch.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from growth_rows import Row, Verdict, write_rows
from scipy.stats import t as student
from torch import Tensor

from pared.data import classic
from pared.models import Autoencoder
from pared.training import TrainConfig, fit
from pared.types import Batch

SEEDS, ROWS = 10, 1200


@dataclass(frozen=True)
class Pixels:
    """What `fit` reads: pixels as inputs and as targets."""

    train: Batch
    validation: Batch


def pixels(x: Tensor) -> Pixels:
    """Training data without validation data."""
    return Pixels(Batch(x, x), Batch(x[:0], x[:0]))


def dealt(seed: int) -> tuple[Tensor, Tensor]:
    """All digits in an order of the seed, pixels from 0 to 1 (rows, 64), and their classes (rows)."""
    table = classic("digits")
    order = np.random.default_rng(seed).permutation(len(table.target))
    return torch.tensor(table.inputs[order] / 16, dtype=torch.float32), torch.tensor(table.target[order])


def interval(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Mean difference over seeds, and the ends of its 95 % interval by Student's t."""
    d = np.array(ours) - np.array(theirs)
    half = float(student.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5)
    return float(d.mean()), float(d.mean()) - half, float(d.mean()) + half


def lower_is_better(low: float, high: float, margin: float) -> Verdict:
    """What an interval of an error says; no effect: it holds 0 and stays within the margin."""
    if high < 0:
        return "better"
    if low > 0:
        return "inferior"
    if -margin < low and high < margin:
        return "no effect"
    return "not inferior" if high < margin else "inconclusive"


def rebuilt(seed: int, tied: bool) -> float:
    """Squared error a pixel of rows that the network has not seen."""
    x, _ = dealt(seed)
    model = Autoencoder(64, (32, 16, 8), tied=tied, seed=seed)
    model = fit(model, pixels(x[:ROWS]), TrainConfig(epochs=40, seed=seed)).model
    return float((model(x[ROWS:]) - x[ROWS:]).square().mean().detach())


def measured(tied: bool) -> tuple[list[float], float]:
    """The errors of all seeds, and mean seconds of a training."""
    started = time.perf_counter()
    return [rebuilt(seed, tied) for seed in range(SEEDS)], (time.perf_counter() - started) / SEEDS


def main() -> None:
    """The study; a margin of 5 % of the control's error, the project's for numbers, counts as no effect."""
    (ours, cost), (theirs, control_cost) = measured(True), measured(False)
    effect, low, high = interval(ours, theirs)
    verdict = lower_is_better(low, high, 0.05 * float(np.mean(theirs)))
    counts = [sum(p.numel() for p in Autoencoder(64, (32, 16, 8), tied=tied).parameters()) for tied in (True, False)]
    note = f"{np.mean(ours):.4f} with {counts[0]} weights and biases against {np.mean(theirs):.4f} with {counts[1]}"
    note += "; tanh and no bounds were chosen after a look at one of the splits"
    row = Row(
        "tied weights in an autoencoder, 64-32-16-8", "the usual construction", "digits", SEEDS,
        "test squared error a pixel, lower is better", effect, low, high, "untied weights, as many steps",
        cost, control_cost, verdict, note,
    )  # fmt: skip
    write_rows([row], "autoencoder")


if __name__ == "__main__":
    main()
