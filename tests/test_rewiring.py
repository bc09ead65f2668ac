"""Sparse training whose weights move: counts that never change, masks that hold, lottery tickets."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import mse_loss

from networks import snapshot, unchanged
from pared import MLP, Batch, Forecaster, Steps, TrainConfig, criteria, density, mask_weights, select_weights
from pared.lottery import early_bird, lottery_ticket, mask_distance
from pared.rewiring import Rewiring, erdos_renyi, evolved, fit_sparse, random_masks, rewired, rigl
from pared.schedules import Exponential
from pared.training.fleet import fit_one as fit
from pared.training.parts import part_of
from problems import Data, drawn

CONFIG = TrainConfig(epochs=6, batch_size=16, seed=3)
SHAPES = {"a": (200, 100), "b": (50,)}


def numbers():
    x = drawn(48, 5)
    return Data(Batch(x, x[:, :1].sin()), Batch(x[:0], x[:0, :1]))


def equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def counts(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


shapes = st.dictionaries(st.text(min_size=1), st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=5)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(shapes, st.floats(0.01, 1))
def test_the_densities_open_the_share_that_was_asked_for(shapes, share):
    found = erdos_renyi(shapes, share)
    sizes = {name: a * b for name, (a, b) in shapes.items()}
    assert sum(found[name] * sizes[name] for name in shapes) == pytest.approx(share * sum(sizes.values()))
    assert all(0 < value <= 1 + 1e-9 for value in found.values())
    free = [found[n] * sizes[n] / sum(shapes[n]) for n in shapes if found[n] < 1 - 1e-9]
    assert not free or max(free) == pytest.approx(min(free))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1), st.booleans(), st.integers(0, 99))
def test_as_many_weights_are_open_after_a_rewiring_as_before(rows, columns, share, by_sign, seed):
    mask = drawn(rows, columns, seed=seed) > 0
    weight, scores = drawn(rows, columns, seed=seed + 1) * mask, drawn(rows, columns, seed=seed + 2).abs()
    after = rewired(weight, mask, scores, share, by_sign)
    assert after.sum() == mask.sum()
    if share == 0:
        assert torch.equal(after, mask)


def test_the_smallest_close_and_the_highest_scores_open():
    weight = torch.tensor([3.0, -1.0, 0.5, -2.0, 0.0, 0.0, 0.0])
    mask = weight != 0
    scores = torch.tensor([9.0, 0.0, 0.0, 9.0, 1.0, 3.0, 2.0])
    assert rewired(weight, mask, scores, 0.5).tolist() == [True, False, False, True, False, True, True]
    weight = torch.tensor([3.0, -1.0, 2.5, -2.0, 0.0, 0.0, 0.0])  # by sign one of each goes, and not both negative ones
    assert rewired(weight, mask, scores, 0.5).tolist() == [True, False, True, True, False, True, False]
    assert rewired(weight, mask, scores, 0.5, by_sign=True).tolist() == [True, False, False, True, False, True, True]


@pytest.mark.parametrize("how", [rigl(0.2), evolved(0.3, every=2), rigl(0.3, dense=("layers.4*",))])
def test_training_never_changes_how_many_weights_are_open(how):
    model, data = MLP(5, (12, 8), 1, seed=1), numbers()
    before, state, start = snapshot(model), torch.get_rng_state().clone(), random_masks(model, how, CONFIG.seed)
    found = fit_sparse(model, data, CONFIG, how)
    unchanged(before, model)
    assert torch.equal(state, torch.get_rng_state())
    assert counts(found.masks) == counts(start)
    assert any(not torch.equal(found.masks[name], start[name]) for name in start)
    for name, mask in found.masks.items():
        assert not dict(found.model.named_parameters())[name][~mask].any()
    assert density(start) == pytest.approx(how.density, abs=0.02)
    again = fit_sparse(model, data, CONFIG, how)
    assert equal(found.model, again.model)


def test_moments_of_closed_weights_are_zero():
    found = fit_sparse(MLP(5, (12,), 1, seed=1), numbers(), CONFIG, rigl(0.2))
    for place, (name, _) in enumerate(found.model.named_parameters()):
        if name in found.masks:
            assert not found.fits[-1].optimiser_state["state"][place]["exp_avg"][~found.masks[name]].any()


def test_weights_that_never_move_are_masked_training_bit_for_bit():
    model, data = MLP(5, (12,), 1, seed=1), numbers()
    masks = random_masks(model, rigl(0.2), 5)
    found = fit_sparse(model, data, CONFIG, Rewiring(until=0.0), masks=masks)
    plain = fit(model, data, CONFIG, masks=masks)
    assert equal(found.model, plain.model)


def test_recurrent_networks_are_rewired():
    x = drawn(40, 6, 1)
    data = Data(Batch(x, x[:, -1]), Batch(x[:0], x[:0, -1]))
    found = fit_sparse(Forecaster(1, (6,), (), seed=1), data, CONFIG, rigl(0.3))
    assert sum(counts(found.masks).values()) == sum(counts(random_masks(found.model, rigl(0.3), 3)).values())


def test_a_ticket_is_the_training_of_the_first_weights_that_are_left():
    model, data = MLP(5, (12,), 1, seed=1), numbers()
    steps = Steps(Exponential(0.7), 3)
    ticket = lottery_ticket(model, data, criteria.magnitude, steps, CONFIG)
    assert len(ticket.fits) == 4
    assert density(ticket.masks) == pytest.approx(0.3, abs=0.01)
    again = fit(mask_weights(model, ticket.masks), data, CONFIG, masks=ticket.masks)
    assert equal(ticket.model, again.model)


def test_weights_are_set_back_to_an_early_epoch():
    model, data = MLP(5, (12,), 1, seed=1), numbers()
    ticket = lottery_ticket(model, data, criteria.magnitude, Steps(Exponential(0.5), 2), CONFIG, rewind=2)
    early = fit(model, data, part_of(CONFIG, 0, 2))
    again = fit(model, data, part_of(CONFIG, 2, 6), resume=early, masks=ticket.masks)
    assert equal(ticket.model, again.model)


def test_random_masks_are_at_distance_one_whatever_their_density():
    for share in (0.1, 0.5, 0.9):
        generator = torch.Generator().manual_seed(3)
        one, other = (
            {name: torch.rand(shape, generator=generator) < share for name, shape in SHAPES.items()} for _ in "ab"
        )
        assert mask_distance(one, other) == pytest.approx(1, abs=0.05)
        assert mask_distance(one, one) == 0


def test_an_early_bird_is_drawn_once_its_masks_have_settled_and_trained_to_the_end():
    model, data = MLP(5, (12,), 1, seed=1), numbers()
    before, state = snapshot(model), torch.get_rng_state().clone()
    ticket = early_bird(model, data, criteria.magnitude, 0.5, CONFIG, last=2, within=0.5)
    unchanged(before, model)
    assert torch.equal(state, torch.get_rng_state())
    epochs = len(ticket.fits) - 1
    masks = [select_weights(criteria.magnitude(f.model, data.train, mse_loss), 0.5) for f in ticket.fits[:-1]]
    near = [all(mask_distance(masks[k], masks[k - back]) < 0.5 for back in (1, 2)) for k in range(2, epochs)]
    assert near == [False] * (epochs - 3) + [True]
    assert all(torch.equal(ticket.masks[name], mask) for name, mask in masks[-1].items())
    dense = [fit(model, data, part_of(CONFIG, 0, 1))]
    dense += [fit(model, data, part_of(CONFIG, 1, 2), resume=dense[0])]
    assert equal(ticket.fits[1].model, dense[1].model)
    again = fit(model, data, part_of(CONFIG, epochs, 6), resume=ticket.fits[-2], masks=ticket.masks)
    assert equal(ticket.model, again.model)
    never = early_bird(model, data, criteria.magnitude, 0.5, CONFIG, within=0.0)
    assert [len(f.curves["train"]) for f in never.fits] == [1] * 6


def test_parts_of_a_training_follow_its_schedule():
    parts = [part_of(CONFIG, start, start + 2) for start in (0, 2, 4)]
    rates = [part.lr * part.schedule(epoch / 2) for part in parts for epoch in range(2)]
    assert rates == pytest.approx([CONFIG.lr * CONFIG.schedule(epoch / 6) for epoch in range(6)])
    assert parts[0].seed == CONFIG.seed != parts[1].seed


def last(model):
    *_, (name, _) = model.named_parameters()
    return name


def frozen(model):
    next(model.parameters()).requires_grad_(False)
    return model


@pytest.mark.parametrize("how", [rigl(0.5), evolved(0.5)])
def test_frozen_weights_may_be_dense_and_stay(how):
    model, data = frozen(MLP(5, (12,), 1, seed=1)), numbers()
    name, weight = next(model.named_parameters())
    found = fit_sparse(model, data, CONFIG, replace(how, dense=(name,)))
    assert name not in found.masks
    assert torch.equal(found.model.get_parameter(name), weight)
    with pytest.raises(ValueError, match=f"have to learn, but {name} must not"):
        fit_sparse(model, data, CONFIG, how)


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda m, d: Rewiring(density=0.0), "density"),
    (lambda m, d: Rewiring(grow="neither"), "neither"),
    (lambda m, d: fit_sparse(m, d, CONFIG, Rewiring(dense=("nothing*",))), "names none"),
    (lambda m, d: fit_sparse(m, d, CONFIG, Rewiring(dense=("*",))), "nothing to rewire"),
    (lambda m, d: fit_sparse(m, d, replace(CONFIG, patience=3)), "patience"),
    (lambda m, d: fit_sparse(m, d, CONFIG, masks={last(m): torch.ones(1, dtype=torch.bool)}), "can be rewired"),
    (lambda m, d: rewired(drawn(2, 2), drawn(2, 2) > 0, drawn(2, 2), 1.5), "share"),
    (lambda m, d: lottery_ticket(m, d, criteria.magnitude, Steps(Exponential(0.5)), CONFIG, rewind=6), "from 0 to 5"),
    (lambda m, d: part_of(CONFIG, 3, 3), "part"),
    (lambda m, d: early_bird(m, d, criteria.magnitude, 1.0, CONFIG), "ratio between 0 and 1"),
    (lambda m, d: early_bird(m, d, criteria.magnitude, 0.5, replace(CONFIG, patience=3)), "no patience"),
    (lambda m, d: early_bird(m, d, criteria.magnitude, 0.5, CONFIG, last=0), "last=0"),
    (lambda m, d: early_bird(m, d, criteria.magnitude, 0.5, CONFIG, within=-1), "within=-1"),
    (lambda m, d: mask_distance({"a": drawn(3) > 0}, {"b": drawn(3) > 0}), "different weights"),
    (lambda m, d: mask_distance(*({"a": torch.ones(3, dtype=torch.bool)} for _ in "ab")), "some stay"),
])  # fmt: skip
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(MLP(5, (12,), 1, seed=1), numbers())
