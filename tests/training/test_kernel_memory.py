"""The compiled kernels write nowhere but where they may: arrays are made between fences, which must stay whole."""

import random

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

from pared.models import MLP, Forecaster
from pared.training import TrainConfig, kernel
from pared.types import Batch

pytest.importorskip("numba")

FENCE, MARK = 1024, np.float32(1234.5)


class Fenced:
    """Stands for numpy in the kernel's module, and remembers what it made."""

    def __init__(self):
        self.made = []

    def __getattr__(self, name):
        return getattr(np, name)

    def empty(self, shape, dtype):
        return self.between(int(np.prod(shape))).reshape(shape) if dtype is np.float32 else np.empty(shape, dtype)

    def between(self, count, aligned=False):
        memory = np.full(count + 2 * FENCE + 16, MARK)
        start = FENCE + (-memory[FENCE:].ctypes.data % 64 // 4 if aligned else 0)
        self.made.append((memory, start, count))
        return memory[start : start + count]

    def floats(self, count):
        found = self.between(count, aligned=True)
        found[:] = 0.0
        return found

    def whole(self):
        return all((m[:start] == MARK).all() and (m[start + count :] == MARK).all() for m, start, count in self.made)


class Parts:
    def __init__(self, train, validation):
        self.train, self.validation = train, validation


def drawn(draw):
    """A random network of any kind with data, a loss and a configuration; a rate of 1e25 makes it diverge."""
    kind, inputs, outputs = draw.choice(["lstm", "gru", "rnn", "mlp"]), draw.randint(1, 9), draw.randint(1, 4)
    hidden = tuple(draw.randint(1, 21) for _ in range(draw.randint(1, 3)))
    if kind == "mlp":
        model, shape = MLP(inputs, hidden, outputs, seed=1), (inputs,)
    else:
        dense = tuple(draw.randint(1, 9) for _ in range(draw.randint(0, 2)))
        model, shape = Forecaster(inputs, hidden, dense, outputs, cell=kind, seed=1), (draw.randint(1, 9), inputs)
    classes = kind == "mlp" and outputs > 1 and draw.random() < 0.5

    def part(count):
        y = torch.randint(0, outputs, (count,)) if classes else torch.randn(count, outputs)
        return Batch(torch.randn(count, *shape), y)

    config = TrainConfig(
        epochs=2,
        lr=draw.choice([1e-2, 1e25]),
        batch_size=draw.randint(1, 70),
        optimiser=draw.choice(["adam", "adamw", "sgd"]),
        clip=draw.choice([None, 1.0]),
    )
    split = Parts(part(draw.randint(1, 70)), part(draw.randint(0, 40)))
    return model, split, config, cross_entropy if classes else mse_loss


@pytest.mark.slow
def test_nothing_is_written_beside_the_arrays(monkeypatch):
    draw = random.Random(0)
    fenced = Fenced()
    monkeypatch.setattr(kernel, "np", fenced)
    monkeypatch.setattr(kernel, "_floats", fenced.floats)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(150):
            model, split, config, loss = drawn(draw)
            assert kernel.supports(model, loss)
            kernel.fit(model, split, config, loss)
            kernel.forward(model, split.train.x)(split.train.x)
            assert fenced.made
            assert fenced.whole(), (model, config)
            fenced.made.clear()
