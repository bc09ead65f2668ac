"""What is wrong with data: rows on both sides, windows that tell the answer, units, labels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

from diagnosable import clouds, generator, surface
from pared.data import Framing, Protocol, henon, rolling_origin
from pared.tuning.checks import data_facts, overlapping, same_rows
from pared.tuning.recipe import Problem, Recipe
from pared.tuning.reference import reference
from pared.types import Batch


def facts(split, loss=mse_loss):
    return data_facts(split.train, split.validation, reference(split.train, split.validation, loss))


def test_copies_are_rows_equal_in_inputs_and_target():
    x = torch.randn(10, 2)
    y = torch.randn(10, 1)
    other = torch.cat([y[:3], y[3:4] + 1])
    assert same_rows(Batch(x, y), Batch(x[:4], other)).tolist() == [True, True, True, False]


def test_windows_in_time_order_do_not_overlap_and_shuffled_ones_do():
    series = henon(length=400)
    split = rolling_origin(series, Protocol(200, 100, 50, blocks=1, start=0), Framing(4))[0]
    assert not overlapping(split.train, split.validation).any()
    x, y = (torch.cat(parts) for parts in zip(split.train, split.validation, strict=True))
    order = torch.randperm(len(x), generator=generator(0))
    train, validation = Batch(x[order[:200]], y[order[:200]]), Batch(x[order[200:]], y[order[200:]])
    assert 0.5 < overlapping(train, validation).double().mean() < 0.8
    assert overlapping(Batch(x[:, :2], y), Batch(x[:, :2], y)).sum() == 0  # too short to tell


def test_leaving_out_copies_leaves_the_rest():
    split = surface(0)
    x, y = (torch.cat([a, b[:70]]) for a, b in zip(split.train, split.validation, strict=True))
    problem = Problem(lambda recipe, seed: None, SimpleNamespace(train=Batch(x, y), validation=split.validation))
    found = problem.data(Recipe(apart=True))
    assert torch.equal(found.train.x, split.train.x)
    assert torch.equal(found.validation.x, split.validation.x)


def test_scaling_is_by_the_training_rows_and_can_be_undone():
    split = surface(1)
    split = SimpleNamespace(train=Batch(split.train.x * 50 + 3, split.train.y * 9 - 7), validation=split.validation)
    found = Problem(lambda recipe, seed: None, split).data(Recipe(scale=True))
    for part in found.train:
        assert part.mean(dim=0).abs().max() < 1e-5
        assert part.std(dim=0, correction=0).numpy() == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(found.given(found.validation.y), split.validation.y, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        found.validation.x, (split.validation.x - split.train.x.mean(dim=0)) / split.train.x.std(dim=0, correction=0)
    )


def test_classes_stay_as_they_are():
    split = clouds(0)
    found = Problem(lambda recipe, seed: None, split).data(Recipe(scale=True))
    assert torch.equal(found.train.y, split.train.y)
    logits = torch.randn(4, 3)
    assert torch.equal(found.given(logits), logits)


def test_columns_of_zeros_and_ones_and_constants_have_no_wrong_scale():
    split = surface(0)
    rare = (torch.arange(len(split.train.x)) == 3).float()[:, None]
    train = Batch(torch.cat([split.train.x, rare, torch.full_like(rare, 1e6)], dim=1), split.train.y)
    found = data_facts(train, train, None)
    assert 0.9 < found.smallest <= found.largest < 1.2


@pytest.mark.parametrize("seed", range(3))
def test_flipped_labels_are_told_from_overlapping_classes(seed):
    split, g = clouds(seed, apart=1.5), generator(seed)  # a fifth of the rows lie nearer to another
    clean = facts(split, cross_entropy)
    assert clean.wrong_low < 0.03
    flip = torch.rand(len(split.train.y), generator=g) < 0.2
    y = torch.where(flip, (split.train.y + 1) % 3, split.train.y)
    noisy = facts(SimpleNamespace(train=Batch(split.train.x, y), validation=split.validation), cross_entropy)
    assert noisy.wrong_low > 0.03
    assert np.mean([bool(flip[row]) for row in noisy.suspects]) > 0.7


def test_numbers_are_not_judged():
    split = surface(0)
    y = split.train.y.clone()
    y[::20] += 12.0
    found = facts(SimpleNamespace(train=Batch(split.train.x, y), validation=split.validation))
    assert (found.wrong, found.wrong_low, found.suspects) == (0.0, 0.0, ())
