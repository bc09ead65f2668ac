"""Mixtures of experts: the loss and its gradient against the formula, splits that change nothing and then part ways."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

import problems
from networks import snapshot, unchanged
from pared import MLP, Batch, Forecaster, TrainConfig, fit
from pared.growth import MixtureLoss, grow_experts, split_expert
from pared.models import Experts
from pared.schedules import Decay
from pared.training import Bound
from problems import Data

CONFIG = TrainConfig(epochs=6, batch_size=16, seed=3)


drawn = partial(problems.drawn, dtype=torch.float64)


def mixture(count=2, outputs=1, cell="lstm", seed=0):
    experts = [Forecaster(1, (3,), (), outputs, cell=cell, seed=seed + k) for k in range(count)]
    return Experts(experts, Forecaster(1, (4,), (), 3, seed=seed + 50), 3, seed=seed).double()


def batch(outputs=1, samples=40):
    x = drawn(samples, 5, 1)
    return Batch(x, x[:, -1].sin().expand(-1, outputs) + 0.1 * drawn(samples, outputs, seed=2))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.floats(0.05, 5), st.integers(0, 99))
def test_the_loss_and_its_gradients_are_those_of_the_likelihood(count, outputs, noise, seed):
    answers, y = drawn(3, count, outputs, seed=seed).requires_grad_(), drawn(3, outputs, seed=seed + 1)
    logits = drawn(3, count, seed=seed + 2).requires_grad_()
    loss = MixtureLoss(noise)((answers, logits.log_softmax(1)), y)
    naive = 0.0
    for i in range(3):
        shares = logits[i].exp() / logits[i].exp().sum()
        exponents = [
            -sum((answers[i, m, k] - y[i, k]) ** 2 for k in range(outputs)) / (2 * noise**2) for m in range(count)
        ]
        top = max(exponents)
        likelihood = sum(shares[m] * (exponents[m] - top).exp() for m in range(count))
        naive = naive - (likelihood.log() + top) * 2 * noise**2 / outputs / 3
    torch.testing.assert_close(loss, naive, rtol=1e-9, atol=1e-12)
    by_answer, by_logit = torch.autograd.grad(loss, [answers, logits])
    posterior = (logits.log_softmax(1) - ((answers - y[:, None]) ** 2).sum(2) / (2 * noise**2)).softmax(1)
    expected = 2 * posterior[..., None] * (answers - y[:, None]) / (3 * outputs)
    torch.testing.assert_close(by_answer, expected, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(
        by_logit, (logits.softmax(1) - posterior) * 2 * noise**2 / (3 * outputs), rtol=1e-8, atol=1e-12
    )


def test_with_one_expert_it_is_the_mse_and_with_endless_noise_the_expected_error():
    answers, y, shares = drawn(6, 3, 2), drawn(6, 2, seed=1), drawn(6, 3, seed=2).softmax(1)
    alone = MixtureLoss(0.3)((answers[:, :1], torch.zeros(6, 1).double()), y)
    torch.testing.assert_close(alone, mse_loss(answers[:, 0], y), rtol=1e-12, atol=1e-12)
    expected = (shares * (answers - y[:, None]).square().mean(2)).sum(1).mean()
    for noise, close in ((math.inf, 1e-12), (1e4, 1e-6)):
        torch.testing.assert_close(MixtureLoss(noise)((answers, shares.log()), y), expected, rtol=close, atol=close)


def test_the_answer_is_the_mean_of_the_experts_by_their_shares():
    model, x = mixture(3).eval(), drawn(7, 5, 1)
    shares = model.shares(model.gate(x)).softmax(1)
    expected = sum(shares[:, [m]] * model.experts[m](x) for m in range(3))
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
    answers, logs = model.train()(x)
    torch.testing.assert_close((logs.exp()[..., None] * answers).sum(1), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.lists(st.integers(0, 9), min_size=1, max_size=4), st.sampled_from(["lstm", "gru"]))
def test_splits_change_neither_answer_nor_likelihood(count, order, cell):
    data, loss = batch(2), MixtureLoss(0.3)
    model = mixture(count, 2, cell)
    first, likelihood = model.eval()(data.x), loss(model.train()(data.x), data.y)
    for choice in order:
        model = split_expert(model, data, loss, choice % len(model.experts))
    torch.testing.assert_close(model.eval()(data.x), first, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss(model.train()(data.x), data.y), likelihood, rtol=1e-12, atol=1e-12)
    shares = model.parts(data.x)[1].exp()
    torch.testing.assert_close(shares.sum(1), torch.ones(40).double(), rtol=1e-12, atol=1e-12)


def test_the_halves_part_ways_in_the_first_step_and_the_new_one_has_the_hard_cases():
    data, loss = batch(), MixtureLoss(0.3)
    model = split_expert(mixture(1), data, loss)
    answers, logs = model.train()(data.x)
    loss((answers, logs), data.y).backward()
    old, new = ([p.grad for p in expert.parameters()] for expert in model.experts)
    assert any((a - b).abs().max() > 1e-6 for a, b in zip(old, new, strict=True))
    error = (answers[:, 0] - data.y).square()[:, 0]
    assert torch.corrcoef(torch.stack([logs[:, 1], error]))[0, 1] > 0


def test_by_default_the_expert_that_errs_most_is_split():
    data, loss, model = batch(), MixtureLoss(0.5), mixture(3)
    with torch.no_grad():
        model.shares.weight.zero_()
        model.shares.bias.copy_(torch.tensor([0.0, 4.0, 0.0]))
        for expert, shift in zip(model.experts, (0.0, 0.8, 0.0), strict=True):
            expert.head[0].weight.zero_()
            expert.head[0].bias.fill_(shift)
    assert split_expert(model, data, loss).parents == [1]


def test_nothing_passed_in_changes():
    data, model, loss = batch(), mixture(2), MixtureLoss(0.5)
    before, state = snapshot(model), torch.get_rng_state().clone()
    split_expert(model, data, loss)
    grow_experts(model, Data(data, data), CONFIG, up_to=3, every=2, loss=loss)
    unchanged(before, model)
    assert torch.equal(state, torch.get_rng_state())


def test_a_mixture_grows_while_it_trains_and_takes_the_optimiser_along():
    data = batch()
    grown = grow_experts(mixture(1), Data(data, data), CONFIG, up_to=3, every=2)
    assert [len(each.curves["train"]) for each in grown.fits] == [2, 2, 2]
    assert len(grown.model.experts) == 3
    assert list(grown.split) == grown.model.parents
    names, states = (dict(grown.model.named_parameters()), grown.fits[-1].optimiser_state["state"])
    steps = {name: int(state["step"]) for name, state in zip(names, states.values(), strict=True)}
    assert steps["experts.0.head.0.weight"] == steps["experts.2.head.0.weight"] == 18  # 3 a epoch
    assert steps["splits.0.weight"] == 12
    assert steps["splits.1.weight"] == 6
    whole = fit(mixture(1), Data(data, data), CONFIG, MixtureLoss())
    assert grown.fits[0].curves["train"] == whole.curves["train"][:2]


@pytest.mark.slow
def test_experts_of_other_kinds_and_noise_that_falls():
    x = drawn(40, 5).float()
    data = Data(Batch(x, x[:, :1].abs()), Batch(x, x[:, :1].abs()))
    model = Experts([MLP(5, (4,), seed=1), nn.Linear(5, 1)], MLP(5, (3,), 3, seed=2), 3, seed=0)
    loss = MixtureLoss(0.1)
    config = TrainConfig(epochs=100, batch_size=20, bound=(Bound("loss.noise", Decay(0.05, 1.0)),))
    found = fit(model, data, config, loss)
    assert found.curves["validation"][-1] < 0.5 * found.curves["validation"][0]
    assert loss.noise == 0.1


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda: Experts([], nn.Linear(5, 3), 3), "at least one expert"),
    (lambda: MixtureLoss(0.0), "must be positive"),
    (lambda: split_expert(mixture(2), batch(), MixtureLoss(), 2), "experts 0 to 1, got 2"),
    (lambda: split_expert(mixture(2), Batch(batch().x[:1], batch().y[:1]), MixtureLoss()), "says nothing of where"),
    (lambda: grow_experts(mixture(2), Data(batch(), batch()), CONFIG, 4, 3), "do not fit into 6 epochs"),
    (lambda: grow_experts(mixture(2), Data(batch(), batch()), TrainConfig(epochs=6, patience=2), 3, 2), "patience"),
])  # fmt: skip
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
