"""Splitting and Firefly in the protocol of growth_initialisers.py: a student of 5 units grows to 10.

Pairs were stated beforehand: each rule against new units that cost nothing to find (random-in), splitting against
copies with noise, which split by chance, Firefly against TINY. Sizes are the defaults. The units are ReLUs, for which
the paper of splitting finds nothing to measure at a vanishing size; at the size of the split there is.
"""

import time
from functools import partial

from growth_initialisers import ARMS, SEEDS, grown, row
from growth_rows import write_rows

from pared.growth import firefly, splits

PAIRS = [
    ("splitting", "Net2Wider copies"),
    ("splitting", "random-in, zero-out"),
    ("Firefly", "random-in, zero-out"),
    ("Firefly", "TINY"),
]


def main() -> None:
    """The arms that the pairs name, on all seeds."""
    ARMS["splitting"] = ("Liu, Wu & Wang 2019", partial(grown, splits))
    ARMS["Firefly"] = ("Wu et al. 2020", partial(grown, firefly))
    errors: dict[str, list[float]] = {}
    costs: dict[str, float] = {}
    for name in dict.fromkeys(name for pair in PAIRS for name in pair):
        started = time.process_time()
        errors[name] = [ARMS[name][1](seed) for seed in range(SEEDS)]
        costs[name] = (time.process_time() - started) / SEEDS
    write_rows([row(one, two, errors, costs) for one, two in PAIRS], "splitting")


if __name__ == "__main__":
    main()
