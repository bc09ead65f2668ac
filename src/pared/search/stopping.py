"""Early stopping: after some epochs a trial ends whose error is worse than earlier trials' errors were by then.

The bar is set by trials that were told before this one was asked for, so it does not depend on which process is faster,
and a worker knows it from the start.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, get_args

from pared.types import DataError

Rule = Literal["none", "median", "asha", "hyperband"]
FEWEST = 4
"""Fewest earlier trials whose median says anything."""


@dataclass(frozen=True)
class Stopping:
    """When a trial ends early: pure data.

    It is looked at after `warmup` epochs and then whenever its epochs have grown by `factor`.
    median:     it ends where its error is above the median of earlier trials' errors after as many epochs;
    asha:       where it is not among the best 1 / factor of those and itself (successive halving; nobody waits);
    hyperband:  asha, in brackets that take turns: bracket b looks for the first time after warmup * factor^b epochs.

    Source: Golovin et al. 2017 (median rule); Li et al. 2020 (ASHA); Li et al. 2018 (Hyperband).
    """

    rule: Rule = "none"
    warmup: int = 5
    factor: int = 3

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise DataError(f"unknown early stopping {self.rule!r}; choose one of {', '.join(get_args(Rule))}")
        if self.warmup < 1 or self.factor < 2:
            raise DataError(
                f"early stopping needs a warm-up of at least 1 epoch and a factor of at least 2, got {self.warmup} and "
                f"{self.factor}"
            )

    def rungs(self, epochs: int, bracket: int = 0) -> tuple[int, ...]:
        """After how many of `epochs` epochs a trial of a bracket is looked at."""
        if self.rule == "none":
            return ()
        looks = self._looks(epochs)
        return tuple(self.warmup * self.factor**power for power in range(bracket, looks))

    def bracket(self, number: int, epochs: int) -> int:
        """The bracket of a trial: the longest warm-ups take as many epochs in all as the shortest, so are rarer.

        Of s brackets, bracket b gets factor^(s - 1 - b) / (s - b) of the trials to a common multiple, in turns.
        """
        if self.rule != "hyperband":
            return 0
        last = self._looks(epochs)
        shares = [math.ceil((last + 1) * self.factor ** (last - b) / (last - b + 1)) for b in range(last + 1)]
        place = number % sum(shares)
        return next(b for b in range(last + 1) if place < sum(shares[: b + 1]))

    def milestones(
        self, number: int, epochs: int, earlier: Sequence[tuple[int, Mapping[int, float]]]
    ) -> tuple[tuple[int, float], ...]:
        """(epoch, bar) of trial `number`; `earlier` holds (number, epoch -> error) of trials that were told before.

        Returns: one pair a rung, the bar infinite where too few earlier trials say anything.
        """
        own = self.bracket(number, epochs)
        like = [errors for other, errors in earlier if self.bracket(other, epochs) == own]
        return tuple(
            (epoch, self._bar([errors[epoch] for errors in like if epoch in errors]))
            for epoch in self.rungs(epochs, own)
        )

    def _bar(self, errors: list[float]) -> float:
        if self.rule == "median":
            return median(errors) if len(errors) >= FEWEST else math.inf
        place = max(1, (len(errors) + 1) // self.factor)
        return sorted(errors)[place - 1] if errors else math.inf

    def _looks(self, epochs: int) -> int:
        """How often warmup * factor^k lies below the end."""
        looks = 0
        while self.warmup * self.factor**looks < epochs:
            looks += 1
        return looks
