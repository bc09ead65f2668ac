"""What searches make of conditions, on a function where parameters are there only beside one choice of another.

By the error found with 60 evaluations, the median over 40 studies (a Gaussian process: 10), as a multiple of random
search's.

    python benchmarks/search_conditions.py [results.json]

Takes about a minute of one processor.
"""

import numpy as np
from facts import machine, write
from search_arms import arms

from pared.search import Categorical, Conditional, Float, Point, Space

TRIALS, STUDIES, STUDIES_GP = 60, 40, 10
CONDITIONAL = Space(
    {
        "kind": Categorical(("a", "b", "c")),
        "x": Conditional(Float(0.0, 1.0), "kind", ("a",)),
        "y": Conditional(Float(0.0, 1.0), "kind", ("b",)),
        "z": Conditional(Float(0.0, 1.0), "kind", ("b",)),
    }
)


def on_condition(point: Point, seed: int) -> float:
    """0 at kind b, y = 0.8, z = 0.3."""
    x, y, z = (float(point.get(name, 0.0)) for name in "xyz")  # type: ignore[arg-type]
    return {"a": 0.1 + (x - 0.6) ** 2, "b": (y - 0.8) ** 2 + (z - 0.3) ** 2, "c": 0.2}[str(point["kind"])]


def conditions() -> dict[str, float]:
    """Arm -> median error on the conditional space, as a multiple of random search's."""
    medians = {
        name: float(
            np.median(
                [
                    on_condition(arm(CONDITIONAL, on_condition, TRIALS, study, 1).point, 0)
                    for study in range(STUDIES_GP if name == "gp" else STUDIES)
                ]
            )
        )
        for name, arm in arms().items()
    }
    return {name: median / medians["random"] for name, median in medians.items()}


def main() -> None:
    found = conditions()
    write({"machine": machine("optuna", "numpy"), "trials": TRIALS, "results": found}, "search_conditions")
    for name, ratio in found.items():
        print(f"{name:16}: {ratio:.2f} times random search's error")


if __name__ == "__main__":
    main()
