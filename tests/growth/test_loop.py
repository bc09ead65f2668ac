"""The loop of training and growing: when, where, how much, and one training throughout."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from growing import Net
from networks import forecaster, snapshot, unchanged
from pared import TrainConfig, fit, trace
from pared.growth import Growing, Stalled, bottleneck, gradmax, grow, random_in, tiny, zero_in
from pared.schedules import Constant
from pared.surgery import StructureError
from pared.training.parts import part_of
from pared.types import Batch


@dataclass
class Data:
    train: Batch
    validation: Batch


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def data(count=60):
    x = drawn(count, 3)
    y = torch.stack([x[:, 0].sin() * x[:, 1], x[:, 2].square()], 1)
    return Data(Batch(x, y), Batch(x[:0], y[:0]))


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()


CONFIG = TrainConfig(epochs=10, lr=1e-2, batch_size=20, schedule=Constant(), seed=1)


def test_it_grows_at_every_look_until_it_is_as_wide_as_it_may_be():
    model, split = network(), data()
    before, random = snapshot(model), torch.random.get_rng_state()
    grown = grow(model, split, CONFIG, random_in, Growing({"0": 2, "2": 1}, 2, {"0": 5}))
    unchanged(before, model)
    assert torch.equal(random, torch.random.get_rng_state())
    assert grown.added == ({"0": 2, "2": 1}, {"0": 1, "2": 1}, {"2": 1}, {"2": 1})
    assert [len(f.curves["train"]) for f in grown.fits] == [2] * 5
    assert len(grown.losses) == 10
    assert {g.name: g.width for g in trace(grown.model, split.train.x)} == {"0": 5, "2": 7}
    assert {g.name: g.width for g in grown.structure} == {"0": 5, "2": 7}
    state = grown.fits[-1].optimiser_state["state"]
    assert [state[k]["exp_avg"].shape for k in state] == [p.shape for p in grown.model.parameters()]
    assert {float(s["step"]) for s in state.values()} == {30.0}


def test_a_network_that_does_not_grow_is_trained_as_in_parts():
    never = grow(network(), data(), CONFIG, random_in, Growing({"0": 1}, 5, {"0": 2}))
    first = fit(network(), data(), part_of(CONFIG, 0, 5))
    second = fit(network(), data(), part_of(CONFIG, 5, 10), resume=first)
    assert never.added == ({},)
    assert never.losses == first.curves["train"] + second.curves["train"]


def test_it_grows_again_exactly_alike():
    one, two = (grow(network(), data(), CONFIG, tiny, Growing({"2": 1}, 3)) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(one.model.parameters(), two.model.parameters(), strict=True))


def test_it_grows_where_it_is_needed():
    model, split = network(), data()
    grown = grow(model, split, CONFIG, random_in, Growing({"0": 1, "2": 1}, 5, neediest=True))
    wanted = bottleneck(grown.fits[0].model, trace(model, split.train.x), split.train, mse_loss)
    assert grown.added == ({max(wanted, key=wanted.get): 1},)


@pytest.mark.parametrize("rule", [random_in, gradmax, tiny])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_forecasters_grow(cell, rule):
    model = forecaster(cell, recurrent=(3,))
    x = drawn(30, 4, 2)
    split = Data(Batch(x, x[:, -1, :1].sin()), Batch(x[:0], x[:0, 0, :1]))
    name = next(iter(trace(model, x[:2]))).name
    grown = grow(model, split, CONFIG, rule, Growing({name: 2}, 5))
    assert grown.structure[name].width == 5
    assert grown.losses[-1] < grown.losses[0]


def test_layers_that_must_be_equally_wide_stop_together():
    lstm, last, x = nn.LSTM(2, 3, 2, batch_first=True), nn.Linear(3, 1), drawn(30, 4, 2)
    model = Net(lambda m, x: m.last(m.lstm(x)[0][:, -1]), lstm=lstm, last=last).double()
    split = Data(Batch(x, x[:, -1, :1]), Batch(x[:0], x[:0, 0, :1]))
    grown = grow(model, split, CONFIG, random_in, Growing({"lstm.l0": 2, "lstm.l1": 2}, 2, {"lstm.l0": 6}))
    assert grown.added == ({"lstm.l0": 2, "lstm.l1": 2}, {"lstm.l0": 1, "lstm.l1": 1}, {}, {})


def test_a_plateau_is_measured_by_the_loss_at_the_last_growth():
    stalled = Stalled(window=2, trigger=0.1)
    assert not stalled([1.0, 1.0])
    assert stalled([1.0, 0.5, 0.49, 0.48])
    assert not stalled([1.0, 0.5, 0.3, 0.2])
    grown = grow(network(), data(), CONFIG, random_in, Growing({"0": 1}, 1, when=Stalled(3, 1e9)))
    assert grown.added == ({}, {}, {}, {"0": 1}, {}, {}, {}, {"0": 1}, {})


def test_it_ends_where_the_goal_is_met():
    whole = grow(network(), data(), CONFIG, random_in, Growing({"0": 1}, 2))
    goal = whole.losses[4]
    assert min(whole.losses[:4:2]) > goal
    short = grow(network(), data(), CONFIG, random_in, Growing({"0": 1}, 2, goal=goal))
    assert short.losses == whole.losses[:6]
    assert len(short.added) == 2


def test_what_cannot_be_done_is_refused_before_training():
    split = data()
    with pytest.raises(StructureError, match="cannot grow by itself"):
        grow(network(), split, CONFIG, random_in, Growing({"4": 1}, 2))
    sigmoid = nn.Sequential(nn.Linear(3, 2), nn.Sigmoid(), nn.Linear(2, 2)).double()
    with pytest.raises(StructureError, match="heard although"):
        grow(sigmoid, split, CONFIG, zero_in, Growing({"0": 1}, 2))
    with pytest.raises(ValueError, match="at least two examples"):
        grow(network(), data(1), CONFIG, random_in, Growing({"0": 1}, 2))
    with pytest.raises(ValueError, match="patience"):
        grow(network(), split, TrainConfig(patience=3), random_in, Growing({"0": 1}))
    with pytest.raises(ValueError, match="every one or more"):
        Growing({"0": 1}, 0)
    with pytest.raises(ValueError, match="up_to bounds 1, which do not grow; name groups of counts: 0"):
        Growing({"0": 1}, up_to={"1": 10})
    with pytest.raises(ValueError, match="up_to of 1"):
        grow(network(), split, CONFIG, random_in, Growing({"0": 1}, 2, {"0": 1}))
    with pytest.raises(ValueError, match="after 10 of 10 epochs"):
        grow(network(), split, CONFIG, random_in, Growing({"0": 1}))
    with pytest.raises(ValueError, match="must be positive"):
        Stalled(0)
