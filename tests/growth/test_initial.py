"""What new units start with: outputs that stay, gradients that are there, formulas against naive ones."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from growing import KINDS, ZOO, Net, built, drawn, layered, problem, sine, slow
from networks import snapshot, unchanged
from pared.growth import bottleneck, copies, firefly, gradmax, random_in, splits, tiny, uniform_in, zero_in
from pared.growth.entries import makers, newest, readers, values_at, with_values
from pared.growth.probes import desired, linear_gradients
from pared.growth.tiny import best_units
from pared.signals.unrolled import unrolled
from pared.surgery import StructureError, insert, trace
from pared.surgery.origins import grown_structure
from pared.types import Batch

CLOSE = {"atol": 1e-12, "rtol": 1e-12}
SILENT = {
    "random_in": random_in, "uniform_in": uniform_in, "zero_in": zero_in, "gradmax": gradmax,
    "copies": partial(copies, noise=0.0),
}  # fmt: skip


def gradients(model, batch):
    """The loss gradient of every parameter, in training's way."""
    model.zero_grad()
    mse_loss(model(batch.x), batch.y).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def gradient_at(model, batch, places):
    found = gradients(model, batch)
    return torch.cat([found[name].flatten()[where] for name, where in places.items()], dim=1)


@pytest.mark.parametrize("rule", SILENT)
@pytest.mark.parametrize("name", ["relu", "tanh", *KINDS])
def test_the_outputs_stay_and_the_new_units_learn(name, rule):
    model, structure, batch, counts = problem(name)
    before, random = snapshot(model), torch.random.get_rng_state()
    new = SILENT[rule](model, structure, batch, mse_loss, counts, 2)
    unchanged(before, model)
    assert torch.equal(random, torch.random.get_rng_state())
    torch.testing.assert_close(new(batch.x), model(batch.x), **CLOSE)
    grown = grown_structure(structure, counts)
    assert {group.name: group.width for group in trace(new, batch.x)} == {g.name: g.width for g in grown}
    units = newest(grown, counts)
    for group in counts:
        places = [find(new, grown, units, group) for find in (makers, readers)]
        moved = [gradient_at(new, batch, where).abs().sum(1) for where in places]
        assert bool((sum(moved) > 0).all()), "a unit that can never learn"


def test_uniform_inputs_owe_nothing_to_units_that_have_died():
    model, batch = layered(), sine()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e-6)
    structure, counts = trace(model, batch.x), {"2": 40}
    grown = grown_structure(structure, counts)
    inputs = []
    for rule in (random_in, partial(uniform_in, scale=2.0)):
        new = rule(model, structure, batch, mse_loss, counts, 3)
        inputs.append(values_at(new, makers(new, grown, newest(grown, counts), "2")).abs())
    assert inputs[0].max() < 1e-4
    assert 1.9 < inputs[1].max() <= 2
    assert inputs[1].mean().item() == pytest.approx(1.0, abs=0.1)
    with pytest.raises(ValueError, match="scale of new units' inputs must be above 0, got 0"):
        uniform_in(model, structure, batch, mse_loss, counts, scale=0.0)


def test_a_relu_without_inputs_or_bias_learns_in_float32():
    model, batch = layered(nn.ReLU, bias=False).float(), Batch(*(part.float() for part in sine()))
    structure = trace(model, batch.x)
    new = gradmax(model, structure, batch, mse_loss, {"2": 2})
    torch.testing.assert_close(new(batch.x), model(batch.x))
    made = makers(new, grown_structure(structure, {"2": 2}), {"2": (5, 6)}, "2")
    assert values_at(new, made).abs().max() < 1e-19
    assert (gradient_at(new, batch, made).norm(dim=1) > 1e-3).all()


def test_gradmax_is_the_singular_vectors_of_the_paper():
    """M = E[h g'], h what the layer reads, g the loss gradient at the readers: of a tanh layer, whose slope is 1."""
    model, batch = layered(), sine()
    structure = trace(model, batch.x)
    h = torch.cat([model[:2](batch.x), torch.ones(40, 1)], 1)
    out = model(batch.x)
    g = torch.autograd.grad(mse_loss(out, batch.y), out)[0]
    torch.testing.assert_close(linear_gradients(model, structure, batch, mse_loss, "2"), h.T @ g, rtol=1e-9, atol=1e-12)
    right = torch.linalg.svd(h.T @ g)[2]
    new = gradmax(model, structure, batch, mse_loss, {"2": 2})
    read = new[4].weight[:, 5:].T
    length = model[4].weight.norm(dim=0).mean()
    torch.testing.assert_close((read @ right.T).abs() / length, torch.eye(2, dtype=torch.float64), atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", ["lstm", "plain cnn", *slow("gru", "lstm cell", "packed")])
def test_measured_gradients_are_those_of_units_without_inputs_and_with_one_output(name):
    model, structure, batch, counts = problem(name)
    group = next(iter(counts))
    found = linear_gradients(model, structure, batch, mse_loss, group)
    new, grown = insert(model, structure, counts), grown_structure(structure, counts)
    units = newest(grown, counts)
    made, read = makers(new, grown, units, group), readers(new, grown, units, group)
    for k in (0, found.shape[1] // 2, found.shape[1] - 1):
        outputs = torch.zeros(2, found.shape[1])
        outputs[0, k] = 1
        still = with_values(new, [(made, torch.zeros_like(values_at(new, made))), (read, outputs)])
        expected = gradient_at(unrolled(still), batch, made)[0]
        if name == "plain cnn":  # torch's ReLU has no slope at 0, half of one around it
            assert not expected.any()
            assert found.any()
        else:
            torch.testing.assert_close(found[:, k], expected, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("name", ["tanh", "lstm", *slow("gru")])
def test_no_outputs_of_the_same_length_give_a_larger_gradient_than_gradmax(name):
    model, structure, batch, counts = problem(name)
    grown, group = grown_structure(structure, counts), next(iter(counts))
    units = newest(grown, counts)

    def size(new):
        return gradient_at(new, batch, makers(new, grown, units, group)).norm()

    best = gradmax(model, structure, batch, mse_loss, counts)
    read = readers(best, grown, units, group)
    lengths = values_at(best, read).norm(dim=1, keepdim=True)
    for seed in range(10):
        other = drawn(*values_at(best, read).shape, seed=seed)
        other = torch.linalg.qr(other.T).Q.T * lengths
        assert size(with_values(best, [(read, other)])) <= size(best) * (1 + 1e-9)


def test_tiny_is_the_least_squares_of_the_paper():
    model, batch = layered(), sine()
    structure = trace(model, batch.x)
    ones = torch.ones(40, 1, dtype=torch.float64)
    h, b = torch.cat([model[:2](batch.x), ones], 1), torch.cat([model[:4](batch.x), ones], 1)
    out = model(batch.x)
    g = torch.autograd.grad(mse_loss(out, batch.y), out)[0] * 40
    v = -(g - b @ torch.linalg.lstsq(b, g).solution)
    what = desired(model, structure, batch, mse_loss, "2")
    torch.testing.assert_close(what.moments, h.T @ h / 40, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(what.gain, h.T @ v / 40, rtol=1e-6, atol=1e-9)
    assert bottleneck(model, structure, batch, mse_loss)["2"] == pytest.approx(v.square().sum().item() / 40)
    inputs, outputs = best_units(what, 2)
    brought = inputs.T @ outputs  # as many units as outputs: the whole least squares of v by h
    torch.testing.assert_close(brought, torch.linalg.lstsq(h, v).solution, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "name", ["relu", "tanh", "lstm", "plain cnn", *slow("gru", "bidirectional", "packed", "shared")]
)
def test_tiny_lowers_the_loss_at_once_and_keeps_what_was_there(name):
    model, structure, batch, counts = problem(name)
    before = snapshot(model)
    new = tiny(model, structure, batch, mse_loss, counts)
    unchanged(before, model)
    assert mse_loss(new(batch.x), batch.y) < mse_loss(model(batch.x), batch.y) - 1e-6
    silent = insert(model, structure, counts)
    grown = grown_structure(structure, counts)
    units = newest(grown, counts)
    changes = [find(new, grown, units, group) for group in counts for find in (makers, readers)]
    back = with_values(new, [(where, values_at(silent, where)) for where in changes])
    assert all(torch.equal(p, q) for p, q in zip(back.parameters(), silent.parameters(), strict=True))


@pytest.mark.parametrize("rule", [random_in, uniform_in, zero_in, gradmax, tiny, copies])
def test_what_cannot_grow_is_refused_with_its_reason(rule):
    model, batch = layered(), sine()
    structure = trace(model, batch.x)
    with pytest.raises(StructureError, match=r"cannot grow by itself: .*output"):
        rule(model, structure, batch, mse_loss, {"4": 1})
    with pytest.raises(StructureError, match="there is no group 'x'"):
        rule(model, structure, batch, mse_loss, {"x": 1})
    with pytest.raises(ValueError, match="at least one unit"):
        rule(model, structure, batch, mse_loss, {"2": 0})
    with pytest.raises(ValueError, match="no group is named"):
        rule(model, structure, batch, mse_loss, {})
    with pytest.raises(ValueError, match="at least two examples, got 1"):
        rule(model, structure, Batch(batch.x[:1], batch.y[:1]), mse_loss, {"2": 1})


@pytest.mark.parametrize("rule", [zero_in, gradmax, tiny, copies])
def test_tied_weights_are_refused(rule):
    model, x = built("tied")
    with pytest.raises(StructureError, match="untie"):
        rule(model, trace(model, x), Batch(x, model(x).detach()), mse_loss, {"encoder": 1})


@pytest.mark.parametrize("rule", [uniform_in, zero_in, gradmax, tiny])
def test_units_whose_inputs_must_all_be_zero_are_refused(rule):
    tied = Net(lambda m, x: torch.tanh(m.e(x)) @ m.e.weight, e=nn.Linear(6, 3, bias=False))

    def adding(m, x):
        h = torch.tanh(m.e(x))
        return m.last(h) + h.sum(1, keepdim=True)

    added, x = Net(adding, e=nn.Linear(6, 3), last=nn.Linear(3, 6)), drawn(20, 6).float()
    for model, advice in [(tied, "add a bias"), (added, "leave the units to layers")]:
        with (
            pytest.warns(UserWarning, match=f"let another group grow, or {advice}"),
            pytest.raises(StructureError, match="new ones can have no inputs"),
        ):
            rule(model, trace(model, x), Batch(x, x), mse_loss, {"e": 1})


@pytest.mark.parametrize("rule", [zero_in, gradmax, tiny])
def test_readers_beside_tied_weights_are_enough(rule):
    def forward(m, x):
        h = torch.tanh(m.e(x))
        return h @ m.e.weight + m.last(h)

    model, x = Net(forward, e=nn.Linear(6, 3), last=nn.Linear(3, 6)), drawn(30, 6).float()
    new = rule(model, trace(model, x), Batch(x, x), mse_loss, {"e": 2})
    assert new.e.out_features == 5
    assert not new.e.weight[3:].any()
    assert mse_loss(new(x), x) < mse_loss(model(x), x) + 1e-6


def test_units_that_are_heard_without_inputs_are_refused():
    model, batch = layered(nn.Sigmoid), sine()
    with pytest.raises(StructureError, match="heard although they have no inputs"):
        gradmax(model, trace(model, batch.x), batch, mse_loss, {"2": 1})


def test_units_that_would_never_learn_are_refused():
    """A factor of zero on units without inputs has no gradient, nor have they."""
    model, x = built("scaled")
    with pytest.raises(StructureError, match="would never learn"):
        zero_in(model, trace(model, x), Batch(x, drawn(*model(x).shape)), mse_loss, {"a": 1})


@pytest.mark.parametrize("rule", [zero_in, gradmax, tiny, splits, firefly])
def test_data_that_are_no_numbers_are_refused(rule):
    model, batch = layered(), sine()
    broken = batch.x.clone()
    broken[3, 0] = torch.nan
    with pytest.raises(ValueError, match="not all finite numbers; look at the inputs"):
        rule(model, trace(model, batch.x), Batch(broken, batch.y), mse_loss, {"2": 1})


def test_tiny_says_which_reader_it_cannot_follow():
    model, x = built("transposed")
    with pytest.raises(StructureError, match=r"'b\.weight', which reads the units of 'a'"):
        tiny(model, trace(model, x), Batch(x, model(x).detach()), mse_loss, {"a": 1})


def test_the_bottleneck_covers_recurrent_layers_and_is_nothing_where_nothing_is_wrong():
    for name in set(ZOO) & {"lstm", "gru", "packed"}:
        model, x = built(name)
        structure = trace(model, x)
        wanted = bottleneck(model, structure, Batch(x, drawn(*model(x).shape)), mse_loss)
        assert wanted.keys() == {group.name for group in structure}
        assert max(wanted.values()) > 0
        done = bottleneck(model, structure, Batch(x, model(x).detach()), mse_loss)
        assert max(done.values()) < 1e-20
