"""Hyperparameters bound to schedules: what is read when, in a user's own module, resumed, and refused."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from pared.models import Mollified, MollifiedLSTM, StochasticDepth
from pared.schedules import Constant, Decay, Linear, LossDriven, Plateau, Stretch
from pared.training import Bound, TrainConfig, engine_of, fit
from pared.training.parts import part_of
from pared.types import Batch


class Own(nn.Module):
    """A user's module; it writes down what it sees in training."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1), nn.Dropout(0.1))
        self.mix, self.seen = 0.5, []

    def forward(self, x):
        if self.training:
            self.seen.append((self.mix, self.inner[1].p, self.inner[3].p, x.shape[1] if x.ndim > 2 else 0))
        return self.inner(x[:, -1] if x.ndim > 2 else x)


class Scaled:
    weight = 1.0

    def __call__(self, output, target):
        return self.weight * (output - target).square().mean()


class Data:
    def __init__(self, *shape):
        generator = torch.Generator().manual_seed(1)
        self.train = Batch(torch.randn(8, *shape, generator=generator), torch.randn(8, 1, generator=generator))
        self.validation = self.train


def trained(*bound, data=None, loss=None, **settings):
    config = TrainConfig(**{"epochs": 4, "batch_size": 4, "bound": bound} | settings)
    return fit(Own(), data or Data(3), config, loss or nn.functional.mse_loss)


def test_values_are_read_before_every_step_and_the_last_stays():
    own = trained(Bound(".mix", Linear(1.0)), Bound("*.p", Linear(0.8))).model
    assert own.seen == [(step / 8, pytest.approx(step / 10), pytest.approx(step / 10), 0) for step in range(8)]
    assert (own.mix, own.inner[1].p, own.inner[3].p) == (1.0, 0.8, 0.8)


def test_neither_the_module_nor_the_loss_passed_in_changes():
    model, loss = Own(), Scaled()
    bound = (Bound(".mix", Constant(0.1)), Bound("loss.weight", Linear(3.0)))
    fit(model, Data(3), TrainConfig(epochs=2, bound=bound), loss)
    assert (model.mix, model.seen, loss.weight) == (0.5, [], 1.0)


def test_a_loss_weight_of_nothing_trains_nothing():
    torch.manual_seed(0)
    model = Own()
    after = fit(model, Data(3), TrainConfig(epochs=2, bound=(Bound("loss.weight", Constant(0.0)),)), Scaled()).model
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), after.parameters(), strict=True))


def test_weight_decay_and_the_length_of_sequences_follow():
    result = trained(Bound("weight_decay", Linear(0.5)), Bound("length", Linear(1.0)), data=Data(4, 3))
    assert [seen[3] for seen in result.model.seen] == [1, 1, 1, 2, 2, 3, 3, 4]
    assert result.optimiser_state["param_groups"][0]["weight_decay"] == 0.5


def test_a_constant_binding_equals_the_plain_setting():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.25), nn.Linear(4, 1))
    plain = fit(model, Data(3), TrainConfig(epochs=3, weight_decay=0.1))
    model[1].p = 0.9
    bound = (Bound("weight_decay", Constant(0.1)), Bound("1.p", Constant(0.25)))
    assert fit(model, Data(3), TrainConfig(epochs=3, bound=bound)).curves == plain.curves


def test_training_in_two_parts_follows_one_schedule():
    whole = trained(Bound(".mix", Decay(1.0))).model.seen
    first = trained(Bound(".mix", Stretch(Decay(1.0), 0, 0.5)), epochs=2)
    config = TrainConfig(epochs=2, batch_size=4, bound=(Bound(".mix", Stretch(Decay(1.0), 0.5, 0.5)),))
    assert fit(Own(), Data(3), config, resume=first).model.seen == [pytest.approx(seen) for seen in whole]


def test_a_schedule_that_follows_the_loss_goes_on_from_its_state():
    bound = (Bound(".mix", LossDriven(5.0)),)
    first = trained(*bound)
    assert first.model.seen[0][0] == 1.0
    assert first.states[".mix"][0] == 8
    again = fit(Own(), Data(3), TrainConfig(epochs=1, batch_size=4, bound=bound), resume=first)
    assert again.model.seen[8][0] == first.model.mix
    assert again.states[".mix"][0] == 10


def test_an_early_end_warns_and_leaves_the_value_of_the_best_epoch():
    bound = (Bound(".mix", Linear(1.0)),)
    with pytest.warns(UserWarning, match=r"ended at 25% of the schedule of '\.mix'"):
        result = trained(*bound, lr=1e-30, patience=1, schedule=Constant(1.0))
    assert result.model.mix == 0.25
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(*bound)


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (Bound("*.rate", Constant(0.1)), "nothing to bind"),
        (Bound("loss.weight", Constant(0.1)), "nothing to bind"),
        (Bound("lr", Constant(0.1)), "own schedule"),
        (Bound("momentun", Constant(0.1)), "no number of the optimiser"),
        (Bound("*.p", Linear(1.2)), "must stay within 0"),
        (Bound("weight_decay", Linear(-1.0)), "must stay within 0"),
        (Bound("length", Linear(2.0)), "must stay within 0"),
        (Bound("betas", Constant(0.1)), "no number of the optimiser"),
    ],
)
def test_what_cannot_be_bound_is_refused_before_training(bound, words):
    with pytest.raises(ValueError, match=words):
        trained(bound, data=Data(4, 3))
    with pytest.raises(ValueError, match="steps of sequences"):
        trained(Bound("length", Constant(1.0)))
    with pytest.raises(ValueError, match="one schedule"):
        trained(Bound(".mix", Constant(1.0)), Bound(".mix", Linear(1.0)))
    with pytest.raises(ValueError, match=r"'inner\.1\.p' and '\*\.p' are the same p"):
        trained(Bound("inner.1.p", Constant(0.1)), Bound("*.p", Constant(0.4)))


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (Mollified(nn.Linear(2, 2)), "0.p"),
        (MollifiedLSTM(2, 2), "0.p"),
        (StochasticDepth(nn.Linear(2, 2)), "0.survival"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_probabilities_of_modules_stay_probabilities(model, target):
    with pytest.raises(ValueError, match="must stay within 0"):
        fit(nn.Sequential(model), Data(3), TrainConfig(bound=(Bound(target, Linear(2.0, start=1.0)),)))


def test_what_is_no_schedule_is_refused():
    with pytest.raises(ValueError, match=r"a number is Constant"):
        Bound("*.p", 0.5)
    with pytest.raises(ValueError, match="bound is a tuple"):
        TrainConfig(bound=Bound("*.p", Constant(0.5)))
    with pytest.raises(ValueError, match="given by plateau="):
        TrainConfig(schedule=Plateau(1.0))
    with pytest.raises(ValueError, match="learning rate gives -1"):
        trained(schedule=Constant(-1.0))


def test_parts_of_a_training_are_one_training():
    """By `part_of`, which all loops that change a network as it trains go by: schedules of both kinds go on."""
    bound = (Bound(".mix", Linear(1.0)), Bound("*.p", LossDriven(0.5)))
    config = TrainConfig(epochs=4, batch_size=4, bound=bound)
    early = fit(Own(), Data(3), part_of(config, 0, 2))
    late = fit(Own(), Data(3), part_of(config, 2, 4), resume=early)
    assert [seen[0] for seen in late.model.seen] == [step / 8 for step in range(8)]
    assert late.states["*.p"][0] == 8


def test_the_fleet_trains_bound_networks_in_the_plain_loop():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    config = replace(TrainConfig(), bound=(Bound("weight_decay", Constant(0.1)),))
    choice = engine_of(model, Data(3), config)
    assert choice.engine == "loop"
    assert "follow schedules" in choice.reason
