"""Table 1: six signals, three of which depend on the others, and why its last three rows mean nothing."""

from dataclasses import dataclass

import numpy as np

from pared.criteria.belsley import collinearity, inflation
from pared.replicate.belsley.protocol import Array

RIDGE = 1e-3
TRIALS = 300


@dataclass(frozen=True)
class Toy:
    """`indices` (6,) and `shares` (6 indices, 6 parameters) without a ridge; `inflation` (6,) with one; `victims` (6,):
    how often each parameter has the largest share in the worst direction when the signals' order is drawn anew.
    """

    indices: Array
    shares: Array
    inflation: Array
    victims: Array


def signals() -> Array:
    """(1001, 6): sin, cos, 2 + cos, 2 + sin, cos + sin and x at x = 0, 0.02 ... 20."""
    x = np.linspace(0, 20, 1001)
    return np.stack([np.sin(x), np.cos(x), 2 + np.cos(x), 2 + np.sin(x), np.cos(x) + np.sin(x), x], axis=1)


def table(trials: int = TRIALS) -> Toy:
    """The table from the signals' correlation matrix."""
    matrix = np.corrcoef(signals(), rowvar=False)
    found = collinearity(matrix)
    generator, victims = np.random.default_rng(0), np.zeros(6, dtype=int)
    for _ in range(trials):
        order = generator.permutation(6)
        noise = 1e-15 * generator.standard_normal((6, 6))
        again = collinearity(matrix[np.ix_(order, order)] + noise + noise.T)
        victims[order[again.shares[-1].argmax()]] += 1
    return Toy(found.indices, found.shares, inflation(matrix, RIDGE), victims)
