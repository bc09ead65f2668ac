"""Is the first network as good as the second? Paired comparisons of errors, by cluster.

Errors of two networks on the same data and seed form a pair; pairs of one block share their data, so they are averaged
into one cluster first, and only clusters count as evidence.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pared.evaluation.metrics import Floats

Scale = Literal["log", "linear"]
Verdict = Literal["better", "not inferior", "inferior", "inconclusive"]

FEWEST_CLUSTERS = 5  # below this nothing is claimed: a t interval over so few rests on normality alone


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of the errors of a first and a second network; a negative difference = the first is better.

    `difference`, `low`, `high` are differences of log errors (scale "log") or of errors (scale "linear"); `margin` is
    what was asked for: a share of the error (0.05 = 5 %) on the log scale, in units of the error on the linear one.
    With one cluster the interval is infinite.
    """

    difference: float
    low: float
    high: float
    p_value: float
    margin: float
    verdict: Verdict
    pairs: int
    clusters: int
    scale: Scale

    @property
    def ratio(self) -> float:
        """First error over second error, geometric mean over clusters: exp(difference). Log scale only."""
        return self._ratio(self.difference)

    @property
    def ratio_low(self) -> float:
        """Lower end of the interval of `ratio`."""
        return self._ratio(self.low)

    @property
    def ratio_high(self) -> float:
        """Upper end of the interval of `ratio`."""
        return self._ratio(self.high)

    def _ratio(self, difference: float) -> float:
        if self.scale != "log":
            raise ValueError(f"a ratio of errors exists on the log scale only, this comparison is {self.scale}")
        with np.errstate(over="ignore"):
            return float(np.exp(difference))


@dataclass(frozen=True)
class McNemar:
    """Steps that only one of two forecasters gets right, and the exact two-sided p value of an even chance."""

    only_first: int
    only_second: int
    p_value: float


def compare(
    a: ArrayLike,
    b: ArrayLike,
    margin: float = 0.05,
    blocks: Iterable[Hashable] | None = None,
    scale: Scale = "log",
    level: float = 0.95,
    least_error: float = 0.0,
) -> Comparison:
    """Paired comparison of the errors `a` (first) and `b` (second) against a margin stated beforehand.

    d_k = mean over the pairs of cluster k of log(a) - log(b)   (a - b on the linear scale)
    interval = mean(d) -+ t(level, K-1) * max(sd(d) / sqrt(K), least_error)
    limit = log(1 + margin)                                     (margin on the linear scale)
    verdict: "better" if high < 0, else "not inferior" if high < limit, else "inferior" if low > limit, else
    "inconclusive"; fewer than 5 clusters are always "inconclusive".

    Estimand: the mean over blocks, each of equal weight, of the log ratio of errors; exp of it is a geometric mean
    ratio. It says nothing on a single network.
    `least_error` is for errors that are counted: two networks that agree on every one of few rows differ by 0 in every
    cluster, which is no proof that they would on others (`counting_error`).
    The interval and the p value (of no difference) are two-sided. A two-sided 95 % interval below the limit is a
    one-sided non-inferiority test at 2.5 %; so is "better" against 0. "Not inferior" does not exclude a small loss:
    low > 0 and high < limit is a real but accepted one.
    Assumes: independent clusters (pass one label for blocks whose data overlap) and roughly normal cluster means; the
    margin and both arms were fixed before these errors were seen, so choose thresholds on other data.

    Returns: Comparison.
    Raises: ValueError for empty or unequal inputs, errors that are not finite, errors <= 0 on the log scale,
        margin <= 0.
    Source: Piaggio et al. 2012 (CONSORT for non-inferiority, JAMA 308) for reading the interval.
    """
    if not 0 < margin < np.inf:
        raise ValueError(f"the margin must be positive and finite, got {margin}; 0.05 allows 5 % more error")
    if not 0 < level < 1:
        raise ValueError(f"the level of the interval must lie in (0, 1), got {level}")
    d = _clusters(a, b, blocks, scale)
    low, high, p_value = _t_interval(d, level, least_error)
    limit = float(np.log1p(margin)) if scale == "log" else margin
    verdict = _verdict(low, high, limit) if len(d) >= FEWEST_CLUSTERS else "inconclusive"
    return Comparison(float(d.mean()), low, high, p_value, margin, verdict, np.size(a), len(d), scale)


def counting_error(rows: float) -> float:
    """Standard error of a difference of two shares of the same rows where no row tells the two apart.

    1 / (rows + 2): half a row is added to each of the four ways in which two networks can be right or wrong on a row.

    Source: Agresti and Min 2005 (Statistics in Medicine 24), the adjusted Wald interval of matched pairs.
    """
    return 1 / (rows + 2)


def mcnemar(hits_a: ArrayLike, hits_b: ArrayLike) -> McNemar:
    """Exact McNemar test of two forecasters' hits on the same steps.

    With n steps that only one gets right, k of them by the rarer winner: p = min(1, 2 P[Binomial(n, 1/2) <= k]).
    Assumes independent steps; steps of one training are not quite, so a small p is evidence on these networks only.

    Returns: McNemar; p is two-sided, 1 where the two never disagree.
    Raises: ValueError unless both are bool arrays of one shape.
    Source: McNemar 1947 (Psychometrika 12).
    """
    first, second = np.asarray(hits_a), np.asarray(hits_b)
    if first.dtype != np.bool_ or second.dtype != np.bool_ or first.shape != second.shape:
        raise ValueError(
            f"hits must be two bool arrays of one shape, got {first.dtype} {first.shape} and "
            f"{second.dtype} {second.shape}"
        )
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    p_value = float(stats.binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p_value)


def wilcoxon(a: ArrayLike, b: ArrayLike, blocks: Iterable[Hashable] | None = None) -> float:
    """Wilcoxon signed-rank test of the log ratio of errors over clusters: `compare` without its normality.

    Returns: two-sided p value of a distribution symmetric around 0; 1 where all clusters are equal. Clusters without a
        difference are left out.
    Raises: ValueError as `compare` on the log scale.
    Source: Wilcoxon 1945 (Biometrics Bulletin 1).
    """
    d = _clusters(a, b, blocks, "log")
    return float(stats.wilcoxon(d).pvalue) if d.any() else 1.0


def block_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    blocks: Iterable[Hashable],
    seed: int = 0,
    draws: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean log ratio of errors, drawing whole clusters.

    Too narrow for few clusters (at 10 about 90 % of true values lie in a nominal 95 %): a second look beside `compare`,
    not a verdict.

    Returns: (low, high), differences of log errors; negative = the first is better.
    Raises: ValueError as `compare` on the log scale, or for fewer than 2 clusters.
    Source: Efron 1979 (Annals of Statistics 7).
    """
    d = _clusters(a, b, blocks, "log")
    if len(d) < 2:
        raise ValueError("a bootstrap needs at least 2 clusters, got 1")
    drawn = np.random.default_rng(seed).integers(len(d), size=(draws, len(d)))
    low, high = np.quantile(d[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _clusters(a: ArrayLike, b: ArrayLike, blocks: Iterable[Hashable] | None, scale: Scale) -> Floats:
    """Mean difference of every cluster, in the order in which the labels appear."""
    if scale not in ("log", "linear"):
        raise ValueError(f'scale must be "log" or "linear", got {scale!r}')
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) == 0:
        raise ValueError(
            f"paired errors must be two equally long lists that are not empty, got {first.shape} and {second.shape}"
        )
    for name, errors in (("first", first), ("second", second)):
        _check(name, errors, scale)
    d = np.log(first) - np.log(second) if scale == "log" else first - second
    if blocks is None:
        return d
    index: dict[Hashable, int] = {}
    label = [index.setdefault(block, len(index)) for block in blocks]
    if len(label) != len(d):
        raise ValueError(f"every pair needs one block label, got {len(label)} labels for {len(d)} pairs")
    return np.asarray(np.bincount(label, weights=d) / np.bincount(label))


def _check(name: str, errors: Floats, scale: Scale) -> None:
    wrong = np.flatnonzero(~np.isfinite(errors))
    if len(wrong):
        raise ValueError(
            f"error {wrong[0]} of the {name} network is {errors[wrong[0]]}: leave diverged networks out (and "
            "say so) or count them as inferior"
        )
    wrong = np.flatnonzero(errors <= 0)
    if scale == "log" and len(wrong):
        raise ValueError(
            f"error {wrong[0]} of the {name} network is {errors[wrong[0]]}: the log scale needs errors above 0; "
            'use scale="linear"'
        )


def _t_interval(d: Floats, level: float, least_error: float) -> tuple[float, float, float]:
    """Interval of the mean and the two-sided p value of mean 0; one value alone says nothing."""
    if len(d) == 1:
        return -np.inf, np.inf, 1.0
    mean, error = float(d.mean()), max(float(d.std(ddof=1) / np.sqrt(len(d))), least_error)
    half = float(stats.t.ppf((1 + level) / 2, len(d) - 1)) * error
    t = abs(mean) / error if error > 0 else (np.inf if mean else 0.0)
    return mean - half, mean + half, 2 * float(stats.t.sf(t, len(d) - 1))


def _verdict(low: float, high: float, limit: float) -> Verdict:
    if high < 0:
        return "better"
    if high < limit:
        return "not inferior"
    return "inferior" if low > limit else "inconclusive"
