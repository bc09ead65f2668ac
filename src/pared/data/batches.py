"""Whatever users pass as data, as `Batch`es."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from pared.types import Batch, Inputs

Data = Batch | tuple[Inputs, Tensor] | Iterable[tuple[Inputs, Tensor]]
"""A Batch, an (x, y) pair of tensors, or an iterable of those such as a DataLoader; x may be a tuple of inputs."""


def batches(data: Data) -> Iterator[Batch]:
    """Go through data as batches: a Batch or an (x, y) pair is one batch, an iterable (a DataLoader) gives one an item.

    Nothing is kept: a DataLoader may hold more than fits into memory. For a network of several inputs x is a tuple of
    tensors, ((a, b), y).

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
    """The first `limit` samples of the data in one Batch, or all where there are fewer; no more are asked for.

    A shuffling DataLoader draws its order from the global random state, which is put back afterwards.

    Raises: TypeError and ValueError as `batches`; ValueError for data without a sample or a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1; got {limit}")
    parts: list[Batch] = []
    missing = limit
    with torch.random.fork_rng(devices=[]):
        for x, y in batches(data):
            parts.append(_head(x, y, missing))
            missing -= len(parts[-1].y)
            if missing == 0:
                break
    if missing == limit:
        raise ValueError("the data hold no sample")
    if len(parts) == 1:
        return parts[0]
    inputs: list[Any] = [part.x for part in parts]
    joined = torch.cat(inputs) if isinstance(inputs[0], Tensor) else tuple(map(torch.cat, zip(*inputs, strict=True)))
    return Batch(cast(Tensor, joined), torch.cat([y for _, y in parts]))


def _head(x: Inputs, y: Tensor, count: int) -> Batch:
    return Batch(cast(Tensor, _each(x, lambda part: part[:count])), y[:count])


def example(x: Inputs) -> Inputs:
    """The first sample of inputs, as `trace` takes it."""
    return _each(x, lambda part: part[:1])


def suited(x: Inputs, model: nn.Module) -> Inputs:
    """Inputs on the model's device and, where they are floating-point numbers, in its type.

    A model whose parameters lie on several devices, or are of several floating-point types, gets its inputs as they
    are; so does one without parameters. Whole numbers (indices of an embedding) keep their type.
    """
    tensors = list(model.parameters())
    devices = {tensor.device for tensor in tensors}
    types = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    device = next(iter(devices)) if len(devices) == 1 else None
    dtype = next(iter(types)) if len(types) == 1 else None

    def fitting(part: Tensor) -> Tensor:
        return part.to(device=device, dtype=dtype if part.is_floating_point() else None)

    return _each(x, fitting)


def suited_batch(batch: Batch, model: nn.Module) -> Batch:
    """A batch for the model: inputs as `suited` gives them, targets on the same device in their own type."""
    x, y = batch
    fitting = suited(x, model)
    first = fitting if isinstance(fitting, Tensor) else fitting[0]
    return Batch(cast(Tensor, fitting), y.to(first.device))


def _each(x: Inputs, function: Callable[[Tensor], Tensor]) -> Inputs:
    return function(x) if isinstance(x, Tensor) else tuple(map(function, x))


def _is_inputs(part: object) -> bool:
    several = isinstance(part, tuple | list) and len(part) > 0 and all(isinstance(one, Tensor) for one in part)
    return isinstance(part, Tensor) or several


def _is_pair(data: object) -> bool:
    return isinstance(data, tuple | list) and len(data) == 2 and _is_inputs(data[0]) and isinstance(data[1], Tensor)


def _batch(item: object) -> Batch:
    if not (isinstance(item, tuple | list) and _is_pair(item)):
        raise TypeError(f"a batch must be an (x, y) pair of tensors; got {_shown(item)}")
    x, y = item
    parts = (x,) if isinstance(x, Tensor) else tuple(x)
    if y.ndim == 0 or any(part.ndim == 0 or len(part) != len(y) for part in parts):
        shapes = ", ".join(str(tuple(part.shape)) for part in parts)
        raise ValueError(f"x and y must have the same length; got shapes {shapes} and {tuple(y.shape)}")
    return Batch(x if isinstance(x, Tensor) else cast(Tensor, parts), y)


def _shown(data: object) -> str:
    if isinstance(data, tuple | list):
        return f"a {type(data).__name__} of {', '.join(type(part).__name__ for part in data) or 'nothing'}"
    return f"{type(data).__module__}.{type(data).__qualname__}".removeprefix("builtins.")


def evenly(batch: Batch, most: int) -> Batch:
    """At most so many examples, spread evenly over the batch."""
    index = even_places(len(batch.x), most)
    return Batch(batch.x[index], batch.y[index])


def even_places(count: int, most: int) -> Tensor:
    """At most `most` of the numbers 0 to `count` - 1, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most)).long()
