"""Plans and slices as data: indices, JSON, refusals."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from networks import MLP, snapshot, unchanged
from pared.surgery import Group, Plan, Slice, Structure, StructureError, cut
from pared.surgery.structure import check_fits

GROUP = Group("a", 4, (Slice("a.weight", 0, "in"), Slice("b.weight", 1, "out")))
STRUCTURE = Structure((GROUP, Group("b", 3, (Slice("b.weight", 0, "in"),))))


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 7), st.data())
@settings(max_examples=40, deadline=None)
def test_indices_are_those_of_a_reshaped_axis(width, blocks, inner, offset, data):
    units = data.draw(st.lists(st.integers(0, width - 1), unique=True))
    found = Slice("w", 0, "in", blocks, inner, offset).indices(width, units)
    names = [None] * offset + [j for _ in range(blocks) for j in range(width) for _ in range(inner)]
    assert sorted(found) == [at for at, j in enumerate(names) if j in units]


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.sets(st.integers(0, 2), min_size=1)))
@settings(max_examples=40, deadline=None)
def test_plans_survive_json_with_their_slices(keep):
    plan = STRUCTURE.bind(Plan({name: tuple(units) for name, units in keep.items()}))
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.groups == plan.groups == tuple(STRUCTURE[name] for name in plan.keep)
    assert json.loads(plan.to_json())["format"] == 1


def test_units_are_sorted_and_what_goes_is_the_rest():
    plan = Plan({"a": [3, 1], "b": (0, 1, 2)})
    assert plan.keep == {"a": (1, 3), "b": (0, 1, 2)}
    assert STRUCTURE.removed(plan) == {"a": (0, 2)}
    assert STRUCTURE.units == 7


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ({"c": (0,)}, "no group 'c'.*a, b"),
        ({"a": ()}, "empties group 'a'"),
        ({"a": (0, 4)}, "units 0 to 3"),
        ({"a": (-1, 2)}, "units 0 to 3"),
        ({"a": (1, 1)}, "once"),
    ],
)
def test_wrong_plans_are_refused_by_name(keep, words):
    with pytest.raises(StructureError, match=words):
        STRUCTURE.bind(Plan(keep))


def test_layers_of_one_module_must_stay_equally_wide():
    structure = Structure((Group("l0", 3, ()), Group("l1", 3, ())), (("l0", "l1"),))
    structure.bind(Plan({"l0": (0, 1), "l1": (1, 2)}))
    with pytest.raises(StructureError, match="l0: 2, l1: 3"):
        structure.bind(Plan({"l0": (0, 1)}))
    with pytest.raises(StructureError, match="l0: 2, l1: 1"):
        structure.bind(Plan({"l0": (0, 1), "l1": (2,)}))


def damaged():
    good = STRUCTURE.bind(Plan({"a": (0, 1)})).as_dict()

    def changed(**more):
        return json.dumps(good | {"edits": [good["edits"][0] | more]})

    row = good["edits"][0]["slices"][0]
    return {
        "not JSON": "{",
        "cut short": json.dumps(good)[:-20],
        "empty": "",
        "a list": "[]",
        "a number": "3",
        "no edits": "{}",
        "edits are text": '{"format": 1, "edits": "keep"}',
        "later format": json.dumps(good | {"format": 2}),
        "unknown edit": changed(edit="insert"),
        "units are no list": changed(units=3),
        "units are no numbers": changed(units=["x"]),
        "a unit is half": changed(units=[0.5]),
        "units are text": changed(units="01"),
        "width is text": changed(width="4"),
        "slices are no rows": changed(slices=[1]),
        "unknown column": changed(slices=[row | {"more": 1}]),
        "axis is text": changed(slices=[row | {"axis": "0"}]),
        "axis below zero": changed(slices=[row | {"axis": -1}]),
        "offset below zero": changed(slices=[row | {"offset": -3}]),
        "no blocks": changed(slices=[row | {"blocks": 0}]),
        "unknown role": changed(slices=[row | {"role": "both"}]),
        "parameter is a number": changed(slices=[row | {"parameter": 3}]),
        "a tower": "[" * 100_000,
    }


@pytest.mark.parametrize("what", damaged())
def test_damaged_plans_are_value_errors(what):
    with pytest.raises(ValueError, match="not a plan written by pared"):
        Plan.from_json(damaged()[what])


@pytest.mark.parametrize(
    ("parameter", "width", "row"),
    [
        ("second.weight", 5, {"axis": 2}),
        ("second.weight", 6, {"axis": 0}),
        ("second.weight", 4, {"axis": 0, "length": 4}),
        ("nowhere.weight", 5, {"axis": 0}),
        ("second.weight", 5, {"axis": 0, "offset": 1}),
    ],
)
def test_structures_of_another_network_are_refused(parameter, width, row):
    model = MLP()
    before = snapshot(model)
    structure = Structure((Group("g", width, (Slice(parameter, role="in", **row),)),))
    with pytest.raises(StructureError, match="this very network"):
        check_fits(model, structure)
    with pytest.raises(StructureError, match="this very network"):
        cut(model, structure, Plan({"g": (0,)}))
    unchanged(before, model)
