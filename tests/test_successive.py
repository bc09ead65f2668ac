"""Successive regularisation: the penalty and its gradient against the formula, plain training at delta 0, two tasks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import mse_loss

from networks import snapshot, unchanged
from pared import MLP, Batch, Forecaster, TrainConfig, fit
from pared.schedules import Decay
from pared.successive import Anchored, AnchoredLoss, fit_anchored, successive
from pared.training import Bound
from problems import Data, drawn

CONFIG = TrainConfig(epochs=4, batch_size=16, seed=3)


def task(turn=1.0):
    x = drawn(48, 3)
    return Data(Batch(x, (turn * x[:, :1]).sin()), Batch(x[:8], x[:8, 1:2]))


def trunk(seed=1):
    return nn.Sequential(MLP(3, (5,), 4, seed=seed), nn.Tanh())


def equal(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def distance(a, b):
    return sum((p - q).square().sum().item() for p, q in zip(a.parameters(), b.parameters(), strict=True))


@settings(max_examples=10, deadline=None)
@given(st.floats(0, 10), st.integers(0, 99))
def test_the_penalty_and_its_gradient_are_the_formula(delta, seed):
    network = MLP(3, (4,), 2, seed=seed).double()
    model = Anchored(network, ["layers.0.*"])
    moved = {name: drawn(*p.shape, seed=seed + 1).double() for name, p in network.named_parameters()}
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    network.load_state_dict(moved)
    x, y = drawn(5, 3).double(), drawn(5, 2).double()
    loss = AnchoredLoss(mse_loss, delta)(model(x), y)
    far = sum((v - w) ** 2 for n in ("layers.0.weight", "layers.0.bias")
              for v, w in zip(moved[n].flatten().tolist(), before[n].flatten().tolist(), strict=True))  # fmt: skip
    plain = mse_loss(network(x), y)
    torch.testing.assert_close(loss, plain + delta * far, rtol=1e-12, atol=1e-12)
    own = torch.autograd.grad(loss, list(network.parameters()))
    other = torch.autograd.grad(plain, list(network.parameters()))
    for name, found, without in zip(moved, own, other, strict=True):
        pull = 2 * delta * (moved[name] - before[name]) if name.startswith("layers.0") else 0
        torch.testing.assert_close(found, without + pull, rtol=1e-9, atol=1e-11)


def test_in_evaluation_it_is_the_network_and_the_loss():
    network, x = MLP(3, (4,), 2, seed=0), drawn(5, 3)
    model = Anchored(network, ["*"]).eval()
    assert torch.equal(model(x), network(x))
    assert AnchoredLoss(delta=3.0)(model(x), drawn(5, 2)) == mse_loss(network(x), drawn(5, 2))


@pytest.mark.parametrize("model", [MLP(3, (4,), 1, seed=1), MLP(3, (4,), 1, seed=1, dropout=0.5)])
def test_without_a_pull_it_is_plain_training_bit_for_bit(model):
    found = fit_anchored(model, task(), CONFIG, ["*"], AnchoredLoss(delta=0.0))
    plain = fit(model, task(), CONFIG)
    assert equal(found.model, plain.model)
    assert found.curves == plain.curves
    assert found.optimiser_state["state"].keys() == plain.optimiser_state["state"].keys()


def test_the_stronger_the_pull_the_nearer_what_is_shared_stays_and_the_rest_is_free():
    model = MLP(3, (6,), 1, seed=1)
    fits = [fit_anchored(model, task(), CONFIG, ["layers.0.*"], AnchoredLoss(delta=d)).model for d in (0.0, 0.1, 10.0)]
    apart = [distance(model.layers[0], each.layers[0]) for each in fits]
    assert apart[0] > apart[1] > apart[2] > 0
    assert distance(model.layers[2], fits[2].layers[2]) > 10 * apart[2]


def test_delta_follows_a_schedule_and_the_loss_passed_in_stays():
    loss = AnchoredLoss(delta=0.5)
    falling = TrainConfig(epochs=4, batch_size=16, seed=3, bound=(Bound("loss.delta", Decay(0.0, 10.0)),))
    model = MLP(3, (6,), 1, seed=1)
    found = fit_anchored(model, task(), falling, ["*"], loss).model
    held = fit_anchored(model, task(), CONFIG, ["*"], AnchoredLoss(delta=10.0)).model
    assert loss.delta == 0.5
    assert distance(model, found) > 2 * distance(model, held)


def seeded_heads():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return {"first": nn.Linear(4, 1), "second": nn.Linear(4, 1)}


@pytest.mark.slow
def test_tasks_in_turn_change_nothing_passed_in_and_forget_less_with_a_pull():
    shared, heads, x = trunk(), seeded_heads(), drawn(96, 3)
    data = {
        "first": Data(Batch(x, x[:, :1]), Batch(x[:0], x[:0])),
        "second": Data(Batch(x, x[:, 1:2]), Batch(x[:0], x[:0])),
    }
    before = snapshot(shared), snapshot(heads["first"])
    config = TrainConfig(epochs=40, batch_size=16, seed=3)
    free, held = (successive(shared, heads, data, config, delta=delta) for delta in (0.0, 1.0))
    unchanged(before[0], shared)
    unchanged(before[1], heads["first"])
    assert [name for name, _ in free.fits] == ["first", "second"]
    assert equal(free.fits[0][1].model, held.fits[0][1].model)  # the first task has nothing to stay near
    networks = free.fits[0][1].model, free.network("first"), held.network("first")
    learnt, forgotten, kept = (mse_loss(network(x), x[:, :1]) for network in networks)
    assert kept - learnt < 0.2 * (forgotten - learnt)


def test_rounds_give_every_task_its_share_of_the_epochs():
    heads = {"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)}
    found = successive(trunk(), heads, {"a": task(), "b": task(2.0)}, CONFIG, rounds=2)
    assert [(name, len(each.curves["train"])) for name, each in found.fits] == [("a", 2), ("b", 2)] * 2
    assert equal(found.network("b"), found.fits[-1][1].model)


def test_a_recurrent_module_of_ones_own_is_shared():
    x = drawn(32, 6, 1)
    data = Data(Batch(x, x[:, -1]), Batch(x[:0], x[:0, -1]))
    found = successive(Forecaster(1, (3,), (), 3, seed=1), {"a": nn.Linear(3, 1)}, {"a": data}, CONFIG)
    assert found.fits[0][1].curves["train"][-1] < found.fits[0][1].curves["train"][0]


def test_what_cannot_be_is_refused():
    model = MLP(3, (4,), 1, seed=1)
    with pytest.raises(ValueError, match=r"no parameter is named 'trunk\.\*'"):
        fit_anchored(model, task(), CONFIG, ["trunk.*"], AnchoredLoss())
    with pytest.raises(ValueError, match="must not be negative"):
        AnchoredLoss(delta=-1.0)
    with pytest.raises(ValueError, match="no data of b"):
        successive(trunk(), {"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)}, {"a": task()}, CONFIG)
    with pytest.raises(ValueError, match="4 epochs cannot be shared out evenly over 3"):
        successive(trunk(), {"a": nn.Linear(4, 1)}, {"a": task()}, CONFIG, rounds=3)
