"""Low rank: the error is what its formula says, no other map of that rank does better, and weights are really saved."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pared
from networks import snapshot, unchanged
from pared.lowrank import Matrix, factorable, factors, low_rank, spectrum
from pared.models.factored import Factored
from pared.surgery import Factor, Plan, StructureError, cut, load, mask, replay, save, trace


def linear(inputs, outputs, bias, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias=bias).double()


def matrix(layer):
    return Matrix(layer.weight, layer.bias)


def factored(layer, found, rank):
    """A function of x: the layer with factors."""
    return lambda x, f=factors(matrix(layer), found, rank): nn.functional.linear(x @ f.into.T, f.out, f.bias)


def product(layer, rank):
    found = factors(matrix(layer), spectrum(matrix(layer)), rank)
    return found.out @ found.into


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
    found = spectrum(matrix(layer), x)
    thin = factored(layer, found, rank)
    assert mean_error(layer, thin, x) == pytest.approx(found.error(rank), rel=1e-9, abs=1e-9)
    plain = spectrum(matrix(layer))
    apart = layer.weight.detach() - product(layer, rank)
    assert float(apart.square().sum()) == pytest.approx(plain.error(rank), rel=1e-9, abs=1e-9)
    values = torch.linalg.svdvals(layer.weight)
    assert plain.error(rank) == pytest.approx(float(values[rank:].square().sum()), abs=1e-9)


@pytest.mark.parametrize("bias", [True, False])
def test_no_other_map_of_that_rank_has_less_error(bias):
    layer, x = linear(8, 6, bias), data(100, 8)
    found = spectrum(matrix(layer), x)
    best = found.error(2)
    assert best < mean_error(layer, factored(layer, spectrum(matrix(layer)), 2), x)
    mine = factors(matrix(layer), found, 2)
    generator = torch.Generator().manual_seed(2)
    for _ in range(30):
        near = [None if f is None else f + 1e-3 * torch.randn(f.shape, generator=generator).double() for f in mine]
        assert mean_error(layer, lambda y, n=near: nn.functional.linear(y @ n[0].T, n[1], n[2]), x) >= best - 1e-12


def test_at_full_rank_nothing_changes():
    layer, x = linear(4, 6, True), data(20, 4)
    assert torch.allclose(factored(layer, spectrum(matrix(layer), x), 4)(x), layer(x), atol=1e-12)


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
    assert not matrix(model[0]).pays(12)
    assert matrix(model[0]).pays(11)
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
    with pytest.raises(StructureError, match=r"'1' is no weight that can be factored.*0, 2, 4"):
        low_rank(model, rank={"1": 2})
    with pytest.raises(ValueError, match="either a rank or a share"):
        low_rank(model)
    tied = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False), nn.TransformerEncoderLayer(4, 2, 8))
    tied[1].weight = tied[0].weight
    assert factorable(tied) == {}


KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
FORMS = [{}, {"bidirectional": True}, {"num_layers": 2}, {"bias": False}, {"num_layers": 2, "bidirectional": True}]


class Reader(nn.Module):
    """A recurrent module between two linear layers."""

    def __init__(self, kind, **options):
        super().__init__()
        self.before, self.rnn = nn.Linear(3, 7), KINDS[kind](7, 6, batch_first=True, **options)
        self.last = nn.Linear((self.rnn.proj_size or 6) * (2 if self.rnn.bidirectional else 1), 2)

    def forward(self, x):
        return self.last(self.rnn(self.before(x))[0][:, -1])


def reader(kind, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Reader(kind, **options).double().eval()


def steps(seed=0):
    return torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def with_products(model, thin, ranks):
    """The model with PyTorch's own recurrent module, whose weights are the products of the factors."""
    twin = pared.surgery.edit.copied(model)
    for name in ranks:
        path, _, leaf = name.rpartition(".")
        factor = thin.get_submodule(path)
        out, into = (factor.get_parameter(f"{leaf}_{end}") for end in ("out", "in"))
        twin.get_parameter(name).copy_(out @ into)
        bias = leaf.replace("weight", "bias")
        if hasattr(factor, bias):
            twin.get_submodule(path).get_parameter(bias).copy_(factor.get_parameter(bias))
    return twin


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", [*FORMS, {"proj_size": 4}])
def test_a_recurrent_module_computes_what_pytorchs_does_with_the_products(kind, form):
    if form.get("proj_size") and kind != "lstm":
        pytest.skip("only LSTMs have projections")
    model, x = reader(kind, **form), steps()
    before, state = snapshot(model), torch.random.get_rng_state()
    ranks = {n: 2 for n, _ in model.named_parameters() if "rnn.weight_ih" in n or "rnn.weight_hh" in n}
    found = low_rank(model, x, rank=ranks)
    unchanged(before, model)
    assert torch.equal(state, torch.random.get_rng_state())
    assert isinstance(found.model.rnn, Factored)
    assert found.ranks == ranks
    twin = with_products(model, found.model, ranks)
    torch.testing.assert_close(found.model(x), twin(x), atol=1e-12, rtol=1e-12)
    given = found.model.rnn(torch.ones(2, 3, 7).double())
    torch.testing.assert_close(given, twin.rnn(torch.ones(2, 3, 7).double()), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_a_recurrent_weight_is_that_on_the_states_it_reads(kind):
    model, x = reader(kind), steps()
    found = low_rank(model, x, rank={"rnn.weight_hh_l0": 2, "rnn.weight_ih_l0": 2})
    with torch.no_grad():
        entering = model.before(x)
        states = model.rnn(entering)[0]
        earlier = torch.cat([torch.zeros(4, 1, 6).double(), states[:, :-1]], dim=1)
        for leaf, reads in (("hh", earlier), ("ih", entering)):
            weight, bias = (model.rnn.get_parameter(f"{part}_{leaf}_l0") for part in ("weight", "bias"))
            thin = found.model.rnn
            made = thin.multiplied(leaf, "l0", reads)
            error = (made - nn.functional.linear(reads, weight, bias)).square().sum(-1).mean()
            assert float(error) == pytest.approx(found.errors[f"rnn.weight_{leaf}_l0"])
    plain = low_rank(model, rank={"rnn.weight_hh_l0": 2})
    assert plain.errors["rnn.weight_hh_l0"] == pytest.approx(
        float(torch.linalg.svdvals(model.rnn.weight_hh_l0)[2:].square().sum())
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_a_factored_network_is_cut_trained_and_saved(kind, form, tmp_path):
    model, x = reader(kind, **form), steps()
    found = low_rank(model, x, share=0.6)
    structure = trace(found.model, x)
    assert any("weight_hh" in group.name for group in structure)  # the places between the factors
    units = {group.name: tuple(range(group.width - 1)) for group in structure if group.width > 1}
    plan = structure.bind(Plan(units))
    small = cut(found.model, structure, plan)
    torch.testing.assert_close(small(x), mask(found.model, structure, plan)(x), atol=1e-12, rtol=1e-12)
    small.train()(x).sum().backward()
    assert all(p.grad is not None for p in small.parameters())
    whole = found.plan.then(plan)
    save(tmp_path / "small", small, whole)
    loaded = load(tmp_path / "small", reader(kind, seed=1, **form)).eval()
    assert torch.equal(loaded(x), small.eval()(x))


@pytest.mark.parametrize("kind", KINDS)
def test_dead_units_and_ranks_of_a_factored_module_go(kind):
    model, x = low_rank(reader(kind), rank=2).model, steps()
    with torch.no_grad():
        for weight in (model.rnn.weight_hh_l0_in, model.last.weight):
            weight[:, 4] = 0.0  # nothing reads unit 4
        model.rnn.weight_ih_l0_in[1] = 0.0
    small, plan = pared.shed_dead_units(model, x)
    assert plan.keep["rnn.l0"] == (0, 1, 2, 3, 5)
    assert plan.keep["rnn.weight_ih_l0"] == (0,)
    torch.testing.assert_close(small(x), model(x), atol=1e-12, rtol=1e-12)


def test_a_factored_module_takes_packed_sequences_states_and_dropout():
    model = reader("gru", num_layers=2, dropout=0.5)
    thin = replay(Factor({"rnn.weight_hh_l1": 2}), model).rnn
    x = torch.ones(2, 4, 7).double()
    packed = nn.utils.rnn.pack_padded_sequence(x, [4, 2], batch_first=True)
    out, states = thin(packed, torch.zeros(2, 2, 6).double())
    assert out.data.shape == (6, 6)
    assert states.shape == (2, 2, 6)
    assert torch.equal(thin(x)[0], thin(x)[0])
    assert not torch.equal(thin.train()(x)[0], thin(x)[0])


def test_ranks_out_of_range_and_odd_names_are_refused():
    model = reader("lstm")
    for rank in (0, 7):
        with pytest.raises(StructureError, match="lies between 1 and 6"):
            replay(Factor({"rnn.weight_hh_l0": rank}), model)
    for name in ("rnn.bias_hh_l0", "rnn", "nothing", "rnn.weight_hh_l7"):
        with pytest.raises(StructureError, match="has no factors"):
            replay(Factor({name: 1}), model)
    with pytest.raises(ValueError, match="not a plan"):
        Plan.from_json('{"format": 1, "edits": [{"edit": "factor", "ranks": [1]}]}')
