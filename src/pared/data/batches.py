"""Whatever users pass as data, as `Batch`es."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pared.types import Batch

Data = Batch | tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]
"""A Batch, an (x, y) pair of tensors, or an iterable of those such as a DataLoader."""


def batches(data: Data) -> Iterator[Batch]:
    """Go through data as batches: a Batch or an (x, y) pair is one batch, an iterable (a DataLoader) gives one an item.

    Raises: TypeError for anything else; ValueError where x and y differ in length.
    """
    if _is_pair(data):
        yield _batch(data)
        return
    if isinstance(data, Tensor | Dataset | str | dict) or not isinstance(data, Iterable):
        hint = "; wrap it in a torch.utils.data.DataLoader" if isinstance(data, Dataset) else ""
        raise TypeError(f"data must be a Batch, an (x, y) pair of tensors or a DataLoader; got {_shown(data)}{hint}")
    for item in data:
        yield _batch(item)


def first_batch(data: Data, limit: int) -> Batch:
    """The first `limit` samples of the data in one Batch, or all where there are fewer.

    A shuffling DataLoader draws its order from the global random state, which is put back afterwards.

    Raises: TypeError and ValueError as `batches`; ValueError for data without a sample or a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1; got {limit}")
    parts: list[Batch] = []
    missing = limit
    with torch.random.fork_rng(devices=[]):
        for x, y in batches(data):
            parts.append(Batch(x[:missing], y[:missing]))
            missing -= len(parts[-1].x)
            if missing == 0:
                break
    if missing == limit:
        raise ValueError("the data hold no sample")
    return parts[0] if len(parts) == 1 else Batch(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))


def _is_pair(data: object) -> bool:
    return isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def _batch(item: object) -> Batch:
    if not (isinstance(item, tuple | list) and _is_pair(item)):
        raise TypeError(f"a batch must be an (x, y) pair of tensors; got {_shown(item)}")
    x, y = item
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise ValueError(f"x and y must have the same length; got shapes {tuple(x.shape)} and {tuple(y.shape)}")
    return Batch(x, y)


def _shown(data: object) -> str:
    if isinstance(data, tuple | list):
        return f"a {type(data).__name__} of {', '.join(type(part).__name__ for part in data) or 'nothing'}"
    return f"{type(data).__module__}.{type(data).__qualname__}".removeprefix("builtins.")
