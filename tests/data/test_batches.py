"""What is taken as data."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from pared.data import batches, first_batch
from pared.types import Batch

X, Y = torch.arange(20.0).reshape(10, 2), torch.arange(10.0)[:, None]


@pytest.mark.parametrize(
    "data",
    [Batch(X, Y), (X, Y), [X, Y], [(X[:4], Y[:4]), (X[4:], Y[4:])], DataLoader(TensorDataset(X, Y), 3)],
    ids=["Batch", "tuple", "list", "list of pairs", "DataLoader"],
)
def test_every_kind_of_data(data) -> None:
    parts = list(batches(data))
    assert all(isinstance(part, Batch) for part in parts)
    assert torch.equal(torch.cat([part.x for part in parts]), X)
    assert torch.equal(torch.cat([part.y for part in parts]), Y)
    for limit in (1, 3, 5, 10, 99):
        head = first_batch(data, limit)
        assert isinstance(head, Batch)
        assert torch.equal(head.x, X[:limit])
        assert torch.equal(head.y, Y[:limit])


def test_first_batch_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    first_batch(DataLoader(TensorDataset(X, Y), 3, shuffle=True), 5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (X, "Tensor"),
        (None, "NoneType"),
        (7, "int"),
        ("data.csv", "str"),
        (TensorDataset(X, Y), "DataLoader"),
        ((X.numpy(), Y.numpy()), "ndarray"),
        ([(X, Y, Y)], "tuple of Tensor, Tensor, Tensor"),
        ({"x": X, "y": Y}, "dict"),
        (np.ones((3, 2)), "ndarray"),
    ],
)
def test_wrong_types(data, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        list(batches(data))
    with pytest.raises(TypeError, match=words):
        first_batch(data, 3)


def test_wrong_lengths() -> None:
    with pytest.raises(ValueError, match=r"same length.*10, 2.*9, 1"):
        list(batches((X, Y[:9])))
    with pytest.raises(ValueError, match="limit"):
        first_batch((X, Y), 0)
    for empty in ([], (X[:0], Y[:0])):
        with pytest.raises(ValueError, match="no sample"):
            first_batch(empty, 3)


@pytest.mark.parametrize("x", [(X, X[:, :1]), [X, X[:, :1]]])
def test_several_inputs_are_a_tuple(x) -> None:
    (part,) = batches((x, Y))
    assert isinstance(part.x, tuple)
    assert [tuple(one.shape) for one in part.x] == [(10, 2), (10, 1)]
    head = first_batch([(x, Y), (x, Y)], 13)
    assert torch.equal(head.x[0], torch.cat([X, X[:3]]))
    assert len(head.y) == 13
    with pytest.raises(ValueError, match=r"same length.*10, 2.*9, 2.*10, 1"):
        list(batches([((X, X[:9]), Y)]))
