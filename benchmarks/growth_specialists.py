"""Specialists for classes that a network confuses, beside the same network trained on, made wider, or given any groups.

Fixed beforehand: 24 classes in 6 families, 2,400 examples to train on, 1,200 to see the confusion, 6,000 to test on; a
generalist 6-48-24-24, 60 epochs; then 30 epochs of specialists (24 units a group, 6 groups) and 30 of tuning, or 60
epochs of the controls, which cost more; 10 seeds, each a law of its own. The classes have 6 inputs because with 12,
tried first, the generalist got 28 % right (60 % with 6), the specialists 29 %.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from growth_paired import ACCURACY, Arm, accuracy, compared, timed
from growth_rows import write_rows
from torch import nn
from torch.nn.functional import cross_entropy

from pared import insert, trace
from pared.data import families
from pared.growth import Specialists, confusable, confusion, fit_specialists, specialise
from pared.growth.specialists import Groups
from pared.models import MLP
from pared.training import TrainConfig, fit_many
from pared.types import Batch

SEEDS, UNITS, GROUPS, CLASSES = range(10), 24, 6, 24
CONFIG = TrainConfig(epochs=60, lr=3e-3, batch_size=128)
HALF, DATA = replace(CONFIG, epochs=30), "24 classes in 6 families"


@dataclass(frozen=True)
class Task:
    """What `fit` reads; where to see the confusion; the test."""

    train: Batch
    validation: Batch
    held: Batch
    test: Batch


def task(seed: int) -> Task:
    """A law of its own."""
    parts = [families(n, seed=k, law=seed) for k, n in enumerate((2400, 1200, 6000))]
    train, held, test = (Batch(part.x.float(), part.y) for part in parts)
    return Task(train, Batch(train.x[:0], train.y[:0]), held, test)


def trained(models: Sequence[nn.Module]) -> list[nn.Module]:
    """Networks trained, one a seed, by the compiled kernel."""
    configs = [replace(CONFIG, seed=seed) for seed in SEEDS]
    return [each.model for each in fit_many(models, [task(seed) for seed in SEEDS], configs, cross_entropy)]


def size(model: nn.Module) -> int:
    """How many weights."""
    return sum(parameter.numel() for parameter in model.parameters())


def found_groups(known: nn.Module, seed: int) -> Groups:
    """Classes that a network confuses on the data held out for that."""
    return confusable(confusion(known, task(seed).held), GROUPS, seed)


def by_lot(known: nn.Module, seed: int) -> Groups:
    """Groups of 4 classes, whatever the network confuses."""
    return tuple(map(tuple, np.random.default_rng(seed).permutation(CLASSES).reshape(GROUPS, -1).tolist()))


def added(known: nn.Module, groups: Groups, seed: int) -> Specialists:
    """The network with specialists that do nothing yet."""
    return specialise(known, "layers.2", groups, task(seed).train.x, UNITS, seed)


def wider(known: nn.Module, seed: int) -> nn.Module:
    """The network, made wider without change in its second layer, to as many weights as with specialists."""
    goal, structure = size(added(known, found_groups(known, seed), seed)), trace(known, task(seed).train.x[:2])
    each = size(insert(known, structure, {"layers.2": 1}, seed)) - size(known)
    return insert(known, structure, {"layers.2": -((size(known) - goal) // each)}, seed)


def main() -> None:
    """All arms from the same generalists."""
    known = trained([MLP(6, (48, 24), CLASSES, "relu", seed) for seed in SEEDS])

    def special(seed: int, chosen: Callable[[nn.Module, int], Groups]) -> nn.Module:
        half = replace(HALF, seed=seed)
        start = added(known[seed], chosen(known[seed], seed), seed)
        return fit_specialists(start, task(seed), half, "layers.4", half)[0]

    def arm(name: str, models: Sequence[nn.Module], seconds: float) -> Arm:
        return Arm(name, tuple(accuracy(model, task(seed).test) for seed, model in enumerate(models)), seconds)

    ours, lots = (timed(partial(special, chosen=chosen), SEEDS) for chosen in (found_groups, by_lot))
    controls = {
        "the network made wider by as many weights, trained on at no less compute": [*map(wider, known, SEEDS)],
        "the network trained on at no less compute": known,
    }
    against = [arm("specialists for groups by lot", *lots)]
    for name, models in controls.items():
        many, seconds = timed(lambda _, models=models: trained(models), [0])
        against.append(arm(name, many[0], seconds / len(SEEDS)))
    against.append(arm("the network before", known, 0.0))
    families_found = tuple(tuple(range(4 * f, 4 * f + 4)) for f in range(GROUPS))
    pure = sum(found_groups(known[seed], seed) == families_found for seed in SEEDS)
    note = f"the groups are the families in {pure} of {len(SEEDS)} seeds; plain networks are trained by the kernel"
    special_arm, source = arm("specialists for classes that are confused", *ours), "Warde-Farley et al. 2014"
    rows = [compared(special_arm, source, DATA, theirs, ACCURACY, note) for theirs in against]
    write_rows(rows, "specialists", "scikit-learn")


if __name__ == "__main__":
    main()
