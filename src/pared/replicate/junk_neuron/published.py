"""The numbers printed in Huang, Gu & Yang (2022): tables 1, 3 to 11."""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class System:
    """One system of the paper: its network (table 1) and its sweep of thresholds (tables 4, 6 to 11).

    `sizes` are units of the first layer, the full network's first, then one a threshold; `accuracy` (per cent) goes
    with them. `best` is the size that table 5 reports.
    """

    name: str
    table: int
    window: int
    recurrent: tuple[int, ...]
    dense: tuple[int, ...]
    thresholds: tuple[float, ...]
    sizes: tuple[int, ...]
    accuracy: tuple[float, ...]
    best: int

    @property
    def units(self) -> int:
        """Units of the first recurrent layer of the full network."""
        return self.recurrent[0]

    @property
    def deleted(self) -> tuple[int, ...]:
        """Units that the paper deleted at each threshold."""
        return tuple(self.units - size for size in self.sizes[1:])


@dataclass(frozen=True)
class Paper:
    """Everything that is compared. `weights`: table 3, row = reader, column = source; `weight_means`: its last row."""

    source: str
    directions: int
    blocks: int
    systems: tuple[System, ...]
    weights: tuple[tuple[float, ...], ...]
    weight_means: tuple[float, ...]

    def hits(self, accuracy: float) -> int:
        """Right directions behind a printed accuracy (per cent): k of 140, since every printed number is k/140."""
        return round(accuracy * self.directions * self.blocks / 100)


def read() -> Paper:
    """The paper's numbers, as they are shipped with pared."""
    raw = json.loads(files(__package__).joinpath("paper.json").read_text(encoding="utf-8"))
    raw["systems"] = [System(**_frozen(each)) for each in raw["systems"]]
    raw["weights"] = list(map(tuple, raw["weights"]))
    return Paper(**_frozen(raw))


def _frozen(table: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


PAPER = read()
SYSTEMS = {system.name: system for system in PAPER.systems}
