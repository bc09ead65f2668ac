"""One small network of every kind that pared prunes, in float64 with weights from a seed, and data for it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pared.types import Batch, Inputs


class CNN(nn.Module):
    """Convolutions with normalisation, a residual, a depthwise and a transposed one, and a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.inner, self.depth = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.point, self.up = nn.Conv2d(4, 3, 1), nn.ConvTranspose2d(3, 3, 2, stride=2)
        self.last = nn.Linear(3 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = x + torch.relu(self.inner(x))
        x = torch.tanh(self.point(torch.relu(self.depth(x))))
        x = nn.functional.max_pool2d(torch.tanh(self.up(x)), 2)
        return self.last(x.flatten(1))


class Grouped(nn.Module):
    """Grouped convolutions over time and group normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(2, 8, 3), nn.GroupNorm(4, 8)
        self.inner, self.last = nn.Conv1d(8, 6, 3, groups=2), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.inner(torch.relu(self.norm(self.first(x))))).mean(-1))


class Recurrent(nn.Module):
    """A recurrent module with any options and a reader of its last step, or of all it returns."""

    def __init__(self, kind: type[nn.RNNBase], read: str = "last", **options: object) -> None:
        super().__init__()
        self.rnn = kind(3, 4, batch_first=True, **options)
        directions = 2 if self.rnn.bidirectional else 1
        self.read, self.last = read, nn.Linear((self.rnn.proj_size or 4) * directions, 2)

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(x)
        return self.last(out[:, -1] if self.read == "last" else out.mean(1))


class Started(nn.Module):
    """An encoder whose final states start a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.LSTM(3, 4, batch_first=True), nn.LSTM(3, 4, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        _, states = self.encoder(x)
        return self.last(self.decoder(x, states)[0][:, -1])


class Packed(nn.Module):
    """Sequences of unequal lengths."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True, **options)
        self.last = nn.Linear(8 if self.rnn.bidirectional else 4, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.last(pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0].sum(1))


class Cells(nn.Module):
    """An LSTM and a GRU cell, called step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.last = nn.LSTMCell(3, 4), nn.GRUCell(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = g = None
        for t in range(4):
            state = self.lstm(x[:, t], state)
            g = self.gru(state[0], g)
        return self.last(g)


class Transformer(nn.Module):
    """Word indices, an embedding, one transformer layer."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, **options)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(self.words(x)).mean(1))


class Attending(nn.Module):
    """Attention of one sequence to another, whose widths differ."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, kdim=3, vdim=3, batch_first=True)
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.attention(torch.tanh(self.first(x)), x, x)[0].mean(1))


class Normed(nn.Module):
    """Weights computed by weight_norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = parametrizations.weight_norm(nn.Conv1d(2, 4, 3))
        self.last = parametrizations.weight_norm(nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)).mean(-1))


class Tied(nn.Module):
    """An autoencoder whose decoder is its encoder, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.second(torch.tanh(self.first(x))))
        x = torch.tanh(nn.functional.linear(x, self.second.weight.t()))
        return nn.functional.linear(x, self.first.weight.t())


class Two(nn.Module):
    """Two inputs, and several outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        h = torch.tanh(self.a(x)) * torch.sigmoid(self.b(z))
        return {"y": self.last(h), "again": self.last(h * 2)}


def _floats(*shapes: tuple[int, ...]) -> Callable[[int, torch.Generator], Inputs]:
    def draw(samples: int, generator: torch.Generator) -> Inputs:
        parts = tuple(torch.randn(samples, *shape, generator=generator, dtype=torch.float64) for shape in shapes)
        return parts if len(parts) > 1 else parts[0]

    return draw


def _words(samples: int, generator: torch.Generator) -> Inputs:
    return torch.randint(0, 7, (samples, 5), generator=generator)


def _sequences(samples: int, generator: torch.Generator) -> Inputs:
    return STEPS(samples, generator), 5 - torch.arange(samples) % 3


class Kind(NamedTuple):
    """How to build a network and draw inputs for it, and how many outputs it has."""

    make: Callable[[], nn.Module]
    draw: Callable[[int, torch.Generator], Inputs]
    outputs: int = 2

    def build(self, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.make().double()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.uniform_(module.running_mean)
                    nn.init.uniform_(module.running_var, 0.5, 1.5)
            return model.eval()

    def batch(self, samples: int = 6, seed: int = 0) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        x = self.draw(samples, generator)
        return Batch(x, torch.randn(samples, self.outputs, generator=generator, dtype=torch.float64))


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))


STEPS = _floats((5, 3))

KINDS = {
    "mlp": Kind(_mlp, _floats((3,))),
    "cnn": Kind(CNN, _floats((2, 4, 4))),
    "grouped": Kind(Grouped, _floats((2, 9))),
    "lstm": Kind(lambda: Recurrent(nn.LSTM), STEPS),
    "gru": Kind(lambda: Recurrent(nn.GRU, num_layers=2), STEPS),
    "bidirectional": Kind(lambda: Recurrent(nn.LSTM, "all", bidirectional=True, num_layers=2), STEPS),
    "projected": Kind(lambda: Recurrent(nn.LSTM, proj_size=3, bidirectional=True), STEPS),
    "relu": Kind(lambda: Recurrent(nn.RNN, nonlinearity="relu", bias=False), STEPS),
    "started": Kind(Started, STEPS),
    "packed": Kind(lambda: Packed(bidirectional=True, num_layers=2), _sequences),
    "cells": Kind(Cells, STEPS),
    "transformer": Kind(Transformer, _words),
    "attention": Kind(Attending, STEPS),
    "weight norm": Kind(Normed, _floats((2, 6))),
    "tied": Kind(Tied, _floats((3,)), 3),
    "two inputs": Kind(Two, _floats((3,), (2,))),
}  # fmt: skip
