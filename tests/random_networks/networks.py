"""Random networks: chains of random parts, with residual, concatenated, multiplied and repeated branches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from random_networks import attention, dense, grids, recurrent, steps
from random_networks.parts import Block, Made, Part, Shape, randomise

Chain = tuple[Part, ...]

INPUTS = [
    Shape("rows", 3), Shape("steps", 2, (4,)), Shape("steps", 2, (4,)), Shape("grid", 2, (6,)),
    Shape("grid", 2, (4, 4)), Shape("grid", 1, (3, 2, 2)), Shape("tokens", 5, (3,)),
]  # fmt: skip
ENOUGH = 512
"""No more entries than this a sample: a chain that would grow beyond them is pooled instead."""


def _end(chain: Chain, given: Shape) -> Shape:
    return chain[-1].build().shape if chain else given


def fit(given: Shape, width: int) -> Made:
    """A layer that gives a chain the width that others need."""
    if given.kind == "grid":
        return Made(grids.CONVOLUTIONS[len(given.places)](given.width, width, 1), given.as_wide(width))
    return Made(nn.Linear(given.width, width), given.as_wide(width))


def _built(*chains: Chain) -> list[nn.Module]:
    return [nn.Sequential(*(part.build().module for part in chain)) for chain in chains]


def residual(given: Shape, branch: Chain) -> Made:
    """x + f(x)."""
    (inner,) = _built(branch)
    return Made(Block(lambda m, x: x + m.inner(x), inner=inner), given)


def repeated(given: Shape, branch: Chain) -> Made:
    """f(f(x)): the same layers twice."""
    (inner,) = _built(branch)
    return Made(Block(lambda m, x: m.inner(m.inner(x)), inner=inner), given)


def concatenated(given: Shape, first: Chain, second: Chain) -> Made:
    """f(x) and g(x) side by side."""
    one, two = _built(first, second)
    axis = 1 if given.kind == "grid" else -1
    width = _end(first, given).width + _end(second, given).width
    return Made(Block(lambda m, x: torch.cat((m.one(x), m.two(x)), axis), one=one, two=two), given.as_wide(width))


def multiplied(given: Shape, first: Chain, second: Chain) -> Made:
    """f(x) sigmoid(g(x)), of one width."""
    one, two = _built(first, second)
    shape = _end(first, given)
    return Made(Block(lambda m, x: m.one(x) * m.two(x).sigmoid(), one=one, two=two), shape)


KEEPING = {
    "rows": [*dense.ON_LAST_AXIS, *recurrent.ON_ROWS],
    "steps": [*dense.ON_LAST_AXIS, *recurrent.ON_STEPS, *attention.ON_STEPS, *steps.ON_STEPS],
    "grid": grids.ON_GRIDS,
}
"""Parts that change the width at most."""

MOVING = {
    "rows": [*steps.ROWS_TO_STEPS, *grids.ROWS_TO_GRID],
    "steps": [*steps.STEP_MOVES, *steps.STEPS_TO_ROWS, *recurrent.STEPS_TO_ROWS, *attention.STEPS_TO_ROWS,
              *steps.STEPS_TO_GRID],
    "grid": [*grids.GRID_MOVES, *grids.GRID_TO_ROWS, *grids.GRID_TO_STEPS],
}  # fmt: skip
TO_ROWS = {
    "rows": [],
    "steps": [*steps.STEPS_TO_ROWS, *recurrent.STEPS_TO_ROWS, *attention.STEPS_TO_ROWS],
    "grid": grids.GRID_TO_ROWS,
}

JOINS = [residual, residual, repeated, concatenated, concatenated, multiplied]
WITHOUT_WEIGHTS = {"read", "to_rows", "to_steps", "to_grid", "pool"}
KINDS = {make.__name__ for table in (*KEEPING.values(), *MOVING.values(), *TO_ROWS.values()) for make, _ in table}
KINDS |= {join.__name__ for join in JOINS} | {"fit"}
"""The names of all kinds of parts."""


@st.composite
def _part(draw: st.DrawFn, table: Sequence[tuple[Any, dict[str, Any]]], given: Shape) -> Part:
    make, options = draw(st.sampled_from(table))
    return Part(make, given, {name: draw(strategy) for name, strategy in options.items()})


def _branch(draw: st.DrawFn, given: Shape, width: int | None, least: int = 1) -> Chain:
    """One or two parts that keep the places; `width` is what the branch must end with."""
    chain: Chain = ()
    for _ in range(draw(st.integers(least, 2))):
        chain += (draw(_part(KEEPING[given.kind], _end(chain, given))),)
    shape = _end(chain, given)
    if width is not None and shape.width != width:
        chain += (Part(fit, shape, {"width": width}),)
    return chain


def _join(draw: st.DrawFn, given: Shape) -> Part:
    how = draw(st.sampled_from(JOINS))
    if how in (residual, repeated):
        return Part(how, given, {"branch": _branch(draw, given, given.width)})
    first = _branch(draw, given, None)
    width = None if how is concatenated else _end(first, given).width
    second = _branch(draw, given, width, least=0)
    return Part(how, given, {"first": first, "second": second})


def _next(draw: st.DrawFn, given: Shape) -> Part:
    size = given.width
    for n in given.places:
        size *= n
    if size > ENOUGH or given.width > 24:
        return Part(fit, given, {"width": 2}) if given.width > 4 else draw(_part(TO_ROWS[given.kind], given))
    how = draw(st.sampled_from(["keep", "keep", "keep", "join", "join", "move"]))
    if how == "join":
        return _join(draw, given)
    return draw(_part((KEEPING if how == "keep" else MOVING)[given.kind], given))


@dataclass(frozen=True)
class Spec:
    """A random network as data: what enters, the parts in their order, how it ends."""

    given: Shape
    chain: Chain
    head: str
    seed: int

    def build(self, seed: int | None = None) -> nn.Module:
        """The network in float64 and evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed if seed is None else seed)
            return randomise(Network(self)).double().eval()

    def input(self) -> Tensor:
        """Two samples."""
        generator = torch.Generator().manual_seed(self.seed)
        kind, width, places = self.given
        if kind == "tokens":
            return torch.randint(0, width, (2, *places), generator=generator)
        shape = (2, *places, width) if kind == "steps" else (2, width, *places)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def places(self) -> list[tuple[str, str]]:
        """The kinds of all parts and the beginnings of their parameters' names."""
        return _places(self.chain, "parts.")

    def kinds(self) -> set[str]:
        """The kinds of all parts."""
        return {kind for kind, _ in self.places()}


_BRANCHES = {"branch": "inner", "first": "one", "second": "two"}


def _places(chain: Chain, prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for k, part in enumerate(chain):
        found.append((part.make.__name__, f"{prefix}{k}."))
        for option in part.options.keys() & _BRANCHES:
            found += _places(part.options[option], f"{prefix}{k}.{_BRANCHES[option]}.")
    return found


MAKING = (dense.dense, dense.product, dense.gate, recurrent.last_state, recurrent.cell)
"""Parts that always make units of their own: a network that ends with one has something to cut."""
EMBEDDED = 3
"""The width of an embedding."""


class Network(nn.Module):
    """What a `Spec` describes."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.head_kind = spec.head
        tokens = spec.given.kind == "tokens"
        self.table = nn.Embedding(spec.given.width, EMBEDDED) if tokens else None
        made = [part.build() for part in spec.chain]
        self.parts = nn.ModuleList(part.module for part in made)
        width = made[-1].shape.width
        self.last = nn.Linear(width, EMBEDDED if spec.head == "tied" else 2)

    def forward(self, x: Tensor) -> Any:
        x = x if self.table is None else self.table(x)
        for part in self.parts:
            x = part(x)
        y = self.last(x)
        if self.head_kind == "tied":
            return nn.functional.linear(y, self.table.weight)
        return {"y": y, "more": [y * 2]} if self.head_kind == "several" else y


@st.composite
def specs(draw: st.DrawFn, depth: int = 6) -> Spec:
    """Networks of one to six parts below the last layer, each of which may be a join of branches."""
    given = draw(st.sampled_from(INPUTS))
    shape = given if given.kind != "tokens" else Shape("steps", EMBEDDED, given.places)
    chain: Chain = ()
    seed = draw(st.integers(0, 2**16))
    with torch.random.fork_rng(devices=[]):
        for _ in range(draw(st.integers(1, depth))):
            chain += (_next(draw, shape),)
            shape = _end(chain, shape)
        if shape.kind == "grid" or (shape.kind == "steps" and draw(st.booleans())):
            chain += (draw(_part(TO_ROWS[shape.kind], shape)),)
            shape = _end(chain, shape)
        if chain[-1].make not in MAKING or draw(st.booleans()):
            chain += (draw(_part(dense.HIDDEN, shape)),)
    heads = ["plain", "plain", "plain", "several"] + ["tied"] * 4 * (given.kind == "tokens")
    return Spec(given, chain, draw(st.sampled_from(heads)), seed)
