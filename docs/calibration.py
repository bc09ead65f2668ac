"""Writes docs/calibration.md and its figure: how often `pared.compare` errs where the truth is known.

Run by hand: `python docs/calibration.py`. The slow tests read the same functions.
"""

from collections import Counter
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from pared import Forecaster, Split, TrainConfig, compare, fit_many
from pared.data import Framing, Protocol, logistic, rolling_origin
from pared.evaluation import nrmse, predictor
from pared.evaluation.forecast import floats

BLOCKS, TRIALS, MARGIN = 10, 200, 0.05
NOMINAL = 0.025
"""One-sided rate of error of a two-sided 95 % interval."""
TOLERATED = 10
"""Errors in 200 trials beyond which the rate is not 2.5 %: more come with a chance of 1.3 %."""
RATIOS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0)


def errors(trials: int = TRIALS, blocks: int = BLOCKS) -> np.ndarray:
    """Test errors (trials, 2, blocks) of small LSTM forecasters: both of a pair differ in nothing but their seed."""
    protocol = Protocol(train=400, validation=0, test=100, stride=500, blocks=blocks, start=0)
    splits = rolling_origin(logistic(3.9, length=protocol.rows), protocol, Framing(window=2))
    found = np.empty((trials, 2, blocks))
    for block, split in enumerate(splits):
        seeds = range(2 * trials * block, 2 * trials * (block + 1))
        models = [Forecaster(recurrent=(4, 2), dense=(), seed=seed) for seed in seeds]
        configs = [TrainConfig(epochs=20, batch_size=32, seed=seed) for seed in seeds]
        fits = fit_many(models, [split] * len(models), configs)
        found[:, :, block] = np.reshape([_error(fit.model, split) for fit in fits], (trials, 2))
    return found


def _error(model: nn.Module, split: Split) -> float:
    return nrmse(floats(split.test.y)[:, 0], floats(predictor(model, split.scaler)(split.test.x)), 1.0)


def verdicts(pairs: np.ndarray, ratio: float) -> Counter[str]:
    """Verdicts of `compare` where the first error of every pair is made `ratio` times as large as it was."""
    blocks = range(pairs.shape[2])
    return Counter(compare(ratio * first, second, MARGIN, blocks).verdict for first, second in pairs)


def accepted(found: Counter[str]) -> int:
    """Trials in which the first network may replace the second."""
    return found["better"] + found["not inferior"]


def drawing(pairs: np.ndarray) -> Figure:
    """Shares of verdicts against the true ratio of errors."""
    found = [verdicts(pairs, ratio) for ratio in RATIOS]
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(RATIOS, [100 * each["better"] / len(pairs) for each in found], "o-", color="#0072b2", label="better")
    axes.plot(
        RATIOS, [100 * accepted(each) / len(pairs) for each in found], "s-", color="#009e73",
        label="better or not inferior",
    )  # fmt: skip
    axes.plot(RATIOS, [100 * each["inferior"] / len(pairs) for each in found], "^-", color="#d55e00", label="inferior")
    axes.axhline(100 * NOMINAL, color="#7a7f87", linestyle="--", linewidth=1, label="2.5 %")
    for line in (1, 1 + MARGIN):
        axes.axvline(line, color="#7a7f87", linewidth=1)
    axes.set(xlabel="true ratio of errors (lines: no difference, margin)", ylabel="share of comparisons, %")
    axes.set(xscale="log", xticks=(0.5, 0.7, 1, 1.5, 2), xticklabels=("0.5", "0.7", "1", "1.5", "2"))
    axes.minorticks_off()
    axes.legend(frameon=False, loc="upper center")
    return figure


def page(pairs: np.ndarray) -> str:
    """The page as Markdown."""
    alike, edge = verdicts(pairs, 1.0), verdicts(pairs, 1 + MARGIN)
    first, second = np.log(pairs[:, 0]), np.log(pairs[:, 1])
    noise = np.exp(np.std(first - second)) - 1
    return f"""# How often the verdicts err

`compare` says *better*, *not inferior*, *inferior* or *inconclusive*. What these words are worth was tried where the
truth is known: {TRIALS} pairs of small LSTM forecasters of a chaotic series, trained on {BLOCKS} blocks each, differ in
nothing but their random seed. Their errors on one block typically differ by a factor of {1 + noise:.2f}, either way.

- With no true difference, *better* was said {alike["better"]} times in {TRIALS}, *inferior* {alike["inferior"]} times.
  An honest 95 % interval says *better* in 2.5 % of trials, 5 of {TRIALS}; up to {TOLERATED} are within chance.
- With the first error made exactly {100 * MARGIN:.0f} % larger, which is the margin, the first network was accepted
  (*not inferior* or *better*) {accepted(edge)} times in {TRIALS}; the nominal rate is again 2.5 %.

![Shares of verdicts against the true ratio of errors](calibration.svg)

Errors of the same pairs were multiplied to make true ratios other than 1. The wider the spread between seeds, the more
blocks it takes to say anything but *inconclusive*. This page is written by `docs/calibration.py`.
"""


def main() -> None:
    torch.set_num_threads(1)
    pairs = errors()
    here = Path(__file__).parent
    with matplotlib.rc_context({"svg.hashsalt": "pared", "svg.fonttype": "none"}):
        drawing(pairs).savefig(here / "calibration.svg", metadata={"Date": None, "Creator": None})
    (here / "calibration.md").write_text(page(pairs), encoding="utf-8")


if __name__ == "__main__":
    main()
