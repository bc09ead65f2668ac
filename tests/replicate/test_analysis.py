"""The analysis against naive twins; the paper's numbers; what the sentences say."""

import math
import re
from dataclasses import replace

import pytest

from pared.replicate.junk_neuron import analysis, findings, record
from pared.replicate.junk_neuron.analysis import FULL, HALF, LONGER, ONE, TWIN, Amount, Cell
from pared.replicate.junk_neuron.folder import Settings
from pared.replicate.junk_neuron.page import page
from pared.replicate.junk_neuron.protocol import BUDGETS
from pared.replicate.junk_neuron.published import PAPER, SYSTEMS
from replicate.twins import TOY, below, figure, interval, toy_results

BLOCKS, SEEDS = 6, 3
EVERY = [(block, seed) for block in range(BLOCKS) for seed in range(SEEDS)]


@pytest.fixture(scope="module")
def results():
    return toy_results(TOY, BLOCKS, SEEDS)


@pytest.fixture(scope="module")
def sample(results):
    (found,) = analysis.samples(results, "ten", [TOY])
    return found


def test_every_printed_accuracy_is_k_of_140():
    printed = [accuracy for system in PAPER.systems for accuracy in system.accuracy]
    assert len(printed) == 30
    assert all(round(100 * PAPER.hits(accuracy) / 140, 1) == accuracy for accuracy in printed)
    hits = {name: [PAPER.hits(accuracy) for accuracy in system.accuracy] for name, system in SYSTEMS.items()}
    assert hits["logistic-3.6"] == [116, 127, 123, 110]
    assert hits["logistic-3.99"] == [80, 83, 79, 72]
    assert hits["henon"] == [94, 98, 93, 92, 91]
    assert hits["rossler"] == [108, 117, 114, 113, 100]
    fits = [n for n in range(10, 301) if set(printed) <= {round(100 * k / n, 1) for k in range(n + 1)}]
    assert fits == [140, 280]


def test_the_papers_tables_agree_with_each_other():
    for system in PAPER.systems:
        assert len(system.sizes) == len(system.accuracy) == len(system.thresholds) + 1
        assert system.sizes[0] == system.units == system.recurrent[0]
        assert list(system.thresholds) == sorted(system.thresholds)
        assert list(system.sizes) == sorted(system.sizes, reverse=True)
        at = system.sizes.index(system.best)
        assert system.accuracy[at] == max(system.accuracy[1:])
    assert findings.paper_gain() == pytest.approx((7.8 + 0.7 + 0 + 0 + 2.2 + 2.9 + 6.5) / 7)


def test_table_3_is_normalised_by_rows_and_its_means_are_those_of_its_columns():
    sums = [sum(row) for row in PAPER.weights]
    assert sum(abs(each - 1) < 1e-5 for each in sums) == 14  # two rows hold misprints
    means = [sum(column) / 16 for column in zip(*PAPER.weights, strict=True)]
    distances = [abs(ours - theirs) for ours, theirs in zip(means, PAPER.weight_means, strict=True)]
    assert [column for column, distance in enumerate(distances) if distance > 2e-6] == [3, 12]


@pytest.mark.parametrize(
    ("first", "second", "arm", "other"),
    [
        (Cell("scratch", "", ONE), FULL, ("scratch", "", 1), ("base", "", 0)),
        (Cell("refit", "in", HALF), LONGER, ("refit", "in", 8), ("trained_on", "", 0)),
        (Cell("scratch", "", Amount("published", 1)), TWIN, ("scratch", "", 4), ("reseeded", "", 0)),
    ],
)
def test_differences_average_within_blocks_first(results, sample, first, second, arm, other):
    for name, scale in (("free", 100), ("hits", 100 / 14)):
        differences = [
            [scale * (figure(results, s, b, arm, name) - figure(results, s, b, other, name)) for s in range(SEEDS)]
            for b in range(BLOCKS)
        ]
        found = analysis.accuracy_difference([sample], first, second, name)
        assert (found.value, found.low, found.high) == pytest.approx(interval([sum(d) / SEEDS for d in differences]))
        assert (found.pairs, found.clusters) == (BLOCKS * SEEDS, BLOCKS)
    logs = [
        [math.log(figure(results, s, b, arm, "nrmse") / figure(results, s, b, other, "nrmse")) for s in range(SEEDS)]
        for b in range(BLOCKS)
    ]
    found = analysis.error_ratio([sample], first, second)
    expected = [math.exp(each) for each in interval([sum(d) / SEEDS for d in logs])]
    assert (found.value, found.low, found.high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("reading", ["out", "in"])
@pytest.mark.parametrize("kind", ["surgery", "refit", "scratch"])
def test_a_threshold_means_what_lies_below_it_in_each_network(results, sample, kind, reading):
    group = sample.group(Cell(kind, reading, Amount("below", 0)))
    empty = 0
    for block, seed in EVERY:
        count = below(results, seed, block, reading, TOY.thresholds[0])
        arm = (kind, "" if kind == "scratch" else reading, count)
        if count == 0:
            empty += 1
            arm = ("trained_on" if kind == "refit" else "base", "", 0)
        assert group[block, seed]["free"] == figure(results, seed, block, arm, "free")
    assert 0 < empty < len(EVERY)


def test_the_best_of_the_thresholds_and_its_twin(results, sample):
    def hits(arm, seed):
        return sum(figure(results, seed, block, arm, "hits") for block in range(BLOCKS))

    points = 100 / (14 * BLOCKS)
    gains, twins = [], []
    for seed in range(SEEDS):
        full = hits(("base", "", 0), seed)
        gains.append(points * (max(hits(("scratch", "", count), seed) for count in (2, 4, 6)) - full))
        others = [hits(("reseeded", "", 0), other % SEEDS) for other in (seed, seed + 1, seed + 2)]
        twins.append(points * (max(others) - full))
    found = analysis.best_of_thresholds([sample], "hits")
    assert found.gain == pytest.approx(sum(gains) / SEEDS)
    assert found.twin == pytest.approx(sum(twins) / SEEDS)
    assert found.positive == sum(gain > 0 for gain in gains) / SEEDS
    expected = interval([gain - twin for gain, twin in zip(gains, twins, strict=True)])
    assert (found.excess, found.low, found.high) == pytest.approx(expected)


def test_levels(results, sample):
    found = analysis.level(sample.group(FULL))
    names = ("hits", "free", "nrmse")
    own = {(b, s): [figure(results, s, b, ("base", "", 0), name) for name in names] for b, s in EVERY}
    assert found.hits == pytest.approx(100 * sum(each[0] for each in own.values()) / (14 * len(EVERY)))
    assert found.nrmse == pytest.approx(math.exp(sum(math.log(each[2]) for each in own.values()) / len(EVERY)))
    blocks = [100 * sum(own[b, s][1] for s in range(SEEDS)) / SEEDS for b in range(BLOCKS)]
    assert (found.free, found.worst) == pytest.approx((sum(blocks) / BLOCKS, min(blocks)))


def test_verdicts_follow_the_interval():
    cases = {
        (0.1, 1.0): "holds",
        (-1.0, -0.1): "the opposite holds",
        (-0.1, 0.1): "not shown",
        (None, None): "not shown",
    }
    for (low, high), word in cases.items():
        assert findings.verdict({"low": low, "high": high}) == word
    assert findings.verdict({"low": -1.0, "high": -0.1}, sign=-1) == "holds"
    assert findings.signed(-0.04) == "+0.0"


def toy_record(results):
    settings = Settings((TOY,), (replace(BUDGETS["ten"], seeds=SEEDS, blocks=BLOCKS),))
    return record.build(results, settings)


def test_partial_results_say_so(results):
    built = toy_record({key: value for key, value in results.items() if key[2] != 2})
    assert built["budgets"]["ten"]["done"] == 3
    assert any("Unfinished: 3 of 4" in note for note in findings.notes(built))
    assert findings.notes(toy_record(results)) == ["Budget “ten”: 6 blocks cannot carry an interval."]


@pytest.mark.slow
def test_the_page_is_the_same_twice_and_asks_for_nothing(results):
    built = toy_record(results)
    drawn = page(built)
    assert page(built) == drawn
    assert drawn.count("<svg") == 6
    assert not re.search(r"<script|<img|(src|href)=\"(?!#|data:)", drawn)
    for row in built["budgets"]["ten"]["systems"]["logistic-3.9"]["sweep"]:
        assert findings.interval(row["hits"]) in drawn
    assert "Unfinished" not in drawn
