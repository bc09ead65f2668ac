"""Forecasts as one plain function, of a network or a naive rule alike: one step ahead and free-running."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pared.data.splits import Scaler
from pared.evaluation.metrics import Floats

Predictor = Callable[[Tensor], Tensor]
"""x (n, window, columns) in scaled units -> forecast (n,) of the target in scaled units."""

CHUNK = 4096  # windows in one forward pass: bounds the memory, no effect on the result


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every training flag is put back, also after an exception."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


def predictor(network: Callable[[Tensor], Tensor], scaler: Scaler) -> Predictor:
    """A network as a Predictor: its output decoded to scaled target values; a module is run in evaluation mode.

    Returns: a function x (n, window, columns) -> (n,); it leaves the network as it was.
    """
    return decoded(network, scaler.value)


def decoded(network: Callable[[Tensor], Tensor], decode: Callable[[Tensor, Tensor], Tensor]) -> Predictor:
    """`decode(network(x), x)` in chunks, a module in evaluation mode."""

    def predict(x: Tensor) -> Tensor:
        with evaluating(network) if isinstance(network, nn.Module) else nullcontext():
            return torch.cat([decode(network(part), part) for part in torch.split(x, CHUNK)])

    return predict


def free_run(predict: Predictor, x: Tensor, steps: int) -> Tensor:
    """Recursive forecast: each forecast becomes the newest point of the window for the next one.

    Returns: (n, steps) scaled target values for windows x (n, window, 1).
    Cost: `steps` calls of `predict`.
    Raises: ValueError if x has extra columns (their future is unknown) or `steps` < 1.
    """
    if x.ndim != 3 or x.shape[2] != 1:
        raise ValueError(f"free running needs windows (n, window, 1) of the target alone, got {tuple(x.shape)}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    forecasts: list[Tensor] = []
    for _ in range(steps):
        forecasts.append(predict(x))
        x = torch.cat([x[:, 1:], forecasts[-1].to(x.dtype)[:, None, None]], dim=1)
    return torch.stack(forecasts, dim=1)


def starts(count_available: int, steps: int, limit: int = 30) -> NDArray[np.int64]:
    """Evenly spaced start indices for runs of `steps` points, the first at 0, the last as late as it fits.

    Returns: at most `limit` increasing indices with start + steps <= count_available.
    Raises: ValueError if not even one run fits.
    """
    if steps < 1 or limit < 1 or steps > count_available:
        raise ValueError(f"{count_available} points hold no run of {steps} steps ({limit} wanted)")
    last = count_available - steps
    return np.linspace(0, last, min(limit, last + 1)).astype(np.int64)


def floats(tensor: Tensor) -> Floats:
    """A tensor as a float64 array, without gradient."""
    return np.asarray(tensor.detach().cpu().double().numpy())
