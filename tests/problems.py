"""Small problems that several tests are about."""

from dataclasses import dataclass

import numpy as np
import torch

from pared.data.series import Series
from pared.data.splits import Framing, Protocol, rolling_origin
from pared.types import Batch


@dataclass
class Data:
    """What `fit` is given."""

    train: Batch
    validation: Batch


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def logistic_blocks(blocks=5):
    """Rolling blocks of a short logistic map, windows of two values."""
    values = [0.4]
    for _ in range(380):
        values.append(3.99 * values[-1] * (1 - values[-1]))
    series = Series("tiny", np.array(values)[:, None], ("x",), 2, "values", None, "a logistic map")
    return rolling_origin(series, Protocol(120, 40, 40, 40, blocks), Framing(2, predict="values"))
