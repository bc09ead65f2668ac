"""Networks that find their size: fans by loops over rows, shrinkage by a minimiser, units that come and go."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.utils import parameters_to_vector

from growing import KINDS, alike, built, drawn, layered, problem, sine
from networks import forecaster, snapshot, unchanged
from pared import TrainConfig
from pared.data import classic
from pared.growth import Nonparametric, fan_penalty, fit_nonparametric, newest, places_of, values_at, with_values
from pared.growth.adarad import AdaRad, adarad, rearranged
from pared.growth.fans import Fans, fans, shrink
from pared.growth.nonparametric import with_zero_units
from pared.models import CapNorm
from pared.schedules import Plateau
from pared.surgery import Plan, StructureError, cut, trace
from pared.surgery.origins import cut_structure, grown_structure
from pared.types import Batch

CLOSE = {"atol": 1e-12, "rtol": 1e-12}


def flat(model):
    return parameters_to_vector(model.parameters()).detach()


def vectors(model, side):
    """The fans of an MLP 3-4-5-2 one by one: of two groups, then of outputs or inputs."""
    first, second, last = model[0], model[2], model[4]
    if side == "in":
        rows = [torch.cat([layer.weight, layer.bias[:, None]], 1) for layer in (first, second)]
        return [*rows[0], *rows[1], *last.weight]
    return [*second.weight.T, *last.weight.T, *first.weight.T]


@pytest.mark.parametrize("side", ["in", "out"])
def test_fans_are_the_rows_and_columns_of_weights(side):
    model = layered()
    structure = trace(model, sine().x)
    found, rows = fans(model, structure, side), vectors(model, side)
    assert found.count == len(rows)
    assert {name: len(own) for name, own in found.units.items()} == {"0": 4, "2": 5}
    for p in (1.0, 2.0, 3.0):
        expected = torch.stack([row.abs().pow(p).sum() ** (1 / p) for row in rows])
        torch.testing.assert_close(found.norms(flat(model), p), expected.detach(), **CLOSE)
        penalty = fan_penalty(model, structure, side, p)
        torch.testing.assert_close(penalty, expected.sum(), **CLOSE)
        mine = torch.autograd.grad(penalty, model[2].weight)[0]
        torch.testing.assert_close(mine, torch.autograd.grad(expected.sum(), model[2].weight)[0], **CLOSE)
    biases = {"in": model[4].bias.numel(), "out": sum(model[k].bias.numel() for k in (0, 2, 4))}
    assert int((~found.inside).sum()) == biases[side]


def test_the_fan_in_of_a_recurrent_unit_is_its_rows_in_all_gates():
    lstm = forecaster("lstm", recurrent=(3,), dense=()).double()
    structure = trace(lstm, drawn(2, 4, 1 if lstm.recurrent[0].input_size == 1 else 2))
    (group,) = structure
    layer, found = lstm.recurrent[0], fans(lstm, structure, "in")
    rows = [k * 3 + 1 for k in range(4)]
    parts = layer.weight_ih_l0[rows], layer.weight_hh_l0[rows], layer.bias_ih_l0[rows], layer.bias_hh_l0[rows]
    expected = torch.cat([part.flatten() for part in parts]).norm()
    torch.testing.assert_close(found.norms(flat(lstm))[found.units[group.name][1]], expected.detach(), **CLOSE)
    reads = torch.cat([layer.weight_hh_l0[:, 1], *(p[:, 1] for n, p in lstm.named_parameters() if p.shape == (1, 3))])
    outs = fans(lstm, structure, "out")
    torch.testing.assert_close(outs.norms(flat(lstm))[outs.units[group.name][1]], reads.norm().detach(), **CLOSE)


def test_frozen_weights_belong_to_no_fan():
    model = layered()
    model[0].requires_grad_(False)
    found = fans(model, trace(model, sine().x), "in")
    assert not found.inside[: 4 * 3 + 4].any()
    assert found.inside.any()


def two_fans(w):
    """The same weights twice over, and one weight of no fan."""
    owner = torch.tensor([0] * len(w) + [1] * len(w) + [2])
    return torch.tensor([*w, *w, 7.0], dtype=torch.float64), Fans(owner, {"a": range(2)}, 2)


@settings(deadline=None, max_examples=12)
@given(st.sampled_from([1.0, 1.5, 2.0, 3.0]), st.lists(st.floats(-2, 2), min_size=2, max_size=4), st.floats(0.05, 2))
def test_shrinking_is_the_proximal_step(p, w, step):
    weights, of = two_fans(w)
    shrunk = shrink(weights, of, step, p)
    assert shrunk[-1] == 7
    one, two = shrunk[:-1].chunk(2)
    assert torch.equal(one, two)

    def objective(v):
        return ((v - np.array(w)) ** 2).sum() / 2 + step * (np.abs(v) ** p).sum() ** (1 / p)

    starts = (np.array(w), np.array(w) / 2)
    best = min(
        minimize(objective, s, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13}).fun for s in starts
    )
    assert objective(one.numpy()) <= best + 1e-7
    q = math.inf if p == 1 else p / (p - 1)
    size = np.linalg.norm(w, q)
    if abs(size - step) > 1e-6:
        assert bool(one.any()) == (size > step)


def naive_adarad(w, g, memory, radial, angular):
    """One fan, with a rotation in the plane of the weights and the step, as the paper has it."""
    mean, seen, top_mean, top_seen = memory
    r = (g @ w) / (w @ w) * w
    phi = g - r
    mean, seen = 0.9 * mean + 0.1 * (phi @ phi), 0.9 * seen + 0.1
    top_mean, top_seen = max(top_mean, mean), max(top_seen, seen)
    adjusted = phi * np.sqrt(top_mean / top_seen) / np.sqrt(mean / seen + 1e-8)
    w = w - radial * r
    size, way, angle = np.linalg.norm(w), -adjusted / np.linalg.norm(adjusted), angular * np.linalg.norm(adjusted)
    return size * (np.cos(angle) * w / size + np.sin(angle) * way), (mean, seen, top_mean, top_seen)


def test_adarad_is_the_rotation_of_the_paper():
    of = Fans(torch.tensor([0, 0, 0, 1]), {"a": range(1)}, 1)
    w, state, memory = drawn(4), AdaRad.fresh(Fans(of.owner, of.units, 1), torch.float64), (0.0, 0.0, 0.0, 0.0)
    for step in range(5):
        g = drawn(4, seed=step + 1)
        expected, memory = naive_adarad(w[:3].numpy(), g[:3].numpy(), memory, 0.1, 0.02)
        new, state = adarad(state, w, g, of, 0.1, 0.02)
        torch.testing.assert_close(new[:3], torch.tensor(expected), **CLOSE)
        assert new[3] == w[3]
        w = new


def test_directions_learn_alike_and_zeros_stay():
    of = Fans(torch.tensor([0, 0, 1, 1, 2, 2]), {"a": range(3)}, 3)
    w = torch.tensor([1.0, 0, 1, 0, 0, 0])
    g = torch.tensor([0.0, 1, 0, 100, 0, 1])
    state = AdaRad.fresh(of)
    for _ in range(50):
        new, state = adarad(state, w, g, of, 0.1, 1e-3)
    angles = torch.atan2(new[1::2], new[0::2])
    torch.testing.assert_close(angles[0], angles[1], rtol=1e-4, atol=0)
    assert not new[4:].any()


def test_the_state_goes_with_the_units():
    of = Fans(torch.zeros(1, dtype=torch.long), {"a": range(3), "b": range(3, 5)}, 6)
    state = AdaRad(torch.arange(1.0, 7), torch.arange(11.0, 17), 9.0, 19.0)
    after = rearranged(state, of, {"a": (0, 2)}, {"b": 2})
    assert after.means.tolist() == [1, 3, 4, 5, 0, 0, 6]
    assert after.weights.tolist() == [11, 13, 14, 15, 0, 0, 16]
    assert (after.top_mean, after.top_weight) == (9, 19)


@pytest.mark.parametrize("side", ["in", "out"])
@pytest.mark.parametrize("name", ["relu", "tanh", *KINDS])
def test_zero_units_change_nothing_and_learn(name, side):
    model, structure, batch, counts = problem(name)
    before = snapshot(model)
    new = with_zero_units(model, structure, counts, side, 3)
    unchanged(before, model)
    torch.testing.assert_close(new(batch.x), model(batch.x), **CLOSE)
    found = fans(new, grown_structure(structure, counts), side)
    fresh = {group: [found.units[group][unit] for unit in range(-count, 0)] for group, count in counts.items()}
    assert all((found.norms(flat(new))[own] > 0.2).all() for own in fresh.values())
    mse_loss(new(batch.x), batch.y).backward()
    gradient = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in new.parameters()])
    other = fans(new, grown_structure(structure, counts), "out" if side == "in" else "in")
    if name != "relu" or side == "in":  # a ReLU of many inputs may be silent on a batch
        slopes = other.norms(gradient)
        assert all(
            slopes[[other.units[group][unit] for unit in range(-count, 0)]].any() for group, count in counts.items()
        )


def test_new_fans_have_the_expected_length_1():
    model, batch = layered(), sine()
    structure = trace(model, batch.x)
    counts = {"0": 400, "2": 400}
    for side in ("in", "out"):
        new = with_zero_units(model, structure, counts, side)
        found = fans(new, grown_structure(structure, counts), side)
        sizes = found.norms(flat(new))
        for name in counts:
            assert sizes[list(found.units[name])][-400:].square().mean().sqrt() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", ["relu", "tanh", *KINDS])
@pytest.mark.parametrize("side", ["in", "out"])
def test_units_whose_fan_is_zero_can_go_without_a_change(name, side):
    model, structure, batch, counts = problem(name)
    group = structure[next(iter(counts))]
    together = alike(structure, group.name)
    changes = []
    for other in together:
        places = places_of(model, structure[other], (1,), side)
        changes.append((places, torch.zeros_like(values_at(model, places))))
    silent = with_values(model, changes)
    found = fans(silent, structure, side)
    assert (found.norms(flat(silent))[found.units[group.name][1]] == 0).item()
    plan = Plan({other: tuple(j for j in range(structure[other].width) if j != 1) for other in together})
    small = cut(silent, structure, plan)
    torch.testing.assert_close(small(batch.x), silent(batch.x), **CLOSE)
    left = cut_structure(structure, plan)
    assert [(g.name, g.width, g.slices) for g in left] == [(g.name, g.width, g.slices) for g in trace(small, batch.x)]


@dataclass
class Data:
    train: Batch
    validation: Batch


def data():
    batch = sine(60)
    return Data(Batch(*(part[:50] for part in batch)), Batch(*(part[50:] for part in batch)))


CONFIG = TrainConfig(epochs=8, lr=1e-2, batch_size=25, seed=1)


def test_units_that_are_not_useless_yet_neither_leave_nor_are_too_many():
    model, split = layered(), data()
    before, random = snapshot(model), torch.random.get_rng_state()
    found = fit_nonparametric(model, split, CONFIG, Nonparametric(1e-3, units=2, until=0.5))
    unchanged(before, model)
    assert torch.equal(random, torch.random.get_rng_state())
    assert [w["0"] for w in found.widths] == [4, 6, 8, 10, 10, 10, 10, 10]
    assert {g.name: g.width for g in trace(found.model, split.train.x)} == {"0": 10, "2": 11}
    assert {g.name: g.width for g in found.structure} == found.widths[-1]
    assert len(found.curves["validation"]) == 8
    again = fit_nonparametric(model, split, CONFIG, Nonparametric(1e-3, units=2, until=0.5))
    assert torch.equal(flat(again.model), flat(found.model))


@pytest.mark.parametrize("side", ["in", "out"])
def test_under_a_penalty_that_nothing_pays_for_one_unit_stays(side):
    found = fit_nonparametric(layered(), data(), CONFIG, Nonparametric(100.0, side, units=1, until=0.3, horizon=2))
    assert found.widths[-1] == {"0": 1, "2": 1}
    assert found.widths[0]["0"] > 1


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrent_units_come_and_go(cell):
    x = drawn(40, 4, 2)
    split = Data(Batch(x, x[:, -1, :1].sin()), Batch(x[:0], x[:0, 0, :1]))
    model = forecaster(cell, recurrent=(3, 2)).double()
    config = TrainConfig(epochs=10, batch_size=20)
    found = fit_nonparametric(model, split, config, Nonparametric(0.1, until=0.5, horizon=6))
    assert found.widths[3]["recurrent.0.l0"] == 6
    assert found.widths[-1]["recurrent.0.l0"] < 6
    assert found.widths[-1]["recurrent.1.l0"] >= 1
    assert torch.isfinite(found.model(x)).all()


def test_what_cannot_find_its_size_is_refused_before_training():
    split = data()
    with pytest.raises(StructureError, match="heard although they have no inputs"):
        fit_nonparametric(layered(nn.Sigmoid), split, CONFIG)
    normed = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double()
    with pytest.raises(StructureError, match="CapNorm"):
        fit_nonparametric(normed, split, CONFIG)
    mixed = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)).double()
    with pytest.raises(StructureError, match="no group of units can come and go"):
        fit_nonparametric(mixed, split, CONFIG)
    weighted, x = built("parametrised")
    with pytest.raises(StructureError, match="parametrisation"):
        fans(weighted, trace(weighted, x))
    with pytest.raises(ValueError, match="leave patience"):
        fit_nonparametric(layered(), split, TrainConfig(patience=3))
    with pytest.raises(ValueError, match="leave patience, plateau"):
        fit_nonparametric(layered(), split, replace(CONFIG, plateau=Plateau(0.5)))
    frozen = layered()
    frozen[4].requires_grad_(False)
    with pytest.raises(ValueError, match=r"frozen, got 4\.weight, 4\.bias"):
        fit_nonparametric(frozen, split, CONFIG)
    with pytest.raises(ValueError, match="at least 1 and finite"):
        Nonparametric(p=0.5)
    with pytest.raises(ValueError, match="must be positive"):
        Nonparametric(penalty=0)
    with pytest.raises(ValueError, match="a role is"):
        Nonparametric(side="both")


def test_clipping_bounds_what_a_step_takes():
    how, config = (
        Nonparametric(1e-3, units=0),
        replace(CONFIG, epochs=1, optimiser="sgd", batch_size=len(data().train.x)),
    )
    free, wide, narrow = (
        fit_nonparametric(layered(), data(), replace(config, clip=clip), how).model for clip in (None, 1e9, 1e-9)
    )
    assert torch.equal(flat(free), flat(wide))
    torch.testing.assert_close(narrow[4].bias, layered()[4].bias, atol=1e-9, rtol=0)
    assert not torch.allclose(free[4].bias, narrow[4].bias)


def test_capnorm_makes_loud_units_quieter_and_leaves_quiet_ones():
    x = drawn(50, 3) * torch.tensor([0.1, 1.0, 30.0]) + 5
    norm = CapNorm(3).double()
    mean, spread = x.mean(0), x.std(0, correction=0)
    torch.testing.assert_close(norm(x), (x - mean) / spread.clamp_min(1), **CLOSE)
    for _ in range(300):
        norm(x)
    torch.testing.assert_close(norm.eval()(x), (x - mean) / spread.clamp_min(1), rtol=1e-9, atol=1e-9)
    image = drawn(4, 3, 5, 5) * 3
    rows = image.movedim(1, -1).flatten(0, -2)
    expected = CapNorm(3).double()(rows).view(4, 5, 5, 3).movedim(-1, 1)
    torch.testing.assert_close(CapNorm(3).double()(image), expected, **CLOSE)
    with pytest.raises(ValueError, match=r"\(samples, 3, ...\)"):
        CapNorm(3)(torch.zeros(5, 2))


def test_networks_with_capnorm_are_cut_and_grow_exactly():
    model = nn.Sequential(nn.Linear(3, 4, bias=False), CapNorm(4), nn.ReLU(), nn.Linear(4, 2)).double()
    split = data()
    found = fit_nonparametric(model, split, replace(CONFIG, epochs=4), Nonparametric(1e-3, units=3, until=0.5))
    assert found.structure["0"].width == 7
    assert found.model[1].num_features == 7
    silent = found.model.train()
    silent[0].weight.data[2] = 0
    x = split.train.x
    small = cut(silent, found.structure, Plan({"0": (0, 1, 3, 4, 5, 6)}))
    torch.testing.assert_close(small(x), silent(x), **CLOSE)
    new = newest(grown_structure(found.structure, {"0": 1}), {"0": 1})
    assert new == {"0": (7,)}


@pytest.mark.slow
def test_digits_are_learnt_by_as_few_units_as_they_need():
    table = classic("digits")
    x, y = torch.tensor(table.inputs / 16, dtype=torch.float32), torch.tensor(table.target, dtype=torch.int64)
    layers = [nn.Linear(64, 10, bias=False), CapNorm(10), nn.ReLU(), nn.Linear(10, 10)]
    split = Data(Batch(x[:1200], y[:1200]), Batch(x[:0], y[:0]))
    config = TrainConfig(epochs=120, lr=1e-2)
    found = fit_nonparametric(nn.Sequential(*layers), split, config, Nonparametric(3e-4), nn.functional.cross_entropy)
    right = found.model.eval()(x[1200:]).argmax(1) == y[1200:]
    assert right.double().mean() > 0.92
    assert 20 < found.structure["0"].width < max(widths["0"] for widths in found.widths)
