"""What random networks are put together from: shapes, blocks written as functions, parts that can be built again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

WIDTHS = st.integers(1, 4)
FLAGS = st.booleans()


class Shape(NamedTuple):
    """Rows (n, width), steps (n, *places, width) or a grid (n, width, *places)."""

    kind: str
    width: int
    places: tuple[int, ...] = ()

    def as_wide(self, width: int) -> "Shape":
        return self._replace(width=width)


class Made(NamedTuple):
    """A module and the shape of what it returns."""

    module: nn.Module
    shape: Shape


class Block(nn.Module):
    """Some layers or parameters and a function that uses them."""

    def __init__(self, function: Callable[..., Tensor], **held: Any) -> None:
        super().__init__()
        self.function = function
        for name, layer in held.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


@dataclass(frozen=True)
class Part:
    """A function that makes a module for inputs of a shape, and its options."""

    make: Callable[..., Made]
    given: Shape
    options: Mapping[str, Any]

    def build(self) -> Made:
        return self.make(self.given, **self.options)

    def __repr__(self) -> str:
        return f"{self.make.__name__}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"


def weight(*shape: int) -> nn.Parameter:
    """A bare parameter."""
    return nn.Parameter(torch.randn(shape) / shape[-1] ** 0.5)


def normed(layer: nn.Module, wanted: bool) -> nn.Module:
    """A layer, with weight_norm's parametrisation where it is wanted."""
    return weight_norm(layer) if wanted else layer


def divisor(width: int, wanted: int) -> int:
    """The largest divisor of a width that is not above what is wanted."""
    return max(d for d in range(1, wanted + 1) if width % d == 0)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "silu": lambda x: nn.functional.silu(x, inplace=False),
    "softplus": nn.functional.softplus,
    "sigmoid": lambda x: x.sigmoid(),
    "hardtanh": lambda x: x.clamp(-0.5, 1),
    "scaled": lambda x: 2 * x - 1,
    "soft sign": lambda x: x / (1 + x.abs()),
    "leaky": lambda x: torch.where(x > 0, x, 0.1 * x),
    "maximum": lambda x: torch.maximum(x, 0.5 * x),
    "squared": lambda x: x.pow(2).clamp_max(4),
    "dropout": lambda x: nn.functional.dropout(x, 0.5, training=False),
    "masked": lambda x: x.masked_fill(x < 0, 0.0),
    "in place": lambda x: (x + 0).add_(0.5).relu_(),
}
ACTIVATION = st.sampled_from(sorted(ACTIVATIONS))


def randomise(model: nn.Module) -> nn.Module:
    """Makes constants random: biases, scales, running statistics; weights a little larger than PyTorch starts them."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif parameter.numel() > 1:
                parameter.mul_(1.5)
            else:
                parameter.add_(0.3)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.3)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return model
