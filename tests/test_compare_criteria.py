"""Criteria beside each other: the figures against a naive twin, the yardstick, and criteria that go wrong."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

from networks import snapshot, unchanged
from pared import CriteriaSettings, compare_criteria, criteria
from pared.compare_criteria import Contest, by_loss, examples_block, findings, gathered, needs
from pared.evaluation import compare
from pared.kept import CriteriaComparison, Kept, Scored, shown
from pared.models import MLP
from pared.outcomes import Yardstick
from pared.surgery import Plan, mask, trace
from pared.training import TrainConfig, fit
from pared.types import Batch

PLAIN = CriteriaSettings(ratios=(0.25, 0.5), refit=None, draws=2)


def examples(seed, samples=40):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 3, generator=generator)
    return Batch(x, torch.tanh(x[:, :1] - x[:, 1:2]))


MODELS = [MLP(3, (8, 4), seed=seed) for seed in range(6)]
DATA = [(examples(seed), examples(100 + seed, 20)) for seed in range(6)]


ASKED = {"taylor": criteria.taylor, "magnitude": criteria.magnitude}


@pytest.fixture(scope="module")
def result():
    before = [snapshot(model) for model in MODELS]
    found = compare_criteria(MODELS, DATA, ASKED, settings=PLAIN)
    for model, state in zip(MODELS, before, strict=True):
        unchanged(state, model)
    return found


def _errors(result):
    return {(k.criterion, k.network, k.ratio, k.repair, k.draw): k.metrics["test.loss"] for k in result.kept}


def test_plain_errors_are_those_of_masked_networks(result):
    for network, (model, (train, test)) in enumerate(zip(MODELS, DATA, strict=True)):
        structure = trace(model, train.x[:1])
        scores = criteria.taylor(model, train, mse_loss)
        for ratio in PLAIN.ratios:
            gone = {name: round(ratio * len(values)) for name, values in scores.items()}
            keep = {name: tuple(sorted(v.argsort()[gone[name] :].tolist())) for name, v in scores.items()}
            expected = mse_loss(mask(model, structure, Plan(keep))(test.x), test.y).detach()
            found = _errors(result)["taylor", network, ratio, "plain", 0]
            assert found == pytest.approx(float(expected), rel=1e-5)
        assert result.full[network]["test.loss"] == pytest.approx(
            float(mse_loss(model(test.x), test.y).detach()), rel=1e-5
        )


def test_every_network_has_every_figure_and_random_comes_first(result):
    assert result.compared == ("random", "taylor", "magnitude")
    assert result.repairs == ("plain", "compensated")
    assert len(result.kept) == 6 * (2 + 2) * 2 * 2
    assert {k.draw for k in result.kept if k.criterion == "random"} == {0, 1}
    assert result.against_random("taylor", 0.5, "plain").pairs == 12
    assert result.against_random("taylor", 0.5, "plain").clusters == 6
    assert result.against_full("taylor", 0.5, "plain").pairs == 6
    assert result.against_full("taylor", 0.4, "plain") is None
    lines = str(result).splitlines()
    assert [line.split()[0] for line in lines if line[:1].isalpha()] == [
        "Test", "plain", "random", "taylor", "magnitude", "compensated", "random", "taylor", "magnitude",
        "cost", "random", "taylor", "magnitude",
    ]  # fmt: skip


def test_the_same_call_gives_the_same_from_a_loader_too(result):
    data = [(DataLoader(TensorDataset(*train), 7), test) for train, test in DATA[:1]]
    again = compare_criteria(MODELS[:1], data, ASKED, settings=PLAIN)
    assert list(again.kept) == [each for each in result.kept if each.network == 0]


def raising(model, batch, loss):
    raise TypeError("no such thing")


def not_a_number(model, batch, loss):
    return {name: torch.where(v == v.max(), torch.nan, v) for name, v in criteria.taylor(model, batch, loss).items()}


def misshapen(model, batch, loss):
    return {"layers.0": torch.zeros(3)}


def constant(model, batch, loss):
    """Everything is alike. Cost: nothing."""
    return {"layers.0": torch.zeros(8), "layers.2": torch.arange(4.0)}


def test_a_criterion_that_fails_is_listed_and_the_others_go_on():
    asked = {
        "raising": raising, "nan": not_a_number, "misshapen": misshapen, "layers": criteria.replaceability,
        "junk": criteria.junk, "taylor": criteria.taylor, "constant": constant,
    }  # fmt: skip
    found = compare_criteria(MODELS[:2], DATA[:2], asked, settings=PLAIN)
    assert found.compared == ("random", "taylor", "constant")
    reasons = {name: (why, count) for (name, why), count in found.refusals().items()}
    assert reasons["raising"] == ("TypeError: no such thing", 2)
    assert reasons["nan"] == ("1 of its 8 scores of 'layers.0' are NaN", 2)
    assert reasons["misshapen"] == ("its scores of 'layers.0' are shaped (3,), there are (8,)", 2)
    assert reasons["layers"][0] == "it scores whole layers, not units"
    assert "junk criterion scores recurrent layers" in reasons["junk"][0]
    assert {s.alike for s in found.scored if s.criterion == "constant"} == {("layers.0",)}
    assert {s.alike for s in found.scored if s.criterion == "taylor"} == {()}
    assert found.needs["constant"] == "nothing"
    assert "No scores of nan for 2 of 2 networks: 1 of its 8 scores" in str(found)


def test_what_is_not_scored_goes_as_in_the_first_random_order(result):
    contest = Contest(MODELS[:1], [examples_block(DATA[0], 0)], {}, by_loss(mse_loss), PLAIN)
    first = contest.removal(0).at_random(contest.seed(0))

    def half(model, batch, loss):
        return {"layers.0": first["layers.0"]}

    found = compare_criteria(MODELS[:1], DATA[:1], {"half": half}, settings=PLAIN)
    assert {s.unscored for s in found.scored if s.criterion == "half"} == {("layers.2",)}
    errors = _errors(found)
    for ratio in PLAIN.ratios:
        assert errors["half", 0, ratio, "plain", 0] == errors["random", 0, ratio, "plain", 0]


def test_a_dead_layer_is_no_obstacle():
    dead = MLP(3, (8, 4), activation="relu", seed=0)
    with torch.no_grad():
        dead.layers[0].bias.fill_(-100.0)  # nothing varies behind it
    asked = {
        name: getattr(criteria, name) for name in ("taylor", "activation", "entropy", "least_squares", "magnitude")
    }
    found = compare_criteria([dead], DATA[:1], asked, settings=PLAIN)
    assert set(found.compared) == {"random", *asked}
    assert all(math.isfinite(k.metrics["test.loss"]) for k in found.kept)
    assert next(s for s in found.scored if s.criterion == "activation").alike == ("layers.0",)


def test_units_are_no_weights():
    setting = CriteriaSettings(what="weights", ratios=(0.5,), refit=None, draws=1)
    asked = {"magnitude": criteria.magnitude, "taylor": criteria.taylor}
    found = compare_criteria(MODELS[:1], DATA[:1], asked, settings=setting)
    assert found.compared == ("random", "magnitude")
    assert [why for (_, why) in found.refusals()] == [
        "it scores no weights of this network; its scores are of 'layers.0', 'layers.2'"
    ]


@pytest.mark.parametrize("what", ["units", "weights"])
def test_refits_go_on_from_the_repaired_network_and_keep_what_is_gone(what):
    refit = TrainConfig(epochs=2, batch_size=20)
    setting = CriteriaSettings(what=what, ratios=(0.5,), refit=refit, draws=1)
    blocks = [examples_block(each, place) for place, each in enumerate(DATA[:2])]
    contest = Contest(MODELS[:2], blocks, {"magnitude": criteria.magnitude}, by_loss(mse_loss), setting)
    found = _errors(gathered(contest, findings(contest, 1, lambda stage, done, total: None)))
    for network in range(2):
        removal = contest.removal(network)
        repaired = removal.remove(removal.scores(criteria.magnitude), 0.5).repaired
        masks = {name: weight != 0 for name, weight in repaired.named_parameters() if weight.dim() > 1}
        config = replace(refit, seed=contest.seed(network))
        alone = fit(repaired, blocks[network], config, masks=masks).model
        test = blocks[network].test
        for repair, model in (("compensated", repaired), ("refitted", alone)):
            expected = float(mse_loss(model(test.x), test.y).detach())
            assert found["magnitude", network, 0.5, repair, 0] == pytest.approx(expected, rel=1e-3)


def test_an_interruption_keeps_what_came_before():
    contest = Contest(
        MODELS[:3], [examples_block(DATA[k], k) for k in range(3)], {"norm": criteria.norm}, by_loss(mse_loss), PLAIN
    )
    found = []

    def progress(stage, done, total):
        if done == 5:
            raise KeyboardInterrupt

    def collect():
        for each in findings(contest, 1, progress):
            found.append(each)

    with pytest.raises(KeyboardInterrupt):
        collect()
    part = gathered(contest, found)
    assert {k.network for k in part.kept} == {0, 1}
    assert part.against_full("norm", 0.5, "plain").pairs == 1
    assert "norm" in str(part)


def test_classes_are_compared_by_any_loss():
    models = [MLP(3, (6,), 3, seed=seed) for seed in range(2)]
    data = [(Batch(x, (x[:, 0] > 0).long()), Batch(x, (x[:, 1] > 0).long())) for (x, _), _ in DATA[:2]]
    found = compare_criteria(models, data, {"taylor": criteria.taylor}, cross_entropy, PLAIN)
    assert found.full[0]["test.loss"] == pytest.approx(
        float(cross_entropy(models[0](data[0][1].x), data[0][1].y).detach())
    )


@settings(max_examples=20, deadline=None)
@given(data=st.data(), blocks=st.lists(st.integers(0, 7), min_size=1, max_size=12))
def test_comparisons_are_those_of_the_paired_errors(data, blocks):
    errors = st.lists(st.floats(0.01, 100), min_size=len(blocks), max_size=len(blocks))
    full, own, one, two = (data.draw(errors) for _ in range(4))
    kept = [Kept("mine", n, 0.5, "plain", {"test.e": e}) for n, e in enumerate(own)]
    for draw, drawn in enumerate((one, two)):
        kept += [Kept("random", n, 0.5, "plain", {"test.e": e}, draw) for n, e in enumerate(drawn)]
    found = _comparison(blocks, full, kept)
    twice = [*blocks, *blocks]
    theirs = compare([*own, *own], [*one, *two], 0.05, twice)
    assert found.against_random("mine", 0.5, "plain").difference == pytest.approx(theirs.difference, abs=1e-9)
    assert found.against_random("mine", 0.5, "plain").high == pytest.approx(theirs.high, abs=1e-9)
    assert found.against_full("mine", 0.5, "plain") == compare(own, full, 0.05, blocks)
    standing = found.standing("mine", 0.5, "plain")
    if len(set(blocks)) < 5:
        assert standing == "open"
    elif theirs.high < -1e-9 or theirs.low > 1e-9:
        assert standing == ("better" if theirs.high < 0 else "worse")


def _comparison(blocks, full, kept):
    return CriteriaComparison(
        what="units",
        criteria=("mine",),
        ratios=(0.5,),
        yardstick=Yardstick("e", "log", 0.05, 0.95),
        blocks=tuple(blocks),
        full=tuple({"test.e": e} for e in full),
        needs={},
        scored=tuple(Scored("mine", n, 0.1 * n) for n in range(len(blocks))),
        kept=tuple(kept),
    )


def test_a_criterion_after_which_a_network_diverged_is_not_better():
    blocks = range(6)
    kept = [Kept("mine", n, 0.5, "plain", {"test.e": 1.0 + n / 100}) for n in blocks]
    kept += [Kept("random", n, 0.5, "plain", {"test.e": 9.0}) for n in blocks]
    assert _comparison(blocks, [1.0] * 6, kept).standing("mine", 0.5, "plain") == "better"
    kept[0] = Kept("mine", 0, 0.5, "plain", {"diverged": 1.0})
    found = _comparison(blocks, [1.0] * 6, kept)
    assert found.standing("mine", 0.5, "plain") == "open"
    assert found.diverged("mine", 0.5, "plain") == 1
    assert found.seconds("mine") == pytest.approx(0.25)
    assert found.seconds("other") is None


def test_cells_show_ratios_points_and_what_has_no_interval():
    assert shown(compare([2.0, 2.2, 1.8], [1.0, 1.0, 1.0])) == "1.99 [1.55, 2.56]"
    assert shown(compare([0.2, 0.3], [0.1, 0.1], 0.01, scale="linear")) == "-15.0 [-78.5, +48.5]"
    assert shown(compare([2.0], [1.0])) == "2.00"
    assert shown(None) == "–"


def test_costs_are_read_from_docstrings():
    assert needs(criteria.magnitude) == "O(parameters), no forward pass"
    assert needs(partial(criteria.norm, side="in")).startswith("O(parameters), with spread one forward pass")
    assert needs(lambda model, batch, loss: {}) == ""
    assert all(needs(getattr(criteria, name)) for name in criteria.__all__)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ratios": (0.5, 1.0)}, "a ratio lies between 0 and 1"),
        ({"ratios": (0.5, 0.5)}, "they must differ"),
        ({"ratios": ()}, "there must be ratios"),
        ({"what": "layers"}, "'units' or 'weights'"),
        ({"draws": 0}, "at least 1 random order"),
        ({"what": "weights", "keep": ("a",)}, "keep names groups of units"),
        ({"what": "weights", "refit": TrainConfig(optimiser="sgd")}, "refit with 'adam'"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        CriteriaSettings(**wrong)


def test_calls_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="give each network its data, got 2 networks, 1 data"):
        compare_criteria(MODELS[:2], DATA[:1], {}, settings=PLAIN)
    with pytest.raises(ValueError, match="'random' is always compared"):
        compare_criteria(MODELS[:1], DATA[:1], {"random": criteria.random}, settings=PLAIN)
    with pytest.raises(ValueError, match="got 3 parts"):
        compare_criteria(MODELS[:1], [(*DATA[0], DATA[0][0])], {}, settings=PLAIN)
    with pytest.raises(ValueError, match="removes nothing"):
        compare_criteria(MODELS[:1], DATA[:1], {}, settings=CriteriaSettings(ratios=(0.01,), refit=None))
