"""What is done to networks: the arms, by name and by how many units of the first layer they lose."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from pared.replicate.junk_neuron.published import System

Treatment = Literal["base", "reseeded", "trained_on", "scratch", "equal_compute", "surgery", "refit"]
Order = Literal["", "out", "in", "random", "largest"]

READINGS: tuple[Literal["out", "in"], ...] = ("out", "in")
"""The two readings of the paper's table 3: mean |w| of what a unit sends out, and of what it takes in."""


class Arm(NamedTuple):
    """Treatment, order of deletion where that matters, units deleted from the first layer.

    base: the full network. reseeded: the same from another seed. trained_on: the full network with the refit's epochs
    more. scratch: a smaller one trained as the full one, which is what the paper does. equal_compute: a smaller one
    trained for all the multiply-adds of training and refit. surgery: units cut out of the trained network.
    refit: and trained on. Orders: lowest junk index first by either reading, at random, highest "out" index first.
    """

    treatment: Treatment
    order: Order = ""
    deleted: int = 0


BASE, RESEEDED, TRAINED_ON = Arm("base"), Arm("reseeded"), Arm("trained_on")
WITHOUT_DELETION: dict[Treatment, Arm] = {"scratch": BASE, "surgery": BASE, "refit": TRAINED_ON}


def arm(treatment: Treatment, order: Order, deleted: int) -> Arm:
    """The arm under its one name: without deletion nothing is cut, and retraining has no order."""
    if deleted == 0:
        return WITHOUT_DELETION[treatment]
    return Arm(treatment, "" if treatment in ("scratch", "equal_compute") else order, deleted)


def relative(system: System) -> tuple[int, int, int]:
    """Units deleted at the relative counts: one, a quarter, half."""
    return 1, round(system.units / 4), system.units // 2


def below(index: Sequence[float], system: System) -> tuple[int, ...]:
    """Units whose index lies under each of the paper's thresholds; one always stays."""
    return tuple(min(sum(value < threshold for value in index), len(index) - 1) for threshold in system.thresholds)
