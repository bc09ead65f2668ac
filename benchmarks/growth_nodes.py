"""Dynamic node creation on parity and encoders: does one unit at a time, on plateaus, come close to the least number?

Networks n-1-m of tanh units and outputs, weights from U[-1, 1], inputs of -1 and 1, targets of -0.8 and 0.8; Adam at
0.03 on all cases at once, 3,000 epochs at most. Every 25 epochs: where the loss has fallen by less than 5 % of what it
was at the last growth within 150 epochs (Ash's trigger), one unit is added; training ends once the loss is so low that
no output can be on the wrong side. Solved: all outputs are on the right side with at most 3 units above the known
minimum (n for parity of n bits, log2 n for encoders), the most that may be added. New units start as Ash's do, at
inputs from U[-1, 1] but with outputs of zero; or by TINY. The first were added after a look at the results of TINY: the
plateau of parity is a saddle at weights of zero, where TINY, which looks at first derivatives, finds nothing to add.
They were tried on seeds 100 to 105, which the study does not use. Controls: networks of the known minimum, all 3,000
epochs.
"""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from growth_rows import Row, Verdict, write_rows
from scipy.stats import t as student
from torch import nn

from pared.data import encoder, parity
from pared.growth import Growing, GrowthRule, Stalled, grow, tiny, uniform_in
from pared.schedules import Constant
from pared.training import TrainConfig, fit_many
from pared.types import Batch

SEEDS, EPOCHS, SPARE = 10, 3000, 3


@dataclass(frozen=True)
class Puzzle:
    """All cases of a problem, and the fewest units that are known to solve it."""

    train: Batch
    validation: Batch
    least: int

    @property
    def config(self) -> TrainConfig:
        """All cases at once, at one rate."""
        return TrainConfig(EPOCHS, 0.03, len(self.train.x), schedule=Constant())

    def right(self, model: nn.Module) -> bool:
        """Whether all outputs are on the right side."""
        return bool((model(self.train.x) * self.train.y > 0).all())


def puzzle(cases: Batch, least: int) -> Puzzle:
    """Inputs of -1 and 1, targets of -0.8 and 0.8."""
    train = Batch(2 * cases.x.float(), 1.6 * cases.y.float())
    return Puzzle(train, Batch(train.x[:0], train.y[:0]), least)


PUZZLES = {
    "parity of 2 to 6 bits": [puzzle(parity(bits), bits) for bits in range(2, 7)],
    "encoders 4-2-4 and 8-3-8": [puzzle(encoder(size), int(math.log2(size))) for size in (4, 8)],
}


def network(problem: Puzzle, units: int, seed: int) -> nn.Module:
    """One hidden layer."""
    generator = torch.Generator().manual_seed(seed)
    inputs, outputs = problem.train.x.shape[1], problem.train.y.shape[1]
    model = nn.Sequential(nn.Linear(inputs, units), nn.Tanh(), nn.Linear(units, outputs), nn.Tanh())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(2 * torch.rand(parameter.shape, generator=generator) - 1)
    return model


RULES = {"units as Ash's": uniform_in, "TINY units": tiny}


def grown(problem: Puzzle, seed: int, rule: GrowthRule) -> tuple[bool, int, int]:
    """Whether it is solved, by how many units, and the epochs that took."""
    goal = 0.64 / problem.train.y.numel()
    how = Growing({"0": 1}, 25, {"0": problem.least + SPARE}, Stalled(150, 0.05), goal=goal)
    found = grow(network(problem, 1, seed), problem, problem.config, rule, how)
    return problem.right(found.model), found.structure["0"].width, len(found.losses)


def row(name: str, problems: list[Puzzle], kind: str) -> Row:
    """Both arms on all seeds; a seed's share of problems is one pair."""
    started = time.process_time()
    ours = [[grown(problem, seed, RULES[kind]) for problem in problems] for seed in range(SEEDS)]
    between = time.process_time()
    fits = [
        fit_many([network(p, p.least, seed) for seed in range(SEEDS)], [p] * SEEDS, [p.config] * SEEDS)
        for p in problems
    ]
    ended = time.process_time()
    theirs = [[p.right(each[seed].model) for p, each in zip(problems, fits, strict=True)] for seed in range(SEEDS)]
    shares = [100 * np.mean([solved for solved, *_ in seed]) for seed in ours], [100 * np.mean(s) for s in theirs]
    d = np.array(shares[0]) - np.array(shares[1])
    effect, half = float(d.mean()), float(student.ppf(0.975, SEEDS - 1) * d.std(ddof=1) / SEEDS**0.5)
    verdict: Verdict = "better" if effect > half else "inferior" if effect < -half else "inconclusive"
    above = [[each[k][1] - p.least for each in ours] for k, p in enumerate(problems)]
    epochs = np.mean([each[2] for seed in ours for each in seed])
    note = (
        f"{np.mean(shares[0]):.0f} against {np.mean(shares[1]):.0f} %; units above the minimum, problem by problem: "
        f"{', '.join(f'{min(each):+d} to {max(each):+d}' for each in above)}; {epochs:.0f} epochs on average"
    )
    many = SEEDS * len(problems)
    return Row(
        f"dynamic node creation, {kind}", "Ash 1989", name, SEEDS,
        f"solved within {SPARE} units of the known minimum, %, higher is better", effect, effect - half, effect + half,
        f"networks of the known minimum, {EPOCHS:,} epochs", (between - started) / many, (ended - between) / many,
        verdict, note,
    )  # fmt: skip


if __name__ == "__main__":
    write_rows([row(name, problems, kind) for kind in RULES for name, problems in PUZZLES.items()], "nodes")
