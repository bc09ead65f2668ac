"""Least-squares repair against `np.linalg.lstsq` on states collected by a loop."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import reference
from networks import batch, forecaster, mlp, plans, snapshot, specs, unchanged
from pared.compensate import compensate
from pared.surgery import Plan, StructureError, cut, trace


def weights(model):
    return {name: p.detach().numpy() for name, p in model.named_parameters()}


@pytest.mark.parametrize("ridge", [1e-6, 1e-2])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_repair_is_the_least_squares_fit(cell, ridge):
    model = forecaster(cell)
    data = batch(model, samples=30)
    kept = {"recurrent.0.l0": [0, 2, 4], "recurrent.1.l0": [1, 2], "head.0": [0, 3]}
    lost = {"recurrent.0.l0": [1, 3], "recurrent.1.l0": [0], "head.0": [1, 2]}
    plan = Plan({name: tuple(units) for name, units in kept.items()})
    new, old = weights(compensate(model, trace(model, data.x), plan, data.x, ridge)), weights(model)

    _, (first, second) = reference.forecast(model, data.x)
    last = second[:, -1]
    hidden = last @ old["head.0.weight"].T + old["head.0.bias"]
    readers = [
        ("recurrent.0.l0", "recurrent.0.weight_hh_l0", "recurrent.0.bias_hh_l0", first[:, :-1].reshape(-1, 5), False),
        ("recurrent.0.l0", "recurrent.1.weight_ih_l0", "recurrent.1.bias_ih_l0", first.reshape(-1, 5), True),
        ("recurrent.1.l0", "recurrent.1.weight_hh_l0", "recurrent.1.bias_hh_l0", second[:, :-1].reshape(-1, 3), False),
        ("recurrent.1.l0", "head.0.weight", "head.0.bias", last, True),
        ("head.0", "head.1.weight", "head.1.bias", hidden, True),
    ]
    expected = dict(old)
    for group, weight, bias, values, intercept in readers:
        expected[weight], expected[bias] = reference.repaired(
            old[weight], old[bias], values, kept[group], lost[group], ridge, intercept
        )
    assert new.keys() == expected.keys()
    for name in new:
        np.testing.assert_allclose(new[name], expected[name], rtol=1e-6, atol=1e-8, err_msg=name)


@given(specs(), st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_repair_changes_only_what_reads_removed_units(spec, data):
    model, x = spec.build(), spec.input()
    try:
        structure = trace(model, x)
    except StructureError:
        return
    plan = data.draw(plans(structure))
    before, state = snapshot(model), torch.get_rng_state()
    repaired = compensate(model, structure, plan, x)
    unchanged(before, model)
    assert torch.equal(torch.get_rng_state(), state)
    assert cut(repaired, structure, plan)(x).isfinite().all()
    readers = {s.parameter for name in structure.removed(plan) for s in structure[name].slices if s.role == "out"}
    may = readers | {name.replace("weight", "bias") for name in readers if "weight_hh" not in name}
    for name, parameter in repaired.named_parameters():
        assert name in may or torch.equal(parameter, model.get_parameter(name)), name
        assert parameter.requires_grad


def twins(model, structure):
    """Makes unit 1 of the first group a copy of unit 0, in everything that makes it."""
    group = structure.groups[0]
    with torch.no_grad():
        for s in group.slices:
            if s.role == "in":
                rows = model.get_parameter(s.parameter).movedim(s.axis, 0)
                rows[s.indices(group.width, [1])] = rows[s.indices(group.width, [0])]
    return group


@pytest.mark.parametrize("build", [mlp, forecaster, lambda: forecaster("gru"), lambda: forecaster("rnn")])
def test_a_unit_that_repeats_another_goes_without_loss(build):
    model = build()
    data = batch(model, samples=40)
    structure = trace(model, data.x)
    group = twins(model, structure)
    plan = Plan({group.name: (0, *range(2, group.width))})
    small = cut(compensate(model, structure, plan, data.x, ridge=1e-13), structure, plan)
    torch.testing.assert_close(small(data.x), model(data.x), atol=1e-8, rtol=1e-8)
    plain = cut(model, structure, plan)
    assert (plain(data.x) - model(data.x)).abs().max() > 1e-3


@pytest.mark.parametrize("bias", [True, False])
def test_a_constant_unit_is_taken_over_by_the_bias(bias):
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1, bias=bias)).double()
    with torch.no_grad():
        model[0].weight[1] = 0.0
        model[0].bias[1] = 1.0
    x = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    structure, plan = trace(model, x), Plan({"0": (0, 2)})
    small = cut(compensate(model, structure, plan, x), structure, plan)
    error = (small(x) - model(x)).abs().max()
    assert error < 1e-10 if bias else error > 1e-3


def test_repair_lowers_the_error_of_the_cut():
    model = forecaster(recurrent=(12, 6))
    data = batch(model, samples=200)
    structure = trace(model, data.x)
    plan = Plan({"recurrent.0.l0": tuple(range(6)), "recurrent.1.l0": (0, 1, 2)})
    whole = model(data.x)
    plain, repaired = (
        (cut(m, structure, plan)(data.x) - whole).square().mean()
        for m in (model, compensate(model, structure, plan, data.x))
    )
    assert repaired < plain / 4


@pytest.mark.parametrize("x", [torch.zeros(6, 4, 2), torch.ones(1, 4, 2), torch.ones(6, 1, 2)])
def test_few_or_dead_samples_still_give_finite_weights(x):
    model = forecaster().float()
    with torch.no_grad():
        for parameter in model.parameters():
            if x.abs().sum() == 0:
                parameter.zero_()
    plan = Plan({"recurrent.0.l0": (0, 3), "head.0": (1,)})
    repaired = compensate(model, trace(model, x), plan, x)
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in repaired.parameters())


@pytest.mark.parametrize("keep", [{"head.0": ()}, {"head.0": (9,)}, {"nowhere": (0,)}])
def test_wrong_plans_are_refused(keep):
    model = forecaster()
    data = batch(model)
    before = snapshot(model)
    with pytest.raises(StructureError):
        compensate(model, trace(model, data.x), Plan(keep), data.x)
    unchanged(before, model)
