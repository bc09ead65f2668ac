"""What is tried next: few, never twice, ending at the edge between what passes and what fails."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pared.outcomes import label
from pared.selection import Count, Ratio, Ratios, Threshold
from pared.sizes import Bisection, LayerByLayer, OneByOne, Pool, proposed


def explored(rules, pools, passes):
    """Everything that is tried, in order, where `passes` says what each comes to."""
    tried = []
    while (rule := proposed(rules, pools, tried)) is not None:
        tried.append((rule, passes(rule)))
        assert len(tried) < 50
    return tried


@example(12, 4, 0.5, 1 / 16, 8)  # 0.625 removes as many as 0.75, and 7 lies between
@given(
    st.integers(2, 400),
    st.integers(0, 5),
    st.floats(0, 1),
    st.sampled_from([1 / 4, 1 / 16, 1 / 64]),
    st.integers(1, 8),
)
def test_bisection_ends_at_the_edge(parts, fewest, edge, tolerance, most):
    pool = Pool(parts, min(fewest, parts // 2))
    tried = explored((Bisection(tolerance, most),), {"all": pool}, lambda rule: rule.fraction <= edge)
    ratios = [rule.fraction for rule, _ in tried]
    assert ratios[0] == 0.5
    assert 1 <= len(ratios) <= most
    counts = [pool.removed(ratio) for ratio in ratios]
    assert len(set(counts)) == len(counts)
    assert 0 < min(counts) <= max(counts) <= parts - pool.fewest
    low = max((rule.fraction for rule, passed in tried if passed), default=0.0)
    high = min((rule.fraction for rule, passed in tried if not passed), default=1.0)
    if len(ratios) < most and high - low > tolerance:
        left = parts - pool.fewest if high == 1 else pool.removed(high)
        assert left - pool.removed(low) <= 1


@pytest.mark.parametrize(
    ("passes", "ratios"),
    [
        (lambda ratio: ratio < 0.6, [0.5, 0.75, 0.625, 0.5625]),
        (lambda ratio: False, [0.5, 0.25, 0.125, 0.0625]),
        (lambda ratio: True, [0.5, 0.75, 0.875]),  # 21 of 24 are gone, and 3 must stay
        (lambda ratio: ratio in (0.5, 0.625), [0.5, 0.75, 0.625, 0.6875]),
        (lambda ratio: ratio > 0.2 and ratio != 0.5, [0.5, 0.25, 0.375, 0.4375]),
    ],
)
def test_four_looks_find_a_sixteenth(passes, ratios):
    tried = explored((Bisection(),), {"all layers": Pool(24, 3)}, lambda rule: passes(rule.fraction))
    assert [rule.fraction for rule, _ in tried] == ratios


def test_one_unit_more_or_less_ends_the_search():
    assert [r.fraction for r, _ in explored((Bisection(),), {"a": Pool(3)}, lambda rule: True)] == [
        0.5
    ]  # 2 of 3, and 1 stays
    assert [r.fraction for r, _ in explored((Bisection(),), {"a": Pool(4)}, lambda rule: False)] == [0.5, 0.25]


def test_ratios_that_are_told_count_as_tried():
    tried = explored((Ratio(0.3), Bisection(most=3), Threshold(0.1)), {"a": Pool(100)}, lambda rule: rule == Ratio(0.3))
    assert [label(rule) for rule, _ in tried] == ["ratio 0.3", "ratio 0.65", "ratio 0.475", "threshold 0.1"]
    assert proposed((Ratio(0.5), Count(3), Ratio(0.5)), {}, [(Ratio(0.5), True), (Count(3), True)]) is None


def test_layer_by_layer_goes_on_from_the_common_ratio_the_widest_first():
    pools = {"a": Pool(4), "b": Pool(16), "c": Pool(4)}

    def passes(rule):
        return rule.fraction <= 0.5 if isinstance(rule, Ratio) else rule.fractions["b"] < 0.6

    rules = [rule for rule, _ in explored((LayerByLayer(),), pools, passes)]
    assert rules == [
        Ratio(0.5), Ratio(0.75), Ratio(0.625),
        Ratios({"a": 0.5, "b": 0.75, "c": 0.5}), Ratios({"a": 0.75, "b": 0.5, "c": 0.5}),
        Ratios({"a": 0.75, "b": 0.5, "c": 0.75}),
    ]  # fmt: skip
    assert label(rules[-1]) == "ratios 0.75/0.5/0.75"


@given(
    st.dictionaries(st.sampled_from("abcde"), st.builds(Pool, st.integers(1, 40)), min_size=1),
    st.randoms(use_true_random=False),
)
def test_layer_by_layer_never_takes_longer_than_six_looks(pools, draw):
    tried = explored((LayerByLayer(),), pools, lambda rule: draw.random() < 0.5)
    assert len(tried) <= 6
    for rule, _ in tried:
        assert not isinstance(rule, Ratios) or rule.fractions.keys() == pools.keys()


@pytest.mark.parametrize(
    ("passing", "looks"),
    [((), 2), ((1,), 3), ((2,), 4), ((1, 2, 3), 5), ((1, 2, 3, 4), 6), ((3,), 2), ((1, 2, 3, 4, 5, 6, 7), 7)],
)
def test_one_by_one_ends_after_two_that_do_not_pass(passing, looks):
    tried = explored((OneByOne(),), {"all layers": Pool(8)}, lambda rule: rule.units in passing)
    assert [rule for rule, _ in tried] == [Count(k) for k in range(1, looks + 1)]
