"""Schedules: progress in [0, 1] -> value. Frozen dataclasses, so that a configuration that holds one is plain data."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    """The same value throughout: v(p) = value."""

    value: float = 1.0

    def __call__(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `start` to `end`: v(p) = end + (start - end) (1 + cos(pi p)) / 2.

    Source: Loshchilov & Hutter, SGDR (2017), one cycle without restarts.
    """

    start: float = 1.0
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2
