"""Blocks on the last axis, for rows and steps: linear layers in all their spellings, gates, tied weights, norms."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import glu, linear

from random_networks.parts import ACTIVATION, ACTIVATIONS, FLAGS, WIDTHS, Block, Made, Shape, divisor, normed, weight


def dense(given: Shape, width: int, bias: bool, activation: str, computed: bool) -> Made:
    """A linear layer, perhaps weight-normed, and an activation."""
    act = ACTIVATIONS[activation]
    layer = normed(nn.Linear(given.width, width, bias), computed)
    return Made(Block(lambda m, x: act(m.layer(x)), layer=layer), given.as_wide(width))


def product(given: Shape, width: int, how: str) -> Made:
    """A product with a bare parameter."""
    forms = {
        "matmul": lambda m, x: torch.tanh(x @ m.weight.t()),
        "functional": lambda m, x: torch.tanh(linear(x, m.weight, m.bias)),
        "addmm": lambda m, x: torch.addmm(m.bias, x.flatten(0, -2), m.weight.t()).view(_sizes(given, x)),
        "einsum": lambda m, x: torch.einsum(_letters(given), x, m.weight),
    }
    held = {"weight": weight(width, given.width), "bias": weight(width)}
    return Made(Block(forms[how], **held), given.as_wide(width))


def _sizes(given: Shape, x: Tensor) -> tuple[int, ...]:
    return (x.shape[0], *(x.shape[1 + k] for k in range(len(given.places))), -1)


def _letters(given: Shape) -> str:
    places = "abc"[: 1 + len(given.places)]
    return f"{places}i,oi->{places}o"


def autoencoder(given: Shape, width: int, activation: str) -> Made:
    """Encoder and decoder share their weights."""
    act = ACTIVATIONS[activation]

    def forward(m: Block, x: Tensor) -> Tensor:
        return linear(act(linear(x, m.weight, m.inner)), m.weight.t(), m.outer)

    held = {"weight": weight(width, given.width), "inner": weight(width), "outer": weight(given.width)}
    return Made(Block(forward, **held), given)


def tied(given: Shape, width: int) -> Made:
    """Two layers with one weight."""

    def forward(m: Block, x: Tensor) -> Tensor:
        return torch.tanh(m.one(x)) * m.two(x + 1)

    one, two = nn.Linear(given.width, width), nn.Linear(given.width, width)
    two.weight = one.weight
    return Made(Block(forward, one=one, two=two), given.as_wide(width))


def gate(given: Shape, width: int, how: str) -> Made:
    """Two halves of one layer's units, one of which gates the other."""

    def halves(m: Block, x: Tensor) -> tuple[Tensor, Tensor]:
        h = m.layer(x)
        if how == "chunk":
            first, second = h.chunk(2, dim=-1)
        elif how == "split":
            first, second = h.split(h.shape[-1] // 2, -1)
        elif how == "written":
            first, second = torch.split(h, [width, width], dim=-1)
        elif how == "view":
            pair = h.unflatten(-1, (2, -1))
            first, second = pair[..., 0, :], pair[..., 1, :]
        else:
            pair = h.view((*_sizes(given, h), 2))
            first, second = pair.select(-1, 0), pair.select(-1, 1)
        return first, second

    def forward(m: Block, x: Tensor) -> Tensor:
        if how == "glu":
            return glu(m.layer(x), -1)
        first, second = halves(m, x)
        return first * torch.sigmoid(second)

    return Made(Block(forward, layer=nn.Linear(given.width, 2 * width)), given.as_wide(width))


def norm(given: Shape, kind: str, groups: int, affine: bool) -> Made:
    """Normalisation of the last axis."""
    width = given.width
    if kind in ("batch", "group"):
        own = (
            nn.BatchNorm1d(width, affine=affine)
            if kind == "batch"
            else nn.GroupNorm(divisor(width, groups), width, affine=affine)
        )
        if given.kind == "steps":
            return Made(Block(lambda m, x: m.norm(x.transpose(1, 2)).transpose(1, 2), norm=own), given)
        return Made(Block(lambda m, x: m.norm(x), norm=own), given)
    own = (
        nn.LayerNorm(width, elementwise_affine=affine)
        if kind == "layer"
        else nn.RMSNorm(width, elementwise_affine=affine)
    )
    return Made(Block(lambda m, x: m.norm(x), norm=own), given)


def activation(given: Shape, kind: str) -> Made:
    """An activation by itself; PReLU has a slope for each channel."""
    if kind == "prelu" and given.kind != "steps":
        return Made(nn.PReLU(given.width), given)
    if kind == "softmax":
        return Made(Block(lambda m, x: x.softmax(1 if given.kind == "grid" else -1)), given)
    act = ACTIVATIONS.get(kind, torch.tanh)
    return Made(Block(lambda m, x: act(x)), given)


def scaled(given: Shape) -> Made:
    """A factor and an offset for each unit."""
    return Made(
        Block(lambda m, x: x * m.scale + m.offset, scale=weight(given.width), offset=weight(given.width)), given
    )


_DENSE = {"bias": FLAGS, "activation": ACTIVATION, "computed": st.sampled_from([False, False, False, True])}
HIDDEN = [(dense, {"width": st.integers(2, 4), **_DENSE})]
ON_LAST_AXIS = [
    *[(dense, {"width": WIDTHS, **_DENSE})] * 2,
    (product, {"width": WIDTHS, "how": st.sampled_from(["matmul", "functional", "addmm", "einsum"])}),
    (autoencoder, {"width": WIDTHS, "activation": ACTIVATION}),
    (tied, {"width": WIDTHS}),
    (gate, {"width": WIDTHS, "how": st.sampled_from(["chunk", "split", "written", "view", "pairs", "glu"])}),
    (norm, {"kind": st.sampled_from(["batch", "batch", "group", "layer", "rms"]), "groups": WIDTHS, "affine": FLAGS}),
    (activation, {"kind": st.sampled_from([*sorted(ACTIVATIONS), *["prelu"] * 5, "softmax"])}),
    (scaled, {}),
]
