import pytest
import torch

import pared
from pared.models import MLP
from pared.settings import TableConfig
from pared.surgery import Plan


def test_it_is_a_chain_of_dense_layers():
    model = MLP(3, (5, 4), 2, "relu", seed=0)
    x = torch.randn(7, 3)
    first, _, second, _, last = model.layers
    assert torch.equal(model(x), last(torch.relu(second(torch.relu(first(x))))))
    assert torch.equal(model(x), model(x[:, :, None]))
    assert torch.equal(MLP(3, (), 2, seed=1)(x), MLP(3, (), 2, seed=1).layers[0](x))


def test_seeds_make_the_draw_and_leave_the_global_one():
    before = torch.get_rng_state()
    one, other, third = (MLP(3, seed=seed).layers[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    assert torch.equal(before, torch.get_rng_state())


def test_it_can_be_cut():
    model, x = MLP(3, (6, 4), 2, "sigmoid", seed=0).double(), torch.randn(7, 3, dtype=torch.float64)
    structure = pared.trace(model, x[:1])
    plan = Plan({structure.groups[0].name: (0, 2, 5), structure.groups[1].name: (1,)})
    small = pared.cut(model, structure, plan)
    assert type(small) is MLP
    torch.testing.assert_close(small(x), pared.mask(model, structure, plan)(x), rtol=1e-12, atol=1e-12)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="at least 1, got 3 inputs"):
        MLP(3, (0,))
    with pytest.raises(ValueError, match="unknown activation 'gelu'"):
        MLP(3, activation="gelu")


def test_dropout_silences_in_training_only_and_names_follow():
    plain, other = MLP(3, (6, 4), 2, seed=0), MLP(3, (6, 4), 2, seed=0, dropout=0.5)
    x = torch.randn(7, 3)
    assert not torch.equal(other(x), plain(x))
    assert torch.equal(other.eval()(x), plain(x))
    names = {group.name: 2 for group in pared.trace(other, x[:1]).groups}
    small = TableConfig("classification", hidden=(6, 4), dropout=0.5).network(3, 2, names, seed=0)
    assert [layer.out_features for layer in small.layers if isinstance(layer, torch.nn.Linear)] == [2, 2, 2]
