"""Laws 1 and 3 for surgery: nothing passed in changes, and cut == mask, on random networks and plans in float64."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import register_parametrization

from networks import MLP, Spec, batch, forecaster, mlp, plans, snapshot, specs, unchanged
from pared.surgery import Plan, Structure, StructureError, cut, mask, replay, trace
from reference import forecast

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def law_three(spec: Spec, data: st.DataObject) -> None:
    model, x = spec.build(), spec.input()
    try:
        structure = trace(model, x)
    except StructureError:  # everything was added to the input
        assert not spec.recurrent
        assert all(d.residual for d in spec.dense)
        return
    plan = structure.bind(data.draw(plans(structure)))
    before = snapshot(model)
    small, masked = cut(model, structure, plan), mask(model, structure, plan)
    unchanged(before, model)

    torch.testing.assert_close(small(x), masked(x), atol=1e-12, rtol=1e-12)
    assert [p.shape for p in masked.parameters()] == [p.shape for p in model.parameters()]
    removed = structure.removed(plan)
    assert (parameters(small) < parameters(model)) == bool(removed)
    shapes = dict(small.named_parameters())
    for group in structure:
        for s in group.slices:
            if s.role == "in":
                left = group.width - len(removed.get(group.name, ()))
                assert shapes[s.parameter].shape[s.axis] == s.blocks * s.inner * left
    for module in small.modules():
        if isinstance(module, nn.RNNBase):
            assert module.hidden_size == module.weight_hh_l0.shape[1]
            assert module.input_size == module.weight_ih_l0.shape[1]
        if isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == tuple(module.weight.shape)

    fresh = spec.build(seed=spec.seed + 1)
    again = replay(Plan.from_json(plan.to_json()), fresh)
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(x), small(x))


@given(specs(), st.data())
@settings(QUIET, max_examples=30)
def test_cut_equals_mask_and_replay_equals_cut(spec, data):
    law_three(spec, data)


@pytest.mark.slow
@given(specs(), st.data())
@settings(QUIET, max_examples=500)
def test_cut_equals_mask_and_replay_equals_cut_at_length(spec, data):
    law_three(spec, data)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_removed_unit_is_a_unit_clamped_to_zero(cell):
    """Oracle 9: the cut network equals a loop in which the unit's state is 0 for whatever reads it."""
    model = forecaster(cell)
    x = batch(model).x
    structure = trace(model, x)
    gone = {"recurrent.0.l0": (0, 3), "recurrent.1.l0": (2,), "head.0": (1, 2)}
    plan = Plan({name: tuple(set(range(structure[name].width)) - set(units)) for name, units in gone.items()})
    expected, _ = forecast(model, x, gone)
    for edited in (mask(model, structure, plan), cut(model, structure, plan)):
        np.testing.assert_allclose(edited(x).detach().numpy(), expected, atol=1e-14)


def test_cuts_compose():
    model = forecaster()
    x = batch(model).x
    first, second = (Plan({"recurrent.0.l0": units}) for units in ((0, 2, 4), (1, 2)))
    half = cut(model, trace(model, x), first)
    assert torch.equal(
        cut(half, trace(half, x), second)(x), cut(model, trace(model, x), Plan({"recurrent.0.l0": (2, 4)}))(x)
    )


def test_keeping_everything_changes_nothing():
    model = mlp()
    x = batch(model).x
    structure = trace(model, x)
    plan = Plan({group.name: tuple(range(group.width)) for group in structure})
    for edited in (cut(model, structure, plan), mask(model, structure, plan), cut(model, structure, Plan({}))):
        assert edited is not model
        assert torch.equal(edited(x), model(x))


def test_what_is_cut_keeps_mode_frozen_weights_and_type():
    model = forecaster().train()
    model.head.eval()
    model.recurrent[0].weight_hh_l0.requires_grad_(False)
    small = cut(model, trace(model, batch(model).x), Plan({"recurrent.0.l0": (0, 1)}))
    assert {n: m.training for n, m in small.named_modules()} == {n: m.training for n, m in model.named_modules()}
    assert {n: p.requires_grad for n, p in small.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }
    assert all(p.dtype == torch.float64 and p.is_leaf and p.grad is None for p in small.parameters())
    small(batch(model).x).sum().backward()
    assert small.recurrent[0].weight_hh_l0.grad is None
    assert small.recurrent[0].weight_ih_l0.grad.shape == (8, 2)


WRONG = {
    "unknown group": {"recurrent.7.l0": (0,)},
    "beyond the units": {"recurrent.0.l0": (0, 5)},
    "below the units": {"recurrent.0.l0": (-1,)},
    "twice": {"recurrent.0.l0": (1, 1)},
    "empty": {"head.0": ()},
}


@pytest.mark.parametrize(("what", "edit"), list(itertools.product(WRONG, [cut, mask])))
def test_a_wrong_plan_leaves_the_model_alone(what, edit):
    model = forecaster()
    structure = trace(model, batch(model).x)
    before = snapshot(model)
    with pytest.raises(StructureError):
        edit(model, structure, Plan(WRONG[what]))
    unchanged(before, model)


def test_the_layers_of_one_module_cannot_be_cut_unequally():
    model = nn.Sequential(nn.GRU(2, 4, 2))

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.last = model[0], nn.Linear(4, 1)

        def forward(self, x):
            return self.last(self.rnn(x)[0])

    reader = Reader()
    structure = trace(reader, torch.zeros(5, 1, 2))
    before = snapshot(reader)
    uneven = Plan({"rnn.l0": (0, 1), "rnn.l1": (0, 1, 2)})
    with pytest.raises(StructureError, match="one width"):
        cut(reader, structure, uneven)
    with pytest.raises(StructureError, match="one width"):  # as from a plan.json that somebody edited
        replay(Plan(uneven.keep, structure.groups), reader)
    unchanged(before, reader)


@pytest.mark.parametrize(
    "other",
    [MLP(width=6), MLP(width=4), forecaster(), cut(mlp(), trace(mlp(), batch(mlp()).x), Plan({"second": (0,)}))],
)
def test_a_plan_of_another_network_is_refused(other):
    model = mlp()
    plan = trace(model, batch(model).x).bind(Plan({"second": (0, 1)}))
    before = snapshot(other)
    with pytest.raises(StructureError, match="this very network"):
        replay(plan, other)
    unchanged(before, other)


def test_a_plan_without_slices_cannot_be_replayed():
    with pytest.raises(StructureError, match=r"structure\.bind"):
        replay(Plan({"second": (0, 1)}), mlp())


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).real


def test_a_structure_written_by_hand_needs_no_trace():
    model = nn.Sequential(nn.Linear(2, 3), Spectrum(), nn.Linear(3, 1))
    with pytest.raises(StructureError):
        trace(model, torch.zeros(1, 2))
    traced = trace(nn.Sequential(model[0], nn.Tanh(), model[2]), torch.zeros(1, 2))
    small = cut(model, Structure(traced.groups), Plan({"0": (1,)}))
    assert small[0].weight.shape == (1, 2)
    assert torch.equal(small[0].weight[0], model[0].weight[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_computed_weights_are_cut_in_every_precision(dtype):
    """The inverse of weight_norm gives a weight back to rounding, which in half precision is coarse."""
    torch.manual_seed(0)
    layers = nn.Linear(3, 40), nn.Tanh(), weight_norm(nn.Linear(40, 30)), nn.Tanh(), weight_norm(nn.Linear(30, 2))
    model, x = nn.Sequential(*layers).to(dtype), torch.randn(5, 3).to(dtype)
    structure, plan = trace(model, x), Plan({"0": tuple(range(0, 40, 3)), "2": tuple(range(0, 30, 2))})
    small, masked = cut(model, structure, plan), mask(model, structure, plan)
    assert small[2].weight.shape == (15, 14)
    assert {p.dtype for p in small.parameters()} == {dtype}
    rounding = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(small(x), masked(x), rtol=rounding, atol=rounding)


class Shaken(nn.Module):
    """Gives back what it was given, but for two parts in a hundred thousand."""

    def forward(self, weight):
        return weight * (1 + 2e-5)

    def right_inverse(self, weight):
        return weight


def test_how_alike_a_computed_weight_must_be_follows_its_precision():
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        model, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype), torch.zeros(1, 3, dtype=dtype)
        register_parametrization(model[2], "weight", Shaken())
        structure, plan = trace(model, x), Plan({"0": (0, 2, 3)})
        if dtype == torch.bfloat16:
            assert cut(model, structure, plan)[2].weight.shape == (2, 3)
            continue
        with pytest.raises(StructureError, match="cannot hold the cut weight"):
            cut(model, structure, plan)
