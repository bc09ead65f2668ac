"""Low rank: the error is what its formula says, no other map of that rank does better, and weights are really saved."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pared.lowrank import factorable, factored, low_rank, pays, spectrum
from pared.surgery import StructureError


def linear(inputs, outputs, bias, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=bias).double()


def data(samples, inputs, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    return torch.randn(samples, inputs, generator=generator, dtype=torch.float64) @ mix + 1.0


@torch.no_grad()
def mean_error(layer, other, x):
    """E |f(x) - g(x)|^2, in a loop."""
    return sum(float((layer(row) - other(row)).square().sum()) for row in x) / len(x)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(2, 7), st.booleans(), st.data())
def test_the_error_is_the_sum_of_what_is_left_out(inputs, outputs, bias, draw):
    layer, x = linear(inputs, outputs, bias), data(30, inputs)
    rank = draw.draw(st.integers(1, min(inputs, outputs)))
    found = spectrum(layer, x)
    thin = factored(layer, found, rank)
    assert mean_error(layer, thin, x) == pytest.approx(found.error(rank), rel=1e-9, abs=1e-9)
    plain = spectrum(layer)
    apart = layer.weight.detach() - thin_weight(factored(layer, plain, rank))
    assert float(apart.square().sum()) == pytest.approx(plain.error(rank), rel=1e-9, abs=1e-9)
    values = torch.linalg.svdvals(layer.weight)
    assert plain.error(rank) == pytest.approx(float(values[rank:].square().sum()), abs=1e-9)


def thin_weight(thin):
    return (thin[1].weight @ thin[0].weight).detach()


@pytest.mark.parametrize("bias", [True, False])
def test_no_other_map_of_that_rank_has_less_error(bias):
    layer, x = linear(8, 6, bias), data(100, 8)
    best = spectrum(layer, x).error(2)
    assert best < mean_error(layer, factored(layer, spectrum(layer), 2), x)
    thin = factored(layer, spectrum(layer, x), 2)
    generator = torch.Generator().manual_seed(2)
    for _ in range(30):
        with torch.no_grad():
            other = factored(layer, spectrum(layer, x), 2)
            for parameter, mine in zip(other.parameters(), thin.parameters(), strict=True):
                parameter.copy_(mine + 1e-3 * torch.randn(mine.shape, generator=generator, dtype=torch.float64))
        assert mean_error(layer, other, x) >= best - 1e-12


def test_at_full_rank_nothing_changes():
    layer, x = linear(4, 6, True), data(20, 4)
    assert torch.allclose(factored(layer, spectrum(layer, x), 4)(x), layer(x), atol=1e-12)
    with pytest.raises(ValueError, match="between 1 and 4, got 5"):
        factored(layer, spectrum(layer, x), 5)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 20), nn.Tanh(), nn.Linear(20, 1)).double()


def weights_of(model):
    return sum(p.numel() for p in model.parameters() if p.dim() == 2)


def test_layers_are_replaced_only_where_it_saves_weights():
    model, x = network(), data(50, 20)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = low_rank(model, x, rank=3)
    assert found.ranks == {"0": 3, "2": 3}  # one output cannot be thinner
    assert weights_of(found.model) == 3 * 50 + 3 * 50 + 20
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert low_rank(model, x, rank=12).ranks == {}
    assert not pays(model[0], 12)
    assert pays(model[0], 11)
    first = found.model[0](x) - model[0](x)
    assert float(first.square().sum(dim=1).mean()) == pytest.approx(found.errors["0"])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_share_of_the_weights_is_kept_to(share):
    model, x = network(), data(50, 20)
    found = low_rank(model, x, share=share)
    assert weights_of(found.model) <= share * weights_of(model)
    assert weights_of(found.model) > 0.6 * share * weights_of(model)
    with pytest.raises(ValueError, match="larger share"):
        low_rank(model, x, share=0.01)


def test_what_cannot_be_factored_is_named():
    model = network()
    with pytest.raises(StructureError, match=r"'1' is no linear layer.*0, 2, 4"):
        low_rank(model, rank={"1": 2})
    with pytest.raises(ValueError, match="either a rank or a share"):
        low_rank(model)
    tied = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False), nn.TransformerEncoderLayer(4, 2, 8))
    tied[1].weight = tied[0].weight
    assert factorable(tied) == {}
