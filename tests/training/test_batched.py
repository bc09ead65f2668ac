"""Networks that are trained in step against the same networks trained alone."""

import copy
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss, mse_loss

from pared.models import MLP, Forecaster
from pared.schedules import Constant
from pared.training import engine_of, kernel
from pared.training.batched import Member
from pared.training.batched_networks import of_module, of_stack
from pared.training.engines import FEW, waves
from pared.training.fit import TrainConfig, evaluate_loss, fit
from pared.training.fleet import fit_many
from pared.training.stacks import stack_of
from pared.types import Batch


def split(window=4, samples=50, seed=0, classes=0):
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(count, window, 1, generator=generator) for count in (samples, 30)]
    train, validation = (Batch(x, (x[:, -1] * x[:, 0]).tanh()) for x in batches)
    if classes:
        train, validation = (Batch(part.x, (part.x[:, 0, 0] > 0).long()) for part in (train, validation))
    return SimpleNamespace(train=train, validation=validation)


def smooth(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.GELU(), nn.LayerNorm(5), nn.Linear(5, 1))


def relu(seed):
    model = Forecaster(1, (5,), cell="rnn", seed=seed)
    layer = nn.RNN(1, 5, batch_first=True, nonlinearity="relu")
    layer.load_state_dict(model.recurrent[0].state_dict())
    model.recurrent[0] = layer
    return model


KINDS = {
    "lstm": lambda seed: Forecaster(1, (5, 3), seed=seed),
    "gru": lambda seed: Forecaster(1, (5, 3), cell="gru", seed=seed),
    "rnn": lambda seed: Forecaster(1, (5, 3), cell="rnn", seed=seed),
    "relu": relu,
    "mlp": lambda seed: MLP(4, (6, 5), activation="sigmoid", seed=seed),
    "tanh": lambda seed: MLP(4, (6,), activation="tanh", seed=seed),
    "any": smooth,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def curves(result):
    return np.array([*result.curves["train"], *result.curves["validation"]])


def assert_agree(one, other, tolerance=1e-5):
    np.testing.assert_allclose(curves(one), curves(other), rtol=tolerance)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max() + 1e-6


def networks(model, loss):
    stack = stack_of(model)
    return of_module(model, loss) if stack is None else of_stack(stack, loss)


@pytest.mark.parametrize("loss", [mse_loss, pytest.param(cross_entropy, marks=pytest.mark.slow)])
@every_kind
def test_gradient_is_that_of_autograd(kind, loss):
    models = [KINDS[kind](seed) for seed in range(3)]
    if loss is cross_entropy:
        for model in models:
            layers = model.head if isinstance(model, Forecaster) else getattr(model, "layers", model)
            layers[-1] = nn.Linear(layers[-1].in_features, 3)
    parts = [split(seed=seed, classes=loss is cross_entropy).train for seed in range(3)]
    weights = torch.stack([torch.cat([w.detach().flatten() for w in model.parameters()]) for model in models])
    x, y = (torch.stack(some) for some in zip(*parts, strict=True))
    losses, found = networks(models[0], loss).gradient(weights, x, y)
    outputs = networks(models[0], loss).outputs(weights, x)
    for n, (model, part) in enumerate(zip(models, parts, strict=True)):
        twin = copy.deepcopy(model).double()
        value = loss(twin(part.x.double()), part.y if loss is cross_entropy else part.y.double())
        value.backward()
        expected = torch.cat([w.grad.flatten() for w in twin.parameters()])
        assert (found[n] - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert losses[n].item() == pytest.approx(value.item(), rel=1e-5)
        torch.testing.assert_close(outputs[n], model(part.x).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@every_kind
def test_losses_over_200_steps_agree_with_the_loop(kind):
    models, data = [KINDS[kind](seed) for seed in range(3)], [split(samples=320, seed=seed) for seed in range(3)]
    configs = [TrainConfig(epochs=40, lr=1e-3 if kind == "relu" else 3e-3, seed=seed) for seed in range(3)]
    for one, *member in zip(fit_many(models, data, configs, engine="batched"), models, data, configs, strict=True):
        np.testing.assert_allclose(curves(one), curves(fit(*member)), rtol=1e-4)


CHANGES = [
    {},
    {"lr": 1e-3, "seed": 4},
    {"epochs": 2, "clip": 0.05},
    {"schedule": Constant(), "weight_decay": 0.05},
    {"epochs": 12, "patience": 2, "lr": 0.1},
]


@pytest.mark.parametrize(
    "optimiser", ["adam", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adamw", "sgd"))]
)
def test_each_member_is_trained_as_it_would_be_alone(optimiser):
    configs = [replace(TrainConfig(epochs=4, batch_size=20, optimiser=optimiser), **change) for change in CHANGES]
    models = [KINDS["gru"](seed) for seed in range(len(configs))]
    data = [split(seed=seed) for seed in range(len(configs))]
    fits = fit_many(models, data, configs, engine="batched")
    for one, *member in zip(fits, models, data, configs, strict=True):
        other = fit(*member)
        assert_agree(one, other)
        assert one.optimiser_state["param_groups"] == other.optimiser_state["param_groups"]
        assert one.optimiser_state["state"].keys() == other.optimiser_state["state"].keys()
    again = [replace(config, seed=9) for config in configs]
    resumed = fit_many(models, data, again, engine="batched", resume=fits)
    for one, earlier, *member in zip(resumed, fits, models, data, again, strict=True):
        assert_agree(one, fit(*member, resume=earlier), 1e-4)


def test_a_member_with_nan_fails_alone():
    data = [split(seed=seed) for seed in range(3)]
    data[1].train.x[3] = math.nan
    models, configs = [KINDS["lstm"](seed) for seed in range(3)], [TrainConfig(epochs=3)] * 3
    fits = fit_many(models, data, configs, engine="batched")
    assert [one.diverged for one in fits] == [False, True, False]
    assert len(fits[1].curves["train"]) == 1
    assert_agree(fits[2], fit(models[2], data[2], configs[2]))


def test_any_mixture_and_arguments_are_left_alone(monkeypatch):
    monkeypatch.setattr(kernel, "available", lambda: False)
    models = [KINDS[kind](seed).eval() for seed in range(FEW) for kind in ("lstm", "any")]
    models += [KINDS["rnn"](0), nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 1))]
    before, random = [copy.deepcopy(model.state_dict()) for model in models], torch.get_rng_state()
    data = [split(seed=seed) for seed in range(len(models))]
    configs = [TrainConfig(epochs=2, seed=seed) for seed in range(len(models))]
    fits = fit_many(models, data, configs)
    for one, *member in zip(fits, models, data, configs, strict=True):
        assert_agree(one, fit(*member))
    assert not any(one.model.training for one in fits[:-2])
    torch.testing.assert_close([model.state_dict() for model in models], before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)


def test_which_engine_and_why(monkeypatch):
    config, data = TrainConfig(), split()
    assert engine_of(KINDS["any"](0), data, config).engine == "batched"
    monkeypatch.setattr(kernel, "available", lambda: False)
    assert engine_of(KINDS["lstm"](0), data, config) == ("batched", "numba is not there")
    hooked, frozen, large = smooth(0), smooth(0), MLP(4, (3000, 3000))
    hooked[1].register_forward_hook(lambda *_: None)
    frozen[1].weight.requires_grad_(False)
    for model, reason in (
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)), "buffers"),
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(), nn.Linear(3, 1)), "torch.func cannot follow it"),
        (hooked, "hooks"),
        (frozen, "not all of its weights"),
        (large, "large enough"),
    ):
        choice = engine_of(model, data, config)
        assert choice.engine == "loop"
        assert reason in choice.reason
    assert engine_of(Forecaster(), data, config, engine="loop") == ("loop", "asked for")
    assert engine_of(smooth(0), data, config, l1_loss).engine == "batched"
    with pytest.raises(ValueError, match=r"member 1: it has buffers.*engine='auto'"):
        fit_many([smooth(0), nn.BatchNorm1d(1)], [data, data], [config] * 2, engine="batched")


class Scaled(nn.Module):
    """What makes a network may be no weight."""

    def __init__(self, factor):
        super().__init__()
        self.line, self.factor = nn.Linear(4, 1), factor

    def forward(self, x):
        return self.factor * self.line(x.flatten(1))


def test_waves_hold_what_is_alike_and_bound_the_memory():
    member = Member(Forecaster(), split(window=22, samples=200), TrainConfig(), None)
    groups, alone = waves(dict.fromkeys(range(300), member), jobs=1)
    assert sorted(index for group in groups for index in group) == list(range(300))
    assert not alone
    assert 16 <= max(map(len, groups)) < 128
    small = Member(MLP(22, (5,)), member.split, TrainConfig(), None)
    assert max(map(len, waves(dict.fromkeys(range(300), small), jobs=1)[0])) == 128
    scaled = {n: Member(Scaled(n % 3), split(), TrainConfig(), None) for n in range(3 * FEW + 1)}
    groups, alone = waves(scaled, jobs=1)
    assert sorted({n % 3 for n in group} for group in groups) == [{0}, {1}, {2}]
    assert waves({n: scaled[n] for n in range(FEW)}, jobs=1) == ([], [0, 3, 6, 1, 4, 7, 2, 5])


def test_progress_is_drawn_on_stderr(capsys):
    fit_many([KINDS["mlp"](0)] * 2, [split()] * 2, [TrainConfig(epochs=1)] * 2, engine="loop", progress=True)
    printed = capsys.readouterr()
    assert "training" in printed.err
    assert printed.out == ""


@pytest.mark.slow
def test_two_processes_change_rounding_only():
    models, data = [smooth(seed) for seed in range(20)], [split(seed=seed) for seed in range(20)]
    configs = [TrainConfig(epochs=3, seed=seed) for seed in range(20)]
    one, two = (fit_many(models, data, configs, jobs=jobs) for jobs in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert_agree(a, b)


@pytest.mark.slow
def test_two_thousand_networks_stay_below_4_gib():
    resource = pytest.importorskip("resource")
    data = split(window=22, samples=128)
    models = [Forecaster(seed=seed) for seed in range(2000)]
    fits = fit_many(models, [data] * 2000, [TrainConfig(epochs=1, seed=seed) for seed in range(2000)], engine="batched")
    assert not any(one.diverged for one in fits)
    scale = 1 if sys.platform == "darwin" else 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale < 4 * 2**30
    assert evaluate_loss(fits[-1].model, data.validation) == pytest.approx(fits[-1].curves["validation"][-1], rel=1e-4)
