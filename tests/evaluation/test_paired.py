import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pared.evaluation.paired import block_bootstrap, compare, mcnemar, wilcoxon

few = settings(max_examples=30, deadline=None)
errors = st.lists(st.tuples(st.floats(0.01, 10), st.floats(0.01, 10), st.integers(0, 7)), min_size=2, max_size=20)


@few
@given(errors, st.sampled_from(["log", "linear"]))
def test_compare_is_the_naive_loop(rows, scale):
    a, b, blocks = zip(*rows, strict=True)
    got = compare(a, b, margin=0.1, blocks=blocks, scale=scale, level=0.9)
    means = []
    for label in set(blocks):
        d = [math.log(x) - math.log(y) if scale == "log" else x - y for x, y, k in rows if k == label]
        means.append(sum(d) / len(d))
    k, mean = len(means), sum(means) / len(means)
    assert (got.pairs, got.clusters, got.margin, got.scale) == (len(rows), k, 0.1, scale)
    assert got.difference == pytest.approx(mean, abs=1e-12)
    if k == 1:
        assert (got.low, got.high, got.p_value) == (-math.inf, math.inf, 1.0)
        return
    error = math.sqrt(sum((m - mean) ** 2 for m in means) / (k - 1) / k)
    half = stats.t.ppf(0.95, k - 1) * error
    assert got.low == pytest.approx(mean - half, abs=1e-9)
    assert got.high == pytest.approx(mean + half, abs=1e-9)
    if error > 1e-9:
        assert got.p_value == pytest.approx(stats.ttest_1samp(means, 0).pvalue, abs=1e-9)


@few
@given(errors)
def test_swapping_the_networks_mirrors_the_interval(rows):
    a, b, blocks = zip(*rows, strict=True)
    there, back = compare(a, b, blocks=blocks), compare(b, a, blocks=blocks)
    assert there.difference == pytest.approx(-back.difference, abs=1e-12)
    assert there.low == pytest.approx(-back.high, abs=1e-9)
    assert there.p_value == pytest.approx(back.p_value, abs=1e-9)


@pytest.mark.parametrize(
    ("factor", "spread", "verdict"),
    [
        (0.8, 0.01, "better"),
        (1.0, 0.01, "not inferior"),
        (1.03, 0.005, "not inferior"),  # really worse, but within the margin
        (1.2, 0.01, "inferior"),
        (1.0, 0.5, "inconclusive"),
        (1.05, 0.01, "inconclusive"),
    ],
)
def test_verdicts(factor, spread, verdict):
    base = np.linspace(1, 2, 10)
    wobble = np.exp(spread * np.array([1, -1] * 5))
    got = compare(factor * base * wobble, base)
    assert got.verdict == verdict
    assert got.ratio == pytest.approx(factor)
    assert got.ratio_low < factor < got.ratio_high
    assert compare((factor * base * wobble)[:4], base[:4]).verdict == "inconclusive"


def test_the_margin_is_a_share_on_the_log_scale_and_absolute_on_the_linear_one():
    base = np.ones(6)
    assert compare(1.0999 * base, base, margin=0.1).verdict == "not inferior"
    assert compare(1.1001 * base, base, margin=0.1).verdict == "inferior"
    assert compare(0.2 + 0.0099 * base, 0.2 * base, margin=0.01, scale="linear").verdict == "not inferior"
    worse = compare(0.2 + 0.0101 * base, 0.2 * base, margin=0.01, scale="linear")
    assert worse.verdict == "inferior"
    with pytest.raises(ValueError, match="log scale only"):
        _ = worse.ratio


def test_zero_variance():
    same = compare([0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5])
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert same.verdict == "not inferior"
    apart = compare([1.0] * 5, [2.0] * 5, scale="linear")
    assert (apart.low, apart.high, apart.p_value, apart.verdict) == (-1, -1, 0, "better")


def test_seeds_of_one_block_are_one_cluster_of_any_label():
    a, b = np.full(12, 0.5), np.ones(12)
    assert compare(a, b, blocks=[0, 1, 2, 3] * 3).verdict == "inconclusive"  # 12 pairs, 4 clusters
    blocks = [(name, k) for name in ("henon", "lorenz") for k in (0, 1, 2)] * 2
    assert compare(a, b, blocks=blocks).clusters == 6
    assert compare(a, b, blocks=blocks).verdict == "better"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"a": [1.0], "b": [1.0, 2.0]}, "equally long"),
        ({"a": [], "b": []}, "not empty"),
        ({"a": [1.0, math.nan], "b": [1.0, 1.0]}, "error 1 of the first network is nan: leave diverged networks out"),
        ({"a": [1.0, 1.0], "b": [math.inf, 1.0]}, "error 0 of the second network is inf"),
        ({"a": [1.0, 0.0], "b": [1.0, 1.0]}, "errors above 0"),
        ({"a": [1.0], "b": [1.0], "margin": 0.0}, "margin must be positive"),
        ({"a": [1.0], "b": [1.0], "margin": math.nan}, "margin must be positive"),
        ({"a": [1.0], "b": [1.0], "level": 1.0}, "level"),
        ({"a": [1.0], "b": [1.0], "blocks": [0, 1]}, "one block label"),
        ({"a": [1.0], "b": [1.0], "scale": "sqrt"}, "scale must be"),
    ],
)
def test_bad_input_is_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        compare(**kwargs)


def simulated(shift: float, trials: int = 1500, seed: int = 0):
    """Errors of 10 blocks x 2 seeds: blocks differ in difficulty and in how they like either network."""
    rng = np.random.default_rng(seed)
    blocks = np.repeat(np.arange(10), 2)
    for _ in range(trials):
        difficulty, taste = rng.normal(0, 1, 10)[blocks], rng.normal(0, 0.03, 10)[blocks]
        b = np.exp(difficulty + rng.normal(0, 0.03, 20))
        yield np.exp(difficulty + taste + shift + rng.normal(0, 0.03, 20)), b, blocks


def at_most(count: int, trials: int, rate: float) -> bool:
    return stats.binomtest(count, trials, rate, alternative="greater").pvalue > 1e-3


def test_an_a_a_study_seldom_claims_a_gain_and_covers_the_truth():
    results = [compare(a, b, blocks=k) for a, b, k in simulated(0.0)]
    better = sum(result.verdict == "better" for result in results)
    assert better > 0  # the simulation is able to see one
    assert at_most(better, len(results), 0.025)
    missed = sum(not result.low <= 0 <= result.high for result in results)
    assert 0.03 < missed / len(results) < 0.07


def test_at_the_margin_not_inferior_is_claimed_at_its_nominal_rate():
    verdicts = [compare(a, b, blocks=k).verdict for a, b, k in simulated(math.log(1.05))]
    claimed = sum(verdict in ("better", "not inferior") for verdict in verdicts)
    assert claimed > 0
    assert at_most(claimed, len(verdicts), 0.025)


def test_counting_seeds_as_blocks_would_claim_too_much():
    naive = sum(compare(a, b).verdict in ("better", "not inferior") for a, b, _ in simulated(math.log(1.05)))
    assert not at_most(naive, 1500, 0.025)


# The gain d in right directions; all discordant steps on one side ("best-case p").
# Source: Huang, Gu, Yang 2022, Tables 4-11, recomputed from their k of 140.
BEST_CASE = {1: 1.0, 2: 0.5, 3: 0.25, 4: 0.125, 5: 0.0625, 6: 0.03125, 7: 0.015625, 8: 0.0078125, 9: 0.00390625,
             11: 0.0009765625, 14: 0.0001220703125}  # fmt: skip


def hits(only_first: int, only_second: int, total: int = 140):
    first, second = np.zeros(total, dtype=bool), np.zeros(total, dtype=bool)
    first[:only_first] = True
    second[only_first : only_first + only_second] = True
    first[-50:] = second[-50:] = True  # both right: no evidence
    return first, second


def p_of(gain: int, discordant: int) -> float:
    lost = (discordant - gain) // 2
    return mcnemar(*hits(lost + gain, lost)).p_value


@pytest.mark.parametrize(("gain", "p_value"), BEST_CASE.items())
def test_mcnemar_best_case_of_the_paper(gain, p_value):
    assert p_of(gain, gain) == pytest.approx(p_value, rel=1e-12)


@pytest.mark.parametrize(("gain", "most"), [(11, 25), (7, 9), (6, 6), (8, 12), (14, 44), (9, 17)])
def test_mcnemar_largest_number_of_discordant_steps_that_is_significant(gain, most):
    assert p_of(gain, most) < 0.05 <= p_of(gain, most + 2)


def test_mcnemar_counts_and_other_golden_values():
    assert p_of(11, 13) == pytest.approx(0.0034, abs=5e-5)
    assert p_of(11, 33) == pytest.approx(0.080, abs=5e-4)
    assert p_of(9, 45) == pytest.approx(0.23, abs=5e-3)
    result = mcnemar(*hits(3, 10))
    assert (result.only_first, result.only_second) == (3, 10)
    below = sum(math.comb(13, k) for k in range(4)) / 2**13
    assert result.p_value == pytest.approx(2 * below)
    assert mcnemar(*hits(0, 0)).p_value == 1.0


def test_mcnemar_takes_bool_only():
    with pytest.raises(ValueError, match="bool"):
        mcnemar([1.0, math.nan], [True, False])
    with pytest.raises(ValueError, match="shape"):
        mcnemar([True], [True, False])


def test_wilcoxon_is_the_count_of_all_signs():
    rng = np.random.default_rng(3)
    a, b, blocks = np.exp(rng.normal(0.3, 0.5, 16)), np.ones(16), np.repeat(np.arange(8), 2)
    d = np.log(a).reshape(8, 2).mean(axis=1)
    rank = np.argsort(np.argsort(np.abs(d))) + 1
    seen = sum(rank[d > 0])
    sums = [sum(r for i, r in enumerate(rank) if code >> i & 1) for code in range(256)]
    tail = min(sum(s <= seen for s in sums), sum(s >= seen for s in sums)) / 256
    assert wilcoxon(a, b, blocks) == pytest.approx(min(1, 2 * tail))
    assert wilcoxon(b, b, blocks) == 1.0


def test_block_bootstrap_draws_whole_clusters():
    a, b, blocks = next(simulated(0.02))
    low, high = block_bootstrap(a, b, blocks, seed=1)
    assert (low, high) == block_bootstrap(a, b, blocks, seed=1)
    result = compare(a, b, blocks=blocks)
    assert low < result.difference < high
    # Percentiles of the mean of K draws: standard error sqrt((K-1)/K) of the usual one, normal instead of t quantile.
    assert (high - low) / (result.high - result.low) == pytest.approx(1.96 / 2.262 * math.sqrt(0.9), rel=0.1)
    twice = block_bootstrap(np.tile(a, 3), np.tile(b, 3), np.tile(blocks, 3), seed=1)
    assert twice == pytest.approx((low, high))  # repeating the pairs of a block adds no evidence
    with pytest.raises(ValueError, match="at least 2 clusters"):
        block_bootstrap(a, b, np.zeros(20))
