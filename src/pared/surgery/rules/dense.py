"""What multiplies: linear layers, products of tensors, embeddings, convolutions, attention weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from pared.surgery.atoms import Atoms, Axis, Layout, Rows, Traced, still, union
from pared.surgery.rules.layouts import group_name, layout_of, module_parameter, together


def contract(atoms: Atoms, operands: Sequence[Traced], letters: Sequence[str], out: str) -> Layout:
    """An Einstein sum: axes of one letter are coupled, letters that the result lacks are summed over.

    A mask silences a summed unit in the last operand that can be silenced, which is the weight where there is one.
    """
    found: dict[str, tuple[Axis, Rows]] = {}
    for operand, own in zip(operands, letters, strict=True):
        layout = layout_of(atoms, operand)
        for letter, axis, rows in zip(own, layout.axes, layout.silent, strict=True):
            before, silent = found.get(letter, (axis[:0], None))
            if len(before) < len(axis):  # the first of this letter, or one entry for all
                found[letter] = (axis, rows)
            elif len(before) == len(axis):
                found[letter] = (atoms.couple(before, axis), rows if rows is not None else silent)
    for letter, (axis, rows) in found.items():
        if letter not in out:
            atoms.reads(rows, axis)
    return Layout(tuple(found[letter][0] for letter in out), tuple(found[letter][1] for letter in out))


def linear(atoms: Atoms, out: Tensor, input: Traced, weight: Traced, bias: Traced | None = None) -> Layout:
    """y = x W^T + b: the last axis of x meets the second of W, the first of W makes the units of y."""
    places = "abcdefgh"[: input.value.dim() - 1]
    made = contract(atoms, (input, weight), (places + "x", "yx"), places + "y")
    made = biased(atoms, made, bias, -1)
    atoms.make(group_name(weight), made.axes[-1])
    return made


def biased(atoms: Atoms, made: Layout, bias: Traced | None, axis: int) -> Layout:
    """A layout after a bias along one axis was added."""
    if bias is None:
        return made
    added = layout_of(atoms, bias)
    units = atoms.couple(made.axes[axis], added.axes[0])
    return made.loud().replaced(axis, units, union(made.silent[axis], added.silent[0]))


def linear_module(atoms: Atoms, out: Tensor, name: str, module: nn.Linear, input: Traced) -> Layout:
    """Reads the last axis of its input; each output feature is a unit."""
    weight, bias = (module_parameter(atoms, name, module, leaf) for leaf in ("weight", "bias"))
    assert weight is not None
    return linear(atoms, out, input, weight, bias)


def matmul(atoms: Atoms, out: Tensor, input: Traced, other: Traced) -> Layout:
    """Products of vectors, matrices and batches of them."""
    batch = "abcdefgh"
    own = []
    for operand, last in ((input, "mk"), (other, "kn")):
        dims = operand.value.dim()
        single = "k" if dims == 1 else last
        own.append(batch[len(batch) - max(dims - 2, 0) :] + single)
    leading = max(own, key=len)[:-2] if max(map(len, own)) > 2 else ""
    result = leading + ("m" if input.value.dim() > 1 else "") + ("n" if other.value.dim() > 1 else "")
    return _made(atoms, contract(atoms, (input, other), own, result), (input, other), own, result)


def _made(atoms: Atoms, layout: Layout, operands: Sequence[Traced], letters: Sequence[str], out: str) -> Layout:
    """A bare parameter in a product makes units along its axes that stay."""
    for operand, own in zip(operands, letters, strict=True):
        if isinstance(operand.layout, Layout) and all(operand.layout.silent):
            for letter in own:
                if letter in out:
                    atoms.make(group_name(operand), layout.axes[out.index(letter)])
    return layout


def added_product(atoms: Atoms, out: Tensor, input: Traced, first: Traced, second: Traced, **scale: Any) -> Layout:
    """`addmm` and `baddbmm`: a product to which something is added."""
    product = Traced(out, matmul(atoms, out, first, second))
    return together(atoms, out.shape, (input, product), sum_of=True)


def einsum(atoms: Atoms, out: Tensor, equation: str, *operands: Any) -> Layout:
    """Any Einstein sum without an ellipsis."""
    tensors: Sequence[Traced] = operands if isinstance(operands[0], Traced) else operands[0]
    left, arrow, right = equation.replace(" ", "").partition("->")
    own = left.split(",")
    if "." in equation or any(len(set(term)) < len(term) for term in own):
        for tensor in tensors:
            for axis in layout_of(atoms, tensor).axes:
                atoms.fix(axis, f"enters {equation!r}, an Einstein sum with an ellipsis or a diagonal")
        return still(out.shape)
    if not arrow:
        every = "".join(own)
        right = "".join(sorted(letter for letter in set(every) if every.count(letter) == 1))
    return _made(atoms, contract(atoms, tensors, own, right), tensors, own, right)


def embedding(atoms: Atoms, out: Tensor, input: Traced, weight: Traced, *more: Any, **options: Any) -> Layout:
    """Rows of W: its second axis makes the units."""
    table = layout_of(atoms, weight)
    atoms.make(group_name(weight), table.axes[1])
    entering = layout_of(atoms, input)
    return Layout((*entering.axes, table.axes[1]), (*(None,) * len(entering.axes), table.silent[1]))


def embedding_module(atoms: Atoms, out: Tensor, name: str, module: nn.Embedding, input: Traced) -> Layout:
    """Each place in the vectors is a unit; the vocabulary stays."""
    weight = module_parameter(atoms, name, module, "weight")
    assert weight is not None
    layout = embedding(atoms, out, input, weight)
    if module.max_norm is not None:
        atoms.fix(layout.axes[-1], f"{atoms.place} rescales its vectors (max_norm)")
    return layout


def attention(
    atoms: Atoms,
    out: Tensor,
    query: Traced,
    key: Traced,
    value: Traced,
    attn_mask: Traced | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Layout:
    """softmax(q k^T scale + mask) v: heads are batches, the width of q and k is summed over, that of v stays."""
    q, k, v = (layout_of(atoms, part) for part in (query, key, value))
    if enable_gqa:
        for axis in (*q.axes[:-1], *k.axes[:-1], *v.axes[:-1]):
            atoms.fix(axis, "is a head of grouped queries, whose numbers must stay multiples")
    if scale is None:
        atoms.mix(q.axes[-1], f"the scale of {atoms.place} depends on the width; give scale=")
    batch = "abcdefgh"[: query.value.dim() - 2]
    if enable_gqa:
        contract(atoms, (query, key), (batch[:-1] + "hld", batch[:-1] + "gsd"), batch[:-1] + "hlgs")
        axes, rows = (*q.axes[:-1], v.axes[-1]), (*(None,) * (len(q.axes) - 1), v.silent[-1])
        return Layout(axes, rows)
    scores = contract(atoms, (query, key), (batch + "ld", batch + "sd"), batch + "ls").loud()
    if isinstance(attn_mask, Traced):
        shape = (*query.value.shape[:-1], key.value.shape[-2])
        scores = together(atoms, shape, (Traced(None, scores), attn_mask))
    weights = Traced(None, scores.loud())
    return contract(atoms, (weights, value), (batch + "ls", batch + "sv"), batch + "lv")


def convolution(
    atoms: Atoms,
    out: Tensor,
    input: Traced,
    weight: Traced,
    bias: Traced | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Layout:
    """Channels are units. Grouped: as many units from each group. Depthwise: a channel takes its filters with it."""
    return _convolved(atoms, out, input, weight, bias, groups, transposed=False)


def transposed_convolution(
    atoms: Atoms,
    out: Tensor,
    input: Traced,
    weight: Traced,
    bias: Traced | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Layout:
    """As a convolution, but the weight's first axis reads and its second makes."""
    return _convolved(atoms, out, input, weight, bias, groups, transposed=True)


def _convolved(
    atoms: Atoms, out: Tensor, input: Traced, weight: Traced, bias: Traced | None, groups: int, transposed: bool
) -> Layout:
    channel = -(weight.value.dim() - 1)
    entering, filters = layout_of(atoms, input), layout_of(atoms, weight)
    for axis in entering.axes[channel + 1 :]:
        atoms.fix(axis, f"lies along a spatial axis of {atoms.place}")
    reads, makes = (0, 1) if transposed else (1, 0)
    read, made = filters.axes[reads], filters.axes[makes]
    channels = entering.axes[channel]
    silent = filters.silent[makes]
    if groups == 1:
        atoms.couple(channels, read)
        atoms.reads(filters.silent[reads], np.where(channels > 0, read, 0))
    elif len(channels) == groups:  # each channel has its own filters
        many = out.shape[channel] // groups
        own = np.repeat(channels, many)
        made = np.repeat(read, many) if transposed else made
        if transposed:
            atoms.couple(channels, read)
        else:
            if not (own > 0).all():
                atoms.fix(made, f"reads a channel that cannot be cut in {atoms.place}")
            atoms.couple(np.where(own > 0, made, 0), own)
            alike(atoms, made, many)
        silent = filters.silent[0]
    elif transposed:
        read = _alike_across(atoms, read, groups)
        atoms.couple(channels, filters.axes[0])
        atoms.reads(filters.silent[0], np.where(channels > 0, filters.axes[0], 0))
        made = np.tile(made, groups)
    else:
        _alike_across(atoms, channels, groups)
        _alike_across(atoms, made, groups)
        wide = np.tile(read, groups)
        atoms.couple(channels, wide)
        atoms.reads(filters.silent[1], np.where(channels > 0, wide, 0))
    layout = still(out.shape).replaced(channel, made, silent)
    layout = biased(atoms, layout, bias, channel)
    atoms.make(group_name(weight), layout.axes[channel])
    return layout


def alike(atoms: Atoms, axis: Axis, size: int) -> Axis:
    """Stretches of `size` entries become one unit each."""
    table = axis.reshape(-1, size)
    for column in range(1, size):
        atoms.couple(table[:, 0], table[:, column])
    return np.repeat(table[:, 0], size)


def _alike_across(atoms: Atoms, axis: Axis, parts: int) -> Axis:
    """The entries at the same place in each of `parts` equal parts become one unit."""
    table = axis.reshape(parts, -1)
    for row in range(1, parts):
        atoms.couple(table[0], table[row])
    return np.tile(table[0], parts)


def convolution_module(atoms: Atoms, out: Tensor, name: str, module: nn.Module, input: Traced) -> Layout:
    """Channels are units. Grouped: as many go from every group. Depthwise: a channel takes its filters with it."""
    weight, bias = (module_parameter(atoms, name, module, leaf) for leaf in ("weight", "bias"))
    assert weight is not None
    groups = module.groups
    assert isinstance(groups, int)
    transposed = bool(getattr(module, "transposed", False))
    return _convolved(atoms, out, input, weight, bias, groups, transposed)
