"""What benchmarks share: where the probe networks are, what machine it is, how results are written."""

import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))  # the probe networks


def machine(*packages: str) -> dict[str, Any]:
    """Facts that times depend on; neither the machine's name nor its paths."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "load": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package).partition("+")[0] for package in packages},
    }


def write(results: Mapping[str, Any], name: str) -> None:
    """As JSON to the path given on the command line, else to results/<name>.json."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def alternating(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Every call once a round, after a round that does not count: medians and minima of wall and processor seconds.

    A call may return its own (wall, processor) seconds, where not all of it is to count.
    """
    wall: dict[str, list[float]] = {name: [] for name in calls}
    processor: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            seconds, used = time.perf_counter(), time.process_time()
            own = call()
            both = time.perf_counter() - seconds, time.process_time() - used
            both = own if isinstance(own, tuple) else both
            if turn:
                wall[name].append(both[0])
                processor[name].append(both[1])
    return {
        name: {
            "wall, median": statistics.median(wall[name]),
            "wall, least": min(wall[name]),
            "processor, median": statistics.median(processor[name]),
            "processor, least": min(processor[name]),
        }
        for name in calls
    }
