"""Networks that the tests cut: small fixed ones, and Hypothesis strategies for random ones and plans for them."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from pared.models import Forecaster
from pared.surgery import Plan, Structure
from pared.types import Batch

ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "softplus": nn.Softplus}
KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class MLP(nn.Module):
    """Two hidden layers with a residual add between them."""

    def __init__(self, inputs: int = 3, width: int = 5, outputs: int = 2) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, 4)
        self.second = nn.Linear(4, width)
        self.third = nn.Linear(width, width)
        self.last = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.tanh(self.first(x))))
        return self.last(x + torch.tanh(self.third(x)))


def mlp(seed: int = 0) -> nn.Module:
    """An `MLP` in float64 with weights from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MLP().double()


def forecaster(cell: str = "lstm", seed: int = 0, recurrent=(5, 3), dense=(4,)) -> Forecaster:
    """A forecaster in float64 whose biases are not zero."""
    return Forecaster(2, recurrent, dense, cell=cell, init="torch", seed=seed).double()


def batch(model: nn.Module, samples: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64) -> Batch:
    """Random inputs and targets for `mlp` and `forecaster`."""
    generator = torch.Generator().manual_seed(seed)
    shape, outputs = ((samples, 3), 2) if isinstance(model, MLP) else ((samples, 4, 2), 1)
    x = torch.randn(shape, generator=generator, dtype=dtype)
    return Batch(x, torch.randn(samples, outputs, generator=generator, dtype=dtype))


@dataclass(frozen=True)
class Recurrent:
    """One recurrent module of a `Spec`."""

    kind: str
    width: int
    layers: int
    bias: bool
    relu: bool
    dropout: float

    def build(self, inputs: int, batch_first: bool) -> nn.RNNBase:
        more = {"nonlinearity": "relu" if self.relu else "tanh"} if self.kind == "rnn" else {}
        dropout = self.dropout if self.layers > 1 else 0.0
        return KINDS[self.kind](
            inputs, self.width, self.layers, bias=self.bias, batch_first=batch_first, dropout=dropout, **more
        )


@dataclass(frozen=True)
class Dense:
    """One linear layer of a `Spec`; `residual` gives it the width of what enters and adds that to it."""

    width: int
    bias: bool
    activation: str
    residual: bool


@dataclass(frozen=True)
class Spec:
    """A random network: recurrent modules, a reader of the last state, linear layers."""

    recurrent: tuple[Recurrent, ...]
    dense: tuple[Dense, ...]
    reader: str
    batch_first: bool
    residual: bool
    seed: int

    def build(self, seed: int | None = None) -> nn.Module:
        """The network in float64 and evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed if seed is None else seed)
            return Network(self).double().eval()

    def input(self) -> Tensor:
        """Three samples, five steps."""
        shape = (3, 2) if not self.recurrent else (3, 5, 2) if self.batch_first else (5, 3, 2)
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)


class Network(nn.Module):
    """What a `Spec` describes."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        sizes = (2, *(r.width for r in spec.recurrent))
        self.recurrent = nn.ModuleList(
            r.build(inputs, spec.batch_first) for r, inputs in zip(spec.recurrent, sizes, strict=False)
        )
        widths = [sizes[-1]]
        for d in spec.dense:
            widths.append(widths[-1] if d.residual else d.width)
        self.dense = nn.ModuleList(
            nn.Linear(a, b, bias=d.bias) for (a, b), d in zip(pairwise(widths), spec.dense, strict=True)
        )
        self.activations = nn.ModuleList(ACTIVATIONS[d.activation]() for d in spec.dense)
        self.last = nn.Linear(widths[-1], 2)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for k, layer in enumerate(self.recurrent):
            before = x
            x, state = layer(x)
            if self.spec.residual and k > 0 and self.spec.recurrent[k - 1].width == self.spec.recurrent[k].width:
                x = x + before
        if state is not None:
            x = self.read(x, state)
        for layer, activation, dense in zip(self.dense, self.activations, self.spec.dense, strict=True):
            made = activation(layer(x))
            x = x + made if dense.residual else made
        return self.last(x)

    def read(self, out: Tensor, state) -> Tensor:
        if self.spec.reader == "out":
            return out[:, -1] if self.spec.batch_first else out[-1]
        if self.spec.recurrent[-1].kind == "lstm":
            h, c = state
            return h[-1] if self.spec.reader == "h" else h[-1] + torch.tanh(c[-1])
        return state[-1]


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """Random stacks of depth 1 to 4 below the output layer."""
    depth = draw(st.integers(1, 4))
    count = draw(st.integers(0, min(depth, 2)))
    recurrent = tuple(
        Recurrent(
            kind=draw(st.sampled_from(["lstm", "gru", "rnn"])),
            width=draw(st.integers(1, 5)),
            layers=draw(st.integers(1, 3)),
            bias=draw(st.booleans()),
            relu=draw(st.booleans()),
            dropout=draw(st.sampled_from([0.0, 0.5])),
        )
        for _ in range(count)
    )
    dense = tuple(
        Dense(
            width=draw(st.integers(1, 6)),
            bias=draw(st.booleans()),
            activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
            residual=bool(count or k) and draw(st.booleans()),
        )
        for k in range(depth - count)
    )
    return Spec(
        recurrent,
        dense,
        reader=draw(st.sampled_from(["out", "h", "hc"])),
        batch_first=draw(st.booleans()),
        residual=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
    )


@st.composite
def plans(draw: st.DrawFn, structure: Structure) -> Plan:
    """Random plans that fit: a non-empty part of some groups, equally many in the layers of one module."""
    keep: dict[str, tuple[int, ...]] = {}
    counts: dict[str, int] = {}
    for names in structure.equal:
        count = draw(st.integers(1, structure[names[0]].width))
        for name in names:
            counts[name] = next((counts[other] for other in names if other in counts), count)
    for group in structure:
        if group.name in counts or draw(st.booleans()):
            units = draw(st.permutations(range(group.width)))
            keep[group.name] = tuple(units[: counts.get(group.name, draw(st.integers(1, group.width)))])
    return Plan(keep)


def snapshot(model: nn.Module) -> dict[str, object]:
    """Everything that law 1 protects in a module, as values that can be compared with `unchanged`."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {name: tensor.detach().clone() for name, tensor in tensors.items()},
        "ids": {name: id(tensor) for name, tensor in tensors.items()},
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "training": {name: m.training for name, m in model.named_modules()},
        "modules": {name: id(m) for name, m in model.named_modules()},
        "hooks": {
            name: [list(getattr(m, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
            for name, m in model.named_modules()
        },
        "attributes": {name: sorted(vars(m)) for name, m in model.named_modules()},
    }


def unchanged(before: dict[str, object], model: nn.Module) -> None:
    """Asserts that the model is bit for bit what `snapshot` saw."""
    after = snapshot(model)
    for part in ("values", "grads"):
        assert before[part].keys() == after[part].keys()
        for name, old in before[part].items():
            new = after[part][name]
            assert (old is None) == (new is None), (part, name)
            assert old is None or torch.equal(old, new), (part, name)
    for part in ("ids", "requires_grad", "training", "modules", "hooks", "attributes"):
        assert before[part] == after[part], part
