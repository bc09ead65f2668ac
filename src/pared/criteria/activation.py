"""Criteria from the values that units take."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from pared.data.batches import example, suited_batch
from pared.signals import Reading, Watched, open_gates
from pared.surgery import Group, trace
from pared.types import Batch, Loss, Scores

Key = tuple[str, int]
"""A parameter and the axis along which it reads."""


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
    seen: dict[Key, _Spread] = defaultdict(_Spread)

    def see(reading: Reading) -> None:
        seen[reading.parameter, reading.axis].add(reading.values)

    Watched(model, structure, see)(batch.x)
    found = {key: spread.statistic(statistic) for key, spread in seen.items() if spread.count}
    none = open_gates(model, structure)
    return {group.name: _of_group(group, found).to(none[group.name]) for group in structure}


def entropy(model: nn.Module, batch: Batch, loss: Loss, *, threshold: float = 0.5) -> Scores:
    """How evenly a unit is on and off: -(p log2 p + (1 - p) log2 (1 - p)), p = share of the values above `threshold`.

    0.5 is made for sigmoid units; take 0 for ReLU and tanh units. Values and readers are those of `activation`.

    Scores: group -> (units,), bits, in [0, 1]; 0 for a unit that is always on or always off, whatever it does then.
    Cost: one forward pass, whose values are counted as they come.
    Source: He, Fan, Qian, Tan & Yu, Reshaping deep neural network for fast decoding by node-pruning (2014).
    """
    batch = suited_batch(batch, model)
    structure = trace(model, example(batch.x))
    counts: dict[Key, tuple[Tensor | int, int]] = defaultdict(lambda: (0, 0))

    def see(reading: Reading) -> None:
        rows = reading.values.reshape(-1, reading.values.shape[-1])
        on, count = counts[reading.parameter, reading.axis]
        counts[reading.parameter, reading.axis] = on + (rows > threshold).sum(dim=0), count + len(rows)

    Watched(model, structure, see)(batch.x)
    none = open_gates(model, structure)
    shares = {key: torch.as_tensor(on).cpu().double() / count for key, (on, count) in counts.items() if count}
    found = {key: (torch.special.entr(p) + torch.special.entr(1 - p)) / math.log(2) for key, p in shares.items()}
    return {group.name: _of_group(group, found).to(none[group.name]) for group in structure}


def _of_group(group: Group, found: Mapping[Key, Tensor]) -> Tensor:
    """Mean over the readers of a group of what was found for each entry of the axis that they read."""
    each = []
    for s in group.slices:
        values = found.get((s.parameter, s.axis))
        if s.role == "out" and values is not None:
            index = torch.tensor(s.indices(group.width, range(group.width)), device=values.device)
            each.append(values[index].reshape(s.blocks, group.width, s.inner).mean(dim=(0, 2)))
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

    def statistic(self, name: str) -> Tensor:
        """The mean size, or the standard deviation."""
        return self.sizes / self.count if name == "mean" else (self.squares / self.count).sqrt()
