"""A network that is cut where that does no harm and grows where it helps, while it trains; some seconds."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from pared import Batch, ShapeSettings, TrainConfig, shape
from pared.data import Scaler
from pared.evaluation import REGRESSION


@dataclass(frozen=True)
class Block:
    """Rows of a sine of its own; nothing is decided by one block alone."""

    block: int
    train: Batch
    validation: Batch
    test: Batch
    scaler: Scaler = Scaler(("y",), (0.0,), (1.0,))


def block(number):
    x = 2 * torch.rand(300, 1, generator=torch.Generator().manual_seed(number)) - 1
    y = torch.sin(5 * x)
    return Block(number, *(Batch(x[rows], y[rows]) for rows in (slice(150), slice(150, 225), slice(225, None))))


def build(seed, widths):
    """The usual network has 8 units; `widths` says what others have."""
    torch.manual_seed(seed)
    width = widths.get("0", 8)
    return nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, 1))


begin = TrainConfig(epochs=60, lr=0.02, batch_size=32)
how = ShapeSettings(begin, replace(begin, epochs=30), begin, task=REGRESSION)
shaped = shape(build, [block(number) for number in range(5)], (0, 1), how)
for change in shaped.changes:
    print(f"{change.kind:4} by {change.units}: {'taken' if change.taken else 'refused'}")
print("units:", sorted({fit.model[0].out_features for fit in shaped.fits.values()}))
