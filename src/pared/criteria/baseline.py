"""The control that every criterion must beat."""

from typing import Literal

import torch
from torch import nn

from pared.data.batches import example, suited_batch
from pared.signals import prunable
from pared.surgery import trace
from pared.types import Batch, Loss, Scores


def random(
    model: nn.Module, batch: Batch, loss: Loss, *, seed: int = 0, of: Literal["units", "weights"] = "units"
) -> Scores:
    """Uniform random scores, the same for the same seed; the global random state is not touched.

    Scores: group -> (units,), or weight parameter -> its shape with `of` "weights"; no unit, in [0, 1).
    Cost: one trace.
    """
    generator = torch.Generator().manual_seed(seed)
    if of == "weights":
        return {name: torch.rand(shape, generator=generator) for name, shape in prunable(model).shapes.items()}
    x = example(suited_batch(batch, model).x)
    return {group.name: torch.rand(group.width, generator=generator) for group in trace(model, x)}
