"""Least-squares repair of a wide layer: `python benchmarks/compensation.py [out.json]`.

4,096 values that a linear layer of 1,000 outputs reads, 100,000 samples, half of the values removed; the forward pass
that makes the values is left out. Seconds on two threads, and how much the process grows.
"""

import resource
import time

import torch
from facts import machine, write

from pared.moments import Moments

WIDTH, SAMPLES, OUTPUTS, BATCH, THREADS = 4096, 100_000, 1000, 1000, 2
SECONDS, GIBIBYTES = 60.0, 1.0


def peak() -> float:
    """The most memory that this process ever held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    weight, before = torch.randn(OUTPUTS, WIDTH), peak()
    moments, summed = Moments(), 0.0
    for _ in range(SAMPLES // BATCH):
        values = torch.randn(BATCH, WIDTH)
        started = time.perf_counter()
        moments.add(values, "bias")
        summed += time.perf_counter() - started
    started = time.perf_counter()
    kept, lost = torch.arange(0, WIDTH, 2), torch.arange(1, WIDTH, 2)
    matrix, shift = moments.regression(kept, lost, 1e-6)
    reading = weight[:, lost].double()
    repaired, offset = weight[:, kept].double() + reading @ matrix, reading @ shift
    assert bool(repaired.isfinite().all())
    assert bool(offset.isfinite().all())
    solved = time.perf_counter() - started
    found = {"seconds of sums": summed, "seconds of the solution": solved, "GiB it grew": peak() - before}
    for name, value in found.items():
        print(f"{name:24} {value:8.2f}")
    print(f"goals: {SECONDS:g} s, {GIBIBYTES:g} GiB")
    write({"machine": machine("torch"), "width": WIDTH, "samples": SAMPLES, "threads": THREADS} | found, "compensation")


if __name__ == "__main__":
    main()
