"""Rolling-origin splits: train, validation and test parts in time order, scaled on the training rows alone."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol as Interface
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pared.data.series import Series
from pared.data.windows import windows
from pared.types import Batch, DataError

Array = npt.NDArray[np.float64]
Value = TypeVar("Value", float, Array, Tensor)

FEWEST = 12
"""Fewest examples a training, validation or test part is worth having with."""


@dataclass(frozen=True)
class Scaler:
    """Column-wise scaling to [-1, 1] on the training rows, and what the network's output means.

        scaled = (raw - shift) / scale,    shift = (max + min) / 2,    scale = (max - min) / 2   (1 for a constant)

    increment None: the output is the scaled target itself; else: forecast = last scaled target + increment * output.
    `horizon`: how many rows after its window the forecast lies.
    Pure data: `dataclasses.asdict` makes it JSON.
    """

    columns: tuple[str, ...]
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    increment: float | None = None
    horizon: int = 1

    def scaled(self, raw: Array) -> Array:
        """Scale raw rows. Returns: (n, columns)."""
        scaled: Array = (raw - np.array(self.shift)) / np.array(self.scale)
        return scaled

    def value(self, output: Tensor, x: Tensor) -> Tensor:
        """Forecast of the target in scaled units from outputs (n, 1) and their windows x (n, window, columns).

        Returns: (n,).
        """
        if self.increment is None:
            return output[:, 0]
        return x[:, -1, 0] + self.increment * output[:, 0]

    def raw(self, value: Value) -> Value:
        """Scaled target values in the units of the data. Returns: the type and shape that came in."""
        return value * self.scale[0] + self.shift[0]

    @property
    def recursive(self) -> bool:
        """Whether forecasts can be fed back as inputs: one column, one row ahead."""
        return len(self.columns) == 1 and self.horizon == 1


class Block(Interface):
    """What a study reads of its data: three parts that share no target, a scaler fitted on the first, a number."""

    @property
    def train(self) -> Batch: ...
    @property
    def validation(self) -> Batch: ...
    @property
    def test(self) -> Batch: ...
    @property
    def scaler(self) -> Scaler: ...
    @property
    def block(self) -> int: ...


@dataclass(frozen=True)
class Split:
    """One block: x (n, window, columns) and y (n, 1), what the network must output, both float32, for each part.

    The examples of a part follow each other in time. `spans` gives rows [start, end) of the series: all that training
    uses, and the targets of validation and test (whose windows may reach back into known history).
    """

    train: Batch
    validation: Batch
    test: Batch
    scaler: Scaler
    block: int
    spans: dict[str, tuple[int, int]]

    @property
    def recursive(self) -> bool:
        """Whether forecasts can be fed back as inputs: see `Scaler`."""
        return self.scaler.recursive


@dataclass(frozen=True)
class Protocol:
    """Rows of each part, and the step from one block to the next.

    start: first row of the first block; None lets the last block end with the series, so that the newest data count.

    Raises: ValueError for parts that cannot be, or a stride that lets test parts overlap.
    """

    train: int = 5000
    validation: int = 500
    test: int = 1000
    stride: int = 4000
    blocks: int = 10
    start: int | None = None

    def __post_init__(self) -> None:
        if min(self.train, self.test, self.blocks) < 1 or min(self.validation, self.start or 0) < 0:
            raise ValueError(f"train, test and blocks must be positive, validation and start not negative; got {self}")
        if self.blocks > 1 and self.stride < self.test:
            raise ValueError(f"test parts of {self.test} rows overlap at a stride of {self.stride}; lengthen it")

    @property
    def rows(self) -> int:
        """Rows from the start of the first block to the end of the last."""
        return (self.blocks - 1) * self.stride + self.train + self.validation + self.test


PAPER = Protocol(train=5000, validation=0, test=15, stride=4000, blocks=10, start=0)
"""Blocks of Huang, Gu and Yang, Acta Physica Sinica 71 (2022) 160501."""


@dataclass(frozen=True)
class Framing:
    """How a series becomes examples: rows a window, steps ahead, and what is predicted ("values" or "increments").

    Raises: ValueError for a window or horizon below 1 or another word ("auto": see `resolve_predict`).
    """

    window: int
    horizon: int = 1
    predict: str = "values"

    def __post_init__(self) -> None:
        if self.window < 1 or self.horizon < 1:
            raise ValueError(f"window and horizon must be at least 1; got {self.window} and {self.horizon}")
        if self.predict not in ("values", "increments"):
            raise ValueError(f"predict must be 'values' or 'increments' (see resolve_predict); got {self.predict!r}")


def protocol_for(length: int, framing: Framing, protocol: Protocol = Protocol()) -> Protocol:
    """The protocol, shrunk where the series is too short for it.

        train = min(train, length // 2),    validation = test = stride = (length - train) // (blocks + 1)

    each at most what the protocol says, with the most blocks that leave every part 12 rows. Fewer than 5 blocks carry
    no claim. Shrunk blocks end with the series.

    Raises: DataError if not even one block fits; it says how many rows are needed.
    """
    least = framing.window + framing.horizon + FEWEST - 1
    if protocol.train < least:
        raise DataError(
            f"{protocol.train} training rows are too few for a window of {framing.window} and a horizon of "
            f"{framing.horizon}: {least} are needed; use a shorter window or more training rows"
        )
    if (protocol.start or 0) + protocol.rows <= length:
        return protocol
    smallest = min(FEWEST, protocol.test)
    if length < least + 2 * smallest:
        raise DataError(
            f"{length} rows are too few for a window of {framing.window} and a horizon of "
            f"{framing.horizon}: {least + 2 * smallest} are needed; use a shorter window or more rows"
        )
    # a long window may need more than half of a short series for training
    train = min(protocol.train, max(least, length // 2), length - 2 * smallest)
    rest = length - train
    blocks = min(protocol.blocks, rest // smallest - 1)
    part = rest // (blocks + 1)
    return replace(
        protocol,
        train=train,
        validation=min(part, protocol.validation),
        test=min(part, protocol.test),
        stride=min(part, protocol.stride),
        blocks=blocks,
        start=None,
    )


def rolling_origin(series: Series, protocol: Protocol, framing: Framing) -> list[Split]:
    """Cut a series into blocks, each `stride` rows after the one before, with train, validation and test in time order.

    Block k holds rows [s, s + train), then validation, then test, from s = start + k * stride. Scaling and increment
    are fitted on its training rows; windows of training examples and their targets lie within those.

        y = scaled target   or   (scaled target - last scaled target of the window) / increment,
        increment = standard deviation of the training increments over `horizon` rows

    Returns: one `Split` a block, oldest first; consecutive test examples are consecutive in time.
    Cost: memory of rows * window floats a block.
    Raises: DataError for a series that is too short (`protocol_for` shrinks the protocol), and for a target that is
    constant in the training rows of a block.
    """
    length = len(series.values)
    start = length - protocol.rows if protocol.start is None else protocol.start
    if not 0 <= start <= length - protocol.rows:
        raise DataError(
            f"{series.name}: {length} rows, but the protocol needs {protocol.rows + max(start, 0)}; "
            "protocol_for shrinks it for a short series"
        )
    if protocol.train < framing.window + framing.horizon:
        raise DataError(
            f"{series.name}: {protocol.train} training rows hold no window of {framing.window} with a "
            f"target {framing.horizon} rows later"
        )
    starts = [start + block * protocol.stride for block in range(protocol.blocks)]
    return [_split(series, protocol, framing, block, first) for block, first in enumerate(starts)]


def fit_scaler(rows: Array, columns: tuple[str, ...], framing: Framing) -> Scaler:
    """Fit a `Scaler` on training rows (n, columns)."""
    low, high = rows.min(axis=0), rows.max(axis=0)
    half = high / 2 - low / 2  # halves first: the difference of large numbers may overflow
    shift, scale = (high / 2 + low / 2).tolist(), np.where(half > 0, half, 1.0).tolist()
    scaler = Scaler(columns, tuple(shift), tuple(scale), horizon=framing.horizon)
    if framing.predict == "values":
        return scaler
    target = scaler.scaled(rows)[:, 0]
    spread = float(np.std(target[framing.horizon :] - target[: -framing.horizon]))
    return replace(scaler, increment=spread if spread > 1e-9 else 1.0)  # a straight line has no spread


def unreadable(raw: Array, scaler: Scaler) -> list[int]:
    """Columns with an outlier so far out that float32 holds it not, or not the other values beside it, once scaled."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = scaler.scaled(raw).astype(np.float32)
        spread = np.ptp(scaled, axis=0)
    lost = ~np.isfinite(scaled).all(axis=0) | ((spread == 0) & (raw != raw[0]).any(axis=0))
    return np.flatnonzero(lost).tolist()


def check_range(series: Series, split: Split) -> None:
    """Raises DataError for an outlier that hides the other values."""
    for start, end in split.spans.values():
        for column in unreadable(series.values[start:end], split.scaler):
            values = series.values[:end, column]
            row = int(np.abs(values).argmax())
            raise DataError(
                f"{series.name}: row {row + 1}, column {series.columns[column]!r}: {values[row]:g} lies so far from "
                "the other values that they cannot be told apart beside it; correct it or cut it out"
            )


def _split(series: Series, protocol: Protocol, framing: Framing, block: int, start: int) -> Split:
    ends = np.cumsum([start + protocol.train, protocol.validation, protocol.test]).tolist()
    rows = series.values[start : ends[-1]]
    train = rows[: protocol.train]
    if np.ptp(train[:, 0]) == 0:
        raise DataError(
            f"{series.name}: the target {series.columns[0]!r} is constant ({train[0, 0]:g}) in the training "
            f"rows of block {block} (rows {start} to {ends[0] - 1}, counted from 0); leave these rows out"
        )
    scaler = fit_scaler(train, series.columns, framing)
    x, last, target = windows(scaler.scaled(rows), framing.window, framing.horizon)
    y = target if scaler.increment is None else (target - last) / scaler.increment
    examples = protocol.train - framing.window - framing.horizon + 1
    cuts = [0, examples, examples + protocol.validation, len(y)]
    fit, validation, test = (_batch(x[a:b], y[a:b]) for a, b in pairwise(cuts))
    spans = {"train": (start, ends[0]), "validation": (ends[0], ends[1]), "test": (ends[1], ends[2])}
    return Split(fit, validation, test, scaler, block, spans)


def _batch(x: Array, y: Array) -> Batch:
    return Batch(torch.tensor(x, dtype=torch.float32), torch.tensor(y[:, None], dtype=torch.float32))
