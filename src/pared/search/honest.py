"""The honest winner: the best few trials are trained again on fresh seeds, the same for all, before one is crowned.

The best of many noisy scores is good by luck as well as by merit. Fresh seeds do not share that luck, so what they give
is what may be expected, and the difference is how far the score flattered.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from pared.evaluation.metrics import Floats
from pared.evaluation.paired import Scale

MOST = 6
"""Most trials that are confirmed."""
DOUBT = 0.9
"""A finalist leaves the race once it is worse than the leader with this confidence (one-sided)."""

Measure = Callable[[Sequence[int], int], Mapping[int, float]]
"""`measure(trials, round)` -> the error of each on the fresh seed of that round."""


@dataclass(frozen=True)
class Finalist:
    """A trial in the race: its score in the search, its errors on fresh seeds, their mean, and what may be expected.

    `low` and `high` are the interval around `expected`: it holds the noise of training, not that of the data. None with
    fewer than two fresh seeds.
    """

    trial: int
    score: float
    fresh: tuple[float, ...]
    mean: float
    expected: float
    low: float | None
    high: float | None


def finalists(budget: int) -> int:
    """How many trials a budget of evaluations confirms: on two seeds each, at most six."""
    return min(MOST, budget, max(2, budget // 2))


def race(
    entrants: Sequence[int], measure: Measure, budget: int, scale: Scale, slack: float = 0.0
) -> dict[int, list[float]]:
    """Errors on fresh seeds: round by round all that are left are trained on one more, while the budget lasts.

    After two rounds the noise is known: s^2 = the mean square of what is left of the errors (their logarithms on the
    log scale) without the means of trials and seeds. Who is worse than the leader by more than
    slack + t s sqrt(2 / rounds) leaves. So little noise takes few seeds, and much noise as many as the budget holds.

    Returns: trial -> errors, one a round that it took part in; infinite where it failed.
    """
    errors: dict[int, list[float]] = {trial: [] for trial in entrants}
    left, rounds = list(entrants), 0
    while left and len(left) <= budget and (len(left) > 1 or rounds < 2):
        found = measure(left, rounds)
        budget -= len(left)
        rounds += 1
        for trial in left:
            errors[trial].append(found[trial])
        left = [trial for trial in left if math.isfinite(found[trial])]
        if rounds >= 2 and len(left) > 1:
            table = np.array([transformed(errors[trial], scale) for trial in left])
            left = [trial for trial, stays in zip(left, _still_in(table, slack), strict=True) if stays]
    return errors


def standings(
    errors: Mapping[int, Sequence[float]], scores: Mapping[int, float], scale: Scale, level: float = 0.95
) -> list[Finalist]:
    """Who raced, best first: those with the most rounds by their mean, then those that left before.

        mean = the mean over fresh seeds (geometric on the log scale)
        expected = mean - (1 - share) (mean - mean of all k finalists, both over the rounds that all took part in)
        share = max(0, 1 - (MS_rest / common rounds) / variance of these means), with more rounds of its own nearer to 1
        interval = expected -+ t(level, freedom) s / sqrt(seeds),   s^2 = (MS_seeds + (k - 1) MS_rest) / k

    The best of a few means is lucky as well, a little: `expected` goes back towards the others as far as noise explains
    that they differ. s^2 is the variance of an error over seeds: what seeds do to all finalists alike and to each
    apart. freedom is Satterthwaite's.

    Source: Efron and Morris 1975 (Journal of the American Statistical Association 70) for going back; Satterthwaite
    1946 (Biometrics Bulletin 2).
    """
    sound = {trial: transformed(line, scale) for trial, line in errors.items() if len(line) and np.isfinite(line).all()}
    common = min(map(len, sound.values()), default=0)
    table = np.array([line[:common] for line in sound.values()])
    noise = spread(table) if common > 1 else Spread(0.0, 0.0, 0.0)
    apart = max(0.0, float(table.mean(axis=1).var(ddof=1)) - noise.rest / common) if len(table) > 1 else math.inf
    found = []
    for (trial, line), own in zip(sound.items(), table, strict=True):
        mean, doubt = float(line.mean()), noise.rest / len(line)
        share = 1.0 if doubt == 0 or apart == math.inf else apart / (apart + doubt)
        expected = mean - (1 - share) * float(own.mean() - table.mean())
        low = high = None
        if noise.freedom:
            half = float(stats.t.ppf((1 + level) / 2, noise.freedom)) * math.sqrt(noise.variance / len(line))
            low, high = _back(expected - half, scale), _back(expected + half, scale)
        fresh = tuple(errors[trial])
        found.append(Finalist(trial, scores[trial], fresh, _back(mean, scale), _back(expected, scale), low, high))
    return sorted(found, key=lambda each: (-len(each.fresh), each.mean, each.trial))


class Spread(NamedTuple):
    """Variance of an error over seeds with its degrees of freedom; `rest`: the part that is not common to trials."""

    variance: float
    freedom: float
    rest: float


def spread(table: Floats) -> Spread:
    """What seeds do to errors, from a table (trials, seeds) of at least two seeds; see `standings`."""
    trials, seeds = table.shape
    rest = ((table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()) ** 2).sum()
    by_seeds = trials * float(((table.mean(axis=0) - table.mean()) ** 2).sum()) / (seeds - 1)
    by_rest = float(rest) / ((trials - 1) * (seeds - 1)) if trials > 1 else 0.0
    parts = by_seeds / trials, by_rest * (trials - 1) / trials
    variance = sum(parts)
    if variance == 0:
        return Spread(0.0, float(seeds - 1), 0.0)
    uncertain = parts[0] ** 2 / (seeds - 1) + (parts[1] ** 2 / ((trials - 1) * (seeds - 1)) if trials > 1 else 0.0)
    return Spread(variance, variance**2 / uncertain, by_rest)


def transformed(errors: Sequence[float], scale: Scale) -> Floats:
    """Errors on the scale that they are compared on."""
    values = np.asarray(errors, dtype=np.float64)
    return np.log(np.maximum(values, 1e-300)) if scale == "log" else values


def _still_in(table: Floats, slack: float) -> list[bool]:
    trials, seeds = table.shape
    error = math.sqrt(spread(table).rest * 2 / seeds)
    allowed = slack + float(stats.t.ppf(DOUBT, (trials - 1) * (seeds - 1))) * error
    behind = table.mean(axis=1) - table.mean(axis=1).min()
    return [gap <= allowed for gap in behind]


def _back(value: float, scale: Scale) -> float:
    return math.exp(value) if scale == "log" else value
