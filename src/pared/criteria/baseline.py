"""The control that every criterion must beat."""

import torch
from torch import nn

from pared.data.batches import example, suited_batch
from pared.surgery import trace
from pared.types import Batch, Loss, Scores


def random(model: nn.Module, batch: Batch, loss: Loss, *, seed: int = 0) -> Scores:
    """Uniform random scores, the same for the same seed; the global random state is not touched.

    Scores: group -> (units,), no unit, in [0, 1). Cost: one trace.
    """
    x = example(suited_batch(batch, model).x)
    generator = torch.Generator().manual_seed(seed)
    return {group.name: torch.rand(group.width, generator=generator) for group in trace(model, x)}
