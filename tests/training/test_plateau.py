"""A learning rate that halves where the validation loss stalls: torch's ReduceLROnPlateau, in the loop and resumed."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pared.models import Forecaster
from pared.run import RunConfig
from pared.schedules import Constant, Plateau
from pared.training import TrainConfig, engine_of, fit, snapshots
from pared.types import Batch


def split(validation=True):
    x = torch.randn(40, 3, 1, generator=torch.Generator().manual_seed(0))
    y = x[:, -1] * 0.5 + 0.3 * torch.randn(40, 1, generator=torch.Generator().manual_seed(1))
    return SimpleNamespace(
        train=Batch(x[:28], y[:28]), validation=Batch(x[28:], y[28:]) if validation else Batch(x[:0], y[:0])
    )


def model():
    return Forecaster(1, (4,), (), seed=0)


def config(**told):
    plain = {"epochs": 30, "lr": 0.05, "batch_size": 8, "schedule": Constant(), "plateau": Plateau(1.0, patience=3)}
    return TrainConfig(**(plain | told))


def rate(trained):
    return trained.optimiser_state["param_groups"][0]["lr"]


def by_torch(losses, patience):
    """The learning rate of the last epoch, by ReduceLROnPlateau; its patience counts one epoch fewer."""
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.05)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, "min", 0.5, patience - 1, eps=0)
    for loss in losses[:-1]:
        scheduler.step(loss)
    return optimiser.param_groups[0]["lr"]


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("patience", [1, 3])
def test_it_halves_where_torch_does(validation, patience):
    trained = fit(model(), split(validation), config(plateau=Plateau(1.0, patience=patience)))
    losses = trained.curves["validation" if validation else "train"]
    expected = by_torch(losses, patience)
    assert rate(trained) == pytest.approx(expected)
    assert patience == 3 or expected < 0.05  # it did stall


def test_a_resumed_training_goes_on_from_the_state():
    whole = fit(model(), split(), config(plateau=Plateau(1.0, patience=1)))
    first = fit(model(), split(), config(epochs=15, plateau=Plateau(1.0, patience=1)))
    second = fit(model(), split(), config(epochs=15, plateau=Plateau(1.0, patience=1)), resume=first)
    assert first.states["lr"][2] > 0
    assert rate(second) <= rate(first)
    assert second.states["lr"][2] >= first.states["lr"][2]
    assert whole.states.keys() == {"lr"}
    assert fit(model(), split(), config(plateau=None)).states == {}


def test_only_the_loop_trains_so_and_a_run_says_it_in_a_word():
    assert engine_of(model(), split(), config()).engine == "loop"
    own = RunConfig(schedule="plateau", optimiser="adamw")
    assert own.training.plateau == Plateau(1.0, 0.5, 10, bound=1e-3)
    assert own.training.optimiser == own.refitting.optimiser == "adamw"
    assert own.refitting.plateau is None
    assert RunConfig().training.plateau is None


def test_snapshots_refuse_it():
    with pytest.raises(ValueError, match="plateau"):
        snapshots(model(), split(), replace(config(), epochs=10), cycles=2)
