"""One flat layout of a network's prunable weights, and the network as a function of them in float64."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from pared.data.batches import suited_batch
from pared.signals.gates import each
from pared.signals.private import forked, plain_parameters, private, tensor_of
from pared.signals.unrolled import written_out
from pared.types import Batch, Inputs, Loss

HELD_ENTRIES = 20_000_000
"""How many entries of a Jacobian may be held at a time: 160 MB in float64."""


class CurvatureError(ValueError):
    """Second derivatives, or a matrix made of them, cannot be used as they are; the message says what to do."""


@dataclass(frozen=True)
class Layout:
    """Named weights as one flat vector of `size` entries, in the order of the network's parameters."""

    shapes: Mapping[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """How many weights there are."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def flat(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(size,) from one tensor a name."""
        return torch.cat([tensors[name].reshape(-1) for name in self.shapes])

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """Parameter name -> its part of a vector (size,), shaped like the parameter."""
        parts = torch.split(vector, [math.prod(shape) for shape in self.shapes.values()])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def place(self, name: str) -> slice:
        """Where a parameter's entries lie in the vector."""
        before = 0
        for other, shape in self.shapes.items():
            if other == name:
                return slice(before, before + math.prod(shape))
            before += math.prod(shape)
        raise KeyError(name)


def prunable(model: nn.Module, biases: bool = False) -> Layout:
    """The weights that weight-level criteria score: floating-point parameters with two axes or more.

    Vectors (biases, the factors of normalisations) are few, are read by nothing that pruning saves, and stay, unless
    `biases`. A weight that parametrisations compute (weight_norm) counts under its own name, a tied one once.

    Raises: ValueError for a network without such weights.
    """
    found = plain_parameters(model)
    shapes = {n: tuple(p.shape) for n, p in found.items() if p.is_floating_point() and (p.dim() > 1 or biases)}
    if not any(map(math.prod, shapes.values())):
        raise ValueError(f"{type(model).__name__} has no weights to prune: no parameter with two axes or more")
    return Layout(shapes)


@contextmanager
def _looking(model: nn.Module) -> Iterator[None]:
    """The fused kernels of attention have no second derivative and no batching rule."""
    with forked(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        yield


class OfWeights:
    """A network, a batch and a loss as functions of the flat vector of prunable weights, in float64.

    A private copy in evaluation mode whose recurrent layers are written out; the model stays as it is. The loss is
    taken to be an average over samples (`types.Loss`), so that one sample's loss is `loss(output[None], target[None])`.
    `layout` takes other parameters than the prunable ones.
    """

    def __init__(
        self, model: nn.Module, batch: Batch, loss: Loss, biases: bool = False, layout: Layout | None = None
    ) -> None:
        self.layout = layout or prunable(model, biases)
        self.model = written_out(private(model))
        if any(tensor.device.type == "mps" for tensor in self.model.parameters()):  # which has no float64
            self.model = self.model.cpu()
        self.model = self.model.double().requires_grad_(False)
        x, y = suited_batch(batch, self.model)
        self.x: Inputs = x
        self.y = y.double() if y.is_floating_point() else y
        self._loss = loss
        self._tensors = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        self.weights = self.layout.flat(self._tensors).detach().clone()

    @property
    def samples(self) -> int:
        """How many samples the batch has."""
        return len(self.y)

    def output(self, weights: Tensor, x: Inputs) -> Tensor:
        """What the network returns with these weights: its first tensor."""
        return self.output_of(self.layout.named(weights), x)

    def output_of(self, weights: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """As `output`, of weights by name."""
        inputs = (x,) if isinstance(x, Tensor) else tuple(x)
        return tensor_of(functional_call(self.model, self._tensors | dict(weights), inputs))

    def loss(self, weights: Tensor, pick: Tensor | None = None) -> Tensor:
        """The loss of the whole batch, or of the samples that `pick` names."""
        if pick is None:
            return self._loss(self.output(weights, self.x), self.y)
        return self._loss(self.output(weights, each(self.x, lambda part: part[pick])), self.y[pick])

    def batch_loss(self, output: Tensor) -> Tensor:
        """The loss of the whole batch at this output."""
        return self._loss(output, self.y)

    def looking(self) -> AbstractContextManager[None]:
        """A block in which derivatives can be taken."""
        return _looking(self.model)

    @torch.no_grad()
    def outputs(self) -> Tensor:
        """(samples, ...) at the network's own weights."""
        with forked(self.model):
            return self.output(self.weights, self.x)

    def of_sample(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of one sample, without its axis of samples."""
        return self._loss(output[None], target[None])

    def jacobian(self, of: str = "output") -> Iterator[tuple[int, Tensor]]:
        """(first sample, (samples, values, size)) in chunks: derivatives of every sample's outputs, or of its loss.

        Cost: one vectorised forward and backward a chunk; where an operation cannot be vectorised, one backward pass
        for each value of each sample.
        """

        def values(weights: Tensor, x: Inputs, y: Tensor) -> Tensor:
            out = self.output(weights, each(x, lambda part: part[None]))
            return out.flatten() if of == "output" else self._loss(out, y[None]).reshape(1)

        count = self.outputs()[0].numel() if of == "output" else 1
        chunk = max(1, min(256, HELD_ENTRIES // (count * self.layout.size)))
        for start in range(0, self.samples, chunk):
            x, y = each(self.x, lambda part, s=start: part[s : s + chunk]), self.y[start : start + chunk]  # type: ignore[misc]
            with self.looking():
                yield start, self._rows(values, x, y).detach()

    def _rows(self, values: Callable[[Tensor, Inputs, Tensor], Tensor], x: Inputs, y: Tensor) -> Tensor:
        try:
            rows = vmap(jacrev(values), in_dims=(None, 0, 0), randomness="different")(self.weights, x, y)
            return cast(Tensor, rows)
        except (RuntimeError, TypeError, ValueError):  # what torch.func says of operations it cannot follow
            return torch.stack([self._one(values, each(x, lambda p, n=n: p[n]), y[n]) for n in range(len(y))])  # type: ignore[misc]

    def _one(self, values: Callable[[Tensor, Inputs, Tensor], Tensor], x: Inputs, y: Tensor) -> Tensor:
        weights = self.weights.clone().requires_grad_()
        found = values(weights, x, y)
        return torch.stack([gradient_of(value, weights, retain_graph=True) for value in found])


def gradient_of(value: Tensor, weights: Tensor, retain_graph: bool = False, create_graph: bool = False) -> Tensor:
    """The gradient, zero where the value does not depend on the weights."""
    if not value.requires_grad:
        return torch.zeros_like(weights, requires_grad=False)
    keep = retain_graph or create_graph
    found = torch.autograd.grad(value, weights, retain_graph=keep, create_graph=create_graph, allow_unused=True)[0]
    return torch.zeros_like(weights, requires_grad=False) if found is None else found
