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
    """Half a cosine from `start` to `end`, after a warm-up: v(p) = (end + (start - end) (1 + cos(pi p)) / 2) r(p).

    r(p) rises on a straight line from 0.1 at p = 0 to 1 at p = `warm`, and stays there; without `warm` it is 1.
    Source: Loshchilov & Hutter, SGDR (2017), one cycle without restarts; Goyal et al. (2017) for the gradual warm-up.
    """

    start: float = 1.0
    end: float = 0.0
    warm: float = 0.0

    def __call__(self, progress: float) -> float:
        risen = 0.1 + 0.9 * progress / self.warm if progress < self.warm else 1.0
        return risen * (self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2)


@dataclass(frozen=True)
class OneShot:
    """All at once: v(0) = 0, then `end`."""

    end: float

    def __call__(self, progress: float) -> float:
        return self.end if progress > 0 else 0.0


@dataclass(frozen=True)
class Linear:
    """As much in every step: v(p) = start + (end - start) p."""

    end: float
    start: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


@dataclass(frozen=True)
class Exponential:
    """The same share of what is left in every step: v(p) = 1 - (1 - end)^p."""

    end: float

    def __call__(self, progress: float) -> float:
        return float(1 - (1 - self.end) ** progress)


@dataclass(frozen=True)
class Cubic:
    """Much at first, little at last: v(p) = end + (start - end) (1 - p)^3.

    Source: Zhu & Gupta, To prune, or not to prune (2017).
    """

    end: float
    start: float = 0.0

    def __call__(self, progress: float) -> float:
        return float(self.end + (self.start - self.end) * (1 - progress) ** 3)
