"""Each kind of layer and operation by itself: which groups it leaves, and that cutting them is exact."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.functional import linear, scaled_dot_product_attention
from torch.nn.utils import rnn
from torch.nn.utils.parametrizations import weight_norm

from networks import snapshot, unchanged
from pared.surgery import Plan, StructureError, cut, mask, trace
from random_networks.parts import Block, randomise, weight

ROWS, STEPS, PLANE = (2, 3), (2, 4, 3), (2, 3, 4, 4)


def network(function: Callable[..., torch.Tensor], **held: object) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = {name: layer() if isinstance(layer, type(lambda: 0)) else layer for name, layer in held.items()}
        return randomise(Block(function, **made)).double().eval()


def example(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def units(structure) -> dict[str, int]:
    return {group.name: group.width for group in structure if group.exact}


def cut_is_mask(model: nn.Module, x: torch.Tensor) -> None:
    """Each exact group by itself (with those that must be as wide), down to one unit and by one unit, and all."""
    structure = trace(model, x)
    before = snapshot(model)
    sets = [*structure.equal]
    sets += [(g.name,) for g in structure if not any(g.name in names for names in structure.equal)]
    exact = [names for names in sets if all(structure[name].exact for name in names)]
    every = tuple(name for names in exact for name in names if not name.endswith(".cells"))
    for names in [*exact, every]:
        for keep in (lambda width: (width - 1,), lambda width: tuple(range(max(1, width - 1)))):
            plan = Plan({name: keep(structure[name].width) for name in names})
            small, masked = cut(model, structure, plan), mask(model, structure, plan)
            torch.testing.assert_close(small(x), masked(x), atol=1e-12, rtol=1e-12)
            if structure.removed(plan):
                assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
                assert not torch.equal(masked(x), model(x))
    unchanged(before, model)


def lin(a: int, b: int) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(a, b)


def handed_over(m: Block, x: torch.Tensor) -> torch.Tensor:
    _, (h, c) = m.encoder(x)
    return m.last(m.decoder(x.flip(1), (h, c))[0][:, -1])


def stepped(m: Block, x: torch.Tensor) -> torch.Tensor:
    h, c = torch.tanh(m.h(x[:, 0])), m.c(x[:, 0])
    for t in range(4):
        h, c = m.cell(x[:, t], (h, c))
    return m.last(h)


def packed(m: Block, x: torch.Tensor) -> torch.Tensor:
    sequence = rnn.pack_padded_sequence(x, torch.tensor([2, 4]), batch_first=True, enforce_sorted=False)
    out, h = m.gru(m.first(sequence)[0])
    padded, _ = rnn.pad_packed_sequence(out, batch_first=True)
    return m.last(torch.cat([padded[:, 0], h[-1]], -1))


def heads(m: Block, x: torch.Tensor) -> torch.Tensor:
    b, t, _ = x.shape
    q, k, v = (y.view(b, t, 2, -1).transpose(1, 2) for y in (m.q(x), m.k(x), m.v(x)))
    y = scaled_dot_product_attention(q, k, v, scale=0.5)
    return m.last(y.transpose(1, 2).reshape(b, t, -1))


def summed(m: Block, x: torch.Tensor) -> torch.Tensor:
    return m.a(x).sum(-1, keepdim=True) * m.last(x)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]] = {
    "two directions, states joined": (
        lambda: network(
            lambda m, x: m.last(torch.cat([m.lstm(x)[1][0][-2], m.lstm(x)[1][0][-1]], 1)),
            lstm=lambda: nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True), last=lin(8, 2),
        ),
        STEPS, {"lstm.l0": 4, "lstm.l0_reverse": 4, "lstm.l1": 4, "lstm.l1_reverse": 4},
    ),
    "projections": (
        lambda: network(
            lambda m, x: m.last(m.lstm(x)[0]), last=lin(4, 2),
            lstm=lambda: nn.LSTM(3, 6, 2, proj_size=4, batch_first=True),
        ),
        STEPS, {"lstm.l0.cells": 6, "lstm.l0": 4, "lstm.l1.cells": 6, "lstm.l1": 4},
    ),
    "no biases, time first": (
        lambda: network(lambda m, x: m.last(m.gru(x)[1][-1]), gru=lambda: nn.GRU(3, 4, bias=False), last=lin(4, 2)),
        STEPS, {"gru.l0": 4},
    ),
    "a cell with computed states": (
        lambda: network(stepped, cell=lambda: nn.LSTMCell(3, 4), h=lin(3, 4), c=lin(3, 4), last=lin(4, 2)),
        STEPS, {"h": 4},
    ),
    "encoder and decoder": (
        lambda: network(
            handed_over, encoder=lambda: nn.LSTM(3, 4, 2, batch_first=True),
            decoder=lambda: nn.LSTM(3, 4, 2, batch_first=True), last=lin(4, 2),
        ),
        STEPS, {"encoder.l0": 4, "encoder.l1": 4},
    ),
    "packed sequences": (
        lambda: network(
            packed, first=lambda: nn.LSTM(3, 4, batch_first=True), gru=lambda: nn.GRU(4, 3), last=lin(6, 2)
        ),
        STEPS, {"first.l0": 4, "gru.l0": 3},
    ),
    "a grouped convolution": (
        lambda: network(
            lambda m, x: m.c(torch.relu(m.b(m.a(x)))), a=lambda: nn.Conv2d(3, 6, 1),
            b=lambda: nn.Conv2d(6, 4, 3, groups=2), c=lambda: nn.Conv2d(4, 2, 1),
        ),
        PLANE, {"a": 3, "b": 2},
    ),
    "a depthwise convolution": (
        lambda: network(
            lambda m, x: m.c(torch.relu(m.b(m.a(x)))), a=lambda: nn.Conv2d(3, 4, 1),
            b=lambda: nn.Conv2d(4, 8, 3, groups=4), c=lambda: nn.Conv2d(8, 2, 1),
        ),
        PLANE, {"a": 4},
    ),
    "transposed convolutions": (
        lambda: network(
            lambda m, x: m.c(torch.relu(m.b(m.a(x)))), a=lambda: nn.ConvTranspose2d(3, 4, 2),
            b=lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), c=lambda: nn.ConvTranspose2d(6, 2, 1),
        ),
        PLANE, {"a": 2, "b": 3},
    ),
    "a transposed depthwise convolution": (
        lambda: network(
            lambda m, x: m.c(torch.relu(m.b(m.a(x)))), a=lambda: nn.Conv2d(3, 4, 1),
            b=lambda: nn.ConvTranspose2d(4, 8, 2, groups=4), c=lambda: nn.Conv2d(8, 2, 1),
        ),
        PLANE, {"a": 4},
    ),
    "whole groups of GroupNorm": (
        lambda: network(
            lambda m, x: m.c(m.norm(m.a(x))), a=lambda: nn.Conv2d(3, 6, 1), norm=lambda: nn.GroupNorm(3, 6),
            c=lambda: nn.Conv2d(6, 2, 1),
        ),
        PLANE, {"a": 3},
    ),
    "pixel shuffle": (
        lambda: network(
            lambda m, x: m.c(functional.pixel_shuffle(m.a(x), 2)), a=lambda: nn.Conv2d(3, 12, 1),
            c=lambda: nn.Conv2d(3, 2, 1),
        ),
        PLANE, {"a": 3},
    ),
    "GLU": (lambda: network(lambda m, x: m.last(functional.glu(m.a(x))), a=lin(3, 8), last=lin(4, 2)), ROWS, {"a": 4}),
    "PReLU": (
        lambda: network(lambda m, x: m.last(m.act(m.a(x))), a=lin(3, 4), act=lambda: nn.PReLU(4), last=lin(4, 2)),
        ROWS, {"a": 4},
    ),
    "chunk": (
        lambda: network(
            lambda m, x: m.last((lambda p: p[0] * p[1] + p[2])(m.a(x).chunk(3, -1))), a=lin(3, 12), last=lin(4, 2)
        ),
        ROWS, {"a": 4},
    ),
    "split by a counted size": (
        lambda: network(
            lambda m, x: m.last((lambda h: (lambda p: p[0] - p[1])(h.split(h.size(-1) // 2, -1)))(m.a(x))),
            a=lin(3, 8), last=lin(4, 2),
        ),
        ROWS, {"a": 4},
    ),
    "heads in the code": (
        lambda: network(heads, q=lin(3, 6), k=lin(3, 6), v=lin(3, 8), last=lin(8, 2)), STEPS, {"q": 3, "v": 4},
    ),
    "einsum": (
        lambda: network(
            lambda m, x: torch.einsum("nh,ho->no", torch.tanh(torch.einsum("ni,ih->nh", x, m.a)), m.b),
            a=lambda: weight(3, 5), b=lambda: weight(5, 2),
        ),
        ROWS, {"a": 5},
    ),
    "matmul": (
        lambda: network(lambda m, x: torch.relu(x @ m.a) @ m.b, a=lambda: weight(3, 5), b=lambda: weight(5, 2)),
        ROWS, {"a": 5},
    ),
    "a tied autoencoder": (
        lambda: network(
            lambda m, x: m.last(linear(torch.tanh(linear(m.first(x), m.w, m.b)), m.w.t())),
            first=lin(3, 5), w=lambda: weight(4, 5), b=lambda: weight(4), last=lin(5, 2),
        ),
        ROWS, {"first": 5, "w": 4},
    ),
    "weight_norm": (
        lambda: network(
            lambda m, x: m.last(torch.tanh(m.b(torch.relu(m.a(x))))), a=lambda: weight_norm(nn.Linear(3, 4)),
            b=lambda: weight_norm(nn.Linear(4, 4)), last=lin(4, 2),
        ),
        ROWS, {"a": 4, "b": 4},
    ),
    "a layer used twice": (
        lambda: network(
            lambda m, x: m.last(torch.tanh(m.b(torch.tanh(m.b(m.a(x)))))), a=lin(3, 4), b=lin(4, 4), last=lin(4, 2)
        ),
        ROWS, {"a": 4},
    ),
    "flattened places": (
        lambda: network(lambda m, x: m.last(torch.flatten(m.a(x), 1)), a=lambda: nn.Conv2d(3, 4, 2), last=lin(36, 2)),
        PLANE, {"a": 4},
    ),
    "flattened places, channels last": (
        lambda: network(
            lambda m, x: m.last(m.a(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1)),
            a=lambda: nn.Conv2d(3, 4, 2), last=lin(36, 2),
        ),
        PLANE, {"a": 4},
    ),
    "squeeze and excite": (
        lambda: network(
            lambda m, x: m.c((lambda y: y * torch.sigmoid(m.up(m.down(y.mean((2, 3)))))[:, :, None, None])(m.a(x))),
            a=lambda: nn.Conv2d(3, 4, 1), down=lin(4, 3), up=lin(3, 4), c=lambda: nn.Conv2d(4, 2, 1),
        ),
        PLANE, {"a": 4, "down": 3},
    ),
    "a sum over units": (lambda: network(summed, a=lin(3, 4), last=lin(3, 2)), ROWS, {"a": 4}),
    "an embedding": (
        lambda: network(
            lambda m, x: m.last(m.table((x > 0).long()).sum(1)), table=lambda: nn.Embedding(2, 4), last=lin(4, 2)
        ),
        ROWS, {"table": 4},
    ),
    "batch norm over steps": (
        lambda: network(
            lambda m, x: m.last(m.norm(m.a(x).transpose(1, 2)).transpose(1, 2)), a=lin(3, 4),
            norm=lambda: nn.BatchNorm1d(4), last=lin(4, 2),
        ),
        STEPS, {"a": 4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_rule_leaves_its_groups_and_cuts_them_exactly(name):
    make, shape, expected = CASES[name]
    model, x = make(), example(shape)
    assert units(trace(model, x)) == expected
    cut_is_mask(model, x)


def test_groups_of_unequal_kinds_in_one_concatenation():
    model = network(
        lambda m, x: m.last(torch.cat([m.a(x), x, m.gru(x)[0]], -1)),
        a=lin(3, 2), gru=lambda: nn.GRU(3, 4, batch_first=True), last=lin(9, 2),
    )  # fmt: skip
    structure = trace(model, example(STEPS))
    assert units(structure) == {"a": 2, "gru.l0": 4}
    assert [s.offset for s in structure["gru.l0"].slices if s.parameter == "last.weight"] == [5]
    cut_is_mask(model, example(STEPS))


def test_multihead_attention_has_heads_and_widths_and_the_model_around_it():
    model = network(
        lambda m, x: m.last(m.attention(m.a(x), m.a(x), m.a(x), need_weights=False)[0]),
        a=lin(3, 6), attention=lambda: nn.MultiheadAttention(6, 2, batch_first=True), last=lin(6, 2),
    )  # fmt: skip
    expected = {"a": 6, "attention.heads": 2, "attention.keys": 3, "attention.values": 3, "attention.out_proj": 6}
    assert units(trace(model, example(STEPS))) == expected
    cut_is_mask(model, example(STEPS))


MIXED = {
    "softmax": lambda m, x: m.last(m.a(x).softmax(-1)),
    "layer norm": lambda m, x: m.last(m.norm(m.a(x))),
    "group norm of one group": lambda m, x: m.last(m.one(m.a(x))),
    "rms norm": lambda m, x: m.last(m.rms(m.a(x))),
    "normalize": lambda m, x: m.last(functional.normalize(m.a(x), dim=-1)),
    "attention's own scale": lambda m, x: m.last(
        scaled_dot_product_attention(m.a(x)[None], m.a(x)[None], m.a(x)[None])
    ),
}


@pytest.mark.parametrize("how", MIXED)
def test_what_mixes_units_is_not_exact_and_says_so(how):
    model = network(
        MIXED[how], a=lin(3, 4), norm=lambda: nn.LayerNorm(4), one=lambda: nn.GroupNorm(1, 4),
        rms=lambda: nn.RMSNorm(4), last=lin(4, 2),
    )  # fmt: skip
    x = example(ROWS)
    structure = trace(model, x)
    assert not structure["a"].exact
    assert "not exact" in structure.explain()
    small = cut(model, structure, Plan({"a": (0, 3)}))
    assert small(x).isfinite().all()
    assert small.a.weight.shape == (2, 3)


HELD = {
    "a view of numbers": (lambda m, x: m.last(m.a(x).view(2, 4)), ROWS, "writes its size into the code"),
    "an unflatten of numbers": (
        lambda m, x: m.last(m.a(x).unflatten(1, (2, 2)).flatten(1)), ROWS, "writes its size into the code",
    ),
    "a split of numbers": (lambda m, x: m.last(torch.cat(m.a(x).split([1, 3], -1), -1)), ROWS, "sizes of its parts"),
    "a mean over units": (lambda m, x: m.a(x).mean(-1, keepdim=True) * m.c(x), ROWS, "reduces over its units"),
    "a running sum": (lambda m, x: m.last(m.a(x).cumsum(-1)), ROWS, "runs along its units"),
    "turned round": (lambda m, x: m.last(m.a(x).flip(-1)), ROWS, "turned round"),
    "added numbers": (lambda m, x: m.last(m.a(x) + torch.ones(4, dtype=torch.float64)), ROWS, "cannot shrink"),
}  # fmt: skip


@pytest.mark.parametrize("how", HELD)
def test_what_cannot_shrink_stays_and_says_why(how):
    function, shape, why = HELD[how]
    model = network(
        lambda m, x: function(m, x) + m.end(torch.tanh(m.b(x))),
        a=lin(3, 4), b=lin(3, 4), c=lin(3, 2), end=lin(4, 2), last=lin(4, 2),
    )  # fmt: skip
    structure = trace(model, example(shape))
    assert units(structure) == {"b": 4}
    line = next(line for line in structure.explain().splitlines() if line.split()[0] == "a")
    assert why in line
    cut_is_mask(model, example(shape))


def test_an_lstm_cannot_project_to_as_many_as_it_has():
    model = CASES["projections"][0]()
    structure = trace(model, example(STEPS))
    before = snapshot(model)
    with pytest.raises(StructureError, match="projection is as wide as its cells"):
        cut(model, structure, Plan({"lstm.l0.cells": (0, 1, 2, 3), "lstm.l1.cells": (0, 1, 2, 3)}))
    unchanged(before, model)


def test_packed_sequences_do_not_spoil_later_traces():
    """torch.fx would remember the generated code's wrapped functions and fail from then on."""
    trace(CASES["packed sequences"][0](), example(STEPS))
    assert "a" in trace(CASES["GLU"][0](), example(ROWS))
    torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2)))


def test_units_of_width_one_keep_their_axis():
    model = network(
        lambda m, x: m.last(m.c(m.a(x)).flatten(1)), a=lambda: nn.Conv2d(3, 4, 1), c=lambda: nn.Conv2d(4, 1, 1),
        last=lin(16, 2),
    )  # fmt: skip
    assert units(trace(model, example(PLANE))) == {"a": 4, "c": 1}
    pairs = network(lambda m, x: m.last(m.a(x).view(x.shape[0], -1, 2).select(-1, 0)), a=lin(3, 6), last=lin(3, 2))
    structure = trace(pairs, example(ROWS))
    small = cut(pairs, structure, Plan({"a": (1,)}))
    assert units(trace(small, example(ROWS))) == {"a": 1}


def test_layers_of_one_width_that_lose_units_in_pairs_stay():
    """GroupNorm couples pairs of the upper layer's units, while the lower layer's are single."""
    model = network(
        lambda m, x: m.last(m.norm(m.gru(x)[0].transpose(1, 2)).transpose(1, 2)) + m.end(torch.tanh(m.b(x))),
        gru=lambda: nn.GRU(3, 4, 2, batch_first=True), norm=lambda: nn.GroupNorm(2, 4), last=lin(4, 2), b=lin(3, 4),
        end=lin(4, 2),
    )  # fmt: skip
    structure = trace(model, example(STEPS))
    assert units(structure) == {"b": 4}
    assert "several units at a time" in structure.explain()
    cut_is_mask(model, example(STEPS))


def test_an_embedding_that_rescales_its_vectors_stays():
    model = nn.Sequential(nn.Embedding(7, 4, max_norm=0.5), nn.Linear(4, 3), nn.Linear(3, 2))
    structure = trace(model, torch.tensor([[1, 2]]))
    assert [group.name for group in structure] == ["1"]
    assert "max_norm" in structure.explain()
