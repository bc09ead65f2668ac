"""Cascade-correlation: quickprop as tabled, exact slopes with and without loops, frozen units, two spirals solved."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pared.data.puzzles import encoder, parity, reber, two_spirals
from pared.growth.candidates import pulled, respond, score
from pared.growth.cascade import Cascade, CascadeConfig, fit_cascade
from pared.growth.quickprop import Quickprop, quickprop
from pared.types import Batch, DataError

numbers = st.floats(-3, 3).map(lambda value: round(value, 3))


def tabled(d: float, p: float, s: float, eps: float, mu: float) -> float:
    """One step as cascor1.c takes it."""
    shrink = mu / (1 + mu)
    if d < 0:
        return (-eps * s if s > 0 else 0) + (mu * d if s >= shrink * p else d * s / (p - s))
    if d > 0:
        return (-eps * s if s < 0 else 0) + (mu * d if s <= shrink * p else d * s / (p - s))
    return -eps * s


@given(numbers, numbers, numbers)
def test_quickprop_steps_as_tabled(d, p, s):
    # a weight that stands at slope 0 after a step cannot come about in the code; p - s = 0 would divide by zero there
    if d * p > 0 or p == 0 == s:
        p = -p - d
    state = Quickprop(torch.tensor([d], dtype=torch.float64), torch.tensor([p], dtype=torch.float64))
    step = quickprop(state, torch.tensor([s], dtype=torch.float64), 0.1).step
    assert step.item() == pytest.approx(tabled(d, p, s, 0.1, 2.0), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("objective", ["covariance", "residual"])
@pytest.mark.parametrize("activation", ["sigmoid", "gaussian"])
def test_slopes_equal_autograd(recurrent, objective, activation):
    generator = torch.Generator().manual_seed(0)
    shape = (7, 5) if recurrent else (35,)
    seen = torch.randn((*shape, 3), generator=generator, dtype=torch.float64)
    errors = torch.randn((35, 2), generator=generator, dtype=torch.float64)
    weights = torch.randn((3 + recurrent, 4), generator=generator, dtype=torch.float64, requires_grad=True)
    values = respond(seen, weights, activation, recurrent)
    scores, _, wish = score(values.flatten(0, -2), errors, objective)
    (expected,) = torch.autograd.grad(scores.sum(), weights)
    found = pulled(seen, weights.detach(), wish.detach().view(values.shape), activation, recurrent)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_loops_follow_the_forward_recursion_of_fahlman():
    seen = torch.randn((1, 6, 2), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = torch.tensor([[0.7], [-0.4], [1.3]], dtype=torch.float64)
    value, by_weight, total = 0.0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for t in range(6):
        inputs = torch.cat([seen[0, t], torch.tensor([value], dtype=torch.float64)])
        net = inputs @ weights[:, 0]
        slope = 0.25 - (net.sigmoid() - 0.5) ** 2
        by_weight = slope * (inputs + weights[2, 0] * by_weight)
        value, total = float(net.sigmoid() - 0.5), total + by_weight
    ones = torch.ones((1, 6, 1), dtype=torch.float64)
    torch.testing.assert_close(pulled(seen, weights, ones, "sigmoid", True)[:, 0], total, rtol=1e-12, atol=1e-14)


def test_the_residual_score_is_what_least_squares_takes_away():
    generator = torch.Generator().manual_seed(2)
    values = torch.randn((30, 1), generator=generator, dtype=torch.float64)
    errors = torch.randn((30, 3), generator=generator, dtype=torch.float64)
    scores, weights, _ = score(values, errors, "residual")
    v, left = values - values.mean(0), errors - errors.mean(0)
    best = torch.linalg.lstsq(v, left).solution
    torch.testing.assert_close(weights, -best)
    taken = (left.square().sum() - (left - v @ best).square().sum()) / errors.square().sum()
    torch.testing.assert_close(scores[0], taken)


def test_installed_units_are_frozen_and_answer_as_candidates_did():
    before = torch.random.get_rng_state()
    short = fit_cascade(two_spirals(), CascadeConfig(max_units=2, seed=3))
    longer = fit_cascade(two_spirals(), CascadeConfig(max_units=3, seed=3))
    assert torch.equal(before, torch.random.get_rng_state())
    for mine, theirs in zip(short.model.incoming, longer.model.incoming, strict=False):
        assert torch.equal(mine, theirs)
        assert not mine.requires_grad
    x = two_spirals().x
    assert torch.equal(longer.model.values(x)[:, :5], short.model.values(x))
    assert [p.requires_grad for p in longer.model.parameters()].count(True) == 1


def test_a_linear_cascade_fits_a_curve_better_with_every_unit():
    x = torch.linspace(-3, 3, 60, dtype=torch.float64)[:, None]
    config = CascadeConfig(max_units=8, linear=True, goal=0.2, objective="residual")
    grown = fit_cascade(Batch(x, (2 * x).sin()), config)
    assert grown.solved
    assert grown.errors[-1] <= 0.04 * float(((2 * x).sin() - (2 * x).sin().mean()).square().sum())


def test_a_recurrent_cascade_remembers():
    """Output: whether there was a 1 in the sequence so far; without loops no network of single steps can know."""
    bits = (torch.rand((40, 8, 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64) < 0.2).double()
    data = Batch(bits, bits.cummax(1).values - 0.5)
    assert fit_cascade(data, CascadeConfig(max_units=5, recurrent=True)).solved
    step = Batch(bits.flatten(0, 1), data.y.flatten(0, 1))
    assert not fit_cascade(step, CascadeConfig(max_units=5)).solved


@pytest.mark.slow
def test_recurrent_cascades_learn_the_grammar_of_reber_and_parity_in_time():
    grown = fit_cascade(reber(32, 40), CascadeConfig(max_units=12, recurrent=True))
    fresh = reber(50, 80, seed=1)
    assert grown.solved
    assert ((grown.model(fresh.x) > 0) == (fresh.y > 0)).all(-1).double().mean() > 0.98
    bits = parity(8).x[..., None]
    so_far = Batch(bits, (bits + 0.5).cumsum(1) % 2 - 0.5)
    gaussian = CascadeConfig(max_units=4, recurrent=True, activation="gaussian")
    assert fit_cascade(so_far, gaussian).solved


@pytest.mark.parametrize(("data", "units"), [(parity(3), 4), (encoder(4), 4)])
def test_puzzles_are_solved(data, units):
    grown = fit_cascade(data, CascadeConfig(max_units=units))
    assert grown.solved
    assert (grown.model(data.x) - data.y).abs().max() < 0.35


@pytest.mark.slow
def test_two_spirals_are_solved_by_as_many_units_as_in_the_paper():
    fits = [fit_cascade(two_spirals(), CascadeConfig(seed=seed)) for seed in range(10)]
    assert all(grown.solved for grown in fits)
    assert 14 <= sum(len(grown.model.incoming) for grown in fits) / 10 <= 18


def test_refusals():
    x, y = two_spirals()
    with pytest.raises(DataError, match="equally many"):
        fit_cascade(Batch(x, y[:5]))
    with pytest.raises(DataError, match="equally many"):
        fit_cascade(Batch(x, y), CascadeConfig(recurrent=True))
    with pytest.raises(DataError, match="linear=True"):
        fit_cascade(Batch(x, 2 * y))
    with pytest.raises(DataError, match="not finite"):
        fit_cascade(Batch(x / 0, y))
    with pytest.raises(ValueError, match="activation"):
        CascadeConfig(activation="relu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="16 bits"):
        parity(17)


def test_a_cascade_is_a_module_whose_state_can_be_loaded():
    grown = fit_cascade(parity(2), CascadeConfig(max_units=2))
    again = Cascade(2, 1, "sigmoid", False, False)
    again.incoming = nn.ParameterList(torch.zeros_like(w) for w in grown.model.incoming)
    again.out = nn.Parameter(torch.zeros_like(grown.model.out))
    again.load_state_dict(grown.model.state_dict())
    assert torch.equal(again(parity(2).x), grown.model(parity(2).x))
