"""A stacked autoencoder: what networks that learn without targets are built from."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pared.models.mlp import ACTIVATIONS, Activation


class Autoencoder(nn.Module):
    """Dense layers down to a code and back: level l encodes h_l = f(W_l h_(l-1) + b_l), h_0 = x, and decodes it again.

    x (samples, inputs) -> (samples, inputs); train it by `fit` on `Batch(x, x)`. `widths` are those of the levels, the
    code's last. Level l's own decoder, `decoder[l - 1]`, leads from h_l back to h_(l-1), by f; the outermost by no
    activation, or by a sigmoid where inputs lie between 0 and 1 (`bounded`). `tied` decoders use W_l transposed, and
    biases of their own. Weights are drawn from PyTorch's uniform law; `seed` makes the draw reproducible and leaves
    the global random state alone. Raises ValueError for sizes below 1, for no level and for unknown activations.
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int] = (32, 16, 8),
        activation: Activation = "tanh",
        bounded: bool = False,
        tied: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if not widths or min((*widths, inputs)) < 1:
            raise ValueError(f"layer sizes must be at least 1, of at least one level; got {inputs} inputs, {widths}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}; choose one of {', '.join(get_args(Activation))}")
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            pairs = list(pairwise((inputs, *widths)))
            self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairs)
            self.decoder = nn.ModuleList(() if tied else (nn.Linear(b, a) for a, b in pairs))
            self.offsets = nn.ParameterList(nn.Parameter(torch.zeros(a)) for a, _ in pairs if tied)
        self.activation, self.bounded = ACTIVATIONS[activation](), bounded

    @property
    def levels(self) -> int:
        """How many layers lead to the code."""
        return len(self.encoder)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def encode(self, x: Tensor, level: int | None = None) -> Tensor:
        """h_level, (samples, width); without a level the code."""
        for number in range(1, (self.levels if level is None else level) + 1):
            x = self.encode_level(x, number)
        return x

    def decode(self, code: Tensor, level: int | None = None) -> Tensor:
        """Back to the inputs from h_level; without a level from the code."""
        for number in range(self.levels if level is None else level, 0, -1):
            code = self.decode_level(code, number)
        return code

    def encode_level(self, below: Tensor, level: int) -> Tensor:
        """h_(level - 1) -> h_level, levels counted from 1."""
        out: Tensor = self.activation(self.encoder[level - 1](below))
        return out

    def decode_level(self, above: Tensor, level: int) -> Tensor:
        """h_level -> what it says of h_(level - 1)."""
        if len(self.offsets):
            weight = cast(Tensor, self.encoder[level - 1].weight)
            out = linear(above, weight.t(), self.offsets[level - 1])
        else:
            out = self.decoder[level - 1](above)
        if level > 1:
            out = self.activation(out)
        elif self.bounded:
            out = out.sigmoid()
        return out
