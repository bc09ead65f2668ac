"""Units that split: the splitting matrix by its formula, what a split changes, and the choice among candidates."""

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from growing import KINDS, alike, built, drawn, layered, problem, sine, slow
from networks import snapshot, unchanged
from pared.growth import firefly, splits, splitting
from pared.surgery import StructureError, trace
from pared.types import Batch

CLOSE = {"atol": 1e-12, "rtol": 1e-12}


def matrices(model, batch):
    """S of each unit of the second layer of tanh units: E[dL/dh d2h / dtheta2]."""
    x = torch.cat([model[:2](batch.x), torch.ones(len(batch.x), 1)], 1)
    h = model[2:4](model[:2](batch.x)).detach().requires_grad_()
    slope = torch.autograd.grad(mse_loss(model[4](h), batch.y), h)[0]
    bend = slope * -2 * h * (1 - h.square())
    return torch.einsum("bu,bi,bj->uij", bend, x, x).detach()


def test_the_splitting_matrix_is_that_of_the_paper():
    model, batch = layered(), sine()
    expected = torch.linalg.eigh(matrices(model, batch))
    values, vectors = splitting(model, trace(model, batch.x), batch, mse_loss, "2", size=1e-4)
    torch.testing.assert_close(values, expected.eigenvalues[:, 0], rtol=1e-5, atol=1e-9)
    along = (vectors * expected.eigenvectors[:, :, 0]).sum(1).abs()
    torch.testing.assert_close(along, torch.ones(5, dtype=torch.float64), atol=1e-6, rtol=0)


def test_a_split_lowers_the_loss_by_its_eigenvalue():
    model, batch = layered(), sine()
    structure = trace(model, batch.x)
    values, _ = splitting(model, structure, batch, mse_loss, "2", size=1e-2)
    best = values.argmin()
    assert values[best] < 0
    new = splits(model, structure, batch, mse_loss, {"2": 1}, size=1e-2)
    eps = 1e-2 * torch.cat([model[2].weight, model[2].bias[:, None]], 1)[best].norm()
    fall = mse_loss(new(batch.x), batch.y) - mse_loss(model(batch.x), batch.y)
    torch.testing.assert_close(fall, eps.square() / 2 * values[best], rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["tanh", "lstm", *slow("gru", "plain cnn"), *KINDS[3:]])
def test_a_split_changes_the_outputs_by_its_square(name):
    model, structure, batch, counts = problem(name)
    counts = dict.fromkeys(counts, 1)
    before, random = snapshot(model), torch.random.get_rng_state()
    changes = [
        (splits(model, structure, batch, mse_loss, counts, size=size)(batch.x) - model(batch.x)).abs().max().item()
        for size in (1e-7, 1e-2, 2e-2)
    ]
    unchanged(before, model)
    assert torch.equal(random, torch.random.get_rng_state())
    assert changes[0] < 1e-12
    if name not in ("plain cnn", "group norm", "attention"):  # ReLUs bend at one place only, linear layers nowhere
        assert changes[1] > 1e-10
        assert changes[2] < 8 * changes[1]
    grown = trace(splits(model, structure, batch, mse_loss, counts), batch.x)
    assert all(grown[group].width == structure[group].width + 1 for group in counts)


@pytest.mark.parametrize("name", ["tanh", *slow("relu", "lstm", "gru", "plain cnn")])
def test_firefly_lowers_the_loss_at_once(name):
    model, structure, batch, counts = problem(name)
    before, random = snapshot(model), torch.random.get_rng_state()
    if len(alike(structure, next(iter(counts)))) > 1:
        with pytest.raises(StructureError, match="split_layers"):
            firefly(model, structure, batch, mse_loss, counts)
        return
    new = firefly(model, structure, batch, mse_loss, counts)
    unchanged(before, model)
    assert torch.equal(random, torch.random.get_rng_state())
    assert mse_loss(new(batch.x), batch.y) < mse_loss(model(batch.x), batch.y)
    grown = trace(new, batch.x)
    assert all(grown[group].width == structure[group].width + count for group, count in counts.items())
    still = firefly(model, structure, batch, mse_loss, counts, size=1e-13)
    torch.testing.assert_close(still(batch.x), model(batch.x), **CLOSE)


def test_firefly_keeps_the_best_of_its_candidates():
    """Where only a new direction helps, it takes new units; where units sit on a saddle, one of them splits."""
    x = drawn(200, 2)
    model = nn.Sequential(nn.Linear(2, 1), nn.Tanh(), nn.Linear(1, 1)).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), ([[1.0, 0.0]], [0.0], [[1.0]], [0.0]), strict=True):
            parameter.copy_(torch.tensor(value))
    structure = trace(model, x)
    other = Batch(x, model(x).detach() + x[:, 1:].tanh())
    new = firefly(model, structure, other, mse_loss, {"0": 1})
    torch.testing.assert_close(new[0].weight[:1], model[0].weight)
    assert new[0].weight[1, 1].abs() > 0.9 * new[0].weight[1].norm()
    spread = sum((x[:, :1] + sign * x[:, 1:]).tanh() / 2 for sign in (1, -1))
    saddle = splits(model, structure, Batch(x, spread), mse_loss, {"0": 1})
    assert (saddle[0].weight[:, 1].abs() > 0.09).all()
    assert saddle[0].weight[0, 1] * saddle[0].weight[1, 1] < 0


@pytest.mark.parametrize("rule", [splits, firefly])
def test_what_cannot_split_is_refused(rule):
    model, batch = layered(), sine()
    structure = trace(model, batch.x)
    with pytest.raises(StructureError, match=r"cannot grow by itself: .*output"):
        rule(model, structure, batch, mse_loss, {"4": 1})
    tied, x = built("tied")
    with pytest.raises(StructureError, match="untie"):
        rule(tied, trace(tied, x), Batch(x, tied(x).detach()), mse_loss, {"encoder": 1})
    with pytest.raises(ValueError, match="so that 6 cannot split"):
        splits(model, structure, batch, mse_loss, {"2": 6})
