"""The compiled kernel against PyTorch's recurrent layers, autograd and Adam."""

import copy
import math
import os
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss, mse_loss

from pared.models.recurrent import Forecaster
from pared.schedules import Constant
from pared.surgery import drop_layer
from pared.training import kernel
from pared.training.fit import TrainConfig, evaluate_loss, fit
from pared.training.stacks import stack_of
from pared.types import Batch
from pausing import assert_equal_fits, in_stretches

pytest.importorskip("numba")

# window, inputs, recurrent, dense, outputs
SHAPES = [
    (2, 1, (16, 4), (4,), 1),
    (22, 1, (16, 4), (4,), 1),
    (2, 3, (11, 3), (4,), 1),
    (22, 3, (11, 3), (4,), 1),
    (7, 2, (8, 5, 3), (), 2),
    (1, 1, (1,), (2, 3), 1),
    (3, 1, (33,), (5,), 3),
    (2, 1, (5,), (1,), 1),
]
KINDS = ["lstm", "gru", "rnn", "relu"]  # relu: an RNN of that nonlinearity
every_kind = pytest.mark.parametrize(
    "kind", ["lstm", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])]
)
SMALL = (5, 2, (6, 3), (4,), 1)


def draw(samples, window, inputs, outputs=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, window, inputs, generator=generator)
    return Batch(x, torch.tanh(x[:, -1].sum(1, keepdim=True) * torch.arange(1, outputs + 1)) + 0.3 * x[:, 0, :1])


def forecaster(kind, inputs, recurrent, dense, outputs):
    model = Forecaster(inputs, recurrent, dense, outputs, cell="rnn" if kind == "relu" else kind, seed=3)
    for k, layer in enumerate(model.recurrent if kind == "relu" else ()):
        other = nn.RNN(layer.input_size, layer.hidden_size, batch_first=True, nonlinearity="relu")
        other.load_state_dict(layer.state_dict())
        model.recurrent[k] = other
    return model


def member(shape, samples=320, validation=70, kind="lstm"):
    window, inputs, recurrent, dense, outputs = shape
    train = draw(samples, window, inputs, outputs)
    split = SimpleNamespace(train=train, validation=draw(validation, window, inputs, outputs, seed=1))
    return forecaster(kind, inputs, recurrent, dense, outputs), split


def curves(result):
    return np.array([*result.curves["train"], *result.curves["validation"]])


def weights(result):
    return torch.cat([parameter.detach().flatten() for parameter in result.model.parameters()])


def moments(result, name="exp_avg"):
    found = [entry[name].flatten() for entry in result.optimiser_state["state"].values()]
    return torch.cat(found) if found else torch.zeros(1)


def assert_agree(one, other, tolerance=1e-5):
    """Same curves, weights and moments, relative to the largest entry."""
    np.testing.assert_allclose(curves(one), curves(other), rtol=tolerance)
    for take in (weights, moments, lambda result: moments(result, "exp_avg_sq")):
        assert (take(one) - take(other)).abs().max() <= tolerance * take(other).abs().max()


@every_kind
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_is_that_of_autograd(shape, kind):
    model, split = member(shape, samples=100, kind=kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    twin = copy.deepcopy(model).double()
    mse_loss(twin(split.train.x.double()), split.train.y.double()).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in twin.parameters()])
    step = kernel.fit(model, split, TrainConfig(epochs=1, batch_size=100))
    found = moments(step).double() / 0.1  # Adam's first moment after one step, from zero
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert step.curves["train"][0] == pytest.approx(evaluate_loss(model, split.train), rel=1e-6)


@pytest.mark.slow
@given(
    kind=st.sampled_from(KINDS),
    window=st.integers(1, 6),
    inputs=st.integers(1, 3),
    recurrent=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    dense=st.lists(st.integers(1, 5), max_size=2),
    samples=st.integers(1, 70),
)
@settings(max_examples=50, deadline=None)
def test_any_shape_agrees_with_the_loop(kind, window, inputs, recurrent, dense, samples):
    model, split = member((window, inputs, recurrent, dense, 2), samples, samples // 2, kind)
    config = TrainConfig(epochs=2, batch_size=33, lr=1e-3)
    one, other = kernel.fit(model, split, config), fit(model, split, config)
    np.testing.assert_allclose(curves(one), curves(other), rtol=1e-5)
    assert (moments(one) - moments(other)).abs().max() <= 1e-4 * moments(other).abs().max() + 1e-8


@every_kind
@pytest.mark.parametrize(
    "shape", [pytest.param(s, marks=pytest.mark.slow) if s[0] == 22 else s for s in SHAPES[:5]], ids=str
)
def test_losses_over_200_steps_agree_with_the_loop(shape, kind):
    model, split = member(shape, kind=kind)
    lr = 1e-3 if kind == "relu" else 3e-3  # at relu's kink rounding decides: float32 and float64 loops part sooner
    config = TrainConfig(epochs=40, batch_size=64, lr=lr)
    np.testing.assert_allclose(curves(kernel.fit(model, split, config)), curves(fit(model, split, config)), rtol=1e-4)


@every_kind
@pytest.mark.parametrize(
    "change",
    [
        {"weight_decay": 0.05},
        {"weight_decay": 0.05, "optimiser": "adamw"},
        {"weight_decay": 0.05, "optimiser": "sgd", "clip": 0.05, "lr": 0.1},
        {"clip": 0.05},
        {"clip": 1e6},
        {"schedule": Constant(), "seed": 9},
        {"batch_size": 7},
        {"batch_size": 1000},
    ],
    ids=str,
)
def test_configurations_agree_with_the_loop(change, kind):
    model, split = member(SMALL, samples=150, kind=kind)
    config = replace(TrainConfig(epochs=4, lr=3e-3), **change)
    assert_agree(kernel.fit(model, split, config), fit(model, split, config))


@every_kind
@pytest.mark.parametrize("change", [{}, {"clip": 0.05, "weight_decay": 0.05}], ids=str)
def test_masked_weights_stay_zero_as_in_the_loop(change, kind):
    model, split = member(SMALL, samples=150, kind=kind)
    generator = torch.Generator().manual_seed(0)
    masks = {n: torch.rand(p.shape, generator=generator) < 0.4 for n, p in model.named_parameters() if p.dim() > 1}
    config = TrainConfig(epochs=4, lr=3e-3, batch_size=64, **change)
    first = fit(model, split, config)
    one, other = (by(model, split, config, resume=first, masks=masks) for by in (kernel.fit, fit))
    assert_agree(one, other)
    for place, (name, parameter) in enumerate(one.model.named_parameters()):
        if name in masks:
            assert not parameter[~masks[name]].any()
            assert parameter[masks[name]].all()
            assert not one.optimiser_state["state"][place]["exp_avg"][~masks[name]].any()
    with pytest.raises(ValueError, match="no parameter 'x'"):
        kernel.fit(model, split, config, masks={"x": masks["head.0.weight"]})


@every_kind
@pytest.mark.parametrize("layer", ["recurrent.0", "recurrent.1", "head.0"])
def test_a_network_without_a_layer_agrees_with_the_loop(layer, kind):
    model, split = member(SMALL, samples=100, kind=kind)
    model, _ = drop_layer(model, layer, split.train.x)
    assert kernel.supports(model)
    config = TrainConfig(epochs=3, lr=3e-3)
    assert_agree(kernel.fit(model, split, config), fit(model, split, config))


@every_kind
def test_patience_returns_the_best_epoch_as_the_loop_does(kind):
    model, split = member(SMALL, samples=40, kind=kind)
    config = TrainConfig(epochs=80, lr=0.03, patience=3, schedule=Constant())
    one, other = kernel.fit(model, split, config), fit(model, split, config)
    assert len(one.curves["train"]) == len(other.curves["train"]) < 80
    assert evaluate_loss(one.model, split.validation) == pytest.approx(min(one.curves["validation"]), rel=1e-5)
    assert_agree(one, other, 1e-4)


@every_kind
def test_each_engine_resumes_from_the_other(kind):
    model, split = member(SMALL, kind=kind)
    first, second = TrainConfig(epochs=3, lr=3e-3), TrainConfig(epochs=3, lr=1e-3, seed=5)
    by_loop = fit(model, split, second, resume=fit(model, split, first))
    untrained = Forecaster(2, (6, 3), (4,), cell=kernel.kind_of(model), seed=99)
    assert_agree(kernel.fit(untrained, split, second, resume=fit(model, split, first)), by_loop)
    assert_agree(fit(untrained, split, second, resume=kernel.fit(model, split, first)), by_loop)
    assert_agree(kernel.fit(untrained, split, second, resume=kernel.fit(model, split, first)), by_loop)
    assert by_loop.optimiser_state["state"][0]["step"] == 30


@every_kind
def test_optimiser_state_is_laid_out_as_torch_does(kind):
    model, split = member(SMALL, kind=kind)
    config = TrainConfig(epochs=2)
    one, other = kernel.fit(model, split, config).optimiser_state, fit(model, split, config).optimiser_state
    assert one["param_groups"] == other["param_groups"]
    for index, entry in other["state"].items():
        assert {name: (value.shape, value.dtype) for name, value in one["state"][index].items()} == {
            name: (value.shape, value.dtype) for name, value in entry.items()
        }


def test_a_state_beyond_the_kernel_goes_on_in_the_loop():
    model, split = member(SMALL)
    earlier = fit(model, split, TrainConfig(epochs=1))
    earlier.optimiser_state["state"][0]["step"] += 7
    config = TrainConfig(epochs=2)
    assert torch.equal(
        weights(kernel.fit(model, split, config, resume=earlier)), weights(fit(model, split, config, resume=earlier))
    )


def test_arguments_and_random_state_are_left_alone():
    model, split = member(SMALL)
    earlier = kernel.fit(model, split, TrainConfig(epochs=1))
    before = copy.deepcopy((model.state_dict(), earlier.model.state_dict(), earlier.optimiser_state, split.train))
    random = torch.get_rng_state()
    kernel.fit(model, split, TrainConfig(epochs=2), resume=earlier)
    after = (model.state_dict(), earlier.model.state_dict(), earlier.optimiser_state, split.train)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert not kernel.fit(copy.deepcopy(model).eval(), split, TrainConfig(epochs=1)).model.training


@every_kind
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_divergence_ends_training_as_in_the_loop(value, kind):
    model, split = member(SMALL, kind=kind)
    split.train.y[17] = value
    for config in (TrainConfig(epochs=5), TrainConfig(epochs=5, clip=1.0)):
        one, other = kernel.fit(model, split, config), fit(model, split, config)
        assert one.diverged
        assert other.diverged
        assert len(one.curves["train"]) == len(one.curves["validation"]) == len(other.curves["train"]) == 1


@every_kind
def test_nan_inputs_reach_the_loss(kind):
    model, split = member(SMALL, kind=kind)
    split.train.x[17, 0, 0] = math.nan
    assert kernel.fit(model, split, TrainConfig(epochs=5)).diverged


def test_no_validation_data_give_nan():
    model, split = member(SMALL, validation=0)
    assert kernel.fit(model, split, TrainConfig(epochs=2)).curves["validation"] == ()


def test_windows_may_be_views():
    model, split = member((5, 1, (6, 3), (4,), 1))
    series = torch.sin(torch.arange(105.0))
    view = Batch(series.unfold(0, 5, 1)[:100, :, None], series[5:, None])
    config = TrainConfig(epochs=2)
    views = SimpleNamespace(train=view, validation=split.validation)
    assert not view.x.is_contiguous()
    assert_agree(kernel.fit(model, views, config), fit(model, views, config))


@every_kind
def test_training_is_deterministic_and_compiled_once(kind):
    (model, split), config = member(SMALL, kind=kind), TrainConfig(epochs=3)
    functions = kernel.compiled(kernel.kind_of(model))
    compiled = [len(function.signatures) for function in (functions.train_epoch, functions.predict)]
    first = kernel.fit(model, split, config)
    kernel.fit(*member(SHAPES[4], kind=kind), config)
    second = kernel.fit(model, split, config)
    assert first.curves == second.curves
    assert torch.equal(weights(first), weights(second))
    assert [len(function.signatures) for function in (functions.train_epoch, functions.predict)] == compiled


@every_kind
def test_weights_have_places_of_their_own(kind):
    for shape in SHAPES:
        model, _ = member(shape, kind=kind)
        found = kernel.layout(stack_of(model), window=shape[0], batch_size=64)
        entries = np.concatenate(found.places)
        assert [len(place) for place in found.places] == [parameter.numel() for parameter in model.parameters()]
        assert len(np.unique(entries)) == len(entries)
        assert entries.min() >= 0
        assert entries.max() < found.weights


@pytest.mark.slow
def test_a_later_process_reads_what_was_compiled(tmp_path):
    code = (
        "from pared.training import kernel; f = kernel.compiled('rnn').train_epoch; "
        "print(sum(f.stats.cache_hits.values()), sum(f.stats.cache_misses.values()))"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    runs = [subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
            for _ in range(2)]  # fmt: skip
    assert [run.stdout.strip() for run in runs] == ["0 1", "1 0"]


@pytest.mark.slow
def test_kinds_compiled_apart_share_nothing(tmp_path):
    """Neither files of the cache, which numba numbers without a lock, nor symbols, which it names by the order of
    compilation: kinds that two processes compiled took each other's code."""
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONHASHSEED": "0",  # the order of a set of options is part of the symbols' names
    }
    code = "import sys; from pared.training import kernel; kernel.compiled(sys.argv[1])"
    compiling = [subprocess.Popen([sys.executable, "-c", code, kind], env=environment) for kind in ("lstm", "gru")]
    assert [process.wait() for process in compiling] == [0, 0]
    files = sorted(path.name for path in tmp_path.rglob("*.nb?"))
    assert len(files) == 2 * 2 * 2  # an index and its one file, for training and for prediction
    for index in (name for name in files if name.endswith(".nbi")):
        assert [name for name in files if name.startswith(index.removesuffix("nbi"))] == [
            index.removesuffix("nbi") + "1.nbc",
            index,
        ]
    together = (
        "from test_kernel import SMALL, TrainConfig, assert_agree, fit, kernel, member\n"
        "for kind in ('lstm', 'gru'):\n"
        "    model, split = member(SMALL, kind=kind)\n"
        "    assert_agree(*(each(model, split, TrainConfig(epochs=2, lr=1e-3)) for each in (kernel.fit, fit)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", together], cwd=Path(__file__).parent, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_stop_ends_training():
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        kernel.fit(*member(SMALL), TrainConfig(epochs=3), stop=stop)


def test_data_that_do_not_suit_are_refused():
    model, split = member(SMALL)
    empty = SimpleNamespace(train=Batch(torch.empty(0, 5, 2), torch.empty(0, 1)), validation=split.validation)
    with pytest.raises(ValueError, match="empty"):
        kernel.fit(model, empty, TrainConfig())
    flat = SimpleNamespace(train=Batch(split.train.x, split.train.y[:, 0]), validation=split.validation)
    with pytest.raises(ValueError, match=r"\(320, 5, 2\) and y \(320,\)"):
        kernel.fit(model, flat, TrainConfig())


def test_supports():
    assert kernel.supports(Forecaster())
    assert kernel.supports(Forecaster(3, (7,), ()), cross_entropy)
    assert not kernel.supports(Forecaster(), l1_loss)
    assert all(kernel.supports(forecaster(kind, 2, (5, 1), (), 1)) for kind in KINDS)
    assert not kernel.supports(Forecaster(recurrent=(256,)))
    assert not kernel.supports(Forecaster().double())
    assert not kernel.supports(nn.Sequential(nn.Linear(1, 1)))
    frozen, hooked, two_layers = Forecaster(), Forecaster(), Forecaster(recurrent=(4,))
    frozen.head[0].bias.requires_grad_(False)
    hooked.recurrent[1].register_forward_hook(lambda *_: None)
    two_layers.recurrent[0] = nn.LSTM(1, 4, num_layers=2, batch_first=True)
    no_bias, mixed = Forecaster(cell="gru"), Forecaster()
    no_bias.recurrent[0] = nn.GRU(1, 16, bias=False, batch_first=True)
    mixed.recurrent[1] = nn.GRU(16, 4, batch_first=True)
    assert not any(kernel.supports(model) for model in (frozen, hooked, two_layers, no_bias, mixed))


def test_activations_are_accurate_to_a_few_ulp():
    from numba import njit

    from pared.training.kernel_products import sigmoid, tanh
    from pared.training.kernel_vector import load, store

    @njit
    def apply(x, a, b):
        for start in range(0, len(x), 16):
            store(a, start, tanh(load(x, start)))
            store(b, start, sigmoid(load(x, start)))

    x = np.concatenate([np.linspace(-12, 12, 2**16), [np.nan, np.inf, -np.inf, 0.0, -100, 100, 1e-30, -1e-8] * 2])
    x = x.astype(np.float32)
    a, b = np.empty_like(x), np.empty_like(x)
    apply(x, a, b)
    finite = np.isfinite(x)
    exact = x[finite].astype(float)
    assert np.abs(a[finite] - np.tanh(exact)).max() < 4e-7
    assert np.abs(b[finite] - 1 / (1 + np.exp(-exact))).max() < 2e-7
    assert np.abs(a[finite]).max() <= 1
    assert np.array_equal(np.isnan(a), np.isnan(x))
    assert np.array_equal(np.isnan(b), np.isnan(x))


@pytest.mark.parametrize("patience", [None, 2])
@every_kind
def test_a_training_that_pauses_comes_to_the_same_bits(kind, patience):
    start, parts = member(SMALL, 60, 20, kind)
    config = TrainConfig(epochs=12, lr=0.3, batch_size=7, patience=patience)
    left_alone = kernel.fit(start, parts, config)
    assert (len(left_alone.curves["train"]) < 12) == (patience is not None)
    assert_equal_fits(in_stretches(kernel.fit, start, parts, config), left_alone)
