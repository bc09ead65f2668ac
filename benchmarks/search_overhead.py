"""What a search costs a trial besides the training: asking, telling, keeping, sending; and late proposals.

    overhead = (seconds of the whole search - seconds in the function) / trials

The function takes no time where one process does it all, so that the whole search counts. In two workers it sleeps for
`SLEEP` seconds, and overhead = seconds * workers / trials - SLEEP: idle workers count. They start before the clock.
Space: the default one of a series, 60 trials, none confirmed, the default sampler. "processor" is of the driver alone;
"wall" holds what else the machine did meanwhile. Late proposals: the default sampler asked after 10,000 trials, with as
many of them as it then knows, and with the most that it ever knows: see MOST_TRIALS in samplers.py.

    python benchmarks/search_overhead.py [results.json]

Needs: pip install 'pared[ray]'. Takes about two minutes.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from facts import machine, write

TRIALS, SLEEP, ROUNDS, HISTORY = 60, 0.05, 3, 10_000


def error(point: dict[str, Any], seed: int) -> float:
    """A number that depends on the point."""
    return abs(float(point["lr"]) ** 0.1 - 0.6) + int(point["width_1"]) / 1000


def slow(point: dict[str, Any], seed: int) -> float:
    """The same, after a while."""
    time.sleep(SLEEP)
    return error(point, seed)


@contextmanager
def place(kept: bool) -> Iterator[Path | None]:
    """A folder for study.db, or none."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) if kept else None


def explored(function: Callable[..., float], kept: bool, workers: Any) -> tuple[float, float]:
    """Wall and processor seconds of the trials of a search."""
    from pared.data import load
    from pared.search import default_space
    from pared.search.book import opened
    from pared.search.driver import Evaluator, Exploration, Rules

    space = default_space(load("logistic-3.99"))
    with place(kept) as folder, opened(folder, {}, 1) as book:
        exploration = Exploration(space, Rules(lag=8), 1, 1, Evaluator(book, workers), [])
        wall, processor = time.perf_counter(), time.process_time()
        exploration.upto(TRIALS, lambda done: None)
        return time.perf_counter() - wall, time.process_time() - processor


def alone(kept: bool) -> dict[str, float]:
    """Milliseconds a trial in one process: medians of some searches."""
    from pared.search.story import _Function
    from pared.search.workers import crew

    found = []
    for _ in range(ROUNDS):
        with crew(_Function(error), 1) as workers:
            found.append(explored(error, kept, workers))
    wall, processor = (statistics.median(column) * 1000 / TRIALS for column in zip(*found, strict=True))
    return {"wall": wall, "processor": processor}


def two(kept: bool, ray: bool) -> dict[str, float]:
    """Milliseconds a trial of two workers, and seconds until both are ready."""
    from pared.search.actors import Cluster, actors
    from pared.search.story import _Function
    from pared.search.trials import Key, Task
    from pared.search.workers import crew

    began = time.perf_counter()
    call = _Function(slow)
    with actors(call, Cluster(2), 8) if ray else crew(call, 2) as workers:
        for number in range(8):  # both have had some
            workers.submit(Task(Key("test", number, 0), {"lr": 0.01, "width_1": 8}))
        for _ in range(8):
            workers.collect()
        ready = time.perf_counter() - began
        found = [explored(slow, kept, workers) for _ in range(ROUNDS)]
    wall, processor = (statistics.median(column) * 1000 / TRIALS for column in zip(*found, strict=True))
    return {"wall": 2 * wall - 1000 * SLEEP, "processor": processor, "seconds to start": ready}


def late() -> dict[str, float]:
    """Milliseconds of a proposal in a long search, by the trials that the sampler knows; random points went before."""
    from pared.data import load
    from pared.search import default_space
    from pared.search.samplers import MOST_TRIALS, Proposals
    from pared.search.trials import Evaluation

    space = default_space(load("logistic-3.99"))
    proposals = Proposals(space, "tpe", 0, 1)

    def step(sampler: Any) -> float:
        proposals._sampler = "tpe" if proposals._known >= MOST_TRIALS else sampler
        began = time.process_time()
        number, point = proposals.ask()
        seconds = time.process_time() - began
        proposals.tell(number, Evaluation((error(point, 0),)))
        return seconds * 1000

    for _ in range(HISTORY):
        step("random")
    lines = {f"after {HISTORY:,} trials, {proposals._known:,} known": [step("tpe") for _ in range(20)]}
    while proposals._known < MOST_TRIALS - 21:
        step("random")
    lines[f"{proposals._known:,} known"] = [step("tpe") for _ in range(20)]
    while proposals._known < MOST_TRIALS:
        step("random")
    lines[f"{proposals._known:,} known, forgetting"] = [step("tpe")]
    return {name: statistics.median(line) for name, line in lines.items()}


def main() -> None:
    lines = {
        "one process, in memory": alone(False),
        "one process, study.db": alone(True),
        "two processes, in memory": two(False, ray=False),
        "two processes, study.db": two(True, ray=False),
        "two Ray actors, in memory": two(False, ray=True),
        "two Ray actors, study.db": two(True, ray=True),
    }
    results = {"milliseconds a trial": lines, "milliseconds of a proposal": late()}
    for name, line in {**lines, **{"proposal": results["milliseconds of a proposal"]}}.items():
        print(f"{name}: " + ", ".join(f"{what} {value:.1f}" for what, value in line.items()))
    write({"machine": machine("optuna", "ray", "sqlalchemy"), "trials": TRIALS, **results}, "search_overhead")


if __name__ == "__main__":
    main()
