"""What else trains many small LSTMs, each in a process of its own: `fleet.py` asks by lines of JSON, one answer a line.

A question is {"networks", "window", "units", "steps"}, the answer {"processor", "wall"} in seconds a network and step
of 64 samples, or {"skipped": why}. What is compiled is compiled before the clock starts.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
BATCH, LR = 64, 1e-2
Trainer = Callable[[], None]


def keras_trainer(backend: str) -> Callable[[int, int, list[int], int], Trainer]:
    """One network after the other by `Model.fit`."""
    os.environ["KERAS_BACKEND"] = backend
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import numpy as np

    def build(networks: int, window: int, units: list[int], steps: int) -> Trainer:
        x = np.random.default_rng(0).normal(size=(steps * BATCH, window, 1)).astype("float32")
        layers = [keras.layers.LSTM(units[0], return_sequences=True), keras.layers.LSTM(units[1])]
        model = keras.Sequential([keras.Input((window, 1)), *layers, keras.layers.Dense(4), keras.layers.Dense(1)])
        model.compile(optimizer=keras.optimizers.Adam(LR), loss="mse")

        def train() -> None:
            for _ in range(networks):
                model.fit(x, x[:, -1], batch_size=BATCH, epochs=1, verbose=0)

        return train

    return build


def vmap_trainer() -> Callable[[int, int, list[int], int], Trainer]:
    """`torch.func.vmap` of the gradient of cells written in PyTorch, which it cannot take from `nn.LSTM`."""
    import torch
    from torch.func import grad, vmap

    torch.set_num_threads(1)

    def loss(weights: list[Any], x: Any, y: Any) -> Any:
        sequence = list(x.unbind(1))
        for w, u, b in (weights[:3], weights[3:6]):
            h = c = x.new_zeros(len(x), u.shape[1])
            for t, step in enumerate(sequence):
                i, f, g, o = (step @ w.T + h @ u.T + b).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = sequence[t] = torch.sigmoid(o) * torch.tanh(c)
        a, p, d, q = weights[6:]
        return ((sequence[-1] @ a.T + p) @ d.T + q - y).square().mean()

    def build(networks: int, window: int, units: list[int], steps: int) -> Trainer:
        weights = [0.1 * torch.randn(networks, *shape) for shape in shapes(units)]
        optimiser = torch.optim.Adam(weights, lr=LR)
        x = torch.randn(networks, steps, BATCH, window, 1)
        slopes = vmap(grad(loss))

        def train() -> None:
            for step in range(steps):
                for weight, slope in zip(weights, slopes(weights, x[:, step], x[:, step, :, -1]), strict=True):
                    weight.grad = slope
                optimiser.step()

        return train

    return build


def jax_trainer() -> Callable[[int, int, list[int], int], Trainer]:
    """All steps in one compiled call, `lax.map` over networks, eight at a time."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import jax
    import jax.numpy as jnp
    from jax import lax

    def layer(weights: list[Any], sequence: Any) -> Any:
        w, u, b = weights

        def cell(carry: Any, x: Any) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(w @ x + u @ h + b[:, None], 4)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        start = jnp.zeros((u.shape[1], sequence.shape[2]))
        return lax.scan(cell, (start, start), sequence)[1]

    def loss(weights: list[Any], x: Any) -> Any:
        last = layer(weights[3:6], layer(weights[:3], x))[-1]
        a, p, d, q = weights[6:]
        return jnp.mean((d @ (a @ last + p[:, None]) + q[:, None] - x[-1]) ** 2)

    def step(state: Any, x: Any) -> Any:
        weights, first, second, count = state
        count, slopes = count + 1, jax.grad(loss)(weights, x)
        first = [0.9 * m + 0.1 * g for m, g in zip(first, slopes, strict=True)]
        second = [0.999 * v + 0.001 * g * g for v, g in zip(second, slopes, strict=True)]
        size, root = LR / (1 - 0.9**count), jnp.sqrt(1 - 0.999**count)
        moved = zip(weights, first, second, strict=True)
        weights = [w - size * m / (jnp.sqrt(v) / root + 1e-8) for w, m, v in moved]
        return (weights, first, second, count), None

    def build(networks: int, window: int, units: list[int], steps: int) -> Trainer:
        keys = jax.random.split(jax.random.key(0), 11)
        weights = [0.1 * jax.random.normal(k, (networks, *s)) for k, s in zip(keys, shapes(units), strict=False)]
        x = jax.random.normal(keys[-1], (networks, steps, window, 1, BATCH))
        nothing = [jnp.zeros_like(weight) for weight in weights]
        state = (weights, nothing, nothing, jnp.zeros(networks))
        run = jax.jit(
            lambda state, x: lax.map(lambda m: lax.scan(step, *m)[0], (state, x), batch_size=min(8, networks))
        )
        return lambda: jax.block_until_ready(run(state, x))

    return build


def shapes(units: list[int]) -> list[tuple[int, ...]]:
    a, b = units
    return [(4 * a, 1), (4 * a, a), (4 * a,), (4 * b, a), (4 * b, b), (4 * b,), (4, b), (4,), (1, 4), (1,)]


RIVALS: dict[str, Callable[[], Callable[[int, int, list[int], int], Trainer]]] = {
    "keras jax": lambda: keras_trainer("jax"),
    "keras torch": lambda: keras_trainer("torch"),
    "keras tensorflow": lambda: keras_trainer("tensorflow"),
    "torch.func.vmap": vmap_trainer,
    "jax lax.map": jax_trainer,
}


def main(name: str) -> None:
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        build, why = RIVALS[name](), ""
    except ImportError as error:
        build, why = None, f"{error}"
    made: dict[str, Trainer] = {}
    for line in sys.stdin:
        answer: dict[str, Any] = {"skipped": why}
        if build is not None:
            question = json.loads(line)
            if line not in made:
                made.clear()
                made[line] = build(question["networks"], question["window"], question["units"], question["steps"])
                made[line]()
            processor, wall = time.process_time(), time.perf_counter()
            made[line]()
            share = question["networks"] * question["steps"]
            answer = {
                "processor": (time.process_time() - processor) / share,
                "wall": (time.perf_counter() - wall) / share,
            }
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
