"""Criteria from the values that units take."""

from typing import Literal

import torch
from torch import nn

from pared.signals import read_values, reading_slices
from pared.surgery import trace
from pared.types import Batch, Loss, Scores


def activation(model: nn.Module, batch: Batch, loss: Loss, *, statistic: Literal["mean", "std"] = "mean") -> Scores:
    """Mean |h_j| of a unit, or the standard deviation of h_j, over samples and time steps.

    h_j is the value as its readers see it (after the nonlinearity; a recurrent layer's states at the steps that it and
    the next layer read). A unit with several readers takes the mean over them; one that nothing reads scores 0.

    Scores: group -> (units,), unit of the activation, >= 0; not comparable between groups.
    Cost: two forward passes. Source: Hu et al., Network Trimming (2016), with means instead of zero counts.
    """
    structure = trace(model, batch.x[:1])
    values = read_values(model, structure, batch.x)
    scores: Scores = {}
    for group in structure:
        each = []
        for _, s in reading_slices([group]):
            if len(values[s.parameter]) == 0:  # a recurrent weight in a window of one step
                continue
            index = torch.tensor(s.indices(group.width, range(group.width)), device=batch.x.device)
            seen = values[s.parameter].index_select(1, index)
            size = seen.abs().mean(dim=0) if statistic == "mean" else seen.std(dim=0, correction=0)
            each.append(size.reshape(s.blocks, group.width, s.inner).mean(dim=(0, 2)))
        scores[group.name] = torch.stack(each).mean(dim=0) if each else batch.x.new_zeros(group.width)
    return scores
