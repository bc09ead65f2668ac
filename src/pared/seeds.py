"""Seeds from seeds: one for every block, round, trial or part that starts from randomness of its own."""

import numpy as np


def seed_of(*numbers: int) -> int:
    """A seed that follows from the numbers, none of which may be negative; others give another one."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
