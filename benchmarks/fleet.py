"""Networks trained a minute: the plain loop against the kernel. Run by hand: `python benchmarks/fleet.py [out.json]`.

A network is 100 epochs of 79 batches of 64. Engines take turns in short rounds; a ratio is the median over rounds: of
processor time between engines (other work on the machine does not count), of wall time between one job and two.
"""

import json
import os
import platform
import statistics
import sys
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numba
import torch

from pared.models.recurrent import Forecaster
from pared.training.fit import TrainConfig, TrainingData
from pared.training.fleet import Engine, fit_many
from pared.types import Batch

ROUNDS, BATCH, EPOCH, EPOCHS = 5, 64, 79, 100


class Cost(NamedTuple):
    """Seconds an epoch of one network, over all of them."""

    processor: float
    wall: float


def cost(engine: Engine, units: tuple[int, ...], split: TrainingData, jobs: int, epochs: int) -> Cost:
    model, config = Forecaster(recurrent=units), TrainConfig(epochs=epochs, batch_size=BATCH)
    processor, wall = time.process_time(), time.perf_counter()
    fit_many([model] * jobs, [split] * jobs, [config] * jobs, jobs=jobs, engine=engine)
    share = jobs * epochs
    return Cost((time.process_time() - processor) / share, (time.perf_counter() - wall) / share)


def measure(units: tuple[int, ...], window: int) -> dict[str, Any]:
    x = torch.randn(EPOCH * BATCH, window, 1)
    split = SimpleNamespace(train=Batch(x, x[:, -1]), validation=Batch(x[:0], x[:0, -1]))
    turns: list[tuple[Engine, int]] = [("loop", 1), ("kernel", 1), ("kernel", 2)]
    epochs = {turn: max(1, int(0.5 / cost(turn[0], units, split, 1, 1).wall)) for turn in turns}
    rounds = [{turn: cost(turn[0], units, split, turn[1], epochs[turn]) for turn in turns} for _ in range(ROUNDS)]
    loop, one, two = turns
    rate = {f"{e} x{j}": 60 / EPOCHS / statistics.median(r[e, j].wall for r in rounds) for e, j in turns}
    return {
        "units": units,
        "window": window,
        "networks a minute": rate,
        "kernel over loop": statistics.median(r[loop].processor / r[one].processor for r in rounds),
        "two jobs over one": statistics.median(r[one].wall / r[two].wall for r in rounds),
    }


def main() -> None:
    torch.set_num_threads(1)
    results = []
    print(f"{'units':>10} {'window':>6} {'loop x1':>9} {'kernel x1':>9} {'kernel x2':>9} {'ratio':>7} {'2 jobs':>6}")
    for units, window in product(((16, 4), (32, 32)), (2, 22, 64)):
        result = measure(units, window)
        results.append(result)
        rates = " ".join(f"{rate:9.1f}" for rate in result["networks a minute"].values())  # type: ignore[attr-defined]
        print(
            f"{units!s:>10} {window:6d} {rates} {result['kernel over loop']:7.1f} {result['two jobs over one']:6.2f}",
            flush=True,
        )
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
    }
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
