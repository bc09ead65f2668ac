"""What a network costs: parameters, multiply-adds, milliseconds. The network passed in is left as it was."""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pared.evaluation.forecast import evaluating

WARM_UP = 10  # forward passes before the clock runs: first calls allocate and choose kernels


@dataclass(frozen=True)
class Size:
    """Parameters, multiply-adds of one forward of one example, median milliseconds of it."""

    parameters: int
    macs: int
    milliseconds: float


def size(model: nn.Module, example: Tensor, repeats: int = 200) -> Size:
    """All three costs of a network.

    Returns: Size.
    Cost: `repeats` + 11 forward passes of one example.
    Raises: ValueError as `macs`.
    """
    return Size(parameters(model), macs(model, example), latency(model, example, repeats))


def parameters(model: nn.Module) -> int:
    """Number of weights and biases, shared ones counted once.

    Returns: a count.
    """
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-adds of one forward pass of one example, counted on a real pass.

    A linear or recurrent layer uses each weight of its matrices once a row (a row = a time step, or one vector fed to a
    linear layer):  sum over layers of rows * entries of its weight matrices.  Several layers, both directions and the
    projection of an LSTM are weight matrices too, so the rule covers them. Biases and activations are not counted.

    Returns: a count for the first example of the batch `example` (n, ...).
    Cost: one forward pass of one example.
    Raises: ValueError naming a module that has parameters but no rule here.
    """
    layers = _layers(model)
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor | tuple[Tensor, object]) -> None:
        nonlocal total
        rows = output if isinstance(output, Tensor) else output[0].data  # .data: a PackedSequence has it as well
        entries = sum(weight.numel() for weight in layer.parameters(recurse=False) if weight.ndim == 2)
        total += rows.shape[:-1].numel() * entries

    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        with _probing(model):
            model(example[:1])
    finally:
        for handle in handles:
            handle.remove()
    return total


def latency(model: nn.Module, example: Tensor, repeats: int = 200) -> float:
    """Median wall-clock time of one forward pass of one example, after a warm-up.

    Returns: milliseconds for the first example of the batch `example` (n, ...), with the current number of threads.
    Cost: `repeats` + 10 forward passes.
    Raises: ValueError if `repeats` < 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    seconds = []
    with _probing(model):
        for _ in range(WARM_UP + repeats):
            start = time.perf_counter()
            model(example[:1])
            if example.is_cuda:
                torch.cuda.synchronize()  # a GPU works on after the call returns
            seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[WARM_UP:])


@contextmanager
def _probing(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and the global random state put back in case the model draws from it."""
    with torch.random.fork_rng(devices=[]), evaluating(model):
        yield


def _layers(model: nn.Module) -> list[nn.Module]:
    """The modules that hold parameters; each must be one whose cost is known."""
    layers: list[nn.Module] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.RNNBase):
            layers.append(module)
        elif next(module.parameters(recurse=False), None) is not None:
            raise ValueError(
                f"no rule for the multiply-adds of {type(module).__name__} ({name or 'the model itself'}): "
                "only Linear, LSTM, GRU and RNN are counted; leave it out of the model or count it by hand"
            )
    return layers
