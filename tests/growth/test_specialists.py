"""Specialists: groups of confusable classes are found, a start without loss, and who learns from which examples."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from networks import snapshot, unchanged
from pared import MLP, Batch, TrainConfig, fit
from pared.data import families
from pared.growth import confusable, confusion, fit_specialists, specialise

CONFIG = TrainConfig(epochs=2, batch_size=32, seed=3, weight_decay=0.1)
GROUPS = ((0, 1, 2), (4, 5))


@dataclass
class Data:
    train: Batch
    validation: Batch


def data(samples=120):
    x, y = families(samples, members=3, count=2)
    return Data(Batch(x, y), Batch(x[:40], y[:40]))


def network(seed=1):
    return MLP(6, (9, 7), 6, seed=seed).double()


def test_the_confusion_is_the_formula():
    model, (x, y) = network(), data(30).train
    y = y.clamp(max=4)  # nothing of the last class
    expected, p = torch.zeros(6, 6).double(), model(x).softmax(1)
    for probabilities, true in zip(p, y.tolist(), strict=True):
        for j in range(6):
            expected[true, j] += probabilities[j] if j != true else 0
    expected[:5] /= expected[:5].sum(1, keepdim=True)
    torch.testing.assert_close(confusion(model, Batch(x, y)), expected.detach(), rtol=1e-12, atol=1e-12)


def test_classes_that_are_taken_for_each_other_are_grouped_and_single_ones_left_out():
    blocks = torch.block_diag(*(torch.ones(n, n).double() for n in (3, 4, 1)))
    order = torch.tensor([5, 0, 3, 7, 1, 6, 2, 4])
    confused = (blocks - torch.eye(8) + 0.02)[order][:, order]
    where = order.argsort().tolist()
    expected = {tuple(sorted(where[:3])), tuple(sorted(where[3:7]))}
    assert set(confusable(confused, 3)) == expected
    assert confusable(confused, 3) == tuple(sorted(confusable(confused, 3, seed=1)))


@pytest.mark.parametrize("reads", ["layers.2", "layers.4"])
def test_at_first_nothing_is_lost(reads):
    model, (x, _) = network(), data().train
    assert torch.equal(specialise(model, reads, GROUPS, x)(x), model(x))


def test_the_formula():
    model, (x, _) = specialise(network(), "layers.2", GROUPS, data().train.x, width=5), data(20).train
    with torch.no_grad():
        for layer in model.out:
            layer.weight.normal_(generator=torch.Generator().manual_seed(0))
    h, expected = model.generalist.layers[1](model.generalist.layers[0](x)), model.generalist(x)
    for group, hidden, out in zip(GROUPS, model.hidden, model.out, strict=True):
        for place, k in enumerate(group):
            inner = (h @ hidden.weight.T + hidden.bias).clamp_min(0)
            expected[:, k] = expected[:, k] + inner @ out.weight[place]
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def test_each_group_learns_from_its_own_examples_and_the_generalist_but_for_its_head_stays():
    split, start = data(), None
    start = specialise(network(), "layers.2", GROUPS, split.train.x)
    other = split.train.x.clone()
    other[~torch.isin(split.train.y, torch.tensor(GROUPS[0]))] = 9.0
    found, fits = fit_specialists(start, split, CONFIG, head="layers.4")
    _, changed = fit_specialists(start, Data(Batch(other, split.train.y), split.validation), CONFIG, head="layers.4")
    assert len(fits) == 3
    for key, value in fits[0].model.state_dict().items():
        assert torch.equal(value, changed[0].model.state_dict()[key])
        assert torch.equal(value, start.state_dict()[key]) != key.startswith(("hidden.0", "out.0"))
    moved = {
        key for key, value in found.state_dict().items() if not torch.equal(value, fits[1].model.state_dict()[key])
    }
    assert moved == {"out.0.weight", "out.1.weight", "generalist.layers.4.weight", "generalist.layers.4.bias"}
    assert all(parameter.requires_grad for parameter in found.parameters())


def test_a_generalist_that_normalises_and_drops_out_stays_the_same_in_training():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 6)).double()
    split = data()
    found, _ = fit_specialists(specialise(model, "3", GROUPS, split.train.x), split, CONFIG, head="3")
    assert torch.equal(found.generalist[1].running_mean, model[1].running_mean)
    x = split.train.x
    torch.testing.assert_close(found.train()(x), found.eval()(x))


def test_nothing_passed_in_changes():
    model, split = network(), data()
    added = specialise(model, "layers.2", GROUPS, split.train.x)
    before, state = (snapshot(model), snapshot(added)), torch.get_rng_state().clone()
    confusable(confusion(model, split.train), 2)
    specialise(model, "layers.2", GROUPS, split.train.x)
    fit_specialists(added, split, CONFIG, head="layers.4")
    unchanged(before[0], model)
    unchanged(before[1], added)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.slow
def test_families_are_found_and_their_members_told_apart_better():
    train, held, test = (families(1500, seed=seed) for seed in range(3))
    train, held, test = (Batch(batch.x.float(), batch.y) for batch in (train, held, test))
    split, config = Data(train, Batch(held.x[:0], held.y[:0])), TrainConfig(epochs=20, batch_size=64)
    known = fit(MLP(6, (48, 24), 24, "relu", seed=0), split, config, nn.functional.cross_entropy).model
    groups = confusable(confusion(known, held), 6)
    assert groups == tuple(tuple(range(4 * f, 4 * f + 4)) for f in range(6))
    model, _ = fit_specialists(specialise(known, "layers.2", groups, train.x, 24), split, config, "layers.4")
    right = [(each.eval()(train.x).argmax(1) == train.y).double().mean() for each in (known, model)]
    assert right[1] > right[0]


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda: confusable(torch.eye(4), 4), "fewer than classes"),
    (lambda: confusable(torch.ones(4, 3), 2), "square matrix"),
    (lambda: confusion(network(), Batch(data().train.x, data().train.y + 1)), "classes 0 to 5"),
    (lambda: specialise(network(), "layers.9", GROUPS, data().train.x), r"no module 'layers\.9'"),
    (lambda: specialise(network(), "layers.2", [(0, 6)], data().train.x), r"classes 0 to 5, got"),
    (lambda: specialise(network(), "layers.2", [], data().train.x), "must hold some"),
    (lambda: specialise(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)).double(), "0", [(0, 1)],
                        data().train.x[:, None]), r"must read \(samples, features\)"),
    (lambda: fit_specialists(specialise(network(), "layers.2", GROUPS, data().train.x), data(), CONFIG, "head"),
     "no module 'head'"),
    (lambda: fit_specialists(specialise(network(), "layers.2", ((5,),), data().train.x),
                             Data(Batch(data().train.x, data().train.y.clamp(max=4)), data().validation),
                             CONFIG, "layers.4"), r"no training examples of the classes \(5,\)"),
])  # fmt: skip
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
