"""Members of a fleet are trained as they would be alone, whatever trains them."""

import copy
import math
import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import pared
from pared.models import MLP, Forecaster
from pared.surgery import Plan
from pared.training import kernel
from pared.training.fit import TrainConfig, fit
from pared.training.fleet import fit_each, fit_many, inference, predict_many
from pared.types import Batch

SHAPES = [("lstm", (16, 4)), ("gru", (5,)), ("rnn", (11, 3)), ("lstm", (8, 8, 8)), ("gru", (16, 4))]
FORECASTERS = [Forecaster(1, units, cell=cell, seed=seed) for seed, (cell, units) in enumerate(SHAPES)]
MODELS = [*FORECASTERS, MLP(7, (9,), activation="relu", seed=5), MLP(8, (5, 6), activation="sigmoid", seed=6)]


def split(seed=0, samples=150, window=4):
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(count, window, 1, generator=generator) for count in (samples, 30)]
    train, validation = (Batch(x, x[:, -1] * x[:, 0]) for x in batches)
    return SimpleNamespace(train=train, validation=validation)


SPLITS = [split(seed, window=2 + seed) for seed in range(len(MODELS))]
CONFIGS = [TrainConfig(epochs=3 + index, batch_size=20 + index, seed=index) for index in range(len(MODELS))]


def same(one, other):
    return one.curves == other.curves and all(
        torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True)
    )


def close(one, other):
    return one.curves["train"] == pytest.approx(other.curves["train"], rel=1e-4)


@pytest.mark.parametrize("jobs", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_companions_and_jobs_change_nothing(jobs):
    fleet = fit_many(MODELS, SPLITS, CONFIGS, jobs=jobs)
    reverse = fit_many(MODELS[::-1], SPLITS[::-1], CONFIGS[::-1], jobs=jobs)[::-1]
    for index, (model, data, config) in enumerate(zip(MODELS, SPLITS, CONFIGS, strict=True)):
        assert same(fleet[index], kernel.fit(model, data, config))
        assert same(fleet[index], reverse[index])
        assert close(fleet[index], fit(model, data, config))


@pytest.mark.slow
def test_engines_agree_and_the_loop_is_the_plain_loop():
    kernels, loops = (fit_many(MODELS, SPLITS, CONFIGS, engine=engine) for engine in ("kernel", "loop"))
    assert all(same(one, fit(*member)) for one, *member in zip(loops, MODELS, SPLITS, CONFIGS, strict=True))
    assert all(close(one, other) for one, other in zip(kernels, loops, strict=True))


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_members_beyond_the_kernel_are_trained_by_the_loop(jobs):
    mixed = copy.deepcopy(MODELS[0])
    mixed.recurrent[1] = nn.GRU(16, 4, batch_first=True)
    models = [MODELS[0], mixed]
    fits = fit_many(models, SPLITS[:2], CONFIGS[:2], jobs=jobs)
    assert same(fits[0], kernel.fit(MODELS[0], SPLITS[0], CONFIGS[0]))
    assert same(fits[1], fit(mixed, SPLITS[1], CONFIGS[1]))
    with pytest.raises(ValueError, match="member 1"):
        fit_many(models, SPLITS[:2], CONFIGS[:2], jobs=jobs, engine="kernel")


def test_without_numba_the_loop_does_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    kernel.available.cache_clear()
    try:
        assert same(fit_many(MODELS[:1], SPLITS[:1], CONFIGS[:1])[0], fit(MODELS[0], SPLITS[0], CONFIGS[0]))
    finally:
        kernel.available.cache_clear()


def test_resume_each_member():
    first = fit_many(MODELS, SPLITS, CONFIGS)
    again = fit_many(MODELS, SPLITS, CONFIGS, resume=first, jobs=2)
    for index, result in enumerate(again):
        assert same(result, kernel.fit(MODELS[index], SPLITS[index], CONFIGS[index], resume=first[index]))


def test_a_member_with_nan_fails_alone():
    bad = split()
    bad.train.x[3] = math.nan
    fits = fit_many(MODELS[:3], [SPLITS[0], bad, SPLITS[2]], CONFIGS[:3], jobs=2)
    assert [member.diverged for member in fits] == [False, True, False]
    assert same(fits[2], kernel.fit(MODELS[2], SPLITS[2], CONFIGS[2]))


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("engine", ["auto", "loop"])
def test_each_member_keeps_its_own_zeros(engine, jobs):
    models, config = [MODELS[0]] * 2, TrainConfig(epochs=2)
    masks = [None, {"head.0.weight": torch.zeros_like(MODELS[0].head[0].weight, dtype=torch.bool)}]
    fits = dict(fit_each(models, [split()] * 2, [config] * 2, jobs=jobs, engine=engine, masks=masks))
    assert fits[0].model.head[0].weight.all()
    assert not fits[1].model.head[0].weight.any()
    assert engine == "auto" or same(fits[0], fit(MODELS[0], split(), config))
    with pytest.raises(ValueError, match="some of its weights are to stay zero"):
        list(fit_each(models[1:], [split()], [config], engine="batched", masks=masks[1:]))


def test_lists_must_match():
    with pytest.raises(ValueError, match="7 models, 4 splits, 7 configs"):
        fit_many(MODELS, SPLITS[:4], CONFIGS)
    with pytest.raises(ValueError, match="unknown engine 'gpu'"):
        fit_many(MODELS, SPLITS, CONFIGS, engine="gpu")
    assert fit_many([], [], [], jobs=2) == []


def test_an_interrupt_ends_the_fleet_at_once():
    many = 40
    members = [MODELS[0]] * many, [split(samples=1000)] * many, [TrainConfig(epochs=100_000)] * many
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        fit_many(*members, jobs=2)
    assert time.perf_counter() - started < 5
    assert not any(thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate())


def test_closing_the_stream_drops_the_rest():
    many = 30
    configs = [TrainConfig(epochs=1)] + [TrainConfig(epochs=100_000)] * (many - 1)
    stream = fit_each([MODELS[0]] * many, [split()] * many, configs, jobs=2)
    index, member = next(stream)
    assert index == 0
    assert len(member.curves["train"]) == 1
    stream.close()
    assert not any(thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate())


def expected(model, x):
    with torch.no_grad():
        return copy.deepcopy(model).eval()(x)


def few_at_a_time():
    """Networks for the kernel, one with dropout, one in another type; each with an input of its own."""
    drops = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Dropout(0.9))
    models = [*MODELS, drops, Forecaster(seed=9).double(), Forecaster(recurrent=(200,), seed=9)]
    inputs = [data.train.x[: 7 + 13 * index] for index, data in enumerate(SPLITS)]
    return models, [*inputs, split().train.x, split().train.x.double(), split().train.x[:0]]


@pytest.mark.parametrize("jobs", [1, 2])
def test_predict_many_is_what_each_model_gives(jobs):
    models, inputs = few_at_a_time()
    for found, model, x in zip(predict_many(models, inputs, jobs), models, inputs, strict=True):
        torch.testing.assert_close(found, expected(model, x), rtol=1e-5, atol=2e-6)
        assert not found.requires_grad
        assert model.training
    x = SPLITS[2].train.x
    for found, model in zip(predict_many(FORECASTERS, x, jobs), FORECASTERS, strict=True):
        torch.testing.assert_close(found, expected(model, x), rtol=1e-5, atol=2e-6)


def test_predict_many_of_masked_networks():
    structure = pared.trace(MODELS[0], SPLITS[0].train.x[:1])
    group = structure.groups[0]
    plans = [Plan({group.name: tuple(u for u in range(group.width) if u != unit)}) for unit in range(3)]
    masked = [pared.mask(MODELS[0], structure, plan) for plan in plans]
    assert all(kernel.runs(model) for model in masked)
    for found, model in zip(predict_many(masked, SPLITS[0].train.x), masked, strict=True):
        torch.testing.assert_close(found, expected(model, SPLITS[0].train.x), rtol=1e-5, atol=2e-6)


def test_inference_keeps_the_weights_of_now():
    x = SPLITS[0].train.x
    for model in (copy.deepcopy(MODELS[0]), nn.Sequential(nn.Flatten(), nn.Linear(2, 1))):
        function, before = inference(model, x[:1]), expected(model, x)
        for parameter in model.parameters():
            parameter.data.zero_()
        torch.testing.assert_close(function(x), before, rtol=1e-5, atol=2e-6)


def test_predict_many_wants_an_input_a_model():
    with pytest.raises(ValueError, match="7 models, 2 inputs"):
        predict_many(MODELS, [SPLITS[0].train.x] * 2)
    with pytest.raises(RuntimeError, match="Expected 1, got 7"):
        predict_many(FORECASTERS, torch.zeros(3, 2, 7))
    assert predict_many([], []) == []
