"""Attention whose heads, head widths and model width are free: what `nn.MultiheadAttention` becomes when it is cut."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention


class Attention(nn.Module):
    """`nn.MultiheadAttention` without its tie between widths, with the same parameters, arguments and results.

    `heads` heads of `key_width` for queries and keys and `value_width` for values; scores are multiplied by `scale`,
    which a cut leaves as it was. Built from a `nn.MultiheadAttention` whose parameters may already be smaller.
    """

    def __init__(self, like: nn.MultiheadAttention, heads: int, key_width: int, value_width: int, scale: float) -> None:
        super().__init__()
        self.num_heads, self.key_width, self.value_width, self.scale = heads, key_width, value_width, scale
        self.batch_first, self.dropout = like.batch_first, like.dropout
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias"):
            self.register_parameter(name, getattr(like, name))
        self.out_proj = like.out_proj
        self._qkv_same_embed_dim = False  # keeps nn.TransformerEncoderLayer off its fused path, which ties the widths
        self.train(like.training)

    @property
    def embed_dim(self) -> int:
        """The width of what enters and leaves."""
        return int(self.out_proj.weight.shape[0])

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        batched = query.dim() == 3
        parts = [query, key, value]
        if not batched:
            parts = [part.unsqueeze(0 if self.batch_first else 1) for part in parts]
        q, k, v = self._projected(parts if self.batch_first else [part.transpose(0, 1) for part in parts])
        mask = self._mask(attn_mask, key_padding_mask, q)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.scale
            shares = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            out = torch.dropout(shares, dropout, self.training) @ v
            weights = shares.mean(dim=1) if average_attn_weights else shares
            weights = weights if batched else weights.squeeze(0)
        else:
            out = scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
        out = linear(out.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)
        out = out if self.batch_first else out.transpose(0, 1)
        return out if batched else out.squeeze(0 if self.batch_first else 1), weights

    def _projected(self, parts: list[Tensor]) -> list[Tensor]:
        """Queries, keys and values as (samples, heads, steps, width)."""
        widths = [self.num_heads * w for w in (self.key_width, self.key_width, self.value_width)]
        if self.in_proj_weight is not None:
            matrices = torch.split(cast(Tensor, self.in_proj_weight), widths)
        else:
            matrices = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None,) * 3 if self.in_proj_bias is None else torch.split(cast(Tensor, self.in_proj_bias), widths)
        projected = [linear(part, matrix, bias) for part, matrix, bias in zip(parts, matrices, biases, strict=True)]
        return [torch.unflatten(part, -1, (self.num_heads, -1)).transpose(1, 2) for part in projected]

    def _mask(self, attn_mask: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
        """What is added to the scores: -inf where a boolean mask is True, as in `nn.MultiheadAttention`."""
        total: Tensor | None = None
        if attn_mask is not None:
            shaped = attn_mask if attn_mask.dim() == 2 else torch.unflatten(attn_mask, 0, (len(q), -1))
            total = _additive(shaped, q)
        if padding is not None:
            columns = _additive(padding if padding.dim() == 2 else padding[None], q)[:, None, None]
            total = columns if total is None else total + columns
        return total


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
