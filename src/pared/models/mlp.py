"""A network of dense layers: what tables are read with."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

Activation = Literal["tanh", "relu", "sigmoid"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}


class MLP(nn.Module):
    """Dense layers, each but the last followed by an activation.

    x (samples, ...), read as (samples, inputs) -> (samples, outputs), for classes their logits. Weights are drawn from
    PyTorch's uniform law; `seed` makes the draw reproducible and leaves the global random state alone, None draws from
    the global one. With `dropout` that share of what each activation puts out is silenced in training. Raises
    ValueError for sizes below 1 and unknown activations.
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int] = (16,),
        outputs: int = 1,
        activation: Activation = "tanh",
        seed: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min((*widths, inputs, outputs)) < 1:
            raise ValueError(f"layer sizes must be at least 1, got {inputs} inputs, {widths}, {outputs} outputs")
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}; choose one of {', '.join(get_args(Activation))}")
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            parts: list[nn.Module] = []
            for a, b in pairwise((inputs, *widths)):
                parts += [nn.Linear(a, b), ACTIVATIONS[activation](), *([nn.Dropout(dropout)] if dropout else [])]
            self.layers = nn.Sequential(*parts, nn.Linear((inputs, *widths)[-1], outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x.flatten(1))
        return out
