"""Sparse training on digits: a tenth of the weights of 64-256-128-10, against the dense network and honest controls.

Paired by seed: 1258 rows (70 %) to train on, dealt out anew for each seed, the other 539 looked at once after the last
epoch. Every arm trains for 40 epochs of 64 rows by Adam with a cosine; a ticket does so in each of its rounds. The
learning rate and how often weights move were chosen among 3e-3 and 1e-2, 1 and 3 epochs, on a third of the training
rows of three other seeds, at 60 epochs. 5,043 of 50,432 weights are left in every sparse arm; the outputs' are all
there where they move. The small dense network has as many parameters, biases included.
"""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from growth_paired import ACCURACY, Arm, accuracy, compared, measured
from growth_rows import Row, write_rows
from growth_schedules import Digits
from torch import nn
from torch.nn.functional import cross_entropy

from pared import MLP, Sparse, Steps, TrainConfig, criteria, evolved, fit, fit_sparse, gradual, lottery_ticket, rigl
from pared.lottery import early_bird
from pared.rewiring import Rewiring
from pared.schedules import Constant, Cubic, Exponential
from pared.training.fleet import fit_one
from pared.training.parts import part_of
from pared.types import Masks

SEEDS, ROWS, WIDTHS, SMALL, ROUNDS, EARLY = range(10), 1258, (256, 128), (55, 28), 4, 4
CONFIG = TrainConfig(epochs=40, lr=1e-2, batch_size=64)
OUTPUTS = "layers.4.weight"
DENSITY = (0.1 * 50_432 - 1_280) / 49_152  # of the hidden layers' weights where the outputs' are all there
SET, RIGL = "Mocanu et al. 2018", "Evci et al. 2020"
FIRST, LATER, BIRD, GRADUAL = "Frankle & Carbin 2019", "Frankle et al. 2019", "You et al. 2020", "Zhu & Gupta 2017"
data = cache(partial(Digits, rows=ROWS))


def config(seed: int) -> TrainConfig:
    """The training of a seed."""
    return replace(CONFIG, seed=seed)


def build(seed: int) -> nn.Module:
    """The network before training."""
    return MLP(64, WIDTHS, 10, "relu", seed)


def right(model: nn.Module, seed: int) -> float:
    """Test accuracy in points."""
    return accuracy(model, data(seed).test)


def dense(seed: int, widths: tuple[int, int] = WIDTHS, times: int = 1) -> float:
    """No weight is closed; `times` as many epochs."""
    model, how = MLP(64, widths, 10, "relu", seed), replace(config(seed), epochs=times * CONFIG.epochs)
    return right(fit_one(model, data(seed), how, cross_entropy).model, seed)


def moving(seed: int, how: Rewiring) -> float:
    """Weights move."""
    return right(fit_sparse(build(seed), data(seed), config(seed), how, cross_entropy).model, seed)


@cache
def ticket(seed: int, rewind: int) -> Sparse:
    """A lottery ticket: 44 % of the weights that are left go in each round."""
    steps = Steps(Exponential(0.9), ROUNDS)
    return lottery_ticket(build(seed), data(seed), criteria.magnitude, steps, config(seed), cross_entropy, rewind)


def drawn(seed: int, rewind: int) -> float:
    """What a ticket gets right."""
    return right(ticket(seed, rewind).model, seed)


def masked(seed: int, masks: Masks, start: int) -> float:
    """The weights of seed `start` trained under masks."""
    return right(fit_one(build(start), data(seed), config(seed), cross_entropy, masks=masks).model, seed)


def shuffled(seed: int) -> float:
    """A random ticket: as many weights in each layer, anywhere."""
    generator = torch.Generator().manual_seed(seed)
    masks = {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view_as(mask)
        for name, mask in ticket(seed, 0).masks.items()
    }
    return masked(seed, masks, seed)


def fresh(seed: int) -> float:
    """A ticket's masks on other first weights."""
    return masked(seed, ticket(seed, 0).masks, 1000 + seed)


@cache
def bird(seed: int) -> Sparse:
    """An early-bird ticket."""
    return early_bird(build(seed), data(seed), criteria.magnitude, 0.9, config(seed), cross_entropy)


def caught(seed: int) -> float:
    """What an early-bird ticket gets right."""
    return right(bird(seed).model, seed)


def removed(progress: float) -> float:
    """What is gone: nothing in the first 20 % of the steps, then a cubic rise, and all of it from 80 % on."""
    return Cubic(0.9)(min(1.0, max(0.0, (progress - 0.2) / 0.6)))


def pruned(seed: int) -> float:
    """Gradual magnitude pruning: 14 steps of 2 epochs at a constant rate, then 12 epochs of the cosine's last ones."""
    step = replace(config(seed), epochs=2, schedule=Constant())
    found = gradual(build(seed), data(seed), criteria.magnitude, Steps(removed, 14), step, cross_entropy)
    last = part_of(config(seed), 28, CONFIG.epochs)
    return right(fit(found.model, data(seed), last, cross_entropy, found.fits[-1], found.masks).model, seed)


def main() -> None:
    """All arms on all seeds."""
    arm = partial(measured, seeds=SEEDS)
    whole = arm("the dense network, as many epochs", dense)
    rigged = arm("RigL, a tenth of the weights", partial(moving, how=rigl(DENSITY, 1, (OUTPUTS,))))
    sets = arm("SET, a tenth of the weights", partial(moving, how=evolved(DENSITY, 1, (OUTPUTS,))))
    still = arm("random masks that never change", partial(moving, how=Rewiring(DENSITY, until=0, dense=(OUTPUTS,))))
    small = arm("a dense network of as many parameters, as many epochs", partial(dense, widths=SMALL))
    first = arm("lottery ticket, a tenth of the weights, set back to the start", partial(drawn, rewind=0))
    anywhere = arm("a random ticket of the same layers' densities", shuffled)
    other = arm("the ticket's masks on other first weights", fresh)
    later = arm(f"lottery ticket, a tenth of the weights, set back to epoch {EARLY}", partial(drawn, rewind=EARLY))
    by_steps = arm("gradual magnitude pruning, a tenth of the weights", pruned)
    early = arm("early-bird ticket, a tenth of the weights", caught)
    longer = arm("the dense network, as many epochs as all rounds", partial(dense, times=ROUNDS + 1))

    epochs = [len(bird(seed).fits) - 1 for seed in SEEDS]
    when = f"drawn after {np.mean(epochs):.0f} epochs ({min(epochs)} to {max(epochs)})"

    def row(ours: Arm, source: str, theirs: Arm, note: str = "") -> Row:
        return compared(ours, source, "digits", theirs, ACCURACY, note)

    write_rows(
        [
            *(row(sets, SET, each) for each in (whole, still, small)),
            *(row(rigged, RIGL, each) for each in (whole, still, small)),
            row(rigged, RIGL, sets),
            *(row(first, FIRST, each) for each in (whole, longer, small, anywhere, other)),
            *(row(later, LATER, each) for each in (whole, longer, first)),
            *(
                row(by_steps, GRADUAL, each, "by the plain loop, others by the kernel")
                for each in (whole, small, first)
            ),
            *(row(early, BIRD, each, when) for each in (whole, first, by_steps)),
            row(still, SET, whole),
        ],
        "sparse",
    )


if __name__ == "__main__":
    main()
