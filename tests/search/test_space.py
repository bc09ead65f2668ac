"""Spaces: what contradicts itself is refused, points are checked, grids hold every point once, JSON brings it back."""

import json
import warnings
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pared.search.samplers import Proposals
from pared.search.space import (
    Categorical,
    Conditional,
    Float,
    Int,
    PowerOfTwo,
    Space,
    domain,
    grid,
    grid_size,
    key,
    space_from_dict,
)
from pared.types import DataError

MANY = settings(max_examples=60, deadline=None)
FLAWS = {
    "empty": ({}, "the space is empty"),
    "range": ({"a": Float(2, 1)}, "'a': its range is empty: low 2 is above high 1"),
    "log": ({"a": Float(0.0, 1.0, log=True)}, "'a': a log scale needs positive bounds, got low 0.0"),
    "infinite": ({"a": Float(0.0, float("inf"))}, "'a': its bounds must be finite"),
    "text": ({"a": Float("x", 1.0)}, "'a': its bounds must be finite numbers, got 'x'"),
    "step": ({"a": Float(0.0, 1.0, step=0.0)}, "'a': its step must be a positive number"),
    "step and log": ({"a": Float(1.0, 2.0, True, 0.5)}, "got 0.5 with log"),
    "whole": ({"a": Int(1, 2.5)}, "'a': its bounds must be whole numbers, got 1 and 2.5"),
    "power": ({"a": PowerOfTwo(3, 8)}, "'a': its bounds must be powers of two, got 3 and 8"),
    "no choice": ({"a": Categorical(())}, "'a': it has no choices"),
    "twice": ({"a": Categorical((1, True))}, "'a': its choice True stands there twice"),
    "odd choice": ({"a": Categorical(((1, 2),))}, "'a': its choices must be text, numbers"),
    "no name": ({"": Int(0, 1)}, "it has no name"),
    "no domain": ({"a": (0, 1)}, "'a': it must be one of Float, Int"),
    "no parent": ({"a": Conditional(Int(0, 1), "b", (1,))}, "it depends on 'b', which must stand before it"),
    "late parent": ({"a": Conditional(Int(0, 1), "b", (1,)), "b": Int(0, 1)}, "must stand before it"),
    "float parent": ({"b": Float(0, 1), "a": Conditional(Int(0, 1), "b", (1,))}, "whose values cannot be listed"),
    "never": ({"b": Int(0, 1), "a": Conditional(Int(0, 1), "b", (2,))}, "on 'b' being 2, which lies outside of 0 to 1"),
    "no value": ({"b": Int(0, 1), "a": Conditional(Int(0, 1), "b", ())}, "it is never there"),
}
TREE = {
    "kind": Categorical(("mlp", "lstm")),
    "layers": Conditional(Int(1, 2), "kind", ("mlp",)),
    "second": Conditional(PowerOfTwo(4, 16), "layers", (2,)),
    "lr": Float(1e-4, 1e-2, log=True),
}


@pytest.mark.parametrize("name", FLAWS)
def test_a_contradiction_is_refused(name):
    parameters, words = FLAWS[name]
    with pytest.raises(DataError) as told:
        Space(parameters)
    assert words in str(told.value)


def test_a_point_of_the_grid_is_one_of_the_space_and_none_is_there_twice():
    space = Space(TREE)
    points = grid(space, levels=3)
    for point in points:
        space.check(point)
    assert len({key(point) for point in points}) == len(points)
    assert len(points) == grid_size(space) == (1 + 1 + 3) * 3  # lstm; mlp of one layer; mlp of two, three widths
    assert sorted({point["lr"] for point in points}) == pytest.approx([1e-4, 1e-3, 1e-2])


@st.composite
def spaces(draw):
    """Parameters of few values; later ones may depend on earlier ones."""
    parameters = {}
    for place in range(draw(st.integers(1, 4))):
        low = draw(st.integers(-2, 2))
        own = draw(
            st.sampled_from(
                [
                    Int(low, low + 2),
                    Categorical(("x", 1, None)[: 1 + place % 3]),
                    PowerOfTwo(1, 4),
                    Float(0, 1, step=0.5),
                ]
            )
        )
        parents = [name for name, each in parameters.items() if not isinstance(domain(each), Float)]
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            values = domain(parameters[parent]).values(9)
            own = Conditional(own, parent, tuple(draw(st.lists(st.sampled_from(values), min_size=1, unique=True))))
        parameters[f"p{place}"] = own
    return Space(parameters)


def points_by_loops(space, levels):
    """The naive twin: all combinations of all parameters, what is not there dropped, copies dropped."""
    found = {}
    names = list(space.parameters)
    for values in product(*(domain(space.parameters[name]).values(levels) for name in names)):
        point = {}
        for name, value in zip(names, values, strict=True):
            if space.active(name, point):
                point[name] = value
        found[key(point)] = point
    return list(found.values())


@given(spaces(), st.integers(2, 4))
@MANY
def test_the_grid_is_the_loop(space, levels):
    points = grid(space, levels)
    assert sorted(map(key, points)) == sorted(map(key, points_by_loops(space, levels)))
    assert len(points) == grid_size(space, levels)


@given(spaces())
@MANY
def test_a_space_comes_back_from_json(space):
    assert space_from_dict(json.loads(json.dumps(space.as_dict()))) == space


@pytest.mark.parametrize(
    ("point", "words"),
    [
        ({"kind": "lstm", "lr": 1e-3, "layers": 1}, "'layers' is there only where 'kind' is 'mlp'"),
        ({"kind": "mlp", "lr": 1e-3}, "lacks 'layers'"),
        ({"kind": "lstm", "lr": 1.0}, "lr = 1.0 lies outside of 0.0001 to 0.01"),
        ({"kind": "lstm", "lr": 1e-3, "depth": 1}, "unknown parameter 'depth'"),
        ({"kind": "mlp", "layers": 2, "second": 6, "lr": 1e-3}, "second = 6 lies outside"),
        ({"kind": "mlp", "layers": True, "lr": 1e-3}, "layers = True lies outside"),
    ],
)
def test_what_is_no_point_is_told(point, words):
    with pytest.raises(DataError, match=words):
        Space(TREE).check(point)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "a space is an object"),
        ({"a": {"low": 1}}, "'a': it must say its kind"),
        ({"a": {"kind": "int", "low": 1, "top": 2}}, "int cannot be made of"),
        ({"a": {"kind": "int", "low": 1, "high": 2, "when": ["b"]}}, "'when' must name one parameter"),
    ],
)
def test_json_that_is_no_space_is_told(content, words):
    with pytest.raises(DataError, match=words):
        space_from_dict(content)


def test_a_large_grid_is_counted_without_listing():
    parameters = {f"p{place}": Float(0.0, 1.0) for place in range(40)}
    assert grid_size(Space(parameters)) == 3**40


def test_a_step_never_leads_beyond_the_range_and_optuna_does_not_warn():
    steps = Float(0.0, 0.3, step=0.1)  # 3 * 0.1 is above 0.3
    assert all(steps.holds(value) for value in steps.values(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        points = [Proposals(Space({"a": steps}), "random", seed, 1).ask()[1] for seed in range(8)]
    assert all(steps.holds(point["a"]) for point in points)
