"""Attention blocks on steps: PyTorch's module, written out by hand, and transformer layers."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from random_networks.parts import FLAGS, WIDTHS, Block, Made, Shape


def multihead(given: Shape, heads: int, head: int, form: str, masked: bool, bias: bool, batch_first: bool) -> Made:
    """`nn.MultiheadAttention` between linear layers: of x with itself, or with a memory of another width."""
    width = heads * head
    own = {"kdim": 2, "vdim": 3} if form == "other widths" else {}
    layer = nn.MultiheadAttention(width, heads, bias=bias, batch_first=batch_first, **own)
    held: dict[str, Any] = {"enter": nn.Linear(given.width, width), "attention": layer}
    if form == "cross":
        held["memory"] = nn.Linear(given.width, width)
    if own:
        held |= {"keys": nn.Linear(given.width, 2), "contents": nn.Linear(given.width, 3)}

    def forward(m: Block, x: Tensor) -> Tensor:
        x = x if batch_first else x.transpose(0, 1)
        q = m.enter(x)
        k = m.keys(x) if own else m.memory(torch.tanh(x)) if form == "cross" else q
        v = m.contents(x) if own else k
        mask = m.hidden if masked else None
        if form == "weights":
            out, shares = m.attention(q, k, v, attn_mask=mask)
            heard = shares.sum(-1, keepdim=True)
            out = out * (heard if batch_first else heard.transpose(0, 1))
        else:
            out = m.attention(q, k, v, need_weights=form == "self", attn_mask=mask)[0]
        return out if batch_first else out.transpose(0, 1)

    block = Block(forward, **held)
    steps = given.places[0]
    block.register_buffer("hidden", torch.ones(steps, steps, dtype=torch.bool).triu(1))
    return Made(block, given.as_wide(width))


def written(given: Shape, heads: int, head: int, joined: bool, how: str, back: str) -> Made:
    """Attention spelt out, as in a hundred repositories."""
    width = heads * head

    def parts(m: Block, x: Tensor) -> list[Tensor]:
        three = m.qkv(x).chunk(3, dim=-1) if joined else (m.q(x), m.k(x), m.v(x))
        b, t = x.shape[0], x.shape[1]
        apart = (lambda y: y.view(b, t, heads, -1)) if back == "reshape" else (lambda y: y.unflatten(-1, (heads, -1)))
        return [apart(three[k]).transpose(1, 2) for k in range(3)]

    def forward(m: Block, x: Tensor) -> Tensor:
        q, k, v = parts(m, x)
        if how == "sdpa":
            out = scaled_dot_product_attention(q, k, v, is_causal=True)
        elif how == "scaled":
            out = scaled_dot_product_attention(q, k, v, scale=0.7)
        elif how == "einsum":
            shares = torch.softmax(torch.einsum("bhqd,bhkd->bhqk", q, k) / head**0.5, dim=-1)
            out = torch.einsum("bhqk,bhkd->bhqd", shares, v)
        else:
            shares = (q @ k.transpose(-2, -1) * 0.7).softmax(-1)
            out = torch.matmul(shares, v)
        out = out.transpose(1, 2)
        out = out.reshape(x.shape[0], x.shape[1], -1) if back == "reshape" else out.flatten(2)
        return m.last(out)

    held = {"qkv": nn.Linear(given.width, 3 * width)} if joined else {n: nn.Linear(given.width, width) for n in "qkv"}
    return Made(Block(forward, **held, last=nn.Linear(width, given.width)), given)


def transformer(given: Shape, heads: int, head: int, wide: int, norm_first: bool, gelu: bool, stacked: bool) -> Made:
    """`nn.TransformerEncoderLayer`, by itself or in a stack, behind a linear layer."""
    width = heads * head
    layer = nn.TransformerEncoderLayer(
        width, heads, wide, 0.1, "gelu" if gelu else "relu", batch_first=True, norm_first=norm_first
    )
    body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False) if stacked else layer
    enter = nn.Linear(given.width, width)
    return Made(Block(lambda m, x: m.body(m.enter(x)), enter=enter, body=body), given.as_wide(width))


def pooled(given: Shape) -> Made:
    """Steps weighed by a softmax over them."""

    def forward(m: Block, x: Tensor) -> Tensor:
        return (torch.softmax(m.score(x), dim=1) * x).sum(dim=1)

    return Made(Block(forward, score=nn.Linear(given.width, 1)), Shape("rows", given.width))


_HEADS = {"heads": st.integers(1, 3), "head": st.integers(1, 2)}
ON_STEPS = [
    (
        multihead,
        {
            **_HEADS,
            "form": st.sampled_from(["self", "fast", "cross", "other widths", "weights"]),
            "masked": FLAGS,
            "bias": FLAGS,
            "batch_first": FLAGS,
        },
    ),
    (
        written,
        {
            **_HEADS,
            "joined": FLAGS,
            "how": st.sampled_from(["sdpa", "scaled", "einsum", "matmul"]),
            "back": st.sampled_from(["reshape", "flatten"]),
        },
    ),
    (transformer, {**_HEADS, "wide": WIDTHS, "norm_first": FLAGS, "gelu": FLAGS, "stacked": FLAGS}),
]
STEPS_TO_ROWS = [(pooled, {})]
