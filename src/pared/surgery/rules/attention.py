"""Attention modules and the transformer layers made of them: heads, the widths of heads, the model's width."""

from typing import Any

import numpy as np
from torch import Tensor, nn

from pared.models.attention import Attention
from pared.surgery.atoms import Atoms, Axis, Layout, Row, Spoiled, Traced
from pared.surgery.rules import dense, norms
from pared.surgery.rules.layouts import layout_of, module_parameter, together
from pared.surgery.slices import StructureError

PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def widths(module: nn.Module) -> tuple[int, int, int]:
    """Heads, width of a head's queries and keys, width of its values."""
    if isinstance(module, Attention):
        return module.num_heads, module.key_width, module.value_width
    assert isinstance(module, nn.MultiheadAttention)
    return module.num_heads, module.head_dim, module.head_dim


def multihead(
    atoms: Atoms,
    out: Any,
    name: str,
    module: nn.Module,
    query: Traced,
    key: Traced,
    value: Traced,
    key_padding_mask: Traced | None = None,
    need_weights: bool = True,
    attn_mask: Traced | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Any:
    """A head owns its rows of the three projections and its columns of the last; so does each place within the heads.

    Groups: `<name>.heads`, `<name>.keys` (the width of queries and keys), `<name>.values`.
    """
    if getattr(module, "bias_k", None) is not None or getattr(module, "add_zero_attn", False):
        raise StructureError(f"{name!r} adds a key and a value of its own (add_bias_kv, add_zero_attn); leave them out")
    heads, key_width, value_width = widths(module)
    head, place, content = atoms.fresh(heads), atoms.fresh(key_width), atoms.fresh(value_width)
    parts = [np.repeat(head, w) for w in (key_width, key_width, value_width)]
    within = [np.tile(place, heads), np.tile(place, heads), np.tile(content, heads)]
    queries = _project(atoms, name, module, (query, key, value), parts, within)
    projection = module.get_submodule("out_proj")
    last, bias = (
        module_parameter(atoms, f"{name}.out_proj".lstrip("."), projection, leaf) for leaf in ("weight", "bias")
    )
    assert last is not None
    columns = layout_of(atoms, last)
    parameter = next(iter(columns.silent[1] or ())).parameter
    for facet, atoms_read in (("heads", parts[2]), ("width", within[2])):
        fresh = atoms.fresh(len(atoms_read))
        row = atoms.facet(parameter, 1, facet, fresh)
        atoms.couple(atoms.rows[row], atoms_read)
        atoms.reads(frozenset([row]), atoms_read)
    atoms.reads(frozenset(queries), place)
    prefix = f"{name}." if name else ""
    for what, made in (("heads", head), ("keys", place), ("values", content)):
        atoms.make(prefix + what, made)
    if isinstance(attn_mask, Traced) and attn_mask.value is not None and attn_mask.value.dim() == 3:
        atoms.fix(head, f"has its own mask in {atoms.place}")
    given = layout_of(atoms, query)
    result = Layout((*given.axes[:-1], columns.axes[0]), (*(None,) * (len(given.axes) - 1), columns.silent[0]))
    result = dense.biased(atoms, result, bias, -1)
    atoms.make(prefix + "out_proj", columns.axes[0])
    return result, Spoiled(head, f"is averaged into the weights that {atoms.place} returns")


def _project(
    atoms: Atoms, name: str, module: nn.Module, given: tuple[Traced, ...], parts: list[Axis], within: list[Axis]
) -> list[Row]:
    """Registers the rows of the three projections; returns the queries' rows, which silence a key's place."""
    packed = getattr(module, "in_proj_weight", None) is not None
    leaves = ["in_proj_weight"] * 3 if packed else list(PROJECTIONS)
    bias = getattr(module, "in_proj_bias", None)
    queries: list[Row] = []
    for traced, leaf in zip(given, leaves, strict=True):
        weight = module_parameter(atoms, name, module, leaf)
        assert weight is not None
        layout = layout_of(atoms, weight)
        entering = layout_of(atoms, traced).axes[-1]
        atoms.couple(entering, layout.axes[1])
        atoms.reads(layout.silent[1], np.where(entering > 0, layout.axes[1], 0))
    holders = list(dict.fromkeys(leaves))
    spans = [(leaf, [0, 1, 2] if packed else [index]) for index, leaf in enumerate(holders)]
    if bias is not None:
        spans.append(("in_proj_bias", [0, 1, 2]))
    for leaf, members in spans:
        traced_leaf = module_parameter(atoms, name, module, leaf)
        assert traced_leaf is not None
        full = next(iter(layout_of(atoms, traced_leaf).silent[0] or ())).parameter
        for facet, axes in (("heads", parts), ("width", within)):
            stretch = [axes[m] for m in members]
            if facet == "heads":
                atoms.facet(full, 0, facet, np.concatenate(stretch))
                continue
            stretches = [("queries", 0), ("others", 1), ("others", 2)]
            for label, member in stretches:
                if member in members:
                    padded = [axes[m] if m == member else np.zeros(len(axes[m]), np.int64) for m in members]
                    row = atoms.facet(full, 0, f"{facet} {label} {member}", np.concatenate(padded))
                    if member == 0:
                        queries.append(row)
    return queries


def encoder_layer(
    atoms: Atoms, out: Tensor, name: str, module: nn.TransformerEncoderLayer, src: Traced, *more: Any, **options: Any
) -> Layout:
    """Attention and two linear layers, each with a residual around it and a normalisation."""
    masks = dict(zip(("src_mask", "src_key_padding_mask"), more, strict=False)) | options
    block = _Block(atoms, name, module, out)
    x = layout_of(atoms, src)
    x = block.residual(x, "norm1", lambda y: block.attend("self_attn", y, y, masks.get("src_mask")))
    return block.residual(x, "norm2", block.feed_forward)


def decoder_layer(
    atoms: Atoms,
    out: Tensor,
    name: str,
    module: nn.TransformerDecoderLayer,
    tgt: Traced,
    memory: Traced,
    *more: Any,
    **options: Any,
) -> Layout:
    """As the encoder's, with attention to the encoder's output between the two."""
    masks = dict(zip(("tgt_mask", "memory_mask"), more, strict=False)) | options
    block = _Block(atoms, name, module, out)
    x = layout_of(atoms, tgt)
    x = block.residual(x, "norm1", lambda y: block.attend("self_attn", y, y, masks.get("tgt_mask")))
    x = block.residual(
        x, "norm2", lambda y: block.attend("multihead_attn", y, layout_of(atoms, memory), masks.get("memory_mask"))
    )
    return block.residual(x, "norm3", block.feed_forward)


def encoder(
    atoms: Atoms, out: Tensor, name: str, module: nn.TransformerEncoder, src: Traced, *more: Any, **options: Any
) -> Layout:
    """Its layers one after the other, then its normalisation."""
    masks = (
        dict(zip(("src_mask", "src_key_padding_mask"), more, strict=False))
        | {"src_mask": options.get("mask")}
        | options
    )
    return _stack(
        atoms,
        out,
        name,
        module,
        src,
        lambda k, layer, x: encoder_layer(
            atoms, out, f"{name}.layers.{k}".lstrip("."), layer, x, masks.get("src_mask")
        ),
    )


def decoder(
    atoms: Atoms,
    out: Tensor,
    name: str,
    module: nn.TransformerDecoder,
    tgt: Traced,
    memory: Traced,
    *more: Any,
    **options: Any,
) -> Layout:
    """Its layers one after the other, each with the memory, then its normalisation."""
    return _stack(
        atoms,
        out,
        name,
        module,
        tgt,
        lambda k, layer, x: decoder_layer(
            atoms, out, f"{name}.layers.{k}".lstrip("."), layer, x, memory, *more, **options
        ),
    )


def _stack(atoms: Atoms, out: Tensor, name: str, module: Any, given: Traced, step: Any) -> Layout:
    x = given
    for k, layer in enumerate(module.layers):
        x = Traced(out, step(k, layer, x))
    if module.norm is not None:
        x = Traced(out, norms.last_axes_module(atoms, out, f"{name}.norm".lstrip("."), module.norm, x))
    return layout_of(atoms, x)


class _Block:
    """The parts of one transformer layer."""

    def __init__(self, atoms: Atoms, name: str, module: Any, out: Tensor) -> None:
        self.atoms, self.name, self.module, self.out = atoms, name, module, out

    def residual(self, x: Layout, norm: str, inner: Any) -> Layout:
        if self.module.norm_first:
            return self._sum(x, inner(self._norm(norm, x)))
        return self._norm(norm, self._sum(x, inner(x)))

    def attend(self, part: str, x: Layout, memory: Layout, mask: Traced | None) -> Layout:
        layouts = (Traced(self.out, x), Traced(None, memory), Traced(None, memory))
        name = f"{self.name}.{part}".lstrip(".")
        result: Layout = multihead(self.atoms, None, name, getattr(self.module, part), *layouts, attn_mask=mask)[0]
        return result

    def feed_forward(self, x: Layout) -> Layout:
        return self._linear("linear2", self._linear("linear1", x).loud())

    def _linear(self, part: str, x: Layout) -> Layout:
        module = getattr(self.module, part)
        return dense.linear_module(self.atoms, self.out, f"{self.name}.{part}".lstrip("."), module, Traced(self.out, x))

    def _norm(self, part: str, x: Layout) -> Layout:
        module = getattr(self.module, part)
        return norms.last_axes_module(
            self.atoms, self.out, f"{self.name}.{part}".lstrip("."), module, Traced(self.out, x)
        )

    def _sum(self, x: Layout, y: Layout) -> Layout:
        return together(self.atoms, self.out.shape, (Traced(None, x), Traced(None, y)), sum_of=True)
