"""Repair at the output, against ordinary least squares where the output is linear in what is refitted."""

import numpy as np
import pytest
import torch
from torch import nn

from networks import batch, forecaster, snapshot, unchanged
from pared import Plan, StructureError, compensate, cut, match_outputs, select, trace


def dense():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 2)).double()


def test_linear_readers_are_those_of_ordinary_least_squares():
    model, x = dense(), torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    structure = trace(model, x[:1])
    plan = structure.bind(Plan({"0": (0, 2, 3, 6)}))
    small = cut(model, structure, plan)
    matched = match_outputs(small, model, plan, x, ridge=1e-9)
    with torch.no_grad():
        design = np.column_stack([small[:2](x).numpy(), np.ones(50)])
        expected = np.linalg.lstsq(design, model(x).numpy(), rcond=None)[0]
    np.testing.assert_allclose(matched[2].weight.detach().numpy(), expected[:-1].T, atol=1e-6)
    np.testing.assert_allclose(matched[2].bias.detach().numpy(), expected[-1], atol=1e-6)
    assert torch.equal(matched[0].weight, small[0].weight)


@pytest.mark.parametrize("cell", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_forecasters_come_nearer_than_by_repair_alone(cell):
    model = forecaster(cell)
    x, structure = batch(model, samples=80).x, trace(model, batch(model).x)
    plan = select({"recurrent.0.l0": torch.arange(5.0)}, structure, 0.4)
    small = cut(compensate(model, structure, plan, x), structure, plan)
    before, start, state = snapshot(model), snapshot(small), torch.get_rng_state().clone()
    matched = match_outputs(small, model, plan, x)
    unchanged(before, model)
    unchanged(start, small)
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        repaired, now = ((network(x) - model(x)).square().mean() for network in (small, matched))
    assert now < repaired / 2
    changed = {
        name for name, weight in small.named_parameters() if not torch.equal(weight, matched.get_parameter(name))
    }
    reads, recurrent = {"weight_ih_l0", "bias_ih_l0", "bias_hh_l0"}, {"weight_hh_l0", "bias_ih_l0", "bias_hh_l0"}
    assert {f"recurrent.0.{name}" for name in recurrent} | {f"recurrent.1.{name}" for name in reads} >= changed
    assert {"recurrent.0.weight_hh_l0", "recurrent.1.weight_ih_l0"} <= changed


def test_outputs_that_match_already_stay():
    model = dense()
    with torch.no_grad():
        model[2].weight[:, 5:] = 0.0
    x, structure = torch.randn(20, 3, dtype=torch.float64), trace(model, torch.zeros(1, 3, dtype=torch.float64))
    plan = structure.bind(Plan({"0": (0, 1, 2, 3, 4)}))
    small = cut(model, structure, plan)
    assert all(map(torch.equal, match_outputs(small, model, plan, (x, x)).parameters(), small.parameters()))


def test_dead_units_do_not_stop_it():
    model, x = dense(), torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model[0].weight[0], model[0].bias[0] = 0.0, 0.0
    structure = trace(model, x[:1])
    plan = structure.bind(Plan({"0": (0, 2, 3, 6)}))
    small = cut(model, structure, plan)
    matched = match_outputs(small, model, plan, x, ridge=0.0)
    with torch.no_grad():
        before, now = ((network(x) - model(x)).square().mean() for network in (small, matched))
    assert now < before / 2


def test_plans_that_say_nothing_are_refused():
    model = dense()
    with pytest.raises(StructureError, match="carries its slices"):
        match_outputs(model, model, Plan({"0": (0, 1)}), torch.randn(4, 3))
