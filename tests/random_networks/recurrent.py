"""Recurrent blocks: modules in every form, cells, states handed over, and ways to read them."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import rnn

from random_networks.parts import FLAGS, WIDTHS, Block, Made, Shape

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN, "relu": nn.RNN}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}
MODULE: dict[str, Any] = {
    "width": WIDTHS,
    "kind": st.sampled_from(sorted(KINDS)),
    "layers": st.sampled_from([1, 1, 2, 3]),
    "directions": st.sampled_from([1, 1, 2]),
    "bias": FLAGS,
    "projected": st.integers(0, 2),
    "batch_first": FLAGS,
    "dropout": FLAGS,
    "packed": st.sampled_from([False, False, True]),
    "start": st.sampled_from(["none", "none", "none", "one", "one", "each", "each", "zeros"]),
}


def module(given: Shape, width: int, kind: str, projected: int, **form: Any) -> nn.RNNBase:
    """A recurrent module; projections are for LSTMs whose units outnumber them."""
    more: dict[str, Any] = {"nonlinearity": "relu"} if kind == "relu" else {}
    if kind == "lstm" and 0 < projected < width:
        more["proj_size"] = projected
    return KINDS[kind](
        given.width,
        width,
        form["layers"],
        bias=form["bias"],
        batch_first=form["batch_first"],
        dropout=0.5 if form["dropout"] and form["layers"] > 1 else 0.0,
        bidirectional=form["directions"] == 2,
        **more,
    )


def _states(m: Block, x: Tensor, start: str) -> Any:
    """Initial states, each computed by layers of its own."""
    layer: nn.RNNBase = m.layer
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    if start == "zeros":
        h = x.new_zeros(count, x.shape[0], layer.proj_size or layer.hidden_size)
        return (h, x.new_zeros(count, x.shape[0], layer.hidden_size)) if isinstance(layer, nn.LSTM) else h

    def state(source: nn.Module) -> Tensor:
        if start == "one":
            return source(x[:, 0]).unsqueeze(0).repeat(count, 1, 1)
        return torch.stack([torch.tanh(source(x[:, -k % m.steps])) for k in range(count)])

    return (state(m.first), state(m.second)) if isinstance(layer, nn.LSTM) else state(m.first)


def _run(m: Block, x: Tensor, form: dict[str, Any]) -> Any:
    """Outputs with samples first, and final states."""
    layer: nn.RNNBase = m.layer
    hx = () if form["start"] == "none" else (_states(m, x, form["start"]),)
    first = form["batch_first"]
    entering = x if first else x.transpose(0, 1)
    if form["packed"]:
        entering = rnn.pack_padded_sequence(entering, m.lengths, batch_first=first, enforce_sorted=False)
    out, state = layer(entering, *hx)
    if form["packed"]:
        out, _ = rnn.pad_packed_sequence(out, batch_first=first)
    return out if first else out.permute(1, 0, 2), state


def _held(given: Shape, form: dict[str, Any]) -> dict[str, Any]:
    layer = module(given, **form)
    held: dict[str, Any] = {"layer": layer}
    if form["start"] in ("one", "each"):
        held["first"] = nn.Linear(given.width, layer.proj_size or layer.hidden_size)
        if isinstance(layer, nn.LSTM):
            held["second"] = nn.Linear(given.width, layer.hidden_size)
    return held


def _lengths(block: Block, given: Shape) -> Block:
    steps = given.places[0]
    block.register_buffer("lengths", torch.tensor([steps, max(1, steps - 1)]))
    block.steps = steps
    return block


def _width(held: dict[str, Any]) -> int:
    layer = held["layer"]
    return layer.proj_size or layer.hidden_size


def recurrent(given: Shape, **form: Any) -> Made:
    """Outputs at every step."""
    held = _held(given, form)
    block = Block(lambda m, x: _run(m, x, form)[0], **held)
    return Made(_lengths(block, given), given.as_wide(_width(held) * form["directions"]))


READINGS = ["out", "first and last", "h", "layer", "all layers", "both", "cells", "sum", "transposed"]


def last_state(given: Shape, read: str, **form: Any) -> Made:
    """What is known in the end."""
    held = _held(given, form)
    layer, both = held["layer"], form["directions"]
    kept = _width(held)
    count = layer.num_layers * both
    if read == "cells" and not isinstance(layer, nn.LSTM):
        read = "h"

    def forward(m: Block, x: Tensor) -> Tensor:
        out, state = _run(m, x, form)
        h = state[0] if isinstance(layer, nn.LSTM) else state
        forms = {
            "out": lambda: out[:, -1],
            "first and last": lambda: out[:, -1] - out[:, 0],
            "h": lambda: h[-1],
            "layer": lambda: torch.tanh(h)[0],
            "all layers": lambda: h.transpose(0, 1).flatten(1),
            "both": lambda: torch.cat([h[-1], h[-min(2, count)]], dim=1),
            "cells": lambda: torch.tanh(state[1][-1]),
            "sum": lambda: h.sum(0),
            "transposed": lambda: h.permute(1, 0, 2).reshape(x.shape[0], -1),
        }
        return forms[read]()

    widths = {
        "out": kept * both, "first and last": kept * both, "both": 2 * kept, "cells": layer.hidden_size,
        "all layers": kept * count, "transposed": kept * count,
    }  # fmt: skip
    block = _lengths(Block(forward, **held), given)
    return Made(block, Shape("rows", widths.get(read, kept)))


def encoder_decoder(given: Shape, width: int, kind: str, layers: int, other: bool) -> Made:
    """The encoder's final states start the decoder."""
    one = KINDS[kind](given.width, width, layers, batch_first=True)
    two = KINDS[kind](given.width + int(other), width, layers, batch_first=True)

    def forward(m: Block, x: Tensor) -> Tensor:
        _, state = m.encoder(x)
        entering = torch.cat([x, x[..., :1]], -1) if other else x
        return m.decoder(entering, state)[0]

    return Made(Block(forward, encoder=one, decoder=two), given.as_wide(width))


def cell(given: Shape, width: int, kind: str, bias: bool, start: bool, ends: bool) -> Made:
    """A cell stepped through time, from nothing or from a state that another layer made."""
    lstm = kind == "lstm"
    steps = given.places[0] if given.places else 2

    def forward(m: Block, x: Tensor) -> Tensor:
        at = (lambda t: x[:, t]) if given.places else (lambda t: x + t)
        state: Any = None
        if start:
            state = (m.first(at(0)), torch.tanh(m.second(at(0)))) if lstm else m.first(at(0))
        states = []
        for t in range(steps):
            state = m.cell(at(t), state) if state is not None else m.cell(at(t))
            states.append(state[0] if lstm else state)
        return states[-1] if ends or not given.places else torch.stack(states, dim=1)

    held = {"cell": CELLS[kind](given.width, width, bias=bias)}
    if start:
        held["first"] = nn.Linear(given.width, width)
        held |= {"second": nn.Linear(given.width, width)} if lstm else {}
    shape = Shape("rows", width) if ends or not given.places else given.as_wide(width)
    return Made(Block(forward, **held), shape)


_CELL = {"width": WIDTHS, "kind": st.sampled_from(sorted(CELLS)), "bias": FLAGS, "start": FLAGS}
ON_STEPS = [
    (recurrent, MODULE),
    (recurrent, MODULE),
    (recurrent, MODULE),
    (
        encoder_decoder,
        {"width": WIDTHS, "kind": MODULE["kind"], "layers": st.integers(1, 2), "other": FLAGS},
    ),
    (cell, {**_CELL, "ends": st.just(False)}),
]
ON_ROWS = [(cell, {**_CELL, "ends": st.just(True)})]
STEPS_TO_ROWS = [
    (last_state, {**MODULE, "read": st.sampled_from(READINGS)}),
    (last_state, {**MODULE, "read": st.sampled_from(READINGS)}),
    (last_state, {**MODULE, "read": st.sampled_from(READINGS)}),
    (cell, {**_CELL, "ends": st.just(True)}),
]
