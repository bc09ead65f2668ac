"""What Grabovoy, Bakhteev & Strijov (2019) printed: table 1, and the curves of figures 2 to 7 as digitised."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

METHODS = ("random", "obd", "variational", "belsley")

CONDITION = (1.0, 1.5, 3.3, 2e15, 8e15, 1e16)
"""Condition indices of table 1."""

SHARES = (
    (2e-17, 4e-17, 1e-16, 2e-17, 6e-17, 3e-4),
    (5e-17, 9e-17, 2e-16, 5e-17, 3e-20, 3e-2),
    (9e-18, 1e-17, 2e-17, 9e-18, 2e-19, 9e-1),
    (1e-2, 1e-1, 8e-1, 2e-3, 9e-2, 1e17),
    (6e-2, 8e-1, 9e-2, 8e-2, 9e-1, 2e17),
    (9e-1, 1e-2, 4e-2, 9e-1, 1e-3, 5e-21),
)
"""Variance shares of table 1 as printed: a row an index, a column a parameter (two exponents lack their sign)."""

Curves = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Paper:
    """Curves by data set (Wine, Boston, Data1) and method, at 0, 2 ... 100 % of the weights removed.

    `quality`: accuracy in per cent (Wine) or RMSE; `noise`: standard deviation of that over draws of noise on inputs,
    in the same unit. The paper's eq. 5.4 calls the mean squared error what its figures draw as its root.
    """

    source: str
    quality: Curves
    noise: Curves


def read() -> Paper:
    """The paper's curves, as they are shipped with pared."""
    raw = json.loads(files(__package__).joinpath("paper.json").read_text(encoding="utf-8"))
    return Paper(raw["source"], *(_in_per_cent(raw[kind]) for kind in ("quality", "noise")))


def _in_per_cent(curves: Curves) -> Curves:
    wine = {method: [100 * value for value in values] for method, values in curves["Wine"].items()}
    return {**curves, "Wine": wine}


PAPER = read()
