"""Blocks on grids: convolutions of every kind, their norms, pooling, and ways to and from rows and steps."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from random_networks.parts import ACTIVATION, ACTIVATIONS, FLAGS, WIDTHS, Block, Made, Shape, divisor, normed

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCES = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
AVERAGES = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
MAXIMA = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
ADAPTIVE = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


def conv(given: Shape, width: int, kernel: int, groups: int, bias: bool, activation: str, computed: bool) -> Made:
    """A convolution, perhaps grouped, that leaves the places as they are; and an activation."""
    act = ACTIVATIONS[activation]
    groups = divisor(given.width, groups)
    width = groups * max(1, width // groups)
    layer = CONVOLUTIONS[len(given.places)](given.width, width, kernel, padding=kernel // 2, groups=groups, bias=bias)
    return Made(Block(lambda m, x: act(m.conv(x)), conv=normed(layer, computed)), given.as_wide(width))


def separable(given: Shape, width: int, many: int, expand: bool, normal: bool) -> Made:
    """An inverted bottleneck: widen, one filter (or several) for each channel, narrow."""
    dims = len(given.places)
    conv_kind, norm_kind = CONVOLUTIONS[dims], NORMS[dims]
    inner = 2 * given.width if expand else given.width
    steps: list[nn.Module] = [conv_kind(given.width, inner, 1, bias=not normal)] if expand else []
    steps += [norm_kind(inner)] if normal else []
    steps += [nn.ReLU6(), conv_kind(inner, many * inner, 3, padding=1, groups=inner, bias=not normal)]
    steps += [norm_kind(many * inner)] if normal else []
    steps += [nn.Hardswish(), conv_kind(many * inner, width, 1)]
    return Made(nn.Sequential(*steps), given.as_wide(width))


def norm(given: Shape, kind: str, groups: int, affine: bool) -> Made:
    """Normalisation of channels; LayerNorm after moving them last."""
    dims, width = len(given.places), given.width
    if kind == "batch":
        own: nn.Module = NORMS[dims](width, affine=affine)
    elif kind == "instance":
        own = INSTANCES[dims](width, affine=affine)
    elif kind == "group":
        own = nn.GroupNorm(divisor(width, groups), width, affine=affine)
    else:
        layer = nn.LayerNorm(width, elementwise_affine=affine)
        last = lambda m, x: m.norm(x.movedim(1, -1)).movedim(-1, 1)  # noqa: E731
        return Made(Block(last, norm=layer), given)
    return Made(Block(lambda m, x: m.norm(x), norm=own), given)


def squeezed(given: Shape, width: int, form: str) -> Made:
    """Channels gated by what is in them: squeeze and excite."""
    dims = tuple(range(2, 2 + len(given.places)))

    def forward(m: Block, x: Tensor) -> Tensor:
        seen = x.mean(dims)
        gate = torch.sigmoid(m.second(torch.relu(m.first(seen))))
        if form == "view":
            gate = gate.view(gate.shape[0], -1, *(1,) * len(dims))
        elif form == "none":
            gate = gate[(..., *(None,) * len(dims))]
        else:
            for _ in dims:
                gate = gate.unsqueeze(-1)
        return x * gate

    return Made(Block(forward, first=nn.Linear(given.width, width), second=nn.Linear(width, given.width)), given)


def shuffled(given: Shape, groups: int) -> Made:
    """Channels shuffled between groups, then read."""
    groups = divisor(given.width, groups)

    def forward(m: Block, x: Tensor) -> Tensor:
        return m.conv(x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2))

    return Made(Block(forward, conv=CONVOLUTIONS[len(given.places)](given.width, given.width, 1)), given)


def linear_last(given: Shape, width: int) -> Made:
    """A linear layer on channels moved last, as in ConvNeXt."""

    last = 1 + len(given.places)
    order, back = (0, *range(2, last + 1), 1), (0, last, *range(1, last))

    def forward(m: Block, x: Tensor) -> Tensor:
        return m.layer(x.permute(*order)).permute(*back)

    return Made(Block(forward, layer=nn.Linear(given.width, width)), given.as_wide(width))


ON_GRIDS = [
    (
        conv,
        {
            "width": WIDTHS,
            "kernel": st.sampled_from([1, 3]),
            "groups": st.sampled_from([1, 1, 2, 3, 4]),
            "bias": FLAGS,
            "activation": ACTIVATION,
            "computed": st.sampled_from([False, False, False, True]),
        },
    ),
    (separable, {"width": WIDTHS, "many": st.integers(1, 2), "expand": FLAGS, "normal": FLAGS}),
    (
        norm,
        {"kind": st.sampled_from(["batch", "batch", "instance", "group", "layer"]), "groups": WIDTHS, "affine": FLAGS},
    ),
    (squeezed, {"width": WIDTHS, "form": st.sampled_from(["view", "none", "unsqueeze"])}),
    (shuffled, {"groups": st.integers(1, 3)}),
    (linear_last, {"width": WIDTHS}),
]


def pool(given: Shape, kind: str) -> Made:
    """Pooling, padding and resizing."""
    dims = len(given.places)
    if kind == "pad":
        padded = tuple(n + 1 for n in given.places)
        block = Block(lambda m, x: functional.pad(x, (1, 0) * dims))
        return Made(block, given._replace(places=padded))
    if kind == "up" or min(given.places) < 2:
        places = tuple(2 * n for n in given.places)
        return Made(nn.Upsample(scale_factor=2), given._replace(places=places))
    if kind == "adaptive":
        return Made(ADAPTIVE[dims](2), given._replace(places=(2,) * dims))
    if kind == "functional":
        function = getattr(functional, f"avg_pool{dims}d")
        return Made(Block(lambda m, x: function(x, 2)), given._replace(places=tuple(n // 2 for n in given.places)))
    layer = (MAXIMA if kind == "max" else AVERAGES)[dims](2)
    return Made(layer, given._replace(places=tuple(n // 2 for n in given.places)))


def strided(given: Shape, width: int, groups: int) -> Made:
    """A convolution that halves the places."""
    groups = divisor(given.width, groups)
    width *= groups
    layer = CONVOLUTIONS[len(given.places)](given.width, width, 3, stride=2, padding=1, groups=groups)
    return Made(layer, Shape("grid", width, tuple((n + 1) // 2 for n in given.places)))


def transposed(given: Shape, width: int, groups: int, bias: bool) -> Made:
    """A transposed convolution that doubles the places."""
    groups = divisor(given.width, groups)
    layer = TRANSPOSED[len(given.places)](given.width, width * groups, 2, stride=2, groups=groups, bias=bias)
    block = Block(lambda m, x: torch.tanh(m.conv(x)), conv=layer)
    return Made(block, Shape("grid", width * groups, tuple(2 * n for n in given.places)))


def pixels(given: Shape, width: int, functional_form: bool) -> Made:
    """Pixel shuffle (two dimensions), else a transposed convolution."""
    if len(given.places) != 2:
        return transposed(given, width, 1, bias=True)
    layer = nn.Conv2d(given.width, 4 * width, 1)
    forms = {True: lambda m, x: functional.pixel_shuffle(m.conv(x), 2), False: lambda m, x: m.last(m.conv(x))}
    block = Block(forms[functional_form], conv=layer, last=nn.PixelShuffle(2))
    return Made(block, Shape("grid", width, tuple(2 * n for n in given.places)))


def to_rows(given: Shape, how: str) -> Made:
    """Flattened, averaged, or pooled and flattened."""
    dims = tuple(range(2, 2 + len(given.places)))
    size = 1
    for n in given.places:
        size *= n
    forms = {
        "flatten": (lambda m, x: x.flatten(1), size),
        "module": (lambda m, x: m.flat(x), size),
        "view": (lambda m, x: x.contiguous().view(x.size(0), -1), size),
        "mean": (lambda m, x: x.mean(dims), 1),
        "max": (lambda m, x: x.amax(dim=dims), 1),
        "pool": (lambda m, x: torch.flatten(m.pool(x), 1), 1),
    }
    function, each = forms[how]
    block = Block(function, flat=nn.Flatten(), pool=ADAPTIVE[len(dims)](1))
    return Made(block, Shape("rows", given.width * each))


def to_steps(given: Shape) -> Made:
    """Places as steps, as a vision transformer takes its patches."""
    size = 1
    for n in given.places:
        size *= n
    return Made(Block(lambda m, x: x.flatten(2).transpose(1, 2)), Shape("steps", given.width, (size,)))


def from_rows(given: Shape, width: int, dims: int, how: str) -> Made:
    """A linear layer whose units become channels and places."""
    places = (2,) * dims
    forms = {
        "unflatten": lambda m, x: m.layer(x).unflatten(1, (-1, *places)),
        "view": lambda m, x: m.layer(x).view(x.shape[0], -1, *places),
        "places": lambda m, x: m.layer(x).reshape(x.shape[0], *places, -1).movedim(-1, 1),
    }
    block = Block(forms[how], layer=nn.Linear(given.width, width * 2**dims))
    return Made(block, Shape("grid", width, places))


GRID_MOVES = [
    (pool, {"kind": st.sampled_from(["max", "average", "adaptive", "functional", "pad", "up"])}),
    (strided, {"width": WIDTHS, "groups": st.integers(1, 3)}),
    (transposed, {"width": st.integers(1, 2), "groups": st.integers(1, 3), "bias": FLAGS}),
    (pixels, {"width": st.integers(1, 3), "functional_form": FLAGS}),
]
GRID_TO_ROWS = [(to_rows, {"how": st.sampled_from(["flatten", "module", "view", "mean", "max", "pool"])})]
GRID_TO_STEPS = [(to_steps, {})]
ROWS_TO_GRID = [
    (
        from_rows,
        {"width": WIDTHS, "dims": st.integers(1, 2), "how": st.sampled_from(["unflatten", "view", "places"])},
    )
]
