"""Every criterion on every network: law 1 (nothing changes) and law 2 (what a score looks like)."""

import random as python_random
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

from kinds import KINDS
from networks import batch, forecaster, mlp, snapshot, unchanged
from pared import criteria
from pared.data.batches import example
from pared.signals import plain_parameters, tensor_of
from pared.surgery import Plan, Structure, StructureError, by_unit, mask, trace
from pared.testing import check_criterion, permuted
from pared.types import Batch

FIRST = {"mlp": mlp, **{cell: partial(forecaster, cell) for cell in ("lstm", "gru", "rnn")}}
OTHERS = {name: kind.build for name, kind in KINDS.items() if name not in FIRST}
NETWORKS = {**FIRST, **OTHERS}
RECURRENT = ("lstm", "gru", "rnn", "bidirectional", "relu", "started", "packed", "cells")
CRITERIA = {
    "ablation": criteria.ablation,
    "activation": criteria.activation,
    "activation std": partial(criteria.activation, statistic="std"),
    "junk": criteria.junk,
    "junk in": partial(criteria.junk, direction="in"),
    "magnitude": criteria.magnitude,
    "random": criteria.random,
    "determinantal": criteria.determinantal,
    "entropy": partial(criteria.entropy, threshold=0.0),
    "greedy": criteria.greedy,
    "group obs": criteria.group_obs,
    "greedy without repair": partial(criteria.greedy, repair=False),
    "least squares": criteria.least_squares,
    "norm": criteria.norm,
    "norm in": partial(criteria.norm, side="in"),
    "norm with spread": partial(criteria.norm, spread=True),
    "predicted ablation": partial(criteria.predicted_ablation, order=1),
    "predicted ablation 2": criteria.predicted_ablation,
    "predicted ablation of each": partial(criteria.predicted_ablation, order=1, absolute=True),
    "reranked": partial(criteria.reranked, criterion=criteria.taylor),
    "sampled": criteria.sample_diverse,
    "similarity": criteria.similarity,
    "taylor": criteria.taylor,
    "taylor of the loss": partial(criteria.taylor, of="loss", power=1),
}
VARIANTS = {
    "determinantal", "sampled", "greedy without repair", "norm in", "norm with spread", "predicted ablation",
    "predicted ablation of each", "reranked",
}  # fmt: skip
"""What is tried on few kinds of network: it shares its way of looking with others (and determinants tie easily)."""
LONG = [("group obs", n) for n in ("lstm", "gru", "rnn", "cnn")]
"""What takes its time, for one slow test."""
PAIRS = [
    (c, n)
    for c in CRITERIA
    for n in NETWORKS
    if (not c.startswith("junk") or n in RECURRENT)
    and (c, n) != ("least squares", "tied")
    and (c not in VARIANTS or n in FIRST or n == "cnn")
    and (c != "group obs" or n == "mlp")
]
CALLS_LOSS = (
    "ablation", "taylor of the loss", "greedy", "greedy without repair", "predicted ablation", "predicted ablation 2",
    "predicted ablation of each", "group obs",
)  # fmt: skip
first_pairs = pytest.mark.parametrize(("criterion", "network"), [p for p in PAIRS if p[1] in FIRST])


def data_of(network, model, samples=6):
    return KINDS[network].batch(samples) if network in OTHERS else batch(model, samples)


def called(model, data):
    return tensor_of(model(*((data.x,) if isinstance(data.x, torch.Tensor) else data.x)))


class LossError(Exception):
    """What the loss raises."""


def failing_loss(output, target):
    torch.rand(3)
    raise LossError


def in_use(network):
    """A network in the middle of its life: gradients, hooks, frozen weights, mixed modes, a buffer."""
    model = NETWORKS[network]()
    model.register_buffer("steps", torch.tensor(7))
    model.train()
    data = data_of(network, model)
    mse_loss(called(model, data), data.y).backward()
    layers = [m for m in model.modules() if list(m.parameters(recurse=False))]
    layers[0].eval()
    next(layers[-1].parameters()).requires_grad_(False)
    layers[0].register_forward_hook(lambda *_: None)
    layers[-1].register_full_backward_hook(lambda *_: None)
    return model


def flat(data):
    return [*((data.x,) if isinstance(data.x, torch.Tensor) else data.x), data.y]


def global_states():
    return torch.get_rng_state().clone(), np.random.get_state()[1].copy(), python_random.getstate()


@pytest.mark.parametrize("loss", [mse_loss, failing_loss])
@first_pairs
def test_law_1_nothing_changes_also_after_an_exception(criterion, network, loss):
    model = in_use(network)
    data = data_of(network, model)
    before, inputs, states = snapshot(model), [part.clone() for part in flat(data)], global_states()
    if loss is failing_loss and criterion in CALLS_LOSS:
        with pytest.raises(LossError):
            CRITERIA[criterion](model, data, loss)
    else:
        CRITERIA[criterion](model, data, loss)
    unchanged(before, model)
    assert all(torch.equal(a, b) for a, b in zip(inputs, flat(data), strict=True))
    after = global_states()
    assert torch.equal(states[0], after[0])
    assert (states[1] == after[1]).all()
    assert states[2] == after[2]
    assert torch.is_grad_enabled()


@first_pairs
def test_law_2_names_shapes_and_values(criterion, network):
    model = NETWORKS[network]()
    data = data_of(network, model)
    scores = CRITERIA[criterion](model, data, mse_loss)
    shapes = {name: tuple(p.shape) for name, p in plain_parameters(model).items()}
    groups = {group.name: (group.width,) for group in trace(model, example(data.x))}
    assert scores
    kinds = {name in groups for name in scores}
    assert len(kinds) == 1, "one kind of score"
    for name, values in scores.items():
        assert tuple(values.shape) == (groups | shapes)[name]
        assert values.isfinite().all()
        assert not values.requires_grad
    again = CRITERIA[criterion](NETWORKS[network](), data_of(network, model), mse_loss)
    assert scores.keys() == again.keys()
    assert all(torch.equal(scores[name], again[name]) for name in scores)


@first_pairs
def test_scores_depend_on_the_weights_not_on_the_mode(criterion, network):
    model = NETWORKS[network]()
    data = data_of(network, model)
    one = CRITERIA[criterion](model.train(), data, mse_loss)
    two = CRITERIA[criterion](model.eval(), data, mse_loss)
    assert all(torch.equal(one[name], two[name]) for name in one)


def silenced(network, group, unit):
    """A network one unit of which is dead: nothing makes it and nothing reads it."""
    model = NETWORKS[network]()
    g = trace(model, example(data_of(network, model).x))[group]
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for s in g.slices:
            index = torch.tensor(s.indices(g.width, [unit]))
            if s.parameter in tensors:
                tensors[s.parameter].index_fill_(s.axis, index, 0.0)
            else:  # weight_norm computes it: the lengths of rows are those of its first tensor
                path, _, leaf = s.parameter.rpartition(".")
                computed = model.get_submodule(path).parametrizations[leaf]
                (computed.original1 if s.axis else computed.original0).index_fill_(s.axis, index, 0.0)
    return model


DRAWN = ("random", "sampled")
SIGNLESS = ("determinantal", "entropy", "random", "sampled")
"""What prefers units that are unlike each other or that switch; a dead unit may be that."""
SIGNED = ("ablation", "predicted ablation", "predicted ablation 2")
"""Where removal may help, 0 is what a dead unit scores."""
SIGNS = [(c, n) for c, n in PAIRS if c not in SIGNLESS]


@torch.no_grad()
@pytest.mark.parametrize(("criterion", "network"), SIGNS)
def test_higher_means_keep(criterion, network):
    """A unit without weights scores lowest in its group, and brute force agrees that it does nothing."""
    plain = NETWORKS[network]()
    for group in trace(plain, example(data_of(network, plain).x)):
        if group.width > 1:
            check_sign(criterion, network, group.name, unit=1)


def check_sign(criterion, network, group, unit):
    model = silenced(network, group, unit)
    data = data_of(network, model)
    structure = trace(model, example(data.x))
    whole = called(model, data)
    if criterion.startswith("greedy"):
        data = Batch(data.x, whole)  # removal of anything but the dead unit harms
    scores = CRITERIA[criterion](model, data, mse_loss)
    scores = scores if group in scores else by_unit(scores, structure)
    alone = Structure((structure[group],))  # layers of one width could not lose a unit in one of them alone
    rests = [[k for k in range(structure[group].width) if k != j] for j in range(structure[group].width)]
    damage = [float((called(mask(model, alone, Plan({group: rest})), data) - whole).abs().max()) for rest in rests]
    assert damage[unit] == min(damage) <= 1e-12 < max(damage)
    if group in scores:
        values = scores[group].abs() if criterion in SIGNED else scores[group]
        assert int(values.argmin()) == unit, group
        assert values[unit] < values.max()


def written_out(network, order):
    """The network with the units of one hidden layer in another order, written out layer by layer."""
    model = NETWORKS[network]()
    with torch.no_grad():
        if network == "mlp":
            for layer in (model.second, model.third):
                layer.weight.copy_(layer.weight[order])
                layer.bias.copy_(layer.bias[order])
            model.third.weight.copy_(model.third.weight[:, order])
            model.last.weight.copy_(model.last.weight[:, order])
            return model, "second"
        layer = model.recurrent[0]
        gates = len(layer.weight_ih_l0) // 5
        rows = torch.cat([5 * g + torch.tensor(order) for g in range(gates)])
        for parameter in layer.parameters():
            parameter.copy_(parameter[rows])
        layer.weight_hh_l0.copy_(layer.weight_hh_l0[:, order])
        model.recurrent[1].weight_ih_l0.copy_(model.recurrent[1].weight_ih_l0[:, order])
    return model, "recurrent.0.l0"


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [2, 0, 1, 4, 3]])
@pytest.mark.parametrize(("criterion", "network"), [p for p in PAIRS if p[0] not in DRAWN and p[1] in FIRST])
def test_scores_follow_a_permutation_of_units(criterion, network, order):
    plain = NETWORKS[network]()
    shuffled, group = written_out(network, order)
    data = batch(plain)
    torch.testing.assert_close(plain(data.x), shuffled(data.x))
    structure = trace(plain, data.x[:1])
    one, two = (CRITERIA[criterion](model, data, mse_loss) for model in (plain, shuffled))
    if group not in one:
        one, two = by_unit(one, structure), by_unit(two, structure)
    for name in one:
        expected = one[name][order] if name == group else one[name]
        torch.testing.assert_close(two[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", FIRST)
def test_the_published_permutation_is_the_one_written_out(network):
    order = [2, 0, 1, 4, 3]
    model, group = written_out(network, order)
    plain = NETWORKS[network]()
    found = permuted(plain, trace(plain, batch(plain).x)[group], order)
    for name, parameter in found.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


@pytest.mark.parametrize(("criterion", "network"), [p for p in PAIRS if p[1] in (*OTHERS, "lstm")])
def test_the_published_laws_hold(criterion, network):
    model = NETWORKS[network]()
    check_criterion(CRITERIA[criterion], model, data_of(network, model), mse_loss, informed=criterion not in DRAWN)


@pytest.mark.slow
@pytest.mark.parametrize(("criterion", "network"), LONG)
def test_what_takes_long_keeps_the_laws_too(criterion, network):
    model = NETWORKS[network]()
    check_criterion(CRITERIA[criterion], model, data_of(network, model), mse_loss)
    test_higher_means_keep(criterion, network)


@pytest.mark.parametrize("network", [name for name in NETWORKS if name not in RECURRENT])
def test_junk_says_that_it_scores_recurrent_layers(network):
    model = NETWORKS[network]()
    with pytest.raises(StructureError, match="scores recurrent layers"):
        criteria.junk(model, data_of(network, model), mse_loss)
