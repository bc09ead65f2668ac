"""Neurogenesis: errors and thresholds by loops, what growth leaves as it was, who learns how fast, memories."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from networks import snapshot, unchanged
from pared import Plan, TrainConfig, cut, trace
from pared.growth import (
    ClassCode,
    Neurogenesis,
    begin_neurogenesis,
    class_code,
    fit_stacked,
    intrinsic_replay,
    learn_class,
    level_errors,
    with_level_units,
)
from pared.growth.levels import names_of, plasticity, stability
from pared.models import Autoencoder
from pared.schedules import Constant
from pared.types import DivergedError
from problems import drawn

CONFIG = TrainConfig(epochs=2, lr=1e-2, batch_size=16, seed=3)
ONE_STEP = TrainConfig(epochs=1, lr=1e-2, batch_size=100, schedule=Constant())


def model(seed=0, **more):
    return Autoencoder(6, (5, 4, 3), seed=seed, **more).double()


def rows(count=30, seed=0, shift=0.0):
    return drawn(count, 6, seed=seed, dtype=torch.float64) * 0.5 + shift


def begun(how=Neurogenesis(max_units=(3, 2, 1)), **more):
    return begin_neurogenesis(model(), {1: rows(seed=1), 7: rows(20, seed=7)}, how, **more)


def rebuilt(one, x, level):
    """By the formula, one row at a time."""
    h = x
    for k in range(level):
        h = torch.tanh(one.encoder[k].weight @ h + one.encoder[k].bias)
    for k in range(level - 1, -1, -1):
        h = one.decoder[k].weight @ h + one.decoder[k].bias
        h = torch.tanh(h) if k else h
    return h


@torch.no_grad()
def naive_errors(one, x):
    return [[sum(float(d) ** 2 for d in row - rebuilt(one, row, level)) / 6 for level in (1, 2, 3)] for row in x]


def test_errors_of_levels_and_thresholds_are_those_of_loops():
    one, classes = model(), {1: rows(11, seed=1), "seven": rows(8, seed=7)}
    found = level_errors(one, classes[1])
    torch.testing.assert_close(
        found, torch.tensor(naive_errors(one, classes[1]), dtype=torch.float64), rtol=1e-12, atol=1e-12
    )
    start = begin_neurogenesis(one, classes, Neurogenesis(percentile=80.0))
    for level, threshold in enumerate(start.thresholds):
        ordered = sorted(error[level] for x in classes.values() for error in naive_errors(one, x))
        place = 0.8 * (len(ordered) - 1)
        below = math.floor(place)
        expected = ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])
        assert threshold == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_level_that_gains_units_rebuilds_as_before_at_every_level(level):
    one, x = model(), rows()
    large = with_level_units(one, trace(one, x[:2]), level, 2, seed=5)
    widths = [width + 2 * (place == level) for place, width in enumerate((5, 4, 3), 1)]
    assert [layer.out_features for layer in large.encoder] == widths
    for depth in (1, 2, 3):
        same = one.decode(one.encode(x, depth), depth)
        torch.testing.assert_close(large.decode(large.encode(x, depth), depth), same, rtol=0, atol=1e-12)
    fresh = large.encoder[level - 1].weight[-2:]
    assert fresh.abs().min() > 0


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_in_plasticity_old_rows_stay_to_the_bit_and_all_else_of_the_level_moves(optimiser):
    one, config = model(), replace(CONFIG, optimiser=optimiser, weight_decay=0.1)
    found = plasticity(one, 2, rows(), config, 0.01, new=1, fresh=2)
    before, after = one.state_dict(), found.state_dict()
    for name in set(before) - set(names_of(2)):
        assert torch.equal(before[name], after[name])
    for name in ("encoder.1.weight", "encoder.1.bias"):
        assert torch.equal(before[name][:-1], after[name][:-1])
        assert (before[name][-1:] != after[name][-1:]).all()
    for name in ("decoder.1.weight", "decoder.1.bias"):
        assert (before[name] != after[name]).all()


def test_a_step_of_what_is_new_is_long_and_all_others_are_short():
    one, x = model(), rows()
    plastic, stable = plasticity(one, 2, x, ONE_STEP, 0.01, 1, 2), stability(one, 2, x, ONE_STEP, 0.01)
    moved = {name: (plastic.state_dict()[name] - tensor).abs() for name, tensor in one.state_dict().items()}
    close = {"rtol": 1e-2, "atol": 0}  # Adam's epsilon
    for name in ("encoder.1.weight", "encoder.1.bias"):
        torch.testing.assert_close(moved[name][-1:], torch.full_like(moved[name][-1:], 1e-2), **close)
    for name in ("decoder.1.weight", "decoder.1.bias"):
        torch.testing.assert_close(moved[name][:-2], torch.full_like(moved[name][:-2], 1e-4), **close)
        torch.testing.assert_close(moved[name][-2:], torch.full_like(moved[name][-2:], 1e-2), **close)
    for name, tensor in one.state_dict().items():
        step = (stable.state_dict()[name] - tensor).abs()
        expected = torch.full_like(step, 1e-4 if name in names_of(2) else 0.0)
        torch.testing.assert_close(step, expected, **close)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_slow_decoders_go_the_way_of_decoders_with_a_learning_rate_of_their_own(optimiser):
    one, x = model(), rows()
    config = replace(ONE_STEP, epochs=4, optimiser=optimiser)
    found = plasticity(one, 1, x, config, 0.01, new=0, fresh=0)
    twin = copy.deepcopy(one)
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimiser]
    steps = kind(twin.decoder[0].parameters(), lr=config.lr * 0.01)
    for _ in range(4):
        steps.zero_grad()
        (twin.decode(twin.encode(x, 1), 1) - x).square().mean().backward()
        steps.step()
    torch.testing.assert_close(found.decoder[0].weight, twin.decoder[0].weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.decoder[0].bias, twin.decoder[0].bias, rtol=0, atol=1e-6)


def test_levels_are_trained_one_after_the_other():
    one, x, config = model(), rows(60), replace(CONFIG, epochs=30)
    found = fit_stacked(one, x, config)
    first = Autoencoder(6, (5,)).double()
    first.load_state_dict({name: one.state_dict()[name] for name in first.state_dict()})
    first = fit_stacked(first, x, config)
    assert torch.equal(found.encoder[0].weight, first.encoder[0].weight)
    assert (level_errors(found, x).mean(0) < 0.8 * level_errors(one, x).mean(0)).all()


def test_a_memory_is_the_mean_and_the_covariance_of_the_codes():
    one, x = model(), rows(9)
    codes, found = one.encode(x).detach(), class_code(one, x, ridge=1e-4)
    covariance = [[((codes[:, i] - codes[:, i].mean()) * (codes[:, j] - codes[:, j].mean())).sum() / 8
                   + 1e-4 * (i == j) for j in range(3)] for i in range(3)]  # fmt: skip
    torch.testing.assert_close(
        found.factor @ found.factor.T, torch.tensor(covariance, dtype=torch.float64), rtol=1e-10, atol=1e-14
    )
    torch.testing.assert_close(found.mean, codes.mean(0), rtol=1e-12, atol=1e-14)
    assert torch.equal(found.factor, found.factor.tril())
    assert found.count == 9
    wide = found.padded(5, ridge=1e-4)
    assert torch.equal(wide.mean[3:], torch.zeros(2).double())
    expected = torch.block_diag(found.factor @ found.factor.T, 1e-4 * torch.eye(2).double())
    torch.testing.assert_close(wide.factor @ wide.factor.T, expected, rtol=1e-12, atol=1e-16)
    assert class_code(one, x[:2]).factor.isfinite().all()  # fewer rows than units


def test_what_is_replayed_has_the_moments_that_are_remembered():
    plain = Autoencoder(3, (3,), seed=0).double()  # one that decodes a code to itself
    with torch.no_grad():
        plain.decoder[0].weight.copy_(torch.eye(3))
        plain.decoder[0].bias.zero_()
    factor = torch.tensor([[0.5, 0, 0], [0.3, 0.2, 0], [-0.1, 0.4, 0.7]], dtype=torch.float64)
    code = ClassCode(torch.tensor([1.0, -2.0, 0.5]).double(), factor, 40_000)
    other = ClassCode(torch.zeros(2).double(), factor[:2, :2], 40_000).padded(3, ridge=1e-6)
    drawn_rows = intrinsic_replay(plain, [code, other], seed=1)
    for part, told in zip(drawn_rows.split(40_000), (code, other), strict=True):
        torch.testing.assert_close(part.mean(0), told.mean, rtol=0, atol=0.02)
        torch.testing.assert_close(part.T.cov(), told.factor @ told.factor.T, rtol=0, atol=0.02)
    assert drawn_rows[40_000:, 2].std() == pytest.approx(1e-3, rel=0.02)
    assert torch.equal(drawn_rows, intrinsic_replay(plain, [code, other], seed=1))
    assert not torch.equal(drawn_rows, intrinsic_replay(plain, [code, other], seed=2))
    assert intrinsic_replay(plain, []).shape == (0, 3)


def test_a_class_that_is_not_rebuilt_makes_levels_grow_to_their_limits_and_others_do_not():
    start, state = begun(), torch.get_rng_state().clone()
    before = snapshot(start.model)
    found = learn_class(start, 0, rows(seed=5, shift=4.0), CONFIG)
    unchanged(before, start.model)
    assert torch.equal(state, torch.get_rng_state())
    assert found.learnt[0].gained == (3, 2, 1)
    assert found.learnt[0].label == 0
    assert [layer.out_features for layer in found.model.encoder] == [8, 6, 4]
    assert [layer.in_features for layer in found.model.decoder] == [8, 6, 4]
    traced = {g.name: g.width for g in trace(found.model, rows(2))}
    assert traced == {g.name: g.width for g in found.structure}
    errors = level_errors(found.model, rows(seed=5, shift=4.0))
    assert found.learnt[0].outliers == tuple(
        (errors > torch.tensor(start.thresholds, dtype=torch.float64)).sum(0).tolist()
    )
    easy = learn_class(begun(thresholds=(1e9, 1e9, 1e9)), 0, rows(seed=5, shift=4.0), CONFIG)
    assert easy.learnt[0] == replace(easy.learnt[0], gained=(0, 0, 0), outliers=(0, 0, 0), updates=0)


def test_a_level_grows_above_one_that_grew_and_both_learn():
    how = Neurogenesis(max_units=2, above=1)
    start = begun(how, thresholds=(0.0, 1e9, 1e9))
    x = rows(seed=5)
    found = learn_class(start, 0, x, CONFIG)
    assert found.learnt[0].gained == (2, 1, 1)
    # two gains of level 1, one of 2 and 3: 30 rows of x and 50 replayed, in batches of 16, for 2 epochs
    assert found.learnt[0].updates == 4 * 2 * (2 + 5)
    none = learn_class(begun(replace(how, above=0), thresholds=(0.0, 1e9, 1e9)), 0, x, CONFIG)
    assert none.learnt[0].gained == (2, 0, 0)
    assert none.learnt[0].updates == 3 * 2 * (2 + 5)
    names = [name for name, tensor in none.model.state_dict().items() if name.startswith("encoder.1")]
    moved = [(none.model.state_dict()[name] - start.model.state_dict()[name]) for name in names if "bias" in name]
    assert all(each.abs().max() > 0 for each in moved)  # by stability


def test_memories_of_old_classes_are_padded_and_no_old_row_is_read():
    start = begun()
    first = learn_class(start, 0, rows(seed=5, shift=4.0), CONFIG)
    for label in (1, 7):
        old, now = start.codes[label], first.codes[label]
        assert torch.equal(old.mean, now.mean[:3])
        assert torch.equal(old.factor, now.factor[:3, :3])
        assert now.factor[3, 3] == pytest.approx(1e-3)
        assert not now.mean[3:].any()
    assert list(first.codes) == [1, 7, 0]
    # the rows of earlier classes are out of reach: what follows is learnt from codes alone, twice to the same bit
    one, other = (learn_class(copy.deepcopy(first), 2, rows(seed=9, shift=-4.0), CONFIG) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))
    assert [each.label for each in one.learnt] == [0, 2]


@pytest.mark.slow
def test_real_rows_or_none_may_take_the_place_of_draws():
    start, x = begun(), rows(seed=5, shift=4.0)
    drawn_rows, real, none = (learn_class(start, 0, x, CONFIG, replay) for replay in (None, rows(50, seed=1), rows(0)))
    assert drawn_rows.learnt[0].updates == real.learnt[0].updates > none.learnt[0].updates
    assert not torch.equal(drawn_rows.model.encoder[0].weight, real.model.encoder[0].weight)


@pytest.mark.slow
def test_all_levels_may_learn_together_in_the_end():
    how = Neurogenesis(max_units=(3, 2, 1), coupling=3)
    x = rows(seed=5, shift=4.0)
    apart, coupled = learn_class(begun(), 0, x, CONFIG), learn_class(begun(how), 0, x, CONFIG)
    assert coupled.learnt[0].updates == apart.learnt[0].updates + 3 * 5
    assert coupled.learnt[0].gained == apart.learnt[0].gained
    assert level_errors(coupled.model, x)[:, 2].mean() < level_errors(apart.model, x)[:, 2].mean()


def lopsided():
    one = model()
    structure = trace(one, rows(2))
    return cut(one, structure, Plan({"decoder.2": tuple(range(3))}))


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda: learn_class(begun(), 1, rows(), CONFIG), "class 1 is learnt already, as are 1, 7"),
    (lambda: learn_class(begun(), None, rows(), CONFIG), "needs a label"),
    (lambda: learn_class(begun(), 0, rows(0), CONFIG), r"at least two rows of 6 inputs.*got \(0, 6\)"),
    (lambda: learn_class(begun(), 0, rows(1), CONFIG), r"at least two rows.*got \(1, 6\)"),
    (lambda: learn_class(begun(), 0, rows()[:, :5], CONFIG), r"\(rows, 6\); got \(30, 5\)"),
    (lambda: learn_class(begun(), 0, rows() * math.nan, CONFIG), "not finite"),
    (lambda: learn_class(begun(), 0, rows(), replace(CONFIG, patience=3)), "patience"),
    (lambda: learn_class(begun(), 0, rows(), CONFIG, rows()[:, :2]), r"replayed.*\(30, 2\)"),
    (lambda: begin_neurogenesis(model(), {}), "no base class"),
    (lambda: begin_neurogenesis(model(), {1: rows(0)}), "at least two rows"),
    (lambda: begin_neurogenesis(model(tied=True), {1: rows()}), "tied"),
    (lambda: fit_stacked(model(tied=True), rows(), CONFIG), "tied"),
    (lambda: begin_neurogenesis(lopsided(), {1: rows()}), "mirror images"),
    (lambda: begun(thresholds=(0.1, 0.1)), "must be 3 finite numbers"),
    (lambda: begun(thresholds=(0.1, 0.1, math.nan)), "must be 3 finite numbers"),
    (lambda: begun(thresholds=(0.1, -0.1, 0.1)), "not negative"),
    (lambda: begun(Neurogenesis(max_units=(1, 2))), "one for each of 3 levels"),
    (lambda: Neurogenesis(percentile=101), "from 0 to 100"),
    (lambda: Neurogenesis(slower=0.0), "slower"),
    (lambda: Neurogenesis(max_units=(1, -2)), "must not be negative"),
    (lambda: class_code(model(), rows(1)), "at least two rows, got 1"),
    (lambda: intrinsic_replay(model(), [ClassCode(torch.zeros(2), torch.eye(2), 3)]), "do not fit a model of 3"),
])  # fmt: skip
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_training_that_diverges_says_so():
    with pytest.raises(DivergedError, match="lower learning rate"):
        learn_class(begun(), 0, rows(shift=1e200), CONFIG)
