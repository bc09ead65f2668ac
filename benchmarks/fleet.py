"""Networks trained a minute: the plain loop, its rivals and our engines side by side.

Run by hand on a machine with nothing else to do: `python benchmarks/fleet.py [out.json] [--quick]`. A network is 7,900
steps (100 epochs of 79 batches) of 64 samples. All take turns in short rounds; a ratio is the median over rounds, of
processor time (what one core does), or of wall time where two jobs are compared with one. The share of the arithmetic
limit is the time that the products of a step would take at the best rate of `torch.mm`, over the time taken.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from facts import machine, write
from fleet_rivals import RIVALS
from torch import nn

from pared.models import MLP, Forecaster
from pared.training import TrainConfig, fit_many, kernel
from pared.training.engines import Engine
from pared.types import Batch

BATCH, STEPS = 64, 7900
QUICK = "--quick" in sys.argv
ROUNDS, SECONDS, SETUP = (1, 0.1, 0.002) if QUICK else (3, 0.5, 0.01)  # SETUP: seconds of training a network, at least
RIVAL_STEPS = 40  # rivals compile for a number of steps


class Case(NamedTuple):
    """A network: layers of a kind, their units, and its window (an MLP's inputs)."""

    kind: str
    units: tuple[int, ...]
    window: int

    def model(self) -> nn.Module:
        if self.kind == "mlp":
            return MLP(self.window, self.units[:1], self.units[1])
        return Forecaster(1, self.units, cell=self.kind)  # type: ignore[arg-type]

    @property
    def operations(self) -> int:
        """Floating-point operations of a step's products: twice the multiply-adds, forward once, backward twice."""
        gates = {"lstm": 4, "gru": 3, "rnn": 1, "mlp": 0}[self.kind]
        sizes = [1, *self.units]
        macs = self.window * sum(gates * b * (a + b) for a, b in pairwise(sizes))
        if self.kind == "mlp":
            macs = self.window * self.units[0] + self.units[0] * self.units[1]
        return 6 * macs * BATCH


CASES = [Case("lstm", units, window) for units in ((16, 4), (32, 32)) for window in (2, 22, 64)]
CASES += [Case(cell, (16, 4), window) for cell in ("gru", "rnn") for window in (2, 22)]
CASES += [Case("mlp", (39, 1), 13), Case("mlp", (13, 3), 13), Case("lstm", (256,), 22)]
if QUICK:
    CASES = [Case("lstm", (16, 4), 2), Case("gru", (16, 4), 2), Case("mlp", (39, 1), 13), Case("lstm", (256,), 22)]
NETWORKS = (1, 10, 20) if QUICK else (1, 10, 70, 200)


class Cost(NamedTuple):
    """Seconds a network and step."""

    processor: float
    wall: float


class Turn(NamedTuple):
    """A way to train so many networks."""

    name: str
    networks: int
    jobs: int = 1


def ours(case: Case, engine: Engine, networks: int, jobs: int, steps: int) -> Cost:
    x = torch.randn(steps * BATCH, case.window, 1)
    y = torch.randn(len(x), case.units[1] if case.kind == "mlp" else 1)
    split = SimpleNamespace(train=Batch(x, y), validation=Batch(x[:0], y[:0]))
    models, config = [case.model() for _ in range(networks)], TrainConfig(epochs=1, batch_size=BATCH)
    processor, wall = time.process_time(), time.perf_counter()
    fit_many(models, [split] * networks, [config] * networks, jobs=jobs, engine=engine)
    share = networks * steps
    return Cost((time.process_time() - processor) / share, (time.perf_counter() - wall) / share)


class Rival:
    """A process that trains by other means."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("fleet_rivals.py")), name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def cost(self, case: Case, networks: int, steps: int) -> Cost | str:
        """Its cost, or why there is none."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        question = {"networks": networks, "window": case.window, "units": case.units, "steps": steps}
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline() or '{"skipped": "the process ended"}')
        except BrokenPipeError:
            return "the process ended"
        return answer["skipped"] if "skipped" in answer else Cost(answer["processor"], answer["wall"])


def turns(case: Case) -> list[Turn]:
    """The loop first, as everything is set beside it."""
    found = [Turn("loop", 1), Turn("loop", 2, jobs=2)]
    if case.units == (256,):
        return [found[0], Turn("auto", 1)]
    found += [Turn("kernel", 1), Turn("kernel", NETWORKS[2]), Turn("kernel", NETWORKS[2], jobs=2)]
    found += [Turn("batched", networks) for networks in (NETWORKS if case.kind == "lstm" else NETWORKS[2:3])]
    found += [Turn("kernel", 200)] if 200 in NETWORKS else []
    if case.kind == "lstm":
        found += [Turn(name, 1) for name in RIVALS if name.startswith("keras")]
        found += [Turn(name, networks) for name in ("torch.func.vmap", "jax lax.map") for networks in NETWORKS[1:3]]
    return found


def measure(case: Case, rivals: Mapping[str, Rival]) -> dict[str, Any]:
    calls: dict[Turn, Callable[[int], Cost | str]] = {}
    for turn in turns(case):
        if turn.name in rivals:
            calls[turn] = lambda steps, turn=turn: rivals[turn.name].cost(case, turn.networks, steps)
        else:
            calls[turn] = lambda steps, turn=turn: ours(case, turn.name, turn.networks, turn.jobs, steps)
    skipped, steps, costs = {}, {}, {turn: [] for turn in calls}
    for turn, call in calls.items():
        steps[turn] = RIVAL_STEPS if turn.name in rivals else enough_steps(call, turn.networks)
        first = call(steps[turn])  # not counted: what is compiled is so for a number of steps
        if isinstance(first, str):
            skipped[turn] = first
            del steps[turn]
    for _ in range(ROUNDS):
        for turn in steps:
            costs[turn].append(calls[turn](steps[turn]))
    loop = costs[Turn("loop", 1)]
    one = {turn.name: costs[turn] for turn in steps if turn.jobs == 1}  # the last is that of most networks
    rows = []
    for turn in steps:
        own = costs[turn]
        both = [a.wall / b.wall for a, b in zip(one[turn.name], own, strict=True)] if turn.jobs > 1 else None
        rows.append(
            {
                **turn._asdict(),
                "networks a minute": 60 / STEPS / statistics.median(cost.wall for cost in own),
                "over the loop, one core": None if both else statistics.median(
                    a.processor / b.processor for a, b in zip(loop, own, strict=True)),
                "two jobs over one": statistics.median(both) if both else None,
                "share of the limit": None if both else statistics.median(
                    case.operations / PEAK / cost.processor for cost in own),
            }
        )  # fmt: skip
    return {**case._asdict(), "rows": rows, "skipped": {turn.name: why for turn, why in skipped.items()}}


def enough_steps(call: Callable[[int], Any], networks: int) -> int:
    """So many steps that what goes before training is little beside them."""
    call(2)  # what is done once
    few, more = call(2), call(12)
    each = max(more.wall / 20, (12 * more.wall - 2 * few.wall) / 10)
    return max(4, int(max(SECONDS / networks, SETUP) / each))


def peak() -> float:
    """Floating-point operations a second of `torch.mm` on one core, at best."""
    a, seconds = torch.randn(512, 512), []
    for _ in range(20):
        start = time.process_time()
        for _ in range(5):
            a @ a
        seconds.append((time.process_time() - start) / 5)
    return 2 * 512**3 / min(seconds)


def show(result: Mapping[str, Any]) -> None:
    print(f"\n{result['kind']} {result['units']} window {result['window']}")
    print(f"{'':18} {'networks':>8} {'jobs':>5} {'a minute':>9} {'over loop':>9} {'2 jobs':>7} {'of limit':>8}")
    for row in result["rows"]:
        name, networks, jobs, *numbers = row.values()
        words = [f"{number:.3g}" if number is not None else "" for number in numbers]
        print(f"{name:18} {networks:8} {jobs:5} {words[0]:>9} {words[1]:>9} {words[2]:>7} {words[3]:>8}")
    for name, why in result["skipped"].items():
        print(f"{name:18} skipped: {why}")
    sys.stdout.flush()


PEAK = peak()


def main() -> None:
    torch.set_num_threads(1)
    for kind in ("lstm", "gru", "rnn"):
        kernel.compiled(kind)
    rivals = {name: Rival(name) for name in RIVALS}
    results = []
    for case in CASES:
        results.append(measure(case, rivals))
        show(results[-1])
    for rival in rivals.values():
        rival.process.terminate()
    if QUICK:
        sys.argv.remove("--quick")
        print("\nquick: shows that it works; supports no claim, writes nothing")
    else:
        facts = {"peak of torch.mm, GFLOP/s": round(PEAK / 1e9, 1)}
        write({"machine": machine("torch", "numba") | facts, "results": results}, "fleet")


if __name__ == "__main__":
    main()
