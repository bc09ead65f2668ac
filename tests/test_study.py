"""The whole comparison on tiny budgets: which networks there are, what they may see, that it repeats."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from networks import batch, forecaster, mlp, snapshot, unchanged
from pared import criteria, evaluation
from pared.cutting import Layers, Units, Weights
from pared.distill import Lessons, distill, lessons
from pared.models import Forecaster
from pared.outcomes import CONTROLS, label
from pared.selection import Count, Ratio, Threshold
from pared.sizes import Bisection, OneByOne
from pared.study import Investigation, Refit, StudySettings, equal_compute_epochs, member_seed, prune, study
from pared.surgery import Plan, StructureError, cut, droppable, trace
from pared.targets import Mixed, Soft
from pared.training import TrainConfig, fit, fit_many
from pared.types import Batch, DivergedError
from problems import logistic_blocks

NAIVE = {"persistence", "flip", "same", "mean", "ar", "analog"}
BLOCKS, SEEDS = range(5), (0, 1)
MEMBERS = list(itertools.product(BLOCKS, SEEDS))


def build(seed, widths):
    """A small GRU forecaster."""
    recurrent = [w for k, width in enumerate((6, 3)) if (w := widths.get(f"recurrent.{k}.l0", width))]
    dense = [w for w in [widths.get("head.0", 3)] if w]
    return Forecaster(1, recurrent, dense, cell="gru", seed=seed)


QUICK = StudySettings(
    train=TrainConfig(epochs=3, batch_size=32, lr=0.02),
    refit=TrainConfig(epochs=2, batch_size=32, lr=0.01),
    rules=(Ratio(0.25), Ratio(0.5)),
    margin=1e6,  # so wide that the small network is chosen after so little training
)


@pytest.fixture(scope="module")
def evidence():
    return Investigation(build, logistic_blocks(), SEEDS, QUICK).run()


def test_every_arm_meets_every_block_and_seed(evidence):
    for arm in ("full", "ratio 0.25", "ratio 0.5", *CONTROLS):
        assert [key[1:] for key in evidence.networks if key[0] == arm] == MEMBERS
    arms = {outcome.arm for outcome in evidence.outcomes}
    assert arms == {"full", "cut", *CONTROLS} | NAIVE
    assert {o.seed for o in evidence.outcomes if o.arm in NAIVE} == {0}


def test_the_leanest_eligible_rule_is_chosen_on_validation_data(evidence):
    eligible = [c for c in evidence.candidates if c.eligible]
    assert evidence.chosen == min(eligible, key=lambda c: c.parameters)
    for candidate in evidence.candidates:
        first = [evidence.measured[candidate.label, b, s]["validation.nrmse"] for b, s in MEMBERS]
        second = [evidence.measured["full", b, s]["validation.nrmse"] for b, s in MEMBERS]
        ratio = float(np.mean(np.log(first) - np.log(second)))
        assert candidate.comparison.difference == pytest.approx(ratio)


def test_only_the_chosen_networks_see_test_data(evidence):
    for (arm, _, _), metrics in evidence.measured.items():
        tested = any(name.startswith("test.") for name in metrics)
        assert tested == (arm in ("full", evidence.chosen.label, *CONTROLS))
        assert any(name.startswith("validation.") for name in metrics) == (arm == "full" or arm.startswith("ratio"))
    assert set(evidence.comparisons) >= {"full", *CONTROLS, *NAIVE}


def test_the_controls_are_fair(evidence):
    for block, seed in MEMBERS:
        full, small, random, scratch, on = (
            evidence.networks[arm, block, seed]
            for arm in ("full", evidence.chosen.label, "random", "scratch", "trained_on")
        )
        shapes = [[tuple(p.shape) for p in t.fit.model.parameters()] for t in (small, random, scratch)]
        assert shapes[0] == shapes[1] == shapes[2]
        assert random.plan != small.plan
        assert [p.shape for p in on.fit.model.parameters()] == [p.shape for p in full.fit.model.parameters()]
        assert len(on.fit.curves["train"]) == len(small.fit.curves["train"]) == 2
        assert on.fit.curves["train"][-1] != full.fit.curves["train"][-1]
        assert len(scratch.fit.curves["train"]) > QUICK.train.epochs + QUICK.refit.epochs


def test_a_search_goes_by_validation_data_and_every_look_is_a_candidate():
    def searched(margin):
        settings = replace(QUICK, rules=(Bisection(most=3),), margin=margin)
        return Investigation(build, logistic_blocks(), (0,), settings).run()

    wide, narrow = searched(1e6), searched(1e-9)
    assert [c.label for c in wide.candidates] == ["ratio 0.5", "ratio 0.75"]  # of 12 units, 3 stay
    assert wide.chosen == wide.candidates[-1]
    assert {key[0] for key in wide.networks} == {"full", "ratio 0.5", "ratio 0.75", *CONTROLS}
    for evidence in (wide, narrow):
        ratios = [c.rule.fraction for c in evidence.candidates]
        for place, following in enumerate(ratios[1:], 1):
            passed = [c.rule.fraction for c in evidence.candidates[:place] if c.eligible]
            assert following > max(passed, default=0)


def test_weights_stay_zero_from_the_cut_to_the_controls():
    settings = replace(QUICK, cutting=Weights(), rules=(Ratio(0.5), Ratio(0.8)))
    found = Investigation(build, logistic_blocks(), (0,), settings).run()
    assert found.chosen.label == "ratio 0.8"
    for block in BLOCKS:
        full, small, random, scratch, on = (
            found.networks[arm, block, 0] for arm in ("full", "ratio 0.8", "random", "scratch", "trained_on")
        )
        whole = sum(p.numel() for p in full.fit.model.parameters())
        weights = sum(p.numel() for p in full.fit.model.parameters() if p.dim() > 1)
        assert small.removal.share == random.removal.share == pytest.approx(0.8, abs=1 / weights)
        for trained in (small, random, scratch):
            assert evaluation.nonzeros(trained.fit.model) <= whole - round(0.8 * weights)
        assert on.removal is None
        # masked weights are multiplied by, so the twin from scratch has the epochs of both trainings
        assert len(scratch.fit.curves["train"]) == QUICK.train.epochs + QUICK.refit.epochs
    cut = [o for o in found.outcomes if o.arm == "cut" and "test.nrmse" in o.metrics]
    assert found.chosen.parameters == np.mean([o.metrics["nonzeros"] for o in cut])
    assert all(o.metrics["nonzeros"] < 0.5 * full for o in cut for full in [full_size(found)])


def full_size(found):
    return next(o.metrics["parameters"] for o in found.outcomes if o.arm == "full")


@pytest.mark.slow
def test_layers_go_one_by_one_as_long_as_what_is_left_passes():
    settings = replace(QUICK, cutting=Layers(), rules=(OneByOne(),))
    found = Investigation(build, logistic_blocks(), (0,), settings).run()
    assert [c.label for c in found.candidates] == ["1 removed", "2 removed"]  # of three, one recurrent layer stays
    assert [c.removed for c in found.candidates] == [pytest.approx(1 / 3), pytest.approx(2 / 3)]
    for block in BLOCKS:
        small, random, scratch = (found.networks[arm, block, 0] for arm in (found.chosen.label, "random", "scratch"))
        shapes = [[p.shape for p in t.fit.model.parameters()] for t in (small, scratch)]
        assert shapes[0] == shapes[1]
        assert len(random.plan.before) == len(small.plan.before) == round(3 * found.chosen.removed)
        assert len(small.fit.curves["train"]) == len(random.fit.curves["train"]) == QUICK.refit.epochs
    narrow = Investigation(build, logistic_blocks(), (0,), replace(settings, margin=1e-9)).run()
    assert [c.label for c in narrow.candidates] == ["1 removed", "2 removed"]
    assert narrow.chosen == next((c for c in reversed(narrow.candidates) if c.eligible), None)


def test_outcomes_say_what_they_are(evidence):
    full = 6 * 3 * (1 + 6 + 2) + 3 * 3 * (6 + 3 + 2) + 12 + 4
    for outcome in evidence.outcomes:
        assert all(math.isfinite(value) for value in outcome.metrics.values())
        if outcome.arm in NAIVE:
            assert outcome.plan is None
            assert "test.nrmse" in outcome.metrics
        elif outcome.arm in ("full", "trained_on"):
            assert outcome.plan is None
            assert outcome.metrics["parameters"] == full
        else:
            assert outcome.metrics["parameters"] < full
            assert outcome.ratio in (pytest.approx(0.25), pytest.approx(0.5))
            assert outcome.metrics["units"] == pytest.approx(12 * (1 - outcome.ratio))
            assert Plan.from_json(json.dumps(outcome.plan)).keep


def test_the_same_study_gives_the_same_outcomes():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = study(build, logistic_blocks(1), (3,), QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert study(build, logistic_blocks(1), (3,), QUICK) == one


@pytest.mark.slow
def test_the_outcomes_do_not_depend_on_the_number_of_jobs(evidence):
    assert study(build, logistic_blocks(), SEEDS, QUICK, "data", jobs=2) == list(evidence.outcomes)


def test_a_threshold_that_removes_nothing_is_never_chosen():
    settings = replace(QUICK, rules=(Threshold(-1.0),))
    evidence = Investigation(build, logistic_blocks(1), (0,), settings).run()
    assert [c.removed for c in evidence.candidates] == [0.0]
    assert evidence.chosen is None
    assert not evidence.ships_cut
    assert {o.arm for o in evidence.outcomes} == {"full", "cut"} | NAIVE


def test_a_study_whose_networks_all_diverge_says_so():
    settings = replace(QUICK, train=TrainConfig(epochs=3, lr=1e30, optimiser="sgd"))
    with pytest.raises(DivergedError, match="all 1 trainings"):
        study(build, logistic_blocks(1), (0,), settings)


def test_wrong_settings_are_found_before_training():
    with pytest.raises(ValueError, match="matches no group"):
        Investigation(build, logistic_blocks(1), (0,), replace(QUICK, cutting=Units(keep=("nowhere",)))).check()
    no_recurrence = Investigation(
        lambda seed, widths: nn.Sequential(nn.Flatten(), nn.Linear(2, 4), nn.Linear(4, 1)),
        logistic_blocks(1),
        (0,),
        replace(QUICK, cutting=Units(criteria.junk)),
    )
    with pytest.raises(StructureError):
        no_recurrence.check()


def test_every_member_has_a_seed_of_its_own():
    seeds = [member_seed(block, seed) for block in range(10) for seed in range(10)]
    assert len(set(seeds)) == 100
    assert seeds[0] == member_seed(0, 0)


def test_equal_compute_counts_multiply_adds():
    full, small = forecaster(recurrent=(8,), dense=()).float(), forecaster(recurrent=(2,), dense=()).float()
    epochs = equal_compute_epochs(full, small, QUICK, Batch(torch.zeros(2, 4, 2), torch.zeros(2, 1)))
    macs = {units: 4 * 4 * units * (2 + units) + units for units in (8, 2)}
    assert epochs == math.ceil((3 * macs[8] + 2 * macs[2]) / macs[2])
    tried = replace(QUICK, cutting=Layers(tries=4))
    assert equal_compute_epochs(full, small, tried, Batch(torch.zeros(2, 4, 2), torch.zeros(2, 1))) == epochs + 6


@pytest.mark.slow
def test_of_several_ways_the_one_stays_that_errs_least_on_validation_data():
    settings = replace(QUICK, cutting=Layers(), rules=(Count(1),))
    found = Investigation(build, logistic_blocks(), SEEDS, settings).run()
    alone = {
        name: Investigation(
            build, logistic_blocks(), SEEDS, replace(settings, cutting=Layers(only(name), tries=1))
        ).run()
        for name in ("recurrent.0", "recurrent.1", "head.0")
    }
    gone = set()
    for block, seed in MEMBERS:
        key = ("1 removed", block, seed)
        errors = {name: each.measured[key]["validation.nrmse"] for name, each in alone.items()}
        assert found.measured[key]["validation.nrmse"] == min(errors.values())
        (edit,) = found.networks[key].plan.before
        assert errors[edit.modules[0]] == min(errors.values())
        gone.add(edit.modules[0])
    assert len(gone) > 1


def only(name):
    """A criterion by which one layer goes first."""
    return lambda model, batch, loss: {layer: torch.tensor(float(layer != name)) for layer in droppable(model, batch.x)}


def test_labels():
    rules = (Ratio(0.5), Threshold(0.09), Threshold(0.5, relative=True))
    assert [label(rule) for rule in rules] == ["ratio 0.5", "threshold 0.09", "threshold 0.5 of the mean"]


@pytest.mark.parametrize("criterion", [criteria.taylor, criteria.magnitude, criteria.random])
@pytest.mark.parametrize("build_model", [mlp, forecaster])
def test_prune_is_trace_score_select_repair_cut(build_model, criterion):
    model = build_model()
    data = batch(model, samples=40)
    before, state = snapshot(model), torch.get_rng_state()
    small = prune(model, data, criterion, 0.4)
    plain = prune(model, data, criterion, 0.4, compensate=False)
    unchanged(before, model)
    assert torch.equal(torch.get_rng_state(), state)
    assert [p.shape for p in small.parameters()] == [p.shape for p in plain.parameters()]
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    whole = model(data.x)
    assert mse_loss(small(data.x), whole) < mse_loss(plain(data.x), whole)


def test_prune_takes_a_loader_a_pair_a_rule_and_a_users_own_criterion():
    model = forecaster()
    data = batch(model, samples=40)
    loader = DataLoader(TensorDataset(*data), batch_size=7)
    one, two = prune(model, loader), prune(model, tuple(data))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    mine = prune(model, data, lambda m, b, loss: {"recurrent.0.l0": torch.arange(5.0)}, Count(2), compensate=False)
    assert torch.equal(mine(data.x), cut(model, trace(model, data.x), Plan({"recurrent.0.l0": (2, 3, 4)}))(data.x))
    kept = prune(model, data, keep=["recurrent.*"])
    assert [layer.hidden_size for layer in kept.recurrent] == [5, 3]
    for ratio in (0, 1, 1.5):
        with pytest.raises(ValueError, match="a ratio lies between 0 and 1"):
            prune(model, data, ratio=ratio)


def test_prune_refits_from_the_truth_or_from_the_uncut_network():
    model, data, config = mlp(), batch(mlp()), TrainConfig(epochs=2)
    small, split = prune(model, data), Lessons(data, Batch(data.x[:0], data.y[:0]))
    before = snapshot(model)
    plain = prune(model, data, refit=Refit(config))
    taught = prune(model, DataLoader(TensorDataset(*data), batch_size=7), refit=Refit(config, Mixed()))
    unchanged(before, model)
    x = data.x
    torch.testing.assert_close(plain(x), fit(small, split, config).model(x))
    torch.testing.assert_close(taught(x), distill(small, model, split, config, Mixed()).model(x))
    with pytest.raises(ValueError, match="labels"):
        prune(model, data, refit=Refit(config, Soft()))


@pytest.mark.slow
def test_cut_networks_are_taught_by_the_uncut_ones_of_their_block():
    settings = replace(QUICK, rules=(Ratio(0.5),), teach=Mixed(0.5))
    blocks = logistic_blocks()
    evidence = Investigation(build, blocks, (0,), settings).run()
    plain = Investigation(build, blocks, (0,), replace(settings, teach=None)).run()
    for arm in ("full", "trained_on", "ratio 0.5", "random"):
        pairs = [(evidence.networks[arm, block, 0], plain.networks[arm, block, 0]) for block in BLOCKS]
        same = [a.fit.curves == b.fit.curves for a, b in pairs]
        assert same == [arm in ("full", "trained_on")] * len(blocks)
    study = Investigation(build, blocks, (0,), settings)
    full = evidence.networks["full", 0, 0].fit.model
    subject = study._subject(full, blocks[0])
    ((small, _),) = settings.cutting.ways(subject, settings.cutting.scores(subject), Ratio(0.5))
    config = replace(settings.refit, seed=member_seed(0, 0))
    (expected,) = fit_many([small], [lessons(full, blocks[0], Mixed(0.5))], [config])
    own = evidence.networks["ratio 0.5", 0, 0].fit
    assert own.curves == expected.curves


def test_the_teachers_look_counts_as_compute():
    full, small, x = mlp(), mlp(), batch(mlp())
    settings = replace(QUICK, teach=Mixed())
    assert equal_compute_epochs(full, small, settings, x) == equal_compute_epochs(full, small, QUICK, x) + 1


def test_an_interrupted_study_measures_what_it_has_not_yet_one_step_ahead():
    work = Investigation(build, logistic_blocks(), SEEDS, QUICK)

    def interrupt(stage, done, total):
        if (stage, done) == ("measuring on validation data", 7):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(work, progress=interrupt).run()
    outcomes = work.finished()
    assert len(outcomes) == len(work.networks) == len(MEMBERS)
    assert all("validation.nrmse" in outcome.metrics for outcome in outcomes)
    assert sum("validation.free_direction" in outcome.metrics for outcome in outcomes) == len(work.validated) == 7
