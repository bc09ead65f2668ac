"""Law 3 for growth: insert and widen compute what the model computes, on every kind of network, in float64."""

import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from growing import ZOO, Net, built
from networks import batch, forecaster, mlp, snapshot, specs, unchanged
from pared.models.attention import Attention
from pared.surgery import Group, Insert, Plan, Slice, Structure, StructureError, cut, insert, mask, replay, trace, widen
from pared.surgery.origins import cut_structure, grown_structure
from zoo import PROBES, probe

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
CLOSE = {"atol": 1e-12, "rtol": 1e-12}


def exact(structure: Structure) -> list[str]:
    return [group.name for group in structure if group.exact]


def alike(structure: Structure, name: str) -> tuple[str, ...]:
    """The groups that must grow with a group."""
    return next((names for names in structure.equal if name in names), (name,))


def unnamed(structure: Structure) -> list[tuple]:
    return [(group.width, group.slices, group.exact) for group in structure]


def same_structure(found: Structure, expected: Structure) -> None:
    assert unnamed(found) == unnamed(expected)
    lengths = [s.length for group in found for s in group.slices]
    assert lengths == [s.length for group in expected for s in group.slices]
    assert [len(names) for names in found.equal] == [len(names) for names in expected.equal]


@pytest.mark.parametrize("name", ZOO)
def test_new_units_change_nothing_and_learn(name):
    model, x = built(name)
    structure = trace(model, x)
    before = snapshot(model)
    counts = {
        group: 3 if alike(structure, group) != (group,) else k % 3 + 1 for k, group in enumerate(exact(structure))
    }
    assert counts
    for asked in (counts, *(dict.fromkeys(alike(structure, group), 2) for group in counts)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            large = insert(model, structure, asked)
        unchanged(before, model)
        torch.testing.assert_close(large(x), model(x), **CLOSE)
        same_structure(trace(large, x), grown_structure(structure, asked))
        assert sum(p.numel() for p in large.parameters()) > sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ZOO)
def test_the_structure_after_a_cut_is_what_a_trace_finds(name):
    model, x = built(name)
    structure = trace(model, x)
    for group in structure:
        together = alike(structure, group.name)
        if group.width > 2:
            plan = Plan({other: (0, *range(2, structure[other].width)) for other in together})
            same_structure(trace(cut(model, structure, plan), x), cut_structure(structure, plan))


@pytest.mark.parametrize("name", ZOO)
def test_what_reads_a_new_unit_is_zero_and_has_a_gradient(name):
    model, x = built(name)
    structure = trace(model, x)
    for group in exact(structure):
        counts = dict.fromkeys(alike(structure, group), 2)
        large = insert(model, structure, counts, seed=2)
        grown = grown_structure(structure, counts)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            inputs = [3 * torch.randn(x.shape, dtype=x.dtype) for _ in range(12)]
        for more in (x, *inputs):
            large(more).square().sum().backward()
        tensors = dict(large.named_parameters())
        width = grown[group].width
        for s in grown[group].slices:
            if s.role == "out" and s.parameter in tensors:
                places = torch.tensor(s.indices(width, range(width - 2, width)))
                assert not tensors[s.parameter].index_select(s.axis, places).any()
        for unit in range(width - 2, width):
            reads = [
                tensors[s.parameter].grad.index_select(s.axis, torch.tensor(s.indices(width, [unit])))
                for s in grown[group].slices
                if s.role == "out" and s.parameter in tensors
            ]
            assert not reads or any(gradient.any() for gradient in reads), (group, unit)


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"tied"}))
def test_copies_change_nothing(name):
    model, x = built(name)
    structure = trace(model, x)
    before = snapshot(model)
    every = {group: (0, 0, structure[group].width - 1) for group in exact(structure)}
    for asked in (every, *(dict.fromkeys(alike(structure, group), (0, 0)) for group in every)):
        wide = widen(model, structure, asked)
        unchanged(before, model)
        torch.testing.assert_close(wide(x), model(x), **CLOSE)
        assert trace(wide, x).units == structure.units + sum(map(len, asked.values()))


def laws(spec, data) -> None:
    model, x = spec.build(), spec.input()
    try:
        structure = trace(model, x)
    except StructureError:  # everything was added to the input
        return
    counts: dict[str, int] = {}
    for group in structure:
        count = data.draw(st.integers(0, 3))
        counts |= {other: count for other in alike(structure, group.name) if other not in counts}
    for names in structure.equal:
        counts |= dict.fromkeys(names, max(counts[name] for name in names))
    large = insert(model, structure, counts, seed=spec.seed)
    torch.testing.assert_close(large(x), model(x), **CLOSE)
    grown = grown_structure(structure, counts)
    same_structure(trace(large, x), grown)
    copies = {
        name: tuple(data.draw(st.lists(st.integers(0, structure[name].width - 1), min_size=n, max_size=n)))
        for name, n in counts.items()
    }
    torch.testing.assert_close(widen(model, structure, copies)(x), model(x), **CLOSE)
    back = Plan({group.name: tuple(range(group.width)) for group in structure})
    shrunk = cut(large, grown, back)
    torch.testing.assert_close(shrunk(x), model(x), **CLOSE)
    for ours, theirs in zip(shrunk.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
@given(specs(), st.data())
@settings(QUIET, max_examples=25)
def test_random_networks_grow_exactly_and_shrink_back(spec, data):
    laws(spec, data)


@pytest.mark.slow
@given(specs(), st.data())
@settings(QUIET, max_examples=400)
def test_random_networks_grow_exactly_and_shrink_back_at_length(spec, data):
    laws(spec, data)


def test_lstm_widening_is_the_formula():
    """methods-growth 12.1, written as it reads."""
    model = nn.Sequential(forecaster("lstm", recurrent=(3,), dense=()))[0]
    x = batch(model).x
    g = [0, 1, 2, 1, 0, 1]
    count = [g.count(unit) for unit in g]
    wide = widen(model, trace(model, x), {"recurrent.0.l0": g[3:]})
    old, new = model.recurrent[0], wide.recurrent[0]
    for gate in range(4):
        for a in range(6):
            assert torch.equal(new.weight_ih_l0[gate * 6 + a], old.weight_ih_l0[gate * 3 + g[a]])
            assert new.bias_hh_l0[gate * 6 + a] == old.bias_hh_l0[gate * 3 + g[a]]
            for b in range(6):
                expected = old.weight_hh_l0[gate * 3 + g[a], g[b]] / count[b]
                torch.testing.assert_close(new.weight_hh_l0[gate * 6 + a, b], expected, rtol=1e-15, atol=0)
    for b in range(6):
        torch.testing.assert_close(wide.head[0].weight[0, b], model.head[0].weight[0, g[b]] / count[b])


def test_lstm_insertion_is_the_formula():
    """methods-growth 10.6: four drawn rows, a column of zeros in W_hh and in the readers."""
    model = forecaster("lstm", recurrent=(3, 2), dense=())
    large = insert(model, trace(model, batch(model).x), {"recurrent.0.l0": 2})
    old, new = model.recurrent[0], large.recurrent[0]
    for gate in range(4):
        assert torch.equal(new.weight_hh_l0[gate * 5 : gate * 5 + 3, :3], old.weight_hh_l0[gate * 3 : gate * 3 + 3])
        assert new.weight_hh_l0[gate * 5 + 3 : gate * 5 + 5, :3].all()
        assert new.weight_ih_l0[gate * 5 + 3 : gate * 5 + 5].all()
    assert not new.weight_hh_l0[:, 3:].any()
    assert torch.equal(large.recurrent[1].weight_ih_l0[:, :3], model.recurrent[1].weight_ih_l0)
    assert not large.recurrent[1].weight_ih_l0[:, 3:].any()


def test_draws_are_like_the_weights_of_the_group():
    model = Net(lambda m, x: m.b(torch.relu(m.a(x))), a=nn.Linear(50, 40), b=nn.Linear(40, 2)).double()
    with torch.no_grad():
        model.a.weight.mul_(7)
        model.a.bias.mul_(0.1).add_(3)
    structure = trace(model, torch.zeros(1, 50).double())
    large = insert(model, structure, {"a": 400})
    assert large.a.weight[40:].std().item() == pytest.approx(model.a.weight.std().item(), rel=0.03)
    assert large.a.bias[40:].mean().item() == pytest.approx(model.a.bias.mean().item(), rel=0.01)
    again, other = insert(model, structure, {"a": 400}), insert(model, structure, {"a": 400}, seed=1)
    assert torch.equal(again.a.weight, large.a.weight)
    assert not torch.equal(other.a.weight, large.a.weight)


def test_gates_are_drawn_gate_by_gate():
    """A forget gate that starts open does so in new cells."""
    model = forecaster("lstm", recurrent=(4,))
    with torch.no_grad():
        model.recurrent[0].bias_ih_l0.copy_(torch.tensor([0.0] * 4 + [1.0] * 4 + [0.0] * 8))
    large = insert(model, trace(model, batch(model).x), {"recurrent.0.l0": 3})
    assert large.recurrent[0].bias_ih_l0.tolist() == [0.0] * 7 + [1.0] * 7 + [0.0] * 14


def test_normalisation_starts_neutral_and_stays_exact_in_training():
    model = Net(
        lambda m, x: m.b(torch.relu(m.norm(m.a(x)))), a=nn.Conv1d(2, 4, 2), norm=nn.BatchNorm1d(4), b=nn.Conv1d(4, 2, 1)
    ).double()
    x = torch.randn(3, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model(x)
    large = insert(model, trace(model, x), {"a": 2})
    norm = large.norm
    assert norm.num_features == 6
    assert [t[4:].tolist() for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)] == [
        [1, 1], [0, 0], [0, 0], [1, 1],
    ]  # fmt: skip
    torch.testing.assert_close(large.train()(x), model.train()(x), **CLOSE)


def test_attention_keeps_its_scale():
    model, x = built("attention")
    structure = trace(model, x)
    large = insert(model, structure, {"attention.keys": 3, "attention.heads": 1, "attention.values": 2})
    assert isinstance(large.attention, Attention)
    assert (large.attention.num_heads, large.attention.key_width, large.attention.value_width) == (3, 7, 6)
    assert large.attention.scale == 4**-0.5
    torch.testing.assert_close(large(x), model(x), **CLOSE)
    larger = insert(large, trace(large, x), {"attention.keys": 1, "attention.heads": 2})
    torch.testing.assert_close(larger(x), model(x), **CLOSE)


def test_growth_twice_is_growth_by_steps():
    model, x = built("lstm")
    structure = trace(model, x)
    counts = {group.name: 2 for group in structure}
    first = insert(model, structure, counts)
    second = insert(first, grown_structure(structure, counts), counts)
    torch.testing.assert_close(second(x), model(x), **CLOSE)
    same_structure(trace(second, x), grown_structure(grown_structure(structure, counts), counts))


def test_what_was_tied_stays_tied():
    model, x = built("shared")
    structure = trace(model, x)
    for large in (insert(model, structure, {"enter": 2}), widen(model, structure, {"enter": [0, 1]})):
        assert large.first.weight is large.second.weight
        assert large.first.weight.shape == (6, 6)


def test_a_tied_autoencoder_grows_and_learns():
    model, x = built("tied")
    structure = trace(model, x)
    large = insert(model, structure, {"encoder": 2})
    torch.testing.assert_close(large(x), model(x), **CLOSE)
    large(x).square().sum().backward()
    assert large.encoder.weight.grad[5:].any(dim=1).all()
    with pytest.raises(StructureError, match="both makes the units of 'encoder' and reads them"):
        widen(model, structure, {"encoder": [0]})


def test_units_that_may_never_learn_are_announced():
    def forward(m, x):
        return nn.functional.linear(torch.tanh(m.encoder(x)), m.encoder.weight.T)

    model = Net(forward, encoder=nn.Linear(3, 5, bias=False)).double()
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="may never learn"):
        large = insert(model, trace(model, x), {"encoder": 1})
    torch.testing.assert_close(large(x), model(x), **CLOSE)


def test_copies_that_cannot_share_a_reader_are_refused():
    """Half of a normalisation's weight is not half of the tanh after it."""
    model = Net(lambda m, x: m.norm(m.a(x)).tanh().sum(-1), a=nn.Linear(3, 4), norm=nn.BatchNorm1d(4)).double().eval()
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    structure = trace(model, x)
    torch.testing.assert_close(insert(model, structure, {"a": 2})(x), model(x), **CLOSE)
    with pytest.raises(StructureError, match=r"'norm.weight'.*belongs to a BatchNorm1d"):
        widen(model, structure, {"a": [0]})


def test_noise_breaks_the_symmetry_of_copies():
    model = mlp()
    x = batch(model).x
    structure = trace(model, x)
    same, other = (widen(model, structure, {"second": [1, 1]}, noise=n, seed=3) for n in (0.0, 1e-2))
    assert torch.equal(same.second.weight[5], same.second.weight[1])
    change = (other.second.weight - same.second.weight).detach()
    assert not change[:5].any()
    assert change[5:].all()
    assert 0.003 < change[5:].std() / model.second.weight.std() < 0.03
    assert torch.equal(other.last.weight, same.last.weight)
    assert 0 < (other(x) - model(x)).abs().max() < 0.1


def test_modes_frozen_weights_and_random_state_stay():
    model = forecaster().train()
    model.head.eval()
    model.recurrent[0].weight_hh_l0.requires_grad_(False)
    state = torch.get_rng_state()
    x = batch(model).x
    structure = trace(model, x)
    for large in (insert(model, structure, {"recurrent.0.l0": 1}), widen(model, structure, {"recurrent.0.l0": [0]})):
        assert torch.equal(torch.get_rng_state(), state)
        assert {n: m.training for n, m in large.named_modules()} == {n: m.training for n, m in model.named_modules()}
        assert {n: p.requires_grad for n, p in large.named_parameters()} == {
            n: p.requires_grad for n, p in model.named_parameters()
        }
        assert all(p.is_leaf and p.grad is None for p in large.parameters())


def test_nothing_asked_for_is_a_plain_copy():
    model = mlp()
    x = batch(model).x
    structure = trace(model, x)
    for large in (insert(model, structure, {}), insert(model, structure, {"first": 0}), widen(model, structure, {})):
        assert large is not model
        assert torch.equal(large(x), model(x))
    assert grown_structure(structure, {"first": 0}) == structure


@pytest.mark.parametrize(
    ("counts", "words"),
    [({"nobody": 1}, "no group 'nobody'"), ({"rnn.l0": 1}, "let them grow alike"), ({"before": -1}, "cannot gain -1")],
)
def test_counts_that_do_not_fit_are_refused(counts, words):
    model, x = built("gru")
    structure = trace(model, x)
    before = snapshot(model)
    with pytest.raises(StructureError, match=words):
        insert(model, structure, counts)
    with pytest.raises(StructureError, match=words):
        grown_structure(structure, counts)
    unchanged(before, model)


def test_what_is_no_number_of_units_is_refused():
    model, x = built("gru")
    structure = trace(model, x)
    with pytest.raises(ValueError, match=r"a whole number of units, .* got 1\.5"):
        insert(model, structure, {"before": 1.5})
    with pytest.raises(ValueError, match=r"by their numbers, .* got \[0\.9\]"):
        widen(model, structure, {"before": [0.9]})
    with pytest.raises(ValueError, match=r"name the units that are to be copied, .* got {'before': 2}"):
        widen(model, structure, {"before": 2})


def test_copies_that_do_not_fit_are_refused():
    model, x = built("gru")
    structure = trace(model, x)
    with pytest.raises(StructureError, match="units 0 to 2"):
        widen(model, structure, {"before": [3]})
    with pytest.raises(StructureError, match="let them grow alike"):
        widen(model, structure, {"rnn.l0": [0, 1], "rnn.l1": [0]})
    with pytest.raises(ValueError, match="negative"):
        widen(model, structure, {"before": [0]}, noise=-1)


def test_groups_whose_units_are_mixed_are_refused():
    model, x = built("transformer")
    structure = trace(model, x)
    mixed = [group.name for group in structure if not group.exact]
    assert mixed
    for verb, given_units in ((insert, 1), (widen, [0])):
        with pytest.raises(StructureError, match="cannot grow exactly"):
            verb(model, structure, {mixed[0]: given_units})


def test_another_networks_structure_is_refused():
    structure = trace(mlp(), batch(mlp()).x)
    with pytest.raises(StructureError, match="this very network"):
        insert(forecaster(), structure, {"first": 1})


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_lone_recurrent_unit_grows_gate_by_gate(kind):
    """Its rows look like one stretch; the trace may not know what reads it (a product with one column)."""
    model = Net(lambda m, x: m.last(m.rnn(x)[0]), rnn=kind(2, 1), last=nn.Linear(1, 2)).double()
    x = torch.randn(3, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    group = trace(model, x)["rnn.l0"]
    reader = Slice("last.weight", 1, "out", length=1)
    structure = Structure((replace(group, slices=tuple(dict.fromkeys((*group.slices, reader)))),))
    for large in (insert(model, structure, {"rnn.l0": 2}), widen(model, structure, {"rnn.l0": [0, 0]})):
        torch.testing.assert_close(large(x), model(x), **CLOSE)
        same_structure(trace(large, x), grown_structure(structure, {"rnn.l0": 2}))


def test_a_lone_unit_without_known_readers_is_refused():
    model = Net(lambda m, x: m.last(m.rnn(x)[0]), rnn=nn.GRU(2, 1), last=nn.Linear(1, 2))
    group = trace(model, torch.zeros(3, 5, 2))["rnn.l0"]
    own = replace(group, slices=tuple(s for s in group.slices if s.parameter != "last.weight"))
    with pytest.raises(StructureError, match="does not say which layer reads it"):
        insert(model, Structure((own,)), {"rnn.l0": 1})


def test_a_lone_channel_that_could_lie_two_ways_is_refused():
    model = Net(lambda m, x: m.b(m.a(x).flatten(1)), a=nn.Conv1d(2, 1, 2), b=nn.Linear(3, 1))
    slices = Slice("a.weight", 0, "in"), Slice("a.bias", 0, "in"), Slice("b.weight", 1, "out", inner=3)
    with pytest.raises(StructureError, match="one unit, and how its 3 entries"):
        insert(model, Structure((Group("a", 1, slices),)), {"a": 1})


def test_a_projection_as_wide_as_its_cells_is_refused():
    model, x = built("projected")
    structure = trace(model, x)
    with pytest.raises(StructureError, match="as wide as its cells"):
        insert(model, structure, {"lstm.l0": 6, "lstm.l1": 6})


def test_growth_is_replayed():
    model, x = built("lstm")
    structure = trace(model, x)
    counts = {"rnn.l0": 2, "rnn.l1": 2}
    large, grown = insert(model, structure, counts), grown_structure(structure, counts)
    plan = grown.bind(Plan({"rnn.l0": (1, 3, 5), "rnn.l1": (0, 4, 5), "after": (0,)}))
    history = Plan({}).then(Insert(counts, tuple(structure[name] for name in counts))).then(plan)
    small = cut(large, grown, plan)
    again = replay(Plan.from_json(history.to_json()), model)
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(x), small(x))


def test_a_grown_network_is_cut_as_it_is_masked():
    for name in ("cnn", "attention", "projected", "lstm"):
        model, x = built(name)
        structure = trace(model, x)
        counts = dict.fromkeys(exact(structure), 2)
        large, grown = insert(model, structure, counts), grown_structure(structure, counts)
        plan = Plan({group: tuple(range(1, grown[group].width)) for group in exact(grown)})
        torch.testing.assert_close(cut(large, grown, plan)(x), mask(large, grown, plan)(x), **CLOSE)


@pytest.mark.parametrize("name", [name for name in PROBES if name not in ("ResNet-18", "MobileNetV2")])
def test_probe_networks_grow(name):
    grows(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet-18", "MobileNetV2"])
def test_large_probe_networks_grow(name):
    grows(name)


def grows(name: str) -> None:
    model, inputs = probe(name)
    model, inputs = model.double(), [x.double() for x in inputs]
    structure = trace(model, inputs)
    counts = {group.name: 2 for group in structure if group.exact}
    large = insert(model, structure, counts)
    torch.testing.assert_close(large(*inputs), model(*inputs), **CLOSE)
    same_structure(trace(large, inputs), grown_structure(structure, counts))
    wide = widen(model, structure, dict.fromkeys(counts, (0, 0)))
    torch.testing.assert_close(wide(*inputs), model(*inputs), **CLOSE)
