"""Networks shaped while they train: what is tried and taken, what it costs, that nobody's network is changed."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pared import evaluation
from pared.data.splits import Scaler
from pared.growth import random_in
from pared.models import Forecaster
from pared.shape import TRAINING, ShapeSettings, shape
from pared.surgery import StructureError
from pared.training import TrainConfig
from pared.types import Batch, DivergedError
from problems import logistic_blocks

QUICK = ShapeSettings(
    begin=TrainConfig(epochs=4, lr=0.02, batch_size=32),
    stint=TrainConfig(epochs=3, lr=0.01, batch_size=32),
    finish=TrainConfig(epochs=2, lr=0.01, batch_size=32),
    rule=random_in,
)


def build(seed, widths):
    recurrent = [widths.get(f"recurrent.{k}.l0", width) for k, width in enumerate((6, 3))]
    return Forecaster(1, recurrent, [widths.get("head.0", 3)], cell="gru", seed=seed)


def size(model):
    return evaluation.parameters(model)


@pytest.mark.slow
def test_cuts_go_on_while_they_are_within_the_margin():
    found = shape(build, logistic_blocks(), (0,), replace(QUICK, margin=1e6))
    cuts = [change for change in found.changes if change.kind == "cut"]
    assert all(change.taken and change.parameters[1] < change.parameters[0] for change in cuts)
    assert [change.units for change in cuts][:2] == [6, 3]
    assert {size(fit.model) for fit in found.fits.values()} == {size(build(0, {"recurrent.0.l0": 1, "recurrent.1.l0": 1,
                                                                                "head.0": 1}))}  # fmt: skip
    assert set(found.fits) == {(block, 0) for block in range(5)}
    assert all(not change.taken or change.comparison.verdict == "better" for change in found.changes if
               change.kind == "grow")  # fmt: skip


@pytest.mark.slow
def test_nothing_is_taken_that_the_paired_test_does_not_allow():
    found = shape(build, logistic_blocks(), (0,), replace(QUICK, margin=1e-9, level=0.999, first="grow"))
    for change in found.changes:
        allowed = ("better",) if change.kind == "grow" else ("better", "not inferior")
        assert not change.taken or change.comparison.verdict in allowed
        grown = change.parameters[1] > change.parameters[0]
        assert grown == (change.kind == "grow") == (change.layer is not None)
    assert found.changes[0].kind == "grow"
    last_taken = max((place for place, change in enumerate(found.changes) if change.taken), default=-1)
    refused = found.changes[last_taken + 1 :]
    assert {change.kind for change in refused if change.units == 1} == {"cut", "grow"}


@pytest.mark.slow
def test_units_that_are_needed_grow():
    """One ReLU is far from enough for a sine."""
    generator = torch.Generator().manual_seed(0)
    blocks = []
    for block in range(5):
        x = 2 * torch.rand(300, 1, generator=generator) - 1
        y = torch.sin(5 * x)
        parts = {"train": Batch(x[:150], y[:150]), "validation": Batch(x[150:225], y[150:225])}
        scaler = Scaler(("y",), (0.0,), (1.0,))
        blocks.append(SimpleNamespace(**parts, test=Batch(x[225:], y[225:]), scaler=scaler, block=block))

    def network(seed, widths):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            width = widths.get("0", 8)
            return nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, 1))

    begin = TrainConfig(epochs=20, lr=0.02, batch_size=32)
    how = ShapeSettings(begin, replace(begin, epochs=10), begin, first="grow", growth=1.0, task=evaluation.REGRESSION)
    found = shape(network, blocks, (0, 1), how, {"0": 1})
    assert any(change.taken and change.kind == "grow" for change in found.changes)
    assert min(size(fit.model) for fit in found.fits.values()) > size(network(0, {"0": 1}))


@pytest.mark.slow
def test_work_is_counted_and_kept_within_the_limit():
    blocks = logistic_blocks()
    found = shape(build, blocks, (0,), QUICK)
    usual = TRAINING * evaluation.macs(build(0, {}), blocks[0].train.x[:1]) * len(blocks[0].train.x)
    assert found.work >= usual * (4 + 2 + 6 * len(found.changes)) * 0.8  # epochs are whole numbers
    limit = usual * (4 + 2 + 6 * 2)
    short = shape(build, blocks, (0,), replace(QUICK, limit=limit))
    assert len(short.changes) <= 2
    assert short.work <= 1.2 * limit
    assert short.changes == found.changes[: len(short.changes)]


def test_small_networks_are_trained_for_as_many_multiply_adds():
    small = {"recurrent.0.l0": 2, "recurrent.1.l0": 1, "head.0": 1}
    found = shape(build, logistic_blocks(), (0,), replace(QUICK, limit=1.0), small)  # nothing but begin and finish
    x = logistic_blocks()[0].train.x[:1]
    times = evaluation.macs(build(0, {}), x) / evaluation.macs(build(0, small), x)
    assert found.changes == ()
    assert {len(fit.curves["train"]) for fit in found.fits.values()} == {round(2 * times)}


@pytest.mark.slow
def test_the_same_twice_and_the_random_state_untouched():
    state = torch.get_rng_state().clone()
    one, two = (shape(build, logistic_blocks(), (0,), replace(QUICK, margin=0.5)) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert one.changes == two.changes
    for member, fit in one.fits.items():
        weights = zip(fit.model.parameters(), two.fits[member].model.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in weights)


@pytest.mark.parametrize("told", [{"growth": 0}, {"cut": 0}, {"cut": 1}, {"limit": 0}])
def test_settings_that_are_none_are_refused(told):
    with pytest.raises(ValueError, match="growth and limit must be positive, cut between 0 and 1"):
        ShapeSettings(**told)


def test_an_unknown_kind_to_begin_with_is_refused():
    with pytest.raises(ValueError, match="first is one of grow, cut, got 'gorw'"):
        ShapeSettings(first="gorw")


def rows_of_a_table():
    x = torch.zeros(8, 3)
    return [SimpleNamespace(train=Batch(x, x[:, :1]), block=0)]


@pytest.mark.parametrize(("blocks", "seeds", "message"), [
    ([], (0,), "no block to train networks on"),
    (logistic_blocks(), (), "no seed to train networks on"),
    (logistic_blocks() + logistic_blocks()[2:3], (0,), "every block needs a number of its own, got 2 more than once"),
    (logistic_blocks(), (4, 4), "every seed needs a number of its own, got 4 more than once"),
    (rows_of_a_table(), (0,), r"windows .*got inputs \(8, 3\).*task=REGRESSION"),
])  # fmt: skip
def test_what_cannot_be_shaped_is_refused_before_training(blocks, seeds, message):
    with pytest.raises(ValueError, match=message):
        shape(None, blocks, seeds, QUICK)


def test_networks_that_cannot_be_shaped_are_refused():
    with pytest.raises(DivergedError, match="all 5 first trainings"):
        shape(build, logistic_blocks(), (0,), replace(QUICK, begin=TrainConfig(epochs=2, lr=math.inf)))

    def alone(seed, widths):
        return nn.Sequential(nn.Flatten(), nn.Linear(2, 1))

    with pytest.raises(StructureError):
        shape(alone, logistic_blocks(), (0,), QUICK)
