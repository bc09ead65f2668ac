"""What each reading weight multiplies while a network runs: calls of PyTorch's functions that take a known weight."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad
from torch.overrides import TorchFunctionMode

from pared.models.attention import Attention
from pared.signals.gates import GroupLike, reading_slices
from pared.signals.private import forked, private, tensor_of
from pared.signals.unrolled import written_out
from pared.types import Inputs


class Reading(NamedTuple):
    """One call in which a weight read units along one of its axes.

    `values` (..., axis length) is what the entries along the axis multiplied, last axis last; where nothing but the
    maker can silence a unit (queries, depthwise convolutions, normalisation) it is what was made. `bias` names what
    was added to the result, None where nothing or nothing known was. `linear`: whether the result is W values + bias,
    summed over a kernel's places, so that W may be refitted.
    """

    parameter: str
    axis: int
    values: Tensor
    bias: str | None = None
    linear: bool = False


class _Seen(NamedTuple):
    weight: Tensor
    axis: int
    values: Tensor
    bias: Tensor | None = None
    linear: bool = False


class Watched:
    """Runs a private copy of a model and hands every reading of the groups' units to `see`, call by call.

    Covers linear layers and matrix products, convolutions (channels last), recurrent layers and cells (their states,
    but for those of zero, such as initial ones), the projections of attention. `elsewhere` collects the names of
    weights that were also used in a way that is not among these, such as transposed or by einsum: they do not belong to
    one reader.
    Cost: one forward pass a call, in which recurrent layers are written out step by step.
    """

    def __init__(self, model: nn.Module, groups: Iterable[GroupLike], see: Callable[[Reading], None]) -> None:
        self.model = written_out(private(model))
        self.wanted = {(s.parameter, s.axis) for _, s in reading_slices(groups)}
        self.see = see
        self.elsewhere: set[str] = set()
        tensors = (*self.model.named_parameters(), *self.model.named_buffers())
        self.names = {id(tensor): name for name, tensor in tensors}
        self.settled: set[str] = set()
        for path, module in self.model.named_modules():
            if isinstance(module, Attention):
                leaves = [leaf for leaf, _ in module.named_parameters(recurse=False)]
                self.settled |= {f"{path}.{leaf}".lstrip(".") for leaf in leaves}
                module.register_forward_pre_hook(self._projections, with_kwargs=True)

    @torch.no_grad()
    def __call__(self, x: Inputs) -> None:
        with forked(self.model), Calls(self.called):
            self.model(*((x,) if isinstance(x, Tensor) else x))

    def called(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """What a call of one of PyTorch's functions tells."""
        mine = {self.names[id(a)] for a in tensors_in((args, list(kwargs.values()))) if id(a) in self.names}
        if not mine or not tensors_in(out):
            return
        rule = RULES.get(name)
        for seen in () if rule is None else rule(out, *args, **kwargs):
            self._found(seen)
            mine.discard(self.names.get(id(seen.weight), ""))
            if seen.bias is not None:
                mine.discard(self.names.get(id(seen.bias), ""))
        self.elsewhere |= mine - self.settled

    def _found(self, seen: _Seen) -> None:
        name = self.names.get(id(seen.weight))
        if name is None or (name, seen.axis) not in self.wanted:
            return
        bias, values = None if seen.bias is None else self.names.get(id(seen.bias)), seen.values
        if name.rpartition(".")[2].startswith("weight_hh"):  # fitted without an intercept; zeros teach nothing
            values = values.reshape(-1, values.shape[-1])
            values, bias = values[values.any(dim=1)], None
            if not len(values):
                return
        self.see(Reading(name, seen.axis, values, bias, seen.linear))

    def _projections(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What the projections of attention read, and the queries they make."""
        assert isinstance(module, Attention)
        query, key, value = [*args, *(kwargs[k] for k in ("query", "key", "value") if k in kwargs)][:3]
        width = module.num_heads * module.key_width
        bias, packed = cast("Tensor | None", module.in_proj_bias), cast("Tensor | None", module.in_proj_weight)
        weights = [packed] if packed is not None else [getattr(module, f"{part}_proj_weight") for part in "qkv"]
        alone = query is key and key is value
        for weight, part in zip(weights if packed is None else [packed] * 3, (query, key, value), strict=True):
            whole = packed is not None and alone
            self._found(_Seen(weight, 1, part, bias if whole else None, whole or packed is None))
            if whole:
                break
        first = weights[0]
        made = linear(query, first[:width], None if bias is None else bias[:width])
        self._found(_Seen(first, 0, pad(made, (0, len(first) - width))))


class Calls(TorchFunctionMode):
    """Sees every call of a PyTorch function, and changes none: `see(name, args, kwargs, out)`."""

    def __init__(self, see: Callable[[str, tuple[Any, ...], dict[str, Any], Any], None]) -> None:
        super().__init__()
        self.see = see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.see(getattr(func, "__name__", ""), args, kwargs or {}, out)
        return out


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in nested tuples and lists, in order."""
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in tensors_in(part)] if isinstance(value, (tuple, list)) else []


def _linear(out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Iterator[_Seen]:
    yield _Seen(weight, 1, input, bias, linear=True)
    yield _Seen(weight, 0, out)


def _product(out: Tensor, input: Tensor, other: Tensor) -> Iterator[_Seen]:
    if other.dim() == 2:
        yield _Seen(other, 0, input, linear=True)


def _convolution(
    out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, *more: Any, groups: int = 1, **options: Any
) -> Iterator[_Seen]:
    groups = more[3] if len(more) > 3 else groups
    channel = 1 - weight.dim()
    last = input.movedim(channel, -1)
    yield _Seen(weight, 1, last.reshape(*last.shape[:-1], groups, weight.shape[1]), bias, linear=groups == 1)
    yield _Seen(weight, 0, out.movedim(channel, -1))


def _transposed(
    out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None, *more: Any, groups: int = 1, **options: Any
) -> Iterator[_Seen]:
    """A bias cannot take over an intercept: places are covered by unequal numbers of a kernel's entries."""
    groups = more[3] if len(more) > 3 else groups
    yield _Seen(weight, 0, input.movedim(1 - weight.dim(), -1), linear=groups == 1)
    if bias is not None:
        yield _Seen(bias, 0, out.movedim(1 - weight.dim(), -1))


def _normalised(axis: int) -> Callable[..., Iterator[_Seen]]:
    def rule(out: Tensor, *args: Any, **kwargs: Any) -> Iterator[_Seen]:
        made = out.movedim(axis, -1)
        for own in tensors_in((args[1:], list(kwargs.values()))):
            if own.dim() == 1 and len(own) == made.shape[-1]:
                yield _Seen(own, 0, made)

    return rule


def _embedding(out: Tensor, input: Tensor, weight: Tensor, *more: Any, **options: Any) -> Iterator[_Seen]:
    yield _Seen(weight, 1, out)


RULES: dict[str, Callable[..., Iterator[_Seen]]] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "__matmul__", "mm"), _product),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    **dict.fromkeys(("batch_norm", "instance_norm", "group_norm"), _normalised(1)),
    **dict.fromkeys(("layer_norm", "rms_norm"), _normalised(-1)),
    "embedding": _embedding,
}
"""What a call of one of PyTorch's functions reads, by its name: rule(out, *args, **kwargs)."""


def read_values(model: nn.Module, groups: Iterable[GroupLike], x: Inputs) -> dict[str, Tensor]:
    """What each reading parameter multiplies when the model runs on `x`: parameter name -> (rows, axis length).

    For `weight_hh` of a recurrent layer these are its own states at all steps but the last, for a Linear, a
    convolution or `weight_ih` the values that enter, one row for every sample, step and place; see `Watched`. A
    parameter that reads along two axes shows the later one; one whose values cannot be seen is left out.

    Cost: one forward pass; holds all the values, so give it one batch and use `Watched` for many.
    """
    parts: dict[tuple[str, int], list[Tensor]] = {}

    def see(reading: Reading) -> None:
        parts.setdefault((reading.parameter, reading.axis), []).append(
            reading.values.reshape(-1, reading.values.shape[-1])
        )

    Watched(model, groups, see)(x)
    return {name: torch.cat(rows) for (name, _), rows in parts.items()}


def module_inputs(model: nn.Module, paths: Iterable[str], x: Inputs) -> dict[str, Tensor]:
    """What enters each module (its first argument) when the model runs on `x`; of several calls, all along axis 0."""
    return {path: torch.cat([enters for enters, _ in calls]) for path, calls in module_calls(model, paths, x).items()}


@torch.no_grad()
def module_calls(model: nn.Module, paths: Iterable[str], x: Inputs) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Module -> (what enters, what leaves) of each of its calls when the model runs on `x`: the first tensors."""
    copied = private(model)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {path: [] for path in paths}
    entered: dict[str, Tensor] = {}

    def before(path: str, args: tuple[Any, ...]) -> None:
        entered[path] = args[0].clone()  # a later operation may work in place

    def after(path: str, out: Any) -> None:
        found[path].append((entered.pop(path), tensor_of(out).clone()))

    for path in found:
        module = copied.get_submodule(path)
        module.register_forward_pre_hook(lambda _, args, path=path: before(path, args))
        module.register_forward_hook(lambda _, args, out, path=path: after(path, out))
    with forked(copied):
        copied(*((x,) if isinstance(x, Tensor) else x))
    return found
