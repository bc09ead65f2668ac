"""The published laws catch modules, structures and criteria that break them."""

import contextlib
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from kinds import KINDS
from networks import batch, forecaster, mlp, snapshot, unchanged
from pared import criteria
from pared.surgery import Group, Slice, Structure, StructureError, by_unit, trace
from pared.testing import check_criterion, check_model, permuted


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_network_keeps_the_laws(name):
    model, x = KINDS[name].build(), KINDS[name].batch().x
    before = snapshot(model)
    for seed in (0, 1):
        check_model(model, x, seed=seed)
    unchanged(before, model)


def test_single_precision_is_checked_to_its_own_rounding():
    check_model(forecaster().float(), batch(forecaster()).x)


def without(structure, name, role):
    """A structure that has lost the slices of one role."""
    groups = (
        dataclasses.replace(g, slices=tuple(s for s in g.slices if s.role != role)) if g.name == name else g
        for g in structure
    )
    return Structure(tuple(groups), structure.equal)


def test_a_reader_that_was_forgotten_is_caught():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    with pytest.raises((AssertionError, RuntimeError)):
        check_model(model, x, structure=without(trace(model, x), "0", "out"))
    with pytest.raises((AssertionError, RuntimeError)):
        check_model(model, x, structure=without(trace(model, x), "0", "in"))


def test_a_structure_that_mixes_up_gates_is_caught():
    """Four blocks of one gate's units taken for one block: shapes fit, values do not."""
    model, x = forecaster(recurrent=(4, 3)), batch(forecaster()).x
    structure = trace(model, x)
    group = structure["recurrent.0.l0"]
    slices = tuple(
        dataclasses.replace(s, blocks=1, inner=4) if s.role == "in" and s.blocks == 4 else s for s in group.slices
    )
    wrong = Structure((dataclasses.replace(group, slices=slices),))
    with pytest.raises(AssertionError, match=r"law 3: cut and mask of 'recurrent\.0\.l0' keeping units .* differ by"):
        check_model(model, x, structure=wrong)


def test_units_that_are_not_alike_are_caught():
    """Both readers of a difference: cutting equals masking, but two units may not change places."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    whole = trace(model, x)["0"]
    alone = Structure((Group("0", 4, tuple(s for s in whole.slices if s.parameter != "0.bias")),))
    nn.init.uniform_(model[0].bias)
    with pytest.raises((AssertionError, RuntimeError)):
        check_model(model, x, structure=alone)


def test_a_forward_that_changes_its_module_is_caught():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

        def __deepcopy__(self, memo):  # a copy that is the model itself
            return self

    with pytest.raises(AssertionError, match="law 1: cut changed"):
        check_model(Counting().double(), torch.randn(5, 3, dtype=torch.float64))


def test_what_cannot_be_traced_is_said():
    with pytest.raises(StructureError):
        check_model(nn.Linear(2, 2), torch.ones(1, 2))


def test_permuted_networks_compute_the_same():
    for name, kind in KINDS.items():
        model, data = kind.build(), kind.batch()
        x = (data.x,) if isinstance(data.x, torch.Tensor) else data.x
        for group in trace(model, tuple(part[:1] for part in x)):
            out, new = (net(*x) for net in (model, permuted(model, group, list(reversed(range(group.width))))))
            torch.testing.assert_close(new, out, rtol=1e-12, atol=1e-12, msg=f"{name} {group.name}")


def scores_of(model, data):
    return criteria.activation(model, data, mse_loss)


def changes_a_weight(model, data, loss):
    with torch.no_grad():
        next(model.parameters()).mul_(1.0000001)
    return scores_of(model, data)


def leaves_gradients(model, data, loss):
    loss(model(data.x), data.y).backward()
    return scores_of(model, data)


def leaves_evaluation_mode(model, data, loss):
    return scores_of(model.eval(), data)


def leaves_it_when_the_loss_raises(model, data, loss):
    model.eval()
    loss(model(data.x), data.y)
    model.train()
    return scores_of(model, data)


def leaves_a_hook(model, data, loss):
    next(iter(model.children())).register_forward_hook(lambda *_: None)
    return scores_of(model, data)


def freezes(model, data, loss):
    next(model.parameters()).requires_grad_(False)
    return scores_of(model, data)


def draws(model, data, loss):
    torch.rand(1)
    return scores_of(model, data)


def swallows(model, data, loss):
    with contextlib.suppress(Exception):
        loss(model(data.x), data.y)
    return scores_of(model, data)


def names_nothing(model, data, loss):
    return {f"{name}!": values for name, values in scores_of(model, data).items()}


def is_too_short(model, data, loss):
    return {name: values[1:] for name, values in scores_of(model, data).items()}


def mixes(model, data, loss):
    return scores_of(model, data) | criteria.magnitude(model, data, loss)


def divides_by_zero(model, data, loss):
    return {name: values / 0 for name, values in scores_of(model, data).items()}


def keeps_the_graph(model, data, loss):
    return {name: values * next(model.parameters()).sum() for name, values in scores_of(model, data).items()}


class _Differs:
    calls = 0


def differs(model, data, loss):
    _Differs.calls += 1
    return {name: values + _Differs.calls for name, values in scores_of(model, data).items()}


def depends_on_the_mode(model, data, loss):
    return {name: values + float(model.training) for name, values in scores_of(model, data).items()}


def counts_places(model, data, loss):
    return {name: torch.arange(len(values)) + values for name, values in scores_of(model, data).items()}


def changes_its_inputs(model, data, loss):
    found = scores_of(model, data)
    data.x.mul_(2)
    return found


BROKEN = {
    changes_a_weight: "law 1: the criterion changed the values of",
    leaves_gradients: "law 1: the criterion changed the gradient of",
    leaves_evaluation_mode: "law 1: the criterion changed the mode of",
    leaves_it_when_the_loss_raises: "law 1: the criterion, when the loss raised, changed the mode of",
    leaves_a_hook: "law 1: the criterion changed the hooks of",
    freezes: "law 1: the criterion changed requires_grad of",
    draws: "law 1: the criterion changed the random state of torch",
    swallows: "swallows what the loss raises",
    names_nothing: "law 2: .* name neither parameters nor groups; the groups are .*'first'",
    is_too_short: r"law 2: scores of 'first' are shaped \(3,\), not \(4,\)",
    mixes: "law 2: scores of weights and of units are mixed",
    divides_by_zero: "law 2: scores of 'first' are not finite",
    keeps_the_graph: "law 2: scores of 'first' carry a graph",
    differs: "law 2 .determinism.*scores of 'first'",
    depends_on_the_mode: "law 2: training and evaluation mode",
    counts_places: "law 2: reordering the units of 'first'",
    changes_its_inputs: "changed its inputs|determinism",
    lambda *_: {}: "scores nothing",
}


@pytest.mark.parametrize("criterion", BROKEN)
def test_broken_criteria_are_caught_by_name(criterion):
    model = mlp()
    before = snapshot(model)
    with pytest.raises(AssertionError, match=BROKEN[criterion]):
        check_criterion(criterion, model, batch(model), mse_loss)
    unchanged(before, model)


def test_a_users_own_criterion_passes():
    def incoming(model, data, loss):
        structure = trace(model, data.x[:1])
        return by_unit({n: p.detach() ** 2 for n, p in model.named_parameters()}, structure, "in")

    check_criterion(incoming, mlp(), batch(mlp()), mse_loss)
    check_criterion(lambda *_: {"first": torch.tensor(1.0)}, mlp(), batch(mlp()), mse_loss)  # one for a layer


def test_hand_written_slices_are_checked():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    slices = (Slice("0.weight", 0, "in"), Slice("0.bias", 0, "in"), Slice("2.weight", 1, "out"))
    check_model(model, torch.randn(5, 3, dtype=torch.float64), structure=Structure((Group("mine", 4, slices),)))
