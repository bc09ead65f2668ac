"""Scores to plans, against loops that remove one unit at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import reference
from networks import batch, forecaster, mlp
from pared.selection import Budget, Count, Ratio, Ratios, Threshold, cost_of, select
from pared.surgery import Group, Plan, Slice, Structure, StructureError, by_unit, cut, trace

MANY = settings(max_examples=60, deadline=None)
VALUES = st.integers(-3, 3).map(float) | st.floats(-3, 3)


@st.composite
def scored(draw):
    """A structure without slices and scores for it, ties likely."""
    widths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3))
    structure = Structure(tuple(Group(f"g{k}", width, ()) for k, width in enumerate(widths)))
    values = {g.name: draw(st.lists(VALUES, min_size=g.width, max_size=g.width)) for g in structure}
    return structure, values


def tensors(values):
    return {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()}


def kept(plan):
    return {name: set(units) for name, units in plan.keep.items()}


@given(scored(), st.sampled_from(["group", "global"]), st.floats(0.01, 0.99))
@MANY
def test_ratio_is_the_loop(case, scope, fraction):
    structure, values = case
    pools = [values] if scope == "global" else [{name: v} for name, v in values.items()]
    expected = {}
    for pool in pools:
        total = sum(map(len, pool.values()))
        expected |= reference.lowest(pool, min(round(fraction * total), total - len(pool)))
    if all(len(expected[g.name]) == g.width for g in structure):
        with pytest.raises(ValueError, match="removes nothing"):
            select(tensors(values), structure, fraction, scope)
    else:
        assert kept(select(tensors(values), structure, fraction, scope)) == expected


@given(scored(), st.integers(1, 20))
@MANY
def test_count_over_all_groups_is_the_loop(case, count):
    structure, values = case
    if count > structure.units - len(values):
        with pytest.raises(ValueError, match="must keep at least one"):
            select(tensors(values), structure, Count(count), "global")
    else:
        plan = select(tensors(values), structure, Count(count), "global")
        assert kept(plan) == reference.lowest(values, count)


@given(scored(), VALUES, st.booleans(), st.sampled_from(["group", "global"]))
@MANY
def test_threshold_is_the_loop(case, value, relative, scope):
    structure, values = case
    plan = select(tensors(values), structure, Threshold(value, relative), scope)
    limits = reference.above(values, value, relative)
    close = {
        name: {j for j, v in enumerate(values[name]) if abs(v - value * sum(values[name]) / len(values[name])) < 1e-9}
        for name in values
    }
    for name, units in kept(plan).items():
        assert units ^ limits[name] <= (close[name] if relative else set())


@given(scored(), st.integers(0, 20))
@MANY
def test_budget_stops_at_the_first_plan_that_fits(case, limit):
    structure, values = case

    def cost(plan):
        return float(sum(len(units) for units in plan.keep.values()))

    if limit < len(values):
        with pytest.raises(ValueError, match="above the limit"):
            select(tensors(values), structure, Budget(cost, limit))
    else:
        plan = select(tensors(values), structure, Budget(cost, limit))
        assert kept(plan) == reference.lowest(values, max(0, structure.units - limit))


@given(scored(), st.randoms())
@MANY
def test_plans_follow_a_permutation_of_units(case, random):
    structure, values = case
    values = {name: [v + 0.01 * j + 0.1 * len(name) for j, v in enumerate(v)] for name, v in values.items()}
    if len({v for vs in values.values() for v in vs}) < structure.units or structure.units == len(values):
        return
    orders = {name: random.sample(range(len(v)), len(v)) for name, v in values.items()}
    shuffled = {name: [values[name][j] for j in order] for name, order in orders.items()}
    one = kept(select(tensors(values), structure, Count(1), "global"))
    two = kept(select(tensors(shuffled), structure, Count(1), "global"))
    assert {name: {orders[name][j] for j in units} for name, units in two.items()} == one


def equal_layers(*widths):
    groups = tuple(Group(f"g{k}", width, ()) for k, width in enumerate(widths))
    return Structure(groups, (("g0", "g1"),))


def test_layers_of_one_module_keep_the_widest_ones_number():
    scores = {"g0": torch.tensor([1.0, 2.0, 3.0, 4.0]), "g1": torch.tensor([9.0, 9.5, 0.5, 0.1]), "g2": torch.ones(2)}
    plan = select(scores, equal_layers(4, 4, 2), Count(3), "global")
    assert plan.keep == {"g0": (1, 2, 3), "g1": (0, 1, 2), "g2": (0, 1)}
    half = select(scores, equal_layers(4, 4, 2), 0.5)
    assert half.keep == {"g0": (2, 3), "g1": (0, 1), "g2": (1,)}


def test_a_protected_layer_holds_its_module_at_full_width():
    scores = {"g0": torch.arange(4.0), "g1": torch.arange(4.0), "g2": torch.arange(4.0)}
    structure = equal_layers(4, 4, 4)
    assert select(scores, structure, 0.5, keep=["g0"]).keep == {"g1": (0, 1, 2, 3), "g2": (2, 3)}
    assert select({"g0": scores["g0"], "g2": scores["g2"]}, structure, 0.5).keep["g0"] == (0, 1, 2, 3)
    with pytest.raises(ValueError, match="removes nothing"):
        select(scores, structure, 0.5, keep=["g0", "g2"])


def test_protected_groups_stay_whole_and_out_of_the_pool():
    scores = {"a.l0": torch.arange(4.0), "a.l1": torch.arange(4.0) - 10, "b": torch.arange(4.0)}
    structure = Structure(tuple(Group(name, 4, ()) for name in scores))
    plan = select(scores, structure, 0.5, "global", keep=["a.*"])
    assert plan.keep == {"b": (2, 3)}
    assert structure.removed(plan) == {"b": (0, 1)}


def test_the_plan_carries_its_slices():
    slices = (Slice("w", 0, "in"),)
    plan = select({"a": torch.arange(4.0)}, Structure((Group("a", 4, slices),)), 0.25)
    assert plan.groups == (Group("a", 4, slices),)


STRUCTURE = Structure((Group("a", 3, ()), Group("b", 2, ())))


@pytest.mark.parametrize(
    ("scores", "keep", "words"),
    [
        ({"c": torch.ones(3)}, (), "no group 'c'"),
        ({"a": torch.ones(2)}, (), r"'a' has 3 units, its scores are shaped \(2,\)"),
        ({"a": torch.ones(3, 1)}, (), "shaped"),
        ({"a": torch.tensor([1.0, torch.nan, 2.0])}, (), r"'a' hold NaN \(unit 1\)"),
        ({}, (), "no scores"),
        ({"a": torch.ones(3)}, ["a"], "no scores"),
        ({"a": torch.ones(3)}, ["q*"], r"'q\*' in keep matches no group; the groups are a, b"),
    ],
)
def test_wrong_scores_and_names_are_refused(scores, keep, words):
    with pytest.raises((ValueError, StructureError), match=words):
        select(scores, STRUCTURE, 0.5, keep=keep)


@pytest.mark.parametrize("ratio", [0, 1, 0.0, 1.0, -0.5, 2, float("nan")])
def test_ratios_outside_0_and_1_are_refused(ratio):
    with pytest.raises(ValueError, match="a ratio lies between 0 and 1"):
        select({"a": torch.ones(3)}, STRUCTURE, ratio)
    with pytest.raises(ValueError, match="a ratio lies between 0 and 1"):
        Ratio(ratio)


def test_each_group_may_lose_a_share_of_its_own():
    scores = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.arange(float(STRUCTURE["b"].width))}
    width = STRUCTURE["b"].width
    plan = select(scores, STRUCTURE, Ratios({"a": 0.6, "b": 0.0}), scope="global")
    assert plan.keep == {"a": (0,), "b": tuple(range(width))}
    assert select(scores, STRUCTURE, Ratios({"a": 0.4})).keep["a"] == (0, 2)
    assert len(select(scores, STRUCTURE, Ratios({"a": 0.4, "b": 0.99})).keep["b"]) == 1
    with pytest.raises(ValueError, match="ratios name q; the groups that may be cut are a, b"):
        select(scores, STRUCTURE, Ratios({"q": 0.5}))
    with pytest.raises(ValueError, match="removes nothing"):
        select(scores, STRUCTURE, Ratios({"a": 0.0}))
    with pytest.raises(ValueError, match="between 0 and 1"):
        Ratios({"a": 1.0})


def test_counts_below_one_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Count(0)


def test_infinite_scores_are_kept_or_gone():
    plan = select({"a": torch.tensor([torch.inf, 1.0, -torch.inf])}, STRUCTURE, Count(2))
    assert plan.keep == {"a": (0,)}


@pytest.mark.parametrize("role", [None, "in", "out"])
@pytest.mark.parametrize("build", [mlp, forecaster, lambda: forecaster("gru")])
def test_by_unit_is_the_mean_over_the_units_weights(build, role):
    model = build()
    structure = trace(model, batch(model).x)
    scores = {name: p.detach().abs() for name, p in model.named_parameters()}
    found = by_unit(scores, structure, role)
    expected = reference.by_unit(scores, structure, role)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].tolist() == pytest.approx(values, rel=1e-12)
    some = {name: value for name, value in scores.items() if "weight_hh" in name or "second" in name}
    assert by_unit(some, structure, role).keys() == reference.by_unit(some, structure, role).keys()


def test_scores_to_a_smaller_network():
    model = forecaster()
    data = batch(model)
    structure = trace(model, data.x)
    scores = by_unit({name: p.detach().abs() for name, p in model.named_parameters()}, structure)
    small = cut(model, structure, select(scores, structure, 0.4))
    assert [layer.hidden_size for layer in small.recurrent] == [3, 2]
    assert small(data.x).shape == (6, 1)
    assert isinstance(select(scores, structure, 0.4), Plan)


def wide(width: int = 40) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 30), nn.ReLU(), nn.Linear(30, 1)).eval()


def magnitudes(model: nn.Module) -> tuple[Structure, dict[str, torch.Tensor]]:
    structure = trace(model, torch.zeros(1, 3))
    return structure, by_unit({n: p.detach().abs() for n, p in model.named_parameters()}, structure)


@pytest.mark.parametrize(("measure", "limit"), [("parameters", 700.0), ("macs", 700.0)])
def test_a_budget_of_the_real_cost_removes_as_few_units_as_it_takes(measure, limit):
    model = wide()
    structure, scores = magnitudes(model)
    cost = cost_of(model, structure, torch.zeros(1, 3), measure)
    plan = select(scores, structure, Budget(cost, limit), scope="global")
    assert cost(plan) <= limit
    gone = sum(map(len, structure.removed(plan).values()))
    fewer = select(scores, structure, Count(gone - 1), scope="global")
    assert cost(fewer) > limit
    small = cut(model, structure, plan)
    by_hand = sum(p.numel() for n, p in small.named_parameters() if measure == "parameters" or n.endswith("weight"))
    assert cost(plan) == by_hand


def test_milliseconds_are_measured():
    model = wide(400)
    structure, scores = magnitudes(model)
    cost = cost_of(model, structure, torch.zeros(256, 3), "milliseconds")
    assert 0 < cost(select(scores, structure, 0.9)) < cost(Plan({}))
    with pytest.raises(ValueError, match="unknown measure 'miles'"):
        cost_of(model, structure, torch.zeros(1, 3), "miles")


def test_widths_are_rounded_up_to_multiples():
    structure, scores = magnitudes(wide())
    plan = select(scores, structure, 0.5, multiple=8)
    assert {name: len(units) for name, units in plan.keep.items()} == {"0": 24, "2": 16}
    exact = select(scores, structure, 0.5)
    assert all(set(exact.keep[name]) <= set(plan.keep[name]) for name in plan.keep)
    with pytest.raises(ValueError, match="removes nothing"):
        select(scores, structure, 0.5, multiple=64)


def test_bounds_hold_for_names_and_patterns():
    structure, scores = magnitudes(wide())
    plan = select(scores, structure, 0.9, bounds={"*": (10, 20), "2": (25, 30)})
    assert {name: len(units) for name, units in plan.keep.items()} == {"0": 10, "2": 25}
    plan = select(scores, structure, 0.1, bounds={"0": (1, 20)})
    assert {name: len(units) for name, units in plan.keep.items()} == {"0": 20, "2": 27}
    with pytest.raises(ValueError, match="'nowhere' in bounds matches no group"):
        select(scores, structure, 0.5, bounds={"nowhere": (1, 2)})
    with pytest.raises(ValueError, match="fewest <= most"):
        select(scores, structure, 0.5, bounds={"0": (3, 2)})


class Projecting(nn.Module):
    def __init__(self, cells, units, **options):
        super().__init__()
        self.rnn = nn.LSTM(3, cells, proj_size=units, batch_first=True, **options)
        self.last = nn.Linear(units * (2 if options.get("bidirectional") else 1), 2)

    def forward(self, x):
        return self.last(self.rnn(x)[0])


@pytest.mark.parametrize(
    ("cells", "units", "ratio", "left"),
    [(4, 3, 0.5, (2, 1)), (3, 2, 0.6, (2, 1)), (5, 3, 0.7, (2, 1)), (10, 9, 0.15, (9, 8))],
)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True, "num_layers": 2}])
def test_cells_stay_more_than_what_they_are_projected_to(cells, units, ratio, left, options):
    """PyTorch cannot run an LSTM whose projection is as wide as its cells."""
    torch.manual_seed(0)
    model, x = Projecting(cells, units, **options), torch.randn(2, 5, 3)
    structure = trace(model, x)
    scores = {g.name: torch.rand(g.width) for g in structure}
    plan = select(scores, structure, ratio)
    counts = {name: len(units) for name, units in plan.keep.items()}
    assert {(a.left(counts), b.left(counts)) for a, b in structure.projections()} == {left}
    small = cut(model, structure, plan)
    assert (small.rnn.hidden_size, small.rnn.proj_size) == left
    assert small(x).shape == model(x).shape


@pytest.mark.parametrize("ratio", [0.5, 0.75, 0.9])
def test_cells_stay_more_than_a_projection_that_is_the_output(ratio):
    torch.manual_seed(0)
    model, x = Projecting(4, 2), torch.randn(2, 5, 3)
    model.last = nn.Identity()
    structure = trace(model, x)
    plan = select({g.name: torch.rand(g.width) for g in structure}, structure, ratio)
    assert cut(model, structure, plan).rnn.hidden_size == {0.5: 3, 0.75: 1, 0.9: 1}[ratio]


def test_cells_and_projections_keep_to_multiples_and_bounds():
    model, x = Projecting(32, 16), torch.randn(2, 5, 3)
    structure = trace(model, x)
    scores = {g.name: torch.rand(g.width) for g in structure}

    def left(**options):
        plan = select(scores, structure, **options)
        cut(model, structure, plan)
        return len(plan.keep["rnn.l0.cells"]), len(plan.keep["rnn.l0"])

    assert left(rule=0.75, bounds={"rnn.l0": (8, 8)}, multiple=8) == (16, 8)
    same = {"rnn.l0.cells": (8, 8), "rnn.l0": (8, 16)}
    assert left(rule=0.75, bounds=same) == (8, 9)
