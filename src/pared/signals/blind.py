"""What a network reads whatever its data are: it runs with NaN in their place, and what comes out a number is known."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pared.signals.private import forked, private
from pared.signals.readings import RULES, Calls, tensors_in
from pared.signals.unrolled import written_out
from pared.types import Inputs

_PRODUCTS = (
    "linear matmul mm bmm mv dot mul multiply conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"
)
_BY_ENTRY = (
    "relu relu6 leaky_relu elu selu celu gelu silu mish tanh softsign hardswish neg abs sin tan atan asin sinh asinh "
    "erf expm1 log1p sqrt square sign nan_to_num round floor ceil trunc sigmoid softplus exp exp2 cos cosh hardtanh "
    "hardsigmoid logsigmoid log_sigmoid clamp clip clamp_min clamp_max log log2 log10 reciprocal rsqrt pow threshold "
    "prelu softshrink hardshrink tanhshrink add sub subtract rsub div truediv true_divide divide rtruediv rdiv mul "
    "multiply iadd isub imul itruediv maximum minimum lerp"
)
_FOLLOWED = (
    "view reshape unsafe_view view_as reshape_as flatten unflatten permute transpose t movedim moveaxis swapaxes "
    "swapdims adjoint get squeeze unsqueeze expand expand_as repeat tile repeat_interleave cat concat concatenate "
    "stack chunk tensor_split split split_with_sizes unbind select narrow getitem clone contiguous detach float "
    "double half bfloat16 to type type_as pad flip roll pixel_shuffle zeros_like ones_like full_like new_zeros "
    "new_ones new_full glu einsum addmm baddbmm sum mean amax amin max min std var norm logsumexp prod cumsum "
    "cumprod softmax log_softmax softmin layer_norm rms_norm batch_norm instance_norm group_norm normalize "
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d interpolate upsample"
)
PRODUCTS, BY_ENTRY, FOLLOWED = (frozenset(names.split()) for names in (_PRODUCTS, _BY_ENTRY, _FOLLOWED))
"""What hands NaN on by itself. Whatever is in none of these tables makes all of its result unknown."""


class _Blind(TorchFunctionMode):
    """NaN spreads as dependence on the data does: everywhere but through a product with a zero that is known."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        raw = getattr(func, "__name__", "")
        name = raw.strip("_")
        in_place = raw.endswith("_") and not raw.endswith("__")
        given = tensors_in((args, list(options.values())))
        unknown = {t.shape: t.isnan() for t in given if t.is_floating_point() and t.isnan().any()}
        chosen = any(not t.is_floating_point() for t in given)  # indices, comparisons: what they come from is not seen
        if not unknown and not chosen:
            return func(*args, **options)
        if name == "embedding":
            return _looked_up(func, args, options)
        if name in PRODUCTS and not chosen and not in_place and all(isinstance(t, Tensor) for t in args[:2]):
            return _multiplied(func, args, options)
        out = func(*args, **options)
        still = name == "dropout" and not options.get("training", args[2] if len(args) > 2 else True)
        if chosen or not (name in BY_ENTRY or name in FOLLOWED or still):
            for tensor in tensors_in(out):
                if tensor.is_floating_point():
                    tensor.fill_(torch.nan)
        elif name in BY_ENTRY and out.shape in unknown and out.is_floating_point():
            out.masked_fill_(unknown[out.shape], torch.nan)
        return out


def _multiplied(func: Any, args: Sequence[Any], options: dict[str, Any]) -> Tensor:
    """A product of two tensors, unknown where something unknown meets what is not a known zero."""
    one, two, *rest = args
    out: Tensor = func(_clean(one), _clean(two), *rest, **options)
    bare = [None, *rest[1:]] if rest else []  # the bias of a layer
    more = {key: None if key == "bias" else value for key, value in options.items()}
    meets = func(_as(one.isnan(), out), _as(two != 0, out), *bare, **more)
    if two.isnan().any():
        meets = meets + func(_as(one != 0, out), _as(two.isnan(), out), *bare, **more)
    return out.masked_fill(meets > 0.5, torch.nan)


def _clean(tensor: Tensor) -> Tensor:
    return tensor.masked_fill(tensor.isnan(), 0.0)


def _as(mask: Tensor, like: Tensor) -> Tensor:
    return mask.to(like.dtype)


def _looked_up(func: Any, args: Sequence[Any], options: dict[str, Any]) -> Tensor:
    """Places of an embedding whose vectors all hold the same there are known."""
    table = tensors_in((args, list(options.values())))[1]
    return func(*args, **options).masked_fill((table != table[:1]).any(dim=0), torch.nan)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Known:
    """What the entries along one axis of a weight multiply, of which nothing is told but the network.

    `lowest`, `highest` (axis length,), over all calls: NaN where the data decide. `bias` is what takes over what a
    constant adds, None where nothing can, and `why` says why. `settled` (axis length,), for what a recurrent weight
    reads: whether the states after the first are the same at two steps or more.
    """

    lowest: Tensor
    highest: Tensor
    bias: str | None
    why: str
    settled: Tensor | None = None


Key = tuple[str, int]
"""A parameter and the axis along which it reads."""


def known_readings(model: nn.Module, example: Inputs) -> dict[Key, Known]:
    """What is known of what each weight reads, in evaluation mode, for inputs shaped like the example.

    The values of a floating-point example do not matter. Covers linear layers and products, convolutions and recurrent
    layers; weights that are used in other ways as well are left out. Where the network cannot run on NaN, nothing is
    known. Cost: about three forward passes with the recurrent layers written out.
    """
    copied = written_out(private(model))
    recorder = _Recorder(copied)
    given = (example,) if isinstance(example, Tensor) else tuple(example)
    blind = [torch.full_like(x, torch.nan) if x.is_floating_point() else x for x in given]
    try:
        with forked(copied), torch.no_grad(), _Blind(), Calls(recorder.see):
            copied(*blind)
    except Exception:  # whatever the model's code raises when it looks at its values
        return {}
    return recorder.found()


class _Recorder:
    """Adds up what the weights of a model read, call by call."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        self.ranges: dict[Key, tuple[Tensor, Tensor]] = {}
        self.later: dict[Key, tuple[Tensor, Tensor]] = {}
        self.calls: Counter[Key] = Counter()
        self.biases: dict[Key, dict[str | None, None]] = {}
        self.reasons: dict[Key, str] = {}
        self.elsewhere: set[str] = set()

    def see(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """One call of one of PyTorch's functions."""
        mine = {self.names[id(t)] for t in tensors_in((args, list(kwargs.values()))) if id(t) in self.names}
        if not mine or not tensors_in(out):
            return
        rule = RULES.get(name)
        for seen in () if rule is None else rule(out, *args, **kwargs):
            weight = self.names.get(id(seen.weight))
            if weight is None or not seen.values.numel():
                continue
            bias = None if seen.bias is None else self.names.get(id(seen.bias))
            key, rows = (weight, seen.axis), seen.values.reshape(-1, seen.values.shape[-1])
            _widen(self.ranges, key, rows)
            if self.calls[key]:
                _widen(self.later, key, rows)
            self.calls[key] += 1
            self.biases.setdefault(key, {})[bias] = None
            if not seen.linear or _is_padded(name, args, kwargs):
                self.reasons[key] = (
                    "with zeros around it" if seen.linear else "other than by a product summed into a bias"
                )
            mine -= {weight, bias}
        self.elsewhere |= mine

    def found(self) -> dict[Key, Known]:
        """What is known in the end."""
        owners = Counter(bias for of in self.biases.values() for bias in of)
        known = {}
        for key, (lowest, highest) in self.ranges.items():
            if key[0] in self.elsewhere:
                continue
            (bias, *others), reason = self.biases[key], self.reasons.get(key, "")
            if bias is None or others:
                reason = reason or "without a bias of its own"
            elif owners[bias] > 1 or bias in self.elsewhere:
                reason = reason or f"with {bias!r}, which others use too"
            known[key] = Known(lowest, highest, None if reason else bias, reason, self._settled(key))
        return known

    def _settled(self, key: Key) -> Tensor | None:
        if not key[0].rpartition(".")[2].startswith("weight_hh"):
            return None
        lowest, highest = self.later.get(key, self.ranges[key])
        return same(lowest, highest) & (self.calls[key] > 2)


def _widen(ranges: dict[Key, tuple[Tensor, Tensor]], key: Key, rows: Tensor) -> None:
    lowest, highest = rows.amin(dim=0), rows.amax(dim=0)
    if key in ranges:
        lowest, highest = torch.minimum(ranges[key][0], lowest), torch.maximum(ranges[key][1], highest)
    ranges[key] = lowest, highest


def same(lowest: Tensor, highest: Tensor) -> Tensor:
    """Where a range is one number, to the rounding of a function that is computed for several entries at once."""
    size = torch.maximum(lowest.abs(), highest.abs())
    return highest - lowest <= 8 * torch.finfo(lowest.dtype).eps * size


def _is_padded(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a convolution reads zeros beyond the border."""
    if not name.startswith("conv"):
        return False
    padding = kwargs.get("padding", args[4] if len(args) > 4 else 0)
    return padding == "same" or (padding != "valid" and any(_numbers(padding)))


def _numbers(padding: Any) -> Iterator[int]:
    yield from [padding] if isinstance(padding, int) else padding
