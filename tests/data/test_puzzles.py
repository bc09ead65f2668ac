"""Puzzles whose classes come in families: the law, the seed, what a linear map can see of it."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from pared.data import families


def test_members_are_sectors_of_a_plane_opposite_ones_alike():
    x, y = families(3000, members=4, count=1, inputs=2)
    assert y.bincount().min() > 3000 / 4 * 0.8
    z = x - x.mean(0)
    near = KNeighborsClassifier(1).fit(z, y)
    assert near.score(-z, y) > 0.9
    assert near.score(2 * z, y) > 0.9
    quarter = z @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double()
    assert near.score(quarter, (y + 2) % 4) > 0.9


def test_a_linear_map_sees_the_family_and_not_the_member():
    x, y = families(3000)
    model = LogisticRegression(max_iter=300).fit(x[:1500], y[:1500] // 4)
    assert model.score(x[1500:], y[1500:] // 4) > 0.95
    one = y // 4 == 2
    member = LogisticRegression(max_iter=300).fit(x[:1500][one[:1500]], y[:1500][one[:1500]])
    assert member.score(x[1500:][one[1500:]], y[1500:][one[1500:]]) < 0.4


def test_examples_follow_from_the_seed_and_laws_from_theirs():
    assert torch.equal(families(20, 1).x, families(20, 1).x)
    assert not torch.equal(families(20, 1).x, families(20, 2).x)
    assert not torch.equal(families(20, 1).x, families(20, 1, law=1).x)
    with pytest.raises(ValueError, match="members and inputs 2 or more"):
        families(20, members=1)
