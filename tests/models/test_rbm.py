"""Boltzmann machines against sums over all their states, written as the formulas read."""

import itertools
import math

import pytest
import torch

from pared.models import RBM, OrderedRBM, gibbs, log_likelihood, log_partition
from pared.models.rbm import states

EXACT = {"rtol": 0, "atol": 1e-10}


def machine(kind, visible=4, hidden=3, seed=0, **knobs):
    """A machine with weights of size 1."""
    model = kind(visible, hidden, **knobs).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


MACHINES = {
    "rbm": lambda **sizes: machine(RBM, **sizes),
    "ordered": lambda **sizes: machine(OrderedRBM, endless=False, beta=1.3, **sizes),
    "endless": lambda **sizes: machine(OrderedRBM, beta=1.3, **sizes),
}
EACH = pytest.mark.parametrize("name", MACHINES)


def energies(model, v):
    """-E of v with every h, and every z where there is one; both finite."""
    W, b, c = model.weight, model.bias, model.visible_bias
    K = len(b)
    for h in map(torch.tensor, itertools.product((0.0, 1.0), repeat=K)):
        h = h.double()
        if not isinstance(model, OrderedRBM):
            yield v @ c + h @ (W @ v + b)
            continue
        for z in range(1, K + 1):
            if not h[z:].any():  # units beyond z are silent
                paid = model.beta * torch.nn.functional.softplus(b[:z]).sum()
                yield v @ c + h[:z] @ (W @ v + b)[:z] - paid


@pytest.mark.parametrize("name", ["rbm", "ordered"])
def test_the_free_energy_sums_over_all_hidden_states(name):
    model, v = MACHINES[name](), states(4)
    naive = torch.stack([-torch.logsumexp(torch.stack(list(energies(model, row))), 0) for row in v])
    torch.testing.assert_close(model(v), naive, **EXACT)
    torch.testing.assert_close(log_partition(model, chunk=5), torch.logsumexp(-naive, 0), **EXACT)
    torch.testing.assert_close(log_likelihood(model, v).exp().sum(), torch.tensor(1.0).double(), **EXACT)


def test_endless_is_the_limit_of_ever_more_units_without_weights():
    model, v = machine(OrderedRBM, beta=2.0), states(4)
    long = machine(OrderedRBM, hidden=63, beta=2.0, endless=False)
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(long, name).zero_()[:3] = getattr(model, name)
        long.visible_bias.copy_(model.visible_bias)
    torch.testing.assert_close(long(v), model(v), **EXACT)


@EACH
def test_the_gradient_of_the_exact_likelihood_is_that_of_the_formulas(name):
    model, data = MACHINES[name](), states(4)[[1, 4, 7, 7, 14]]
    (-log_likelihood(model, data).mean()).backward()

    def slopes(v):
        """dF/dW, dF/db, dF/dc of one row."""
        W, b = model.weight.detach(), model.bias.detach()
        h, s, beta = torch.sigmoid(W @ v + b), torch.ones_like(b), 0.0
        if isinstance(model, OrderedRBM):
            z = model.logits(v[None]).softmax(-1)[0].detach()
            s, beta = torch.stack([z[i:].sum() for i in range(len(b))]), model.beta
        return -torch.outer(h * s, v), -(h - beta * torch.sigmoid(b)) * s, -v

    every = states(4)
    p = log_likelihood(model, every).exp().detach()
    seen = [torch.stack(parts).mean(0) for parts in zip(*map(slopes, data), strict=True)]
    made_up = [
        sum(w * part for w, part in zip(p, parts, strict=True)) for parts in zip(*map(slopes, every), strict=True)
    ]
    for parameter, one, two in zip((model.weight, model.bias, model.visible_bias), seen, made_up, strict=True):
        torch.testing.assert_close(parameter.grad, one - two, **EXACT)


@EACH
def test_sampling_leaves_the_distribution_as_it_is(name):
    model, every, count = MACHINES[name](visible=3), states(3), 40_000
    generator = torch.Generator().manual_seed(1)
    p = log_likelihood(model, every).exp().detach()
    start = every[torch.multinomial(p, count, replacement=True, generator=generator)]
    end = gibbs(model, start, 3, generator)
    assert not torch.equal(start, end)
    found = torch.bincount((end @ torch.tensor([4.0, 2.0, 1.0]).double()).long(), minlength=8) / count
    assert ((found - p).abs() < 4.5 * (p * (1 - p) / count).sqrt()).all()


def test_units_beyond_z_are_silent():
    model, v = machine(OrderedRBM, beta=1.3), states(4).repeat(50, 1)
    with torch.no_grad():
        model.bias[1:] = torch.tensor([-30.0, 30.0])  # the second is never on, the third always once it is at work
    h = model.sample_hidden(v, torch.Generator().manual_seed(0))
    share = model.logits(v).softmax(-1)[:, 2].mean().item()
    assert not h[:, 1].any()
    assert h[:, 2].mean().item() == pytest.approx(share, abs=0.08)


def test_seeds_make_the_draw_and_leave_the_global_one():
    before = torch.get_rng_state()
    one, other, third = (RBM(3, 2, seed).weight for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    gibbs(RBM(3, 2), torch.zeros(2, 3), 2, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())
    start = -log_likelihood(RBM(3, 2), torch.zeros(1, 3)).item()
    assert start == pytest.approx(3 * math.log(2), abs=0.05)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="at least 1 visible and 1 hidden"):
        RBM(0, 3)
    with pytest.raises(ValueError, match="above 1, got 1"):
        OrderedRBM(3, beta=1.0)
    assert OrderedRBM(3, beta=1.0, endless=False)(torch.zeros(2, 3)).shape == (2,)
    with pytest.raises(ValueError, match="1 to 20 units, got 21"):
        log_partition(RBM(21, 2))
