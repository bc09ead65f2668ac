"""Laws of all schedules: ends, monotone, bounds, the way through JSON and TOML, refusals."""

import json
import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pared import schedules
from pared.schedules import (
    Cosine,
    Cubic,
    Cyclic,
    Decay,
    Exponential,
    InverseSigmoid,
    Linear,
    LossDriven,
    Plateau,
    Polynomial,
    Step,
    Stretch,
    as_data,
    check_range,
    from_data,
)

PROGRESS, VALUE = st.floats(0, 1), st.floats(-5, 5)
LOSSES = st.lists(st.floats(0, 10), max_size=30)
REACHING = st.one_of(
    st.builds(Linear, VALUE, VALUE),
    st.builds(Cubic, VALUE, VALUE),
    st.builds(Cosine, VALUE, VALUE),
    st.builds(Polynomial, VALUE, VALUE, st.floats(0.1, 5)),
    st.builds(InverseSigmoid, VALUE, VALUE, st.floats(0.1, 100), PROGRESS),
    st.builds(Step, VALUE, VALUE, st.floats(0.01, 1)),
    st.builds(Cyclic, st.just(1), VALUE, VALUE),
)
FOLLOWING = st.one_of(st.builds(LossDriven, st.floats(0, 100), st.floats(0.1, 1)), st.builds(Plateau, st.floats(0, 5)))


@given(REACHING)
def test_both_ends_are_reached(schedule):
    assert schedule(0.0) == pytest.approx(schedule.start, abs=1e-9)
    assert schedule(1.0) == pytest.approx(schedule.end, abs=1e-9)


@given(REACHING | st.builds(Decay, VALUE, VALUE, st.floats(0.1, 50)), PROGRESS, PROGRESS)
def test_values_stay_between_the_ends_and_never_turn_back(schedule, one, two):
    early, late = schedule(min(one, two)), schedule(max(one, two))
    direction = math.copysign(1, schedule.end - schedule.start)
    assert (late - early) * direction >= -1e-9
    assert min(schedule.start, schedule.end) - 1e-9 <= early <= max(schedule.start, schedule.end) + 1e-9


@given(st.integers(1, 6), st.floats(0, 0.999))
def test_every_cycle_is_the_same(cycles, within):
    schedule = Cyclic(cycles)
    values = [schedule((cycle + within) / cycles) for cycle in range(cycles)]
    assert values == pytest.approx([(1 + math.cos(math.pi * within)) / 2] * cycles, abs=1e-6)


@given(REACHING | FOLLOWING)
def test_a_schedule_comes_back_from_json_and_toml(schedule):
    data = as_data(schedule)
    assert from_data(json.loads(json.dumps(data))) == schedule
    toml = "\n".join(f"{name} = {json.dumps(value)}" for name, value in data.items())
    assert from_data(tomllib.loads(toml)) == schedule


@given(FOLLOWING, LOSSES, LOSSES)
def test_the_state_is_all_there_is_to_resume_from(schedule, before, after):
    def follow(state, losses):
        for loss in losses:
            value, state = schedule.step(state, loss)
            assert value == schedule.value(state)
        return state

    stored = tuple(json.loads(json.dumps(follow(schedule.begin(), before))))
    assert follow(stored, after) == follow(schedule.begin(), before + after)


@given(LOSSES)
def test_loss_driven_starts_open_follows_the_formula_and_stays_off(losses):
    schedule, mean = LossDriven(3.0, 0.5, 0.8, 0.1), None
    state, off = schedule.begin(), False
    assert schedule.value(state) == 1.0
    for count, loss in enumerate(losses, 1):
        mean = loss if mean is None else 0.8 * mean + 0.2 * loss
        value, state = schedule.step(state, loss)
        expected = 1 - math.exp(-3.0 * 0.5 * mean / count)
        off = off or expected < 0.1
        assert value == (0.0 if off else pytest.approx(expected))


def test_a_plateau_halves_after_so_many_losses_that_are_no_better():
    schedule, values = Plateau(1.0, 0.5, patience=2, bound=0.3), []
    state = schedule.begin()
    for loss in (3.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0):
        value, state = schedule.step(state, loss)
        values.append(value)
    assert values == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.3]


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("schedule", [Cosine(), Linear(1.0), Exponential(0.5), Decay(1.0), Cyclic(2), Step(1.0)])
def test_progress_outside_its_range_is_refused(schedule, progress):
    with pytest.raises(ValueError, match="progress runs from 0 to 1"):
        schedule(progress)


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("Linear", (math.nan,), "finite"),
        ("Cosine", (1.0, 0.0, 1.5), "warm-up"),
        ("Exponential", (1.5,), "share"),
        ("Decay", (1.0, 0.0, 0.0), "steepness"),
        ("Polynomial", (1.0, 0.0, -1.0), "power"),
        ("InverseSigmoid", (1.0, 0.0, 1e9), "steepness"),
        ("Step", (1.0, 0.0, 2.0), "from 0 to 1"),
        ("Linear", ("0.5",), "finite number"),
        ("Cyclic", (0,), "at least one"),
        ("Cyclic", (2.5,), "whole cycles"),
        ("LossDriven", (-1.0,), "strength"),
        ("Plateau", (1.0, 0.5, 0), "patience"),
        ("Plateau", (1.0, 2.0), "beyond bound"),
        ("Plateau", (-1.0,), "beyond bound"),
        ("Stretch", (Cosine(), 0.5, 0.7), "part"),
    ],
)
def test_parameters_out_of_range_are_refused(kind, values, words):
    with pytest.raises(ValueError, match=words):
        getattr(schedules, kind)(*values)


def test_unknown_kinds_and_ranges_are_refused():
    with pytest.raises(ValueError, match="unknown kind"):
        from_data({"kind": "Zigzag"})
    with pytest.raises(ValueError, match="not the fields"):
        from_data({"kind": "Linear", "slope": 1.0})
    with pytest.raises(ValueError, match="can be written down"):
        as_data(Stretch(Cosine(), 0, 1))
    with pytest.raises(ValueError, match=r"gives 1\.02 .*progress 0\.51"):
        check_range(Linear(2.0), 0, 1, "dropout.p")
