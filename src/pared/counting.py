"""What removed weights really save: non-zeros, densities, bytes of files, milliseconds, before and after."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn

from pared.evaluation.cost import Example, latency, parameters
from pared.signals import plain_parameters
from pared.surgery.files import packed


@dataclass(frozen=True)
class WeightCount:
    """One network: `weights` holds (entries, entries that are not zero) of each weight of two axes or more, by name.

    `parameters` and `nonzero` count all parameters, biases too. `dense_bytes` is the size of a file of all entries,
    `bytes` that of the file which `save` writes, `milliseconds` the median time of one example.
    """

    weights: dict[str, tuple[int, int]]
    parameters: int
    nonzero: int
    dense_bytes: int
    bytes: int
    milliseconds: float

    @property
    def density(self) -> float:
        """The share of the parameters that is not zero."""
        return self.nonzero / max(1, self.parameters)


@dataclass(frozen=True)
class WeightTable:
    """Two networks; printed, it is a table."""

    before: WeightCount
    after: WeightCount

    def __str__(self) -> str:
        lines = list(self._lines())
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            f"{line[0]:<{widths[0]}}  " + "  ".join(f"{c:>{w}}" for c, w in zip(line[1:], widths[1:], strict=True))
            for line in lines
        )

    def _lines(self) -> Iterator[tuple[str, ...]]:
        both = self.before, self.after
        yield "weight", "before", "not 0", "density", "after", "not 0", "density"
        for name in dict.fromkeys((*self.before.weights, *self.after.weights)):
            yield name, *(cell for count in both for cell in _cells(*count.weights.get(name, (0, 0))))
        yield "all parameters", *(cell for count in both for cell in _cells(count.parameters, count.nonzero))
        yield "bytes, dense", *(cell for count in both for cell in (f"{count.dense_bytes:,}", "", ""))
        yield "bytes, as saved", *(cell for count in both for cell in (f"{count.bytes:,}", "", ""))
        yield "milliseconds", *(cell for count in both for cell in (f"{count.milliseconds:.3g}", "", ""))


def _cells(entries: int, nonzero: int) -> tuple[str, str, str]:
    return (f"{entries:,}", f"{nonzero:,}", f"{nonzero / entries:.1%}") if entries else ("-", "-", "-")


def count_weights(model: nn.Module, example: Example, repeats: int = 200) -> WeightCount:
    """What a network holds and takes: see `WeightCount`. Zeros are counted by their value, of both signs.

    Zeros save bytes, as `save` leaves them out; they save no time, as PyTorch multiplies by them: see
    `shed_dead_units`, which removes those that make a unit useless.
    Cost: `repeats` + 10 forward passes of one example. Raises: ValueError as `latency`.
    """
    named = plain_parameters(model)
    return WeightCount(
        weights={n: (p.numel(), int(p.count_nonzero())) for n, p in named.items() if p.dim() > 1},
        parameters=parameters(model),
        nonzero=sum(int(p.count_nonzero()) for p in model.parameters()),
        dense_bytes=len(as_safetensors(_dense(model))),
        bytes=len(as_safetensors(*packed(model))),
        milliseconds=latency(model, example, repeats),
    )


def _dense(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in model.state_dict().items()}


def compare_weights(before: nn.Module, after: nn.Module, example: Example, repeats: int = 200) -> WeightTable:
    """Two networks side by side, such as one before and after its weights were pruned. Cost: twice `count_weights`."""
    return WeightTable(count_weights(before, example, repeats), count_weights(after, example, repeats))
