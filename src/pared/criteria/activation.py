"""Criteria from the values that units take."""

from collections import defaultdict
from typing import Literal

import torch
from torch import Tensor, nn

from pared.data.batches import example, suited_batch
from pared.signals import Reading, Watched, open_gates
from pared.surgery import Group, trace
from pared.types import Batch, Loss, Scores


def activation(model: nn.Module, batch: Batch, loss: Loss, *, statistic: Literal["mean", "std"] = "mean") -> Scores:
    """Mean |h_j| of a unit, or the standard deviation of h_j, over samples, time steps and places.

    h_j is the value as its readers see it (after the nonlinearity; a recurrent layer's states at the steps that it and
    the next layer read). Where no weight reads a unit by itself, as for the queries of attention or the channels of a
    depthwise convolution, it is what is made. A unit with several readers takes the mean over them; one that nothing
    reads scores 0.

    Scores: group -> (units,), unit of the activation, >= 0; not comparable between groups.
    Cost: one forward pass, whose values are summed as they come.
    Source: Hu et al., Network Trimming (2016), with means instead of zero counts.
    """
    batch = suited_batch(batch, model)
    structure = trace(model, example(batch.x))
    seen: dict[tuple[str, int], _Spread] = defaultdict(_Spread)

    def see(reading: Reading) -> None:
        seen[reading.parameter, reading.axis].add(reading.values)

    Watched(model, structure, see)(batch.x)
    none = open_gates(model, structure)
    return {group.name: _of_group(group, seen, statistic).to(none[group.name]) for group in structure}


def _of_group(group: Group, seen: "dict[tuple[str, int], _Spread]", statistic: str) -> Tensor:
    each = []
    for s in group.slices:
        spread = seen.get((s.parameter, s.axis))
        if s.role == "out" and spread is not None and spread.count:
            size = spread.sizes / spread.count if statistic == "mean" else (spread.squares / spread.count).sqrt()
            index = torch.tensor(s.indices(group.width, range(group.width)), device=size.device)
            each.append(size[index].reshape(s.blocks, group.width, s.inner).mean(dim=(0, 2)))
    return torch.stack(each).mean(dim=0) if each else torch.zeros(group.width)


class _Spread:
    """Count, sum of sizes, mean and summed squares about it of values that come in parts."""

    def __init__(self) -> None:
        self.count = 0
        self.sizes = self.mean = self.squares = torch.zeros(())

    def add(self, values: Tensor) -> None:
        rows = values.reshape(-1, values.shape[-1])
        rows = rows if rows.device.type == "mps" else rows.double()  # which has no float64
        if not len(rows):
            return
        mean, total = rows.mean(dim=0), self.count + len(rows)
        shift = mean - self.mean.to(mean)
        self.sizes = self.sizes.to(mean) + rows.abs().sum(dim=0)
        self.squares = self.squares.to(mean) + (rows - mean).square().sum(dim=0)
        self.squares = self.squares + shift.square() * (self.count * len(rows) / total)
        self.mean = self.mean.to(mean) + shift * (len(rows) / total)
        self.count = total
