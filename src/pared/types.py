"""The few types that every part of pared shares."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

Inputs = Tensor | tuple[Tensor, ...]
"""What a network takes: a tensor, or a tuple of tensors where it takes several; samples lie along the first axis."""


class Batch(NamedTuple):
    """Inputs `x` and targets `y`, paired along the first axis; `x` may be a tuple of inputs, as `Inputs` says."""

    x: Tensor
    y: Tensor


Loss = Callable[[Tensor, Tensor], Tensor]
"""What training minimises: `loss(output, target)` -> scalar, averaged over samples."""

Schedule = Callable[[float], float]
"""Progress in [0, 1] -> value."""

Scores = dict[str, Tensor]
"""Parameter name -> score per weight, or group name -> score per unit. Higher = keep."""

Masks = dict[str, Tensor]
"""Parameter name -> booleans shaped like it: True stays, False is zero and stays zero."""

Criterion = Callable[[nn.Module, Batch, Loss], Mapping[str, Tensor]]
"""What scores importance: `criterion(model, batch, loss)` -> scores; knobs are bound beforehand (functools.partial)."""

Progress = Callable[[str, int, int], None]
"""`progress(stage, done, total)`: how far a long call has come."""


class DataError(ValueError):
    """A user's data cannot be used as they are; the message says where, what was found and what to do."""


class DivergedError(RuntimeError):
    """Training ended in a loss that is not finite."""
