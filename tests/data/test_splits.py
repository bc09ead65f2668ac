"""Splits: leak-free by construction, and shown so by changing what must not matter."""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pared.data import PAPER, Framing, Protocol, Scaler, Series, fit_scaler, protocol_for, rolling_origin
from pared.types import DataError


def made(values) -> Series:
    values = np.asarray(values, float)
    values = values[:, None] if values.ndim == 1 else values
    return Series("mine", values, tuple("xyz"[: values.shape[1]]), 4, "values", None, "made up")


def noise(length: int, columns: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((length, columns))


@st.composite
def cases(draw):
    framing = Framing(draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.sampled_from(["values", "increments"])))
    test = draw(st.integers(1, 8))
    protocol = Protocol(
        train=framing.window + framing.horizon + draw(st.integers(2, 12)),
        validation=draw(st.integers(0, 6)),
        test=test,
        stride=test + draw(st.integers(0, 5)),
        blocks=draw(st.integers(1, 4)),
        start=draw(st.sampled_from([None, 0, 3])),
    )
    values = noise((protocol.start or 0) + protocol.rows + draw(st.integers(0, 5)), draw(st.integers(1, 3)))
    return values, protocol, framing


def naive_part(values, scaler: Scaler, framing: Framing, targets: range):
    """Examples whose targets are the given rows, one by one."""
    x, y = [], []
    for row in targets:
        end = row - framing.horizon + 1
        window = [[(values[r][c] - scaler.shift[c]) / scaler.scale[c] for c in range(len(values[0]))]
                  for r in range(end - framing.window, end)]  # fmt: skip
        target = (values[row][0] - scaler.shift[0]) / scaler.scale[0]
        x.append(window)
        y.append([target if scaler.increment is None else (target - window[-1][0]) / scaler.increment])
    return x, y


@settings(max_examples=40, deadline=None)
@given(cases())
def test_splits_match_the_loop(case) -> None:
    values, protocol, framing = case
    splits = rolling_origin(made(values), protocol, framing)
    assert [split.block for split in splits] == list(range(protocol.blocks))
    first = len(values) - protocol.rows if protocol.start is None else protocol.start
    for split in splits:
        start = first + split.block * protocol.stride
        ends = np.cumsum([start + protocol.train, protocol.validation, protocol.test]).tolist()
        assert split.spans == {"train": (start, ends[0]), "validation": (ends[0], ends[1]), "test": (ends[1], ends[2])}
        targets = {**split.spans, "train": (start + framing.window + framing.horizon - 1, ends[0])}
        for name, rows in targets.items():
            part = getattr(split, name)
            assert part.x.dtype == part.y.dtype == torch.float32
            assert part.x.shape == (rows[1] - rows[0], framing.window, values.shape[1])
            assert part.y.shape == (rows[1] - rows[0], 1)
            x, y = naive_part(values, split.scaler, framing, range(*rows))
            np.testing.assert_allclose(part.x.flatten(), np.ravel(x), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(part.y.flatten(), np.ravel(y), rtol=1e-5, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_no_leak(case) -> None:
    values, protocol, framing = case
    for split in rolling_origin(made(values), protocol, framing):
        train, validation, test = (split.spans[name] for name in ("train", "validation", "test"))
        assert train[0] < train[1] == validation[0] <= validation[1] == test[0] < test[1]
        assert split.scaler == fit_scaler(values[slice(*train)], split.scaler.columns, framing)

        later = values.copy()
        later[test[0] :] = 1e3 + noise(len(values) - test[0], values.shape[1], 1)
        again = rolling_origin(made(later), protocol, framing)[split.block]
        assert again.scaler == split.scaler
        for ours, theirs in ((split.train, again.train), (split.validation, again.validation)):
            assert torch.equal(ours.x, theirs.x)
            assert torch.equal(ours.y, theirs.y)
        assert not torch.equal(split.test.y, again.test.y)

        later[: train[0]] = noise(train[0], values.shape[1], 3)
        later[train[1] :] = 1e3 + noise(len(values) - train[1], values.shape[1], 2)
        again = rolling_origin(made(later), protocol, framing)[split.block]
        assert again.scaler == split.scaler
        assert torch.equal(split.train.x, again.train.x)
        assert torch.equal(split.train.y, again.train.y)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_blocks_do_not_share_test_rows(case) -> None:
    values, protocol, framing = case
    spans = [split.spans["test"] for split in rolling_origin(made(values), protocol, framing)]
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    if protocol.start is None:
        assert spans[-1][1] == len(values)


@settings(max_examples=40, deadline=None)
@given(cases())
def test_outputs_decode_to_the_truth(case) -> None:
    values, protocol, framing = case
    for split in rolling_origin(made(values), protocol, framing):
        truth = values[slice(*split.spans["test"]), 0]
        forecast = split.scaler.value(split.test.y, split.test.x)
        assert forecast.shape == truth.shape
        np.testing.assert_allclose(split.scaler.raw(forecast), truth, rtol=1e-5, atol=1e-5)


def test_paper_protocol() -> None:
    series = made(noise(41_015))
    splits = rolling_origin(series, PAPER, Framing(2))
    assert PAPER.rows == 41_015
    assert [split.spans["train"] for split in splits] == [(k, k + 5000) for k in range(0, 40_000, 4000)]
    assert [split.spans["test"] for split in splits] == [(k + 5000, k + 5015) for k in range(0, 40_000, 4000)]
    assert splits[0].validation.x.shape == (0, 2, 1)
    assert splits[0].test.x.shape == (15, 2, 1)
    assert splits[0].train.x.shape == (4998, 2, 1)
    assert protocol_for(41_015, Framing(2), PAPER) is PAPER
    assert rolling_origin(made(noise(41_500)), PAPER, Framing(2))[0].spans["train"] == (0, 5000)
    with pytest.raises(DataError, match=r"mine: 41014 rows.* 41015"):
        rolling_origin(made(noise(41_014)), PAPER, Framing(2))


def test_default_protocol_ends_with_the_series() -> None:
    assert protocol_for(50_000, Framing(2)) == Protocol()
    splits = rolling_origin(made(noise(50_000)), Protocol(), Framing(2))
    assert splits[-1].spans == {"train": (43_500, 48_500), "validation": (48_500, 49_000), "test": (49_000, 50_000)}


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 60_000), st.integers(1, 40), st.integers(1, 10), st.sampled_from([Protocol(), PAPER]))
def test_shrunk_protocols_fit(length: int, window: int, horizon: int, protocol: Protocol) -> None:
    framing = Framing(window, horizon)
    needed = window + horizon + 11 + 24
    if length < needed:
        with pytest.raises(DataError, match=rf"{length} rows .* {needed} are needed"):
            protocol_for(length, framing, protocol)
        return
    shrunk = protocol_for(length, framing, protocol)
    assert shrunk.rows <= length
    assert shrunk.train <= protocol.train
    assert shrunk.validation <= protocol.validation
    assert shrunk.test <= shrunk.stride <= protocol.stride
    assert shrunk.test >= 12
    assert shrunk.train - window - horizon + 1 >= 12
    assert shrunk.blocks <= protocol.blocks
    if shrunk == protocol:
        assert length >= protocol.rows
        return
    part = (length - shrunk.train) // (shrunk.blocks + 1)
    assert shrunk.stride == min(part, protocol.stride)
    assert shrunk.blocks == protocol.blocks or (length - shrunk.train) // (shrunk.blocks + 2) < 12
    assert shrunk.start is None


@settings(max_examples=25, deadline=None)
@given(st.integers(37, 700), st.integers(1, 20), st.integers(1, 4))
def test_shrunk_protocols_split(length: int, window: int, horizon: int) -> None:
    assume(length >= window + horizon + 35)
    framing = Framing(window, horizon, "increments")
    splits = rolling_origin(made(noise(length)), protocol_for(length, framing), framing)
    assert splits[-1].spans["test"][1] == length
    assert all(min(len(part.x) for part in (split.train, split.validation, split.test)) >= 12 for split in splits)


@pytest.mark.parametrize(
    ("length", "window", "blocks", "train", "test"),
    [(309, 9, 10, 154, 14), (10_093, 20, 10, 5000, 463), (200, 9, 7, 100, 12), (100, 9, 3, 50, 12), (45, 9, 1, 21, 12)],
)
def test_shrunk_by_hand(length: int, window: int, blocks: int, train: int, test: int) -> None:
    shrunk = protocol_for(length, Framing(window))
    assert (shrunk.blocks, shrunk.train, shrunk.test) == (blocks, train, test)


def test_scaler_round_trip_and_json() -> None:
    rows = noise(50, 3) * [5, 1e-3, 1e6] + [0, 7, -1e6]
    scaler = fit_scaler(rows, ("x", "y", "z"), Framing(3, 2, "increments"))
    scaled = scaler.scaled(rows)
    np.testing.assert_allclose(scaled.min(axis=0), -1)
    np.testing.assert_allclose(scaled.max(axis=0), 1)
    np.testing.assert_allclose(scaler.raw(scaled[:, 0]), rows[:, 0], atol=1e-12)
    assert isinstance(scaler.raw(0.5), float)
    assert isinstance(scaler.raw(torch.zeros(2)), torch.Tensor)
    steps = [scaled[t + 2, 0] - scaled[t, 0] for t in range(48)]
    assert scaler.increment == pytest.approx(np.std(steps))
    stored = json.loads(json.dumps(dataclasses.asdict(scaler)))
    np.testing.assert_array_equal(Scaler(**stored).scaled(rows), scaled)


def test_value_of_an_output() -> None:
    x, output = torch.tensor([[[0.1, 9.0], [0.2, 9.0]], [[0.3, 9.0], [0.4, 9.0]]]), torch.tensor([[1.0], [-1.0]])
    plain = Scaler(("x", "y"), (0.0, 0.0), (1.0, 1.0))
    assert plain.value(output, x).tolist() == [1.0, -1.0]
    moved = dataclasses.replace(plain, increment=0.5)
    np.testing.assert_allclose(moved.value(output, x), [0.7, -0.1], rtol=1e-6)


def test_constant_columns() -> None:
    values = noise(60, 2)
    values[:, 1] = 3.0
    scaler = rolling_origin(made(values), Protocol(30, 5, 5, 5, 3), Framing(2))[0].scaler
    assert (scaler.shift[1], scaler.scale[1]) == (3.0, 1.0)
    values[10:45, 0] = 1.5
    with pytest.raises(DataError, match=r"'x' is constant \(1.5\) .* block 1 \(rows 10 to 39"):
        rolling_origin(made(values), Protocol(30, 5, 5, 5, 3, start=5), Framing(2))


def test_a_straight_line_has_finite_outputs() -> None:
    splits = rolling_origin(made(np.arange(60.0)), Protocol(30, 5, 5, 5, 3), Framing(2, 1, "increments"))
    assert splits[0].scaler.increment == 1.0
    assert all(torch.isfinite(split.test.y).all() for split in splits)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Framing(0),
        lambda: Framing(1, 0),
        lambda: Framing(1, 1, "auto"),
        lambda: Protocol(train=0),
        lambda: Protocol(test=0),
        lambda: Protocol(blocks=0),
        lambda: Protocol(validation=-1),
        lambda: Protocol(start=-1),
        lambda: Protocol(test=50, stride=49),
    ],
)
def test_impossible_settings(make) -> None:
    with pytest.raises(ValueError, match=r"must be|overlap"):
        make()


def test_too_few_training_rows() -> None:
    with pytest.raises(DataError, match="20 training rows"):
        protocol_for(10_000, Framing(30), Protocol(train=20))
    with pytest.raises(DataError, match="20 training rows"):
        rolling_origin(made(noise(10_000)), Protocol(train=20, start=0, blocks=1), Framing(30))
