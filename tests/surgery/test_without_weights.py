"""A trace leaves out the weights of torch's own layers, and finds what it finds with them, whatever a forward reads."""

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import snapshot, unchanged
from pared.surgery import StructureError, trace
from pared.surgery.trace import _followed_without_weights
from pared.surgery.walk import _silent_convolution
from zoo import PROBES, probe


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)


class Deciding(Layers):
    """Python reads a weight while symbols run: with zeros it would take the other branch."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        if next(self.parameters())[0, 0].item() != 0:
            x = torch.tanh(self.b(x))
        return self.last(x)


class Picking(Layers):
    """A weight says which entries are read, and how many: with zeros there would be none."""

    def forward(self, x: Tensor) -> Tensor:
        first = torch.relu(self.a(x))
        return self.last(first) + self.b(first)[:, self.b.weight[0].abs() > 0].sum(1, keepdim=True)


class Scaling(Layers):
    """A number is taken out of a weight."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.a(x)) * self.b.weight.abs().max().item())


class Hooked(Layers):
    """A hook reads its layer's weight, and stops where it has none."""

    def __init__(self) -> None:
        super().__init__()
        self.a.register_forward_hook(stop_at_zeros)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.a(x)))


def stop_at_zeros(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
    if not module.weight.any():
        raise ValueError("no weights")


class Clipping(Layers):
    """The forward changes the weights, by Python and in the graph."""

    def forward(self, x: Tensor) -> Tensor:
        for parameter in self.parameters():
            parameter.data.mul_(0.5)
        self.b.weight.mul_(2.0)
        return self.last(torch.relu(self.b(torch.relu(self.a(x)))))


class Words(Layers):
    """An embedding that shortens its vectors whenever it looks them up."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 3, max_norm=0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.a(self.words(x.abs().long()))))


class Asking(Layers):
    """A branch that depends on the data, which neither way to trace can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.a(x)) if x.sum() > 0 else self.b(self.a(x)))


READING = (Deciding, Picking, Scaling, Hooked, Clipping, Words)
SMALL = [name for name in PROBES if name not in ("ResNet-18", "MobileNetV2")]


def found(model: nn.Module, inputs: tuple[Tensor, ...]) -> object:
    """All that a trace says."""
    try:
        structure = trace(model, inputs)
    except StructureError as error:
        return str(error)
    return structure.groups, structure.equal, structure.notes


@pytest.mark.parametrize("name", [*(kind.__name__ for kind in READING), *SMALL])
def test_the_same_is_found_with_and_without_the_weights(name, monkeypatch):
    torch.manual_seed(0)
    kinds = {kind.__name__: kind for kind in READING}
    model, inputs = (kinds[name](), (torch.randn(2, 3),)) if name in kinds else probe(name)
    before, state = snapshot(model), torch.get_rng_state()
    quick = found(model, inputs)
    unchanged(before, model)
    assert torch.equal(torch.get_rng_state(), state)
    monkeypatch.setattr(sys.modules[trace.__module__], "_followed_without_weights", lambda model, inputs: None)
    assert found(model, inputs) == quick
    unchanged(before, model)


@pytest.mark.parametrize("kind", [Deciding, Picking, Scaling, Clipping, Asking])
def test_where_a_weight_is_read_the_weights_are_there(kind):
    assert _followed_without_weights(kind(), (torch.randn(2, 3),)) is None


def test_a_plain_network_needs_no_weights():
    model, inputs = probe("residual CNN with BatchNorm")
    with torch.no_grad():
        assert _followed_without_weights(model, inputs) == trace(model, inputs)


def test_the_branch_that_a_weight_chooses_is_the_one_that_is_followed():
    model = Deciding()
    assert [group.name for group in trace(model, torch.randn(2, 3))] == ["a", "b"]
    nn.init.zeros_(model.a.weight)
    assert [group.name for group in trace(model, torch.randn(2, 3))] == ["a"]


CONVOLUTIONS = st.builds(
    lambda kind, outs, groups, kernel, stride, padding, dilation: kind(
        2 * groups, outs * groups, kernel, 1 if padding == "same" else stride, padding, dilation, groups
    ),
    st.sampled_from([nn.Conv1d, nn.Conv2d, nn.Conv3d]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([0, 1, 2, "same", "valid"]),
    st.integers(1, 2),
)


@settings(deadline=None, max_examples=60)
@given(CONVOLUTIONS, st.integers(1, 7), st.integers(0, 2))
def test_a_silent_convolution_is_shaped_as_a_real_one(module, size, more):
    """Also where the kernel does not fit, or x has other channels: then the real one speaks."""
    x = torch.ones(2, module.in_channels + (more == 2), *(size + k for k in range(len(module.kernel_size))))
    for weight in module.parameters():
        nn.init.zeros_(weight)
    found = _silent_convolution(module, x)
    try:
        expected = module(x)
    except RuntimeError:
        assert found is None
    else:
        assert found is not None
        assert torch.equal(found, expected)
        assert found.dtype == expected.dtype
    assert _silent_convolution(module, x.double()) is None
