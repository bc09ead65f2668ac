"""Blocks that turn rows into steps and steps into rows or grids, and what else happens along time."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from random_networks.parts import WIDTHS, Block, Made, Shape, weight


def convolved(given: Shape, width: int, causal: bool) -> Made:
    """A convolution over time."""
    layer = nn.Conv1d(given.width, width, 3 if not causal else 2, padding=0 if causal else 1)

    def forward(m: Block, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        x = nn.functional.pad(x, (1, 0)) if causal else x
        return torch.tanh(m.conv(x)).transpose(1, 2)

    return Made(Block(forward, conv=layer), given.as_wide(width))


def placed(given: Shape) -> Made:
    """A learned vector is added to each step."""
    return Made(Block(lambda m, x: x + m.place, place=weight(*given.places, given.width)), given)


def labelled(given: Shape) -> Made:
    """A learned first step, as a class token, that joins the others and goes with the last one's place."""

    def forward(m: Block, x: Tensor) -> Tensor:
        token = m.token.expand(x.shape[0], -1, -1)
        return torch.cat([token, x], dim=1)

    steps = given.places[0] + 1
    return Made(Block(forward, token=weight(1, 1, given.width)), given._replace(places=(steps,)))


def read(given: Shape, how: str) -> Made:
    """Steps become a row."""
    forms = {
        "last": lambda m, x: x[:, -1],
        "first": lambda m, x: x.select(1, 0),
        "dots": lambda m, x: x[:, -1, ...],
        "mean": lambda m, x: x.mean(dim=1),
        "sum": lambda m, x: x.sum(1),
        "max": lambda m, x: x.max(dim=1)[0],
        "flatten": lambda m, x: x.flatten(1),
        "reshape": lambda m, x: x.reshape(x.shape[0], -1),
        "transposed": lambda m, x: x.transpose(1, 2).flatten(1),
    }
    wide = given.places[0] if how in ("flatten", "reshape", "transposed") else 1
    return Made(Block(forms[how]), Shape("rows", given.width * wide))


def from_rows(given: Shape, how: str) -> Made:
    """A row becomes three steps."""
    forms = {
        "expand": lambda m, x: x.unsqueeze(1).expand(-1, 3, -1),
        "repeat": lambda m, x: x[:, None].repeat(1, 3, 1),
        "stack": lambda m, x: torch.stack([x, torch.tanh(x), m.same(x)], dim=1),
        "unflatten": lambda m, x: m.layer(x).unflatten(1, (3, -1)),
        "view": lambda m, x: m.layer(x).view(x.size(0), -1, 3).permute(0, 2, 1),
    }
    block = Block(forms[how], same=nn.Linear(given.width, given.width), layer=nn.Linear(given.width, 3 * given.width))
    return Made(block, Shape("steps", given.width, (3,)))


def to_grid(given: Shape) -> Made:
    """Time becomes the place."""
    return Made(Block(lambda m, x: x.transpose(1, 2)), Shape("grid", given.width, given.places))


ON_STEPS = [(convolved, {"width": WIDTHS, "causal": st.booleans()}), (placed, {})]
STEP_MOVES = [(labelled, {})]
STEPS_TO_ROWS = [
    (
        read,
        {"how": st.sampled_from(["last", "first", "dots", "mean", "sum", "max", "flatten", "reshape", "transposed"])},
    )
]
STEPS_TO_GRID = [(to_grid, {})]
ROWS_TO_STEPS = [(from_rows, {"how": st.sampled_from(["expand", "repeat", "stack", "unflatten", "view"])})]
