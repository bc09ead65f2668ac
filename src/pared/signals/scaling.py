"""Gates on values: a gate on the entries along one axis of a weight is a factor on what they multiply in each call."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pared.signals.gates import GroupLike, SliceLike, reading_slices


class UnfitError(Exception):
    """A forward pass whose samples do not go through it each by itself, or not always by the same calls."""


class Use(NamedTuple):
    """A weight and the axis along which its entries are gated."""

    parameter: str
    axis: int


class _Known(NamedTuple):
    """A tensor that holds gated entries: all of a parameter, or the rows from `start` on."""

    tensor: Tensor
    name: str
    start: int = 0


class Scale(Protocol):
    """`scale(use, start, value, along, repeat)`: the value times the gates of a stretch of the weight's entries.

    The entries from `start` on lie along dimension `along` of the value, `repeat` times one after another.
    """

    def __call__(self, use: Use, start: int, value: Tensor, along: int, repeat: int) -> Tensor: ...


class Reads:
    """The entries of a model's parameters that read units: parameter -> axis -> [(group, slice)]."""

    def __init__(self, model: nn.Module, groups: Iterable[GroupLike]) -> None:
        self.of: dict[str, dict[int, list[tuple[GroupLike, SliceLike]]]] = defaultdict(lambda: defaultdict(list))
        tensors = dict((*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)))
        first: dict[int, str] = {}
        for name, tensor in tensors.items():
            first.setdefault(id(tensor), name)
        self.tensors: dict[str, Tensor] = {}
        self.unknown: set[str] = set()
        for group, s in reading_slices(groups):
            if s.parameter not in tensors:
                self.unknown.add(group.name)
                continue
            name = first[id(tensors[s.parameter])]  # of tied parameters
            self.tensors[name] = tensors[name]
            self.of[name][s.axis].append((group, s))

    def groups(self, uses: Iterable[Use]) -> set[str]:
        """Names of the groups that read by any of the uses."""
        return {group.name for use in uses for group, _ in self.of[use.parameter][use.axis]}


class Scaled(TorchFunctionMode):
    """While it is active, every call in which a gated weight multiplies something has that scaled by `scale`.

    `elsewhere` collects uses of gated weights in other ways. Raises UnfitError where the program looks at values.
    """

    def __init__(self, reads: Reads, scale: Scale) -> None:
        super().__init__()
        self.reads, self.scale = reads, scale
        self.known = {id(tensor): _Known(tensor, name) for name, tensor in reads.tensors.items()}
        self.elsewhere: set[Use] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name in _LOOKS:
            raise UnfitError(f"the forward pass looks at values ({name})")
        mine = [self.known[id(t)] for t in _tensors((args, list(kwargs.values()))) if id(t) in self.known]
        if not mine:
            return func(*args, **kwargs)
        if name in _RULES:
            return _RULES[name](self, func, *args, **kwargs)
        out = func(*args, **kwargs)
        if name in ("split", "chunk", "split_with_sizes") and self._pieces(out, args, kwargs):
            return out
        if _tensors(out):
            self.otherwise(*(known.tensor for known in mine))
        return out

    def _pieces(self, out: Sequence[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Rows of a gated weight are known too."""
        if (args[2] if len(args) > 2 else kwargs.get("dim", 0)) != 0 or not args or id(args[0]) not in self.known:
            return False
        _, name, start = self.known[id(args[0])]
        for piece in out:
            self.known[id(piece)] = _Known(piece, name, start)
            start += len(piece)
        return True

    def otherwise(self, *tensors: Tensor | None) -> None:
        """Notes that tensors were used in a way in which gates on their entries are not factors on values."""
        for tensor in tensors:
            if id(tensor) in self.known:
                name = self.known[id(tensor)].name
                self.elsewhere |= {Use(name, axis) for axis in self.reads.of[name]}

    def gated(self, tensor: Tensor | None, axis: int) -> bool:
        """Whether entries along this axis of the tensor are gated."""
        return id(tensor) in self.known and axis in self.reads.of[self.known[id(tensor)].name]

    def scaled(self, weight: Tensor, axis: int, value: Tensor, along: int, repeat: int = 1) -> Tensor:
        """The value times the gates of the weight's entries along the axis."""
        if not self.gated(weight, axis):
            return value
        _, name, start = self.known[id(weight)]
        return self.scale(Use(name, axis), start if axis == 0 else 0, value, along, repeat)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in _tensors(part)] if isinstance(value, (tuple, list)) else []


class _Axes(NamedTuple):
    """Which axis of a weight reads and which makes, where channels lie in values, how often entries are used."""

    reads: int
    makes: int
    channel: int
    read: int = 1
    made: int = 1


def _affine(
    mode: Scaled, func: Callable[[Tensor, Tensor, Tensor | None], Tensor], given: Sequence[Tensor | None], axes: _Axes
) -> Tensor:
    """A call func(input, weight, bias) with its input scaled, and its result where gates silence what makes a unit."""
    input, weight, bias = given
    assert input is not None
    assert weight is not None
    mode.otherwise(input)
    input = mode.scaled(weight, axes.reads, input, axes.channel, axes.read)
    if not mode.gated(weight, axes.makes) and not mode.gated(bias, 0):
        return func(input, weight, bias)
    made = mode.scaled(weight, axes.makes, func(input, weight, None), axes.channel, axes.made)
    if bias is None:
        return made
    added = bias.reshape(-1, *(1,) * (-1 - axes.channel)).expand_as(made)
    return made + mode.scaled(bias, 0, added, axes.channel)


def _linear(mode: Scaled, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _affine(mode, func, (input, weight, bias), _Axes(1, 0, -1))


def _product(mode: Scaled, func: Any, input: Tensor, other: Tensor) -> Tensor:
    if other.dim() != 2:
        mode.otherwise(input, other)
        return func(input, other)  # type: ignore[no-any-return]
    return _affine(mode, lambda i, w, _: func(i, w), (input, other, None), _Axes(0, 1, -1))


def _convolution(transposed: bool, place: int) -> Callable[..., Tensor]:
    """`place`: where the number of groups stands among the arguments after the bias."""

    def rule(
        mode: Scaled, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None, *more: Any, **options: Any
    ) -> Tensor:
        groups = more[place] if len(more) > place else options.get("groups", 1)
        channel = 1 - weight.dim()
        axes = _Axes(0, 1, channel, made=groups) if transposed else _Axes(1, 0, channel, read=groups)
        return _affine(mode, lambda i, w, b: func(i, w, b, *more, **options), (input, weight, bias), axes)

    return rule


_RULES: dict[str, Callable[..., Tensor]] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "__matmul__", "mm"), _product),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution(False, 3)),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _convolution(True, 3)),
}
_LOOKS = frozenset(
    ("item", "tolist", "numpy", "__array__", "__bool__", "__float__", "__int__", "__index__", "equal", "allclose")
)


class Sums:
    """Counts the entries that a backward pass will need."""

    def __init__(self) -> None:
        self.entries = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._count, lambda tensor: tensor)

    def _count(self, tensor: Tensor) -> Tensor:
        self.entries += tensor.numel()
        return tensor
