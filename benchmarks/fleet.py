"""Networks trained a minute: the plain loop against the kernel. Run by hand: `python benchmarks/fleet.py [out.json]`.

A network is 100 epochs of 79 batches of 64. Engines take turns in short rounds; a ratio is the median over rounds, on
processor time for one job and on wall time for two.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numba
import torch

from pared.models.recurrent import Forecaster
from pared.training.fit import TrainConfig
from pared.training.fleet import Engine, fit_many
from pared.types import Batch

ROUNDS, BATCH, STEPS_A_NETWORK = 5, 64, 7900


def random_split(steps: int, window: int) -> SimpleNamespace:
    x = torch.randn(steps * BATCH, window, 1)
    return SimpleNamespace(train=Batch(x, x[:, -1]), validation=Batch(x[:0], x[:0, -1]))


def seconds_a_step(engine: Engine, units: tuple[int, ...], window: int, jobs: int, budget: float) -> float:
    """Seconds a step of each of `jobs` members, over about `budget` seconds."""
    model, config = Forecaster(recurrent=units), TrainConfig(epochs=1, batch_size=BATCH)
    clock: Callable[[], float] = time.process_time if jobs == 1 else time.perf_counter

    def timed(steps: int) -> float:
        split, members = random_split(steps, window), 2 * jobs
        started = clock()
        fit_many([model] * members, [split] * members, [config] * members, jobs=jobs, engine=engine)
        return (clock() - started) / (members * steps)

    return timed(max(4, int(budget / jobs / 2 / timed(4))))


def measure(units: tuple[int, ...], window: int) -> dict[str, object]:
    turns: list[tuple[Engine, int]] = [("loop", 1), ("kernel", 1), ("kernel", 2)]
    rounds = [{turn: seconds_a_step(turn[0], units, window, turn[1], 0.8) for turn in turns} for _ in range(ROUNDS)]
    rate = {f"{e} x{j}": 60 / STEPS_A_NETWORK / statistics.median(r[e, j] for r in rounds) for e, j in turns}
    ratio = statistics.median(r["loop", 1] / r["kernel", 1] for r in rounds)
    second = statistics.median(r["kernel", 1] / r["kernel", 2] for r in rounds)
    return {"units": units, "window": window, "networks a minute": rate, "ratio": ratio, "two jobs over one": second}


def main() -> None:
    torch.set_num_threads(1)
    results = []
    print(f"{'units':>10} {'window':>6} {'loop x1':>9} {'kernel x1':>9} {'kernel x2':>9} {'ratio':>7} {'2 jobs':>6}")
    for units, window in product(((16, 4), (32, 32)), (2, 22, 64)):
        result = measure(units, window)
        results.append(result)
        rates = " ".join(f"{rate:9.1f}" for rate in result["networks a minute"].values())  # type: ignore[attr-defined]
        print(
            f"{units!s:>10} {window:6d} {rates} {result['ratio']:7.1f} {result['two jobs over one']:6.2f}", flush=True
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
