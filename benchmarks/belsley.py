"""Belsley's whole path against a decomposition for every removal: `python benchmarks/belsley.py [out.json]`.

The slow way decomposes what is left, of every size from n down to 2. At 600 it is run; for larger matrices it is timed
at sizes spread over the path and summed by the trapezoid rule. At each of these it decomposes what the fast path had
left there, and its choice is compared with the fast path's. Processor seconds, one thread.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import torch
from facts import machine, write
from torch import nn
from torch.nn.functional import mse_loss

from pared.criteria.removal import removal
from pared.signals.curvature import ggn
from pared.types import Batch

SIZES, SPOTS, WHOLE = (600, 2000, 5000), 24, 600


def geometric(size: int, condition: float = 1e8) -> np.ndarray:
    """A random matrix of geometric spectrum, scaled to a unit diagonal."""
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))[0]
    return scaled((turn * condition ** (-np.arange(size) / (size - 1))) @ turn.T)


def network(size: int) -> np.ndarray:
    """The GGN of a 13-h-1 network on 5,000 samples with a ridge of a millionth, scaled to a unit diagonal."""
    torch.manual_seed(0)
    hidden = size // 14
    model = nn.Sequential(nn.Linear(13, hidden), nn.Tanh(), nn.Linear(hidden, 1)).double()
    x = torch.randn(5000, 13, dtype=torch.float64)
    matrix = ggn(model, Batch(x, x[:, :1]), mse_loss).numpy()
    return scaled(matrix + 1e-6 * np.trace(matrix) / len(matrix) * np.eye(len(matrix)))


def scaled(matrix: np.ndarray) -> np.ndarray:
    size = np.sqrt(np.diag(matrix))
    return matrix / np.outer(size, size)


def choice(matrix: np.ndarray, left: np.ndarray) -> tuple[int, float]:
    """Who goes, by a whole decomposition, and by how much (of the best share)."""
    values, vectors = scipy.linalg.eigh(matrix[np.ix_(left, left)], driver="evd")
    shares = vectors[:, 0] ** 2 / values[0] / (vectors**2 / values).sum(axis=1)
    second, best = np.partition(shares, -2)[-2:]
    return int(left[shares.argmax()]), float(1 - second / best)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    found = call()
    return time.process_time() - start, found


def measure(name: str, matrix: np.ndarray) -> dict[str, Any]:
    size = len(matrix)
    fast, path = timed(lambda: removal(matrix))
    every = size <= WHOLE
    steps = np.arange(size - 1) if every else np.linspace(0, size - 2, SPOTS).astype(int)
    seconds, same, clear = [], 0, 0
    for step in steps:
        left = np.sort(path.order[step:])
        took, (index, margin) = timed(lambda left=left: choice(matrix, left))
        seconds.append(took)
        told = margin > 1e-6 and path.ties[step] == 1
        clear += told
        same += told and index == path.order[step]
    slow = float(np.sum(seconds) if every else np.trapezoid(seconds, steps))
    return {
        "matrix": name,
        "size": size,
        "condition": float(path.condition),
        "fast, seconds": fast,
        "slow, seconds": slow,
        "slow, how": "run" if every else f"{len(steps)} of {size - 1} removals run, the rest interpolated",
        "ratio": slow / fast,
        "clear choices compared": int(clear),
        "same choice": int(same),
        "margins below a millionth": int((path.margins < 1e-6).sum()),
    }


def main() -> None:
    torch.set_num_threads(1)
    results = []
    for size in SIZES:
        for name, make in (("geometric spectrum", geometric), ("network", network)):
            results.append(measure(name, make(size)))
            print(results[-1], flush=True)
            write({"machine": machine("numpy", "scipy", "torch"), "results": results}, "belsley")


if __name__ == "__main__":
    main()
