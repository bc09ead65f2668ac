"""Networks trained a minute: the plain loop against the kernel. Run by hand: `python benchmarks/fleet.py [out.json]`.

A network is 100 epochs of 79 batches of 64. Engines take turns in short rounds; a ratio is the median over rounds: of
processor time between engines (other work on the machine does not count), of wall time between one job and two.
"""

import statistics
import time
from itertools import product
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

import torch
from facts import machine, write

from pared.models.recurrent import Cell, Forecaster
from pared.training import kernel
from pared.training.fit import TrainConfig, TrainingData
from pared.training.fleet import Engine, fit_many
from pared.types import Batch

ROUNDS, BATCH, EPOCH, EPOCHS = 5, 64, 79, 100
TURNS: list[tuple[Engine, int]] = [("loop", 1), ("kernel", 1), ("kernel", 2)]
RATES = [f"{engine} x{jobs}" for engine, jobs in TURNS]


class Network(NamedTuple):
    cell: Cell
    units: tuple[int, int]
    window: int


NETWORKS = [Network(*parts) for parts in product(get_args(Cell), ((16, 4), (32, 32)), (2, 22, 64))]


class Cost(NamedTuple):
    """Seconds an epoch of one network, over all of them."""

    processor: float
    wall: float


def cost(engine: Engine, network: Network, split: TrainingData, jobs: int, epochs: int) -> Cost:
    model = Forecaster(recurrent=network.units, cell=network.cell)
    config = TrainConfig(epochs=epochs, batch_size=BATCH)
    processor, wall = time.process_time(), time.perf_counter()
    fit_many([model] * jobs, [split] * jobs, [config] * jobs, jobs=jobs, engine=engine)
    share = jobs * epochs
    return Cost((time.process_time() - processor) / share, (time.perf_counter() - wall) / share)


def measure(network: Network) -> dict[str, Any]:
    x = torch.randn(EPOCH * BATCH, network.window, 1)
    split = SimpleNamespace(train=Batch(x, x[:, -1]), validation=Batch(x[:0], x[:0, -1]))
    kernel.compiled(network.cell)
    epochs = {turn: max(1, int(0.5 / cost(turn[0], network, split, 1, 1).wall)) for turn in TURNS}
    rounds = [{turn: cost(turn[0], network, split, turn[1], epochs[turn]) for turn in TURNS} for _ in range(ROUNDS)]
    loop, one, two = TURNS
    walls = (statistics.median(r[turn].wall for r in rounds) for turn in TURNS)
    return {
        **network._asdict(),
        "networks a minute": dict(zip(RATES, (60 / EPOCHS / wall for wall in walls), strict=True)),
        "kernel over loop": statistics.median(r[loop].processor / r[one].processor for r in rounds),
        "two jobs over one": statistics.median(r[one].wall / r[two].wall for r in rounds),
    }


def main() -> None:
    torch.set_num_threads(1)
    results = []
    print(" ".join(f"{title:>9}" for title in ("cell", "units", "window", *RATES, "ratio", "2 jobs")))
    for network in NETWORKS:
        result = measure(network)
        results.append(result)
        numbers = (*result["networks a minute"].values(), result["kernel over loop"], result["two jobs over one"])
        print(" ".join(f"{word!s:>9}" for word in (*network, *(f"{number:.2f}" for number in numbers))), flush=True)
    write({"machine": machine("torch", "numba"), "results": results}, "fleet")


if __name__ == "__main__":
    main()
