"""Copies are what `copy.deepcopy` makes, and share nothing with the model."""

import copy

import pytest
import torch
from torch import nn

from networks import snapshot, unchanged
from pared.surgery import Plan, cut, mask, trace
from pared.surgery.copies import copied
from zoo import PROBES, probe


def parts(model: nn.Module) -> dict[str, object]:
    """Every attribute of every module, with tensors by value and modules and hooks by kind."""
    return {
        f"{path}.{key}": value
        for path, module in model.named_modules()
        for key, value in vars(module).items()
        if not key.startswith("_")
    }


@pytest.mark.parametrize("name", [name for name in PROBES if name not in ("ResNet-18", "MobileNetV2")])
def test_a_copy_is_a_deep_copy(name):
    model, inputs = probe(name)
    model.train()
    first = next(model.parameters())
    first.requires_grad_(False)
    before = snapshot(model)
    new, expected = copied(model), copy.deepcopy(model)
    unchanged(before, model)
    assert [type(m) for m in new.modules()] == [type(m) for m in expected.modules()]
    assert [m.training for m in new.modules()] == [m.training for m in expected.modules()]
    assert [sorted(vars(m)) for m in new.modules()] == [sorted(vars(m)) for m in expected.modules()]
    assert str(parts(new)) == str(parts(expected))
    for (key, value), (other, wanted) in zip(new.state_dict().items(), expected.state_dict().items(), strict=True):
        assert key == other
        assert torch.equal(value, wanted)
    assert not {t.data_ptr() for t in new.state_dict().values()} & {t.data_ptr() for t in model.state_dict().values()}
    assert not {id(m) for m in new.modules()} & {id(m) for m in model.modules()}
    assert [p.requires_grad for p in new.parameters()] == [p.requires_grad for p in model.parameters()]
    assert torch.equal(new.eval()(*inputs), model.eval()(*inputs))


def test_hooks_tied_layers_and_own_attributes_are_copied():
    layer = nn.Linear(3, 3)
    layer.note = ["mine"]
    calls = []
    layer.register_forward_hook(lambda *_: calls.append("called"))
    model = nn.Sequential(layer, nn.Tanh(), layer, nn.Linear(3, 3))
    model[3].weight = layer.weight
    new = copied(model)
    assert new[0] is new[2] is not layer
    assert new[3].weight is new[0].weight is not layer.weight
    assert new[0].note == ["mine"]
    assert new[0].note is not layer.note
    new(torch.ones(1, 3))
    assert calls == ["called"] * 2
    new[0].register_forward_hook(lambda *_: None)
    assert len(layer._forward_hooks) == 1


def test_given_tensors_take_the_places_of_those_they_are_given_for():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(3, 4))
    model[2].weight = model[0].weight
    model[0].weight.requires_grad_(False)
    weight, mean = torch.zeros(2, 3), torch.ones(2)
    new = copied(model, instead={"0.weight": weight, "1.running_mean": mean})
    assert new[0].weight is new[2].weight
    assert isinstance(new[0].weight, nn.Parameter)
    assert not new[0].weight.requires_grad
    assert new[0].weight.data_ptr() == weight.data_ptr()
    assert new[1].running_mean is mean
    assert torch.equal(new[0].bias, model[0].bias)
    assert model[0].weight.shape == (4, 3)


class Rebuilt(nn.Module):
    """Makes its copies by hand, as generated modules do: what stands in a memo is not heeded."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))

    def __deepcopy__(self, memo):
        new = Rebuilt()
        new.load_state_dict(self.state_dict())
        return new.to(self.a.weight.dtype)


class Sharing(nn.Module):
    """Shares a frozen part with all of its copies."""

    class Frozen(nn.Linear):
        def __deepcopy__(self, memo):
            return self

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 5), Sharing.Frozen(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


@pytest.mark.parametrize("kind", [Rebuilt, Sharing])
def test_models_with_a_way_of_their_own_to_be_copied(kind):
    model, x = kind().double().eval(), torch.randn(4, 3, dtype=torch.float64)  # what is shared has one mode
    before, expected = snapshot(model), model(x)
    structure = trace(model, x)
    unchanged(before, model)
    assert structure["a"].width == 5
    if kind is Rebuilt:
        plan = Plan({"a": (0, 3)})
        small = cut(model, structure, plan)
        assert small.a.weight.shape == (2, 3)
        torch.testing.assert_close(small(x), mask(model, structure, plan)(x), rtol=1e-12, atol=1e-12)
    unchanged(before, model)
    assert torch.equal(model(x), expected)
