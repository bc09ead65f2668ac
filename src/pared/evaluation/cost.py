"""What a network costs: parameters, multiply-adds, milliseconds. The network passed in is left as it was."""

import math
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pared.evaluation.forecast import evaluating

WARM_UP = 10  # forward passes before the clock runs: first calls allocate and choose kernels

Example = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class Size:
    """Parameters, multiply-adds of one forward of one example, median milliseconds of it."""

    parameters: int
    macs: int
    milliseconds: float


def size(model: nn.Module, example: Example, repeats: int = 200) -> Size:
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


def nonzeros(model: nn.Module) -> int:
    """Number of weights and biases that are not exactly zero, shared ones counted once.

    Returns: a count.
    """
    return sum(int(parameter.count_nonzero()) for parameter in model.parameters())


def macs(model: nn.Module, example: Example) -> int:
    """Multiply-adds of one forward pass of one example, counted on a real pass.

    Only products that are summed count, wherever they stand, in layers or in the code of `forward`:
    a matrix product (n, k) @ (k, m): n k m;  a convolution: places of the output (of the input where it is transposed)
    * entries of its weight;  attention: queries * keys * (width of keys + width of values), masked ones too;  a
    recurrent layer: steps * entries of its weight matrices. Embeddings, normalisations, activations, pooling, biases
    and products entry by entry count 0; a convolution's padding counts as data.

    Returns: a count for the first example of the batch `example` (n, ...), or of each of several inputs.
    Cost: one forward pass of one example.
    Raises: ValueError naming an operation that sums products and has no rule here.
    """
    counter = _Counter()
    handles = []
    for layer in model.modules():
        if isinstance(layer, nn.RNNBase):
            handles += [layer.register_forward_pre_hook(counter.enter), layer.register_forward_hook(counter.leave)]
    try:
        with _probing(model), _plain_attention(), counter:
            model(*batch_of(example, 1))
    finally:
        for handle in handles:
            handle.remove()
    return counter.total


def latency(model: nn.Module, example: Example, repeats: int = 200, batch: int = 1) -> float:
    """Median wall-clock time of one forward pass, after a warm-up.

    Returns: milliseconds for a batch of the first `batch` examples of `example` (n, ...), taken in turns where there
    are fewer, with the current number of threads.
    Cost: `repeats` + 10 forward passes.
    Raises: ValueError if `repeats` < 1 or `batch` < 1.
    """
    inputs = batch_of(example, batch)
    with _probing(model):
        return median_milliseconds(lambda: model(*inputs), repeats, inputs[0].is_cuda)


def median_milliseconds(call: Callable[[], object], repeats: int, cuda: bool = False) -> float:
    """Median wall-clock time of a call, after a warm-up.

    Raises: ValueError if `repeats` < 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    seconds = []
    for _ in range(WARM_UP + repeats):
        start = time.perf_counter()
        call()
        if cuda:
            torch.cuda.synchronize()  # a GPU works on after the call returns
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[WARM_UP:])


def batch_of(example: Example, count: int) -> tuple[Tensor, ...]:
    """The first `count` entries of each input along its first axis, taken in turns where there are fewer.

    Raises: ValueError if `count` < 1 or an input has no entries.
    """
    inputs = inputs_of(example)
    if count < 1 or not inputs or any(x.dim() == 0 or not len(x) for x in inputs):
        raise ValueError(
            f"a batch needs at least one example along the first axis of each input, got a batch of {count} from "
            f"shapes {', '.join(str(tuple(x.shape)) for x in inputs) or 'none'}"
        )
    return tuple(x[:count] if len(x) >= count else x[torch.arange(count, device=x.device) % len(x)] for x in inputs)


def inputs_of(example: Example) -> tuple[Tensor, ...]:
    """A model's positional inputs."""
    return (example,) if isinstance(example, Tensor) else tuple(example)


@contextmanager
def _probing(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and the global random state put back in case the model draws from it."""
    with torch.random.fork_rng(devices=[]), evaluating(model):
        yield


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention goes step by step, not through fused operations that hide its products."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation that PyTorch really runs and adds up multiply-adds."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.inside = 0  # recurrent layers are counted whole, whatever they are computed with

    def enter(self, layer: nn.Module, _: object) -> None:
        self.inside += 1

    def leave(self, layer: nn.Module, _: object, output: tuple[Any, object]) -> None:
        """Each row (a time step of a sample) meets each weight matrix of each layer and direction once."""
        self.inside -= 1
        rows = output[0].data.shape[:-1].numel()  # .data: a PackedSequence has it as well
        self.total += rows * sum(weight.numel() for weight in layer.parameters(recurse=False) if weight.ndim == 2)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.inside:
            self.total += _products(func, args, out)
        return out


def _products(func: Any, args: Any, out: Any) -> int:
    name = func._schema.name
    home, _, leaf = name.partition("::")
    if leaf in _RULES and home == "aten":
        return _RULES[leaf](out, *args)
    if home not in ("aten", "prim", "prims") or _UNCOUNTED.fullmatch(leaf):
        raise ValueError(
            f"no rule for the multiply-adds of {name}; use torch's layers or matrix products instead of it, "
            "or count it by hand"
        )
    return 0


def _convolution(out: Tensor, x: Tensor, weight: Tensor, bias: Any, *more: Any) -> int:
    """Each place of the output (of the input when transposed) meets one filter for each of its channels."""
    places = x if more[3] else out
    return len(x) * math.prod(places.shape[2:]) * weight.numel()


def _attention(out: Any, query: Tensor, key: Tensor, value: Tensor, *more: Any) -> int:
    return query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _product(first: int) -> Callable[..., int]:
    """(..., n, k) @ (..., k, m) or a vector in place of the second, standing at `first` among the arguments."""
    return lambda out, *args: out.numel() * args[first].shape[-1]


_ATTENTION = ("math", "flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
_RULES: dict[str, Callable[..., int]] = {
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "linear", "matmul"), _product(0)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _product(1)),
    "addbmm": lambda out, _, first, second: first.numel() * second.shape[-1],
    "convolution": _convolution,
    "_convolution": _convolution,
    **dict.fromkeys((f"_scaled_dot_product_{kind}" for kind in _ATTENTION), _attention),
}
_UNCOUNTED = re.compile(
    r".*(rnn|rnn_layer|rnn_forward|_mm|spmm|addmm_activation|multi_head_attention|encoder_layer_fwd|attention_forward"
    r"|mkldnn_linear|_convolution\w*|convolution_\w+)"
    r"|_?(linalg|fft|cdist|pdist|trilinear|cholesky|triangular_solve|addr|sspaddmm)(_\w+)?"
)
"""Operations that sum products, but that the rules cannot count."""
