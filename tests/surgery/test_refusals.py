"""Bad input: each kind ends in an error that names the place and says what to do, and the model stays bit for bit."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import pared
from kinds import KINDS
from networks import snapshot, unchanged
from pared.compensate import compensate
from pared.criteria import ablation, activation, magnitude, random, taylor
from pared.data.batches import example
from pared.surgery import Group, Plan, Slice, Structure, StructureError, cut, mask, replay, trace
from pared.testing import check_criterion, check_model
from pared.types import Batch


class Looking(nn.Module):
    """Its path depends on its values."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.first(x) if x.sum() > 0 else self.second(x))


class Looping(Looking):
    """How often it runs depends on its values."""

    def forward(self, x):
        h = self.first(x)
        while h.abs().max() > 1:
            h = h / 2
        return self.last(h)


class Doubled(torch.autograd.Function):
    """A user's own function, in terms of PyTorch's or of something else."""

    @staticmethod
    def forward(context, x, outside):
        return torch.from_numpy(2 * x.detach().numpy()) if outside else 2 * x

    @staticmethod
    def backward(context, gradient):
        return 2 * gradient, None


class Custom(Looking):
    outside = True

    def forward(self, x):
        return self.last(Doubled.apply(self.first(x), self.outside))


class Spectral(Looking):
    """An operation that no rule is for."""

    def forward(self, x):
        return self.last(torch.fft.fft(self.first(x)).real)


class Between(Looking):
    """A layer that no rule is for."""

    def __init__(self):
        super().__init__()
        self.pair = nn.Bilinear(4, 4, 4)

    def forward(self, x):
        return self.last(self.pair(self.first(x), self.second(x)))


class Fixed(Looking):
    """Sizes written into the code."""

    def forward(self, x):
        return self.last(self.first(x).reshape(-1, 2, 2).transpose(1, 2).reshape(-1, 4))


X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))

UNTRACEABLE = {
    Looking: r"cannot follow Looking\.forward.*control flow that depends on tensor values",
    Looping: r"cannot follow Looping\.forward.*control flow that depends on tensor values",
    Custom: r"cannot follow Custom\.forward.*write the Structure by hand",
    Spectral: r"no rule for.*fft.*units of first.*supported layers or write the Structure by hand",
    Between: r"no rule for.*'pair'.*units of .*first, second",
    Fixed: r"first.*stays: .*writes its size into the code|first.*stays: ",
}

USES = {
    "trace": lambda model, x: trace(model, x),
    "prune": lambda model, x: pared.prune(model, Batch(x, x[:, :2])),
    **{
        c.__name__: lambda model, x, c=c: c(model, Batch(x, x[:, :2]), nn.functional.mse_loss)
        for c in (ablation, activation, random, taylor)
    },
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", UNTRACEABLE)
def test_what_cannot_be_followed_is_refused_wherever_it_is_handed_in(kind, use):
    model = kind().train()
    before, state = snapshot(model), torch.get_rng_state()
    with pytest.raises(StructureError, match=UNTRACEABLE[kind]):
        USES[use](model, X)
    unchanged(before, model)
    assert torch.equal(state, torch.get_rng_state())


def test_a_function_of_ones_own_that_pytorch_can_look_into_is_followed():
    model = Custom().double()
    model.outside = False
    check_model(model, X)
    check_criterion(taylor, model, Batch(X, X[:, :2]), nn.functional.mse_loss)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))


EDITS = {
    "cut": cut,
    "mask": mask,
    "compensate": lambda model, structure, plan: compensate(model, structure, plan, X),
}

PLANS = {
    "units out of range": ({"0": (0, 4)}, r"'0' has units 0 to 3, the plan keeps \[0, 4\]"),
    "units below zero": ({"0": (-1, 2)}, "'0' has units 0 to 3"),
    "a unit twice": ({"2": (1, 1)}, "name each kept unit once"),
    "an empty group": ({"2": ()}, "empties group '2'; keep at least one of its 5 units"),
    "no such group": ({"3": (0,)}, "no group '3'; the groups are 0, 2"),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("what", PLANS)
def test_plans_that_do_not_fit_are_refused(what, edit):
    model = network()
    structure = trace(model, X)
    before = snapshot(model)
    keep, words = PLANS[what]
    with pytest.raises(StructureError, match=words):
        EDITS[edit](model, structure, Plan(keep))
    unchanged(before, model)


@pytest.mark.parametrize("edit", EDITS)
def test_a_structure_of_another_network_is_refused(edit):
    model, other = network(), nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    structure = trace(other, X)
    before = snapshot(model)
    with pytest.raises(StructureError, match=r"'0'.*use the structure or plan of this very network"):
        EDITS[edit](model, structure, Plan({"0": (0, 5)}))
    unchanged(before, model)


def test_a_plan_of_another_network_is_not_replayed():
    model, other = network(), nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    plan = trace(other, X).bind(Plan({"0": (0, 5)}))
    before = snapshot(model)
    with pytest.raises(StructureError, match="this very network"):
        replay(plan, model)
    unchanged(before, model)


def test_a_ratio_that_would_empty_or_cut_nothing_is_refused():
    model, data = network(), Batch(X, X[:, :2])
    before = snapshot(model)
    for ratio in (0, 1, 1.5, -0.5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            pared.prune(model, data, ratio=ratio)
    with pytest.raises(ValueError, match="removes nothing"):
        pared.prune(model, data, ratio=0.01)
    with pytest.raises(ValueError, match="keep at least one each"):
        pared.prune(model, data, ratio=pared.Count(4))
    with pytest.raises(ValueError, match="protect fewer groups"):
        pared.prune(model, data, keep=["*"])
    unchanged(before, model)


class Half(nn.Module):
    """A parametrisation that cannot be undone."""

    def forward(self, weight):
        return weight / 2


class Bent(nn.Module):
    """One whose inverse does not give back what it was given."""

    def forward(self, weight):
        return torch.tanh(weight)

    def right_inverse(self, weight):
        return weight * 3


@pytest.mark.parametrize("parametrisation", [Half, Bent])
@pytest.mark.parametrize("layer", [0, 2, 4])
@pytest.mark.parametrize("edit", ["cut", "mask"])
def test_a_failure_in_the_middle_leaves_no_trace(edit, layer, parametrisation):
    """The layers before the one that fails have been edited by then, in a copy."""
    model = network()
    parametrize.register_parametrization(model[layer], "weight", parametrisation())
    structure = trace(model, X)
    before, out = snapshot(model), model(X)
    if edit == "mask" and layer == 0:  # its weight is not touched: the next one reads it
        return
    with pytest.raises(StructureError, match=rf"'{layer}\.weight' is computed by a parametrisation.*remove it first"):
        EDITS[edit](model, structure, Plan({"0": (0, 2), "2": (1, 3)}))
    unchanged(before, model)
    assert torch.equal(model(X), out)


@pytest.mark.parametrize("use", [ablation, activation, magnitude, random, taylor])
def test_criteria_score_what_cannot_be_cut_without_spoiling_it(use):
    """Copies of a parametrised layer share its class with it."""
    model = network()
    parametrize.register_parametrization(model[2], "weight", Half())
    before, out = snapshot(model), model(X)
    use(model, Batch(X, X[:, :2]), nn.functional.mse_loss)
    unchanged(before, model)
    assert torch.equal(model(X), out)


def test_orthogonal_weights_cannot_be_cut_and_say_so():
    model = network()
    parametrizations.orthogonal(model[2], "weight")
    structure = trace(model, X)
    before = snapshot(model)
    with pytest.raises(StructureError, match=r"'2\.weight'.*remove it first"):
        cut(model, structure, Plan({"0": (0, 2)}))
    unchanged(before, model)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_network_survives_a_plan_that_fails(name):
    model, data = KINDS[name].build(), KINDS[name].batch()
    structure = trace(model, example(data.x))
    last = structure.groups[-1]
    wrong = Group(last.name, last.width, (*last.slices, Slice("nowhere.weight", 0, "in")))
    broken = Structure((*structure.groups[:-1], wrong), structure.equal)
    before = snapshot(model)
    names = next((names for names in structure.equal if last.name in names), (last.name,))
    for edit in (cut, mask):
        with pytest.raises(StructureError, match=r"'nowhere\.weight'.*this very network"):
            edit(model, broken, Plan(dict.fromkeys(names, (0,))))
    unchanged(before, model)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (X, TypeError, "Batch, an .x, y. pair"),
        ((X, X[:3, :2]), ValueError, "same length"),
        ((X[:, :2], X[:, :2]), (RuntimeError, ValueError), "shape|size"),
        ([], ValueError, "no sample"),
        ([(X, X[:, :2], X)], TypeError, "pair"),
    ],
)
def test_data_that_do_not_fit_leave_the_model_alone(data, error, words):
    model = network()
    before = snapshot(model)
    with pytest.raises(error, match=words):
        pared.prune(model, data)
    unchanged(before, model)


def test_a_model_that_cannot_be_copied_is_refused():
    model = network()
    structure = trace(model, X)
    model.kept = model(X)
    with pytest.raises(StructureError, match="cannot be copied"):
        trace(model, X)
    with pytest.raises(StructureError, match="cannot be copied"):
        compensate(model, structure, Plan({"0": (0,)}), X)
    del model.kept
    assert copy.deepcopy(model)
