"""What tests of the search share: a space, functions to be searched, crews that finish in an order of their own."""

import os
import random
import signal
import sys
import time
from pathlib import Path

from sqlalchemy import make_url

from pared.search.actors import Cluster
from pared.search.places import Place
from pared.search.space import Categorical, Conditional, Float, Int, PowerOfTwo, Space
from pared.search.story import SearchSettings, search
from pared.search.workers import timed

SPACE = Space(
    {
        "kind": Categorical(("plain", "deep")),
        "layers": Conditional(Int(1, 3), "kind", ("deep",)),
        "width": PowerOfTwo(4, 64),
        "lr": Float(1e-4, 1e-1, log=True),
        "share": Float(0.0, 0.5, step=0.1),
    }
)


def noise(seed, point):
    return random.Random(f"{seed} {sorted(point.items())}").gauss(0, 0.02)


def noisy(point, seed):
    """Best at a deep net of two layers, 16 wide, lr 0.003; a seed moves it by 0.02."""
    return (
        abs(point["lr"] ** 0.1 - 0.003**0.1)
        + abs(point["width"] - 16) / 64
        + (0.2 if point["kind"] == "plain" else 0.1 * abs(point["layers"] - 2))
        + point["share"] / 10
        + noise(seed, point)
    )


def slow(point, seed):
    """Long enough for a kill to hit it, some more than others."""
    time.sleep(0.01 + 0.02 * (point["width"] > 16))
    return noisy(point, seed)


def suicidal(point, seed):
    """Ends its process where the point is wide, and in one of two tries otherwise."""
    if point["width"] == 64:
        os.kill(os.getpid(), signal.SIGKILL)
    return noisy(point, seed)


def suicidal_and_slow(point, seed):
    """As `suicidal`, and long enough for a kill to hit it."""
    time.sleep(0.2)
    return suicidal(point, seed)


class Homesick:
    """A function that lives in one process only."""

    def __init__(self, home):
        self.home = home

    def __call__(self, point, seed):
        return 0.0

    def __setstate__(self, state):
        if os.getpid() != state["home"]:
            raise ValueError("not here")


class AnyOrder:
    """A crew that finishes what it likes first, of the `jobs` oldest tasks."""

    def __init__(self, call, seed, jobs=1000):
        self._call, self._random, self._waiting, self._jobs = call, random.Random(seed), [], jobs

    def submit(self, task):
        self._waiting.append(task)

    def collect(self):
        task = self._waiting.pop(self._random.randrange(min(self._jobs, len(self._waiting))))
        return task, *timed(self._call, task, 0)


if __name__ == "__main__":  # python searching.py FOLDER TRIALS JOBS [ADDRESS of a Ray cluster, or URL of PostgreSQL]
    folder, trials, jobs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    import searching

    other = sys.argv[4] if len(sys.argv) > 4 else ""
    place = Place(folder, make_url(other) if "://" in other else None)
    jobs = Cluster(jobs, other) if other and place.server is None else jobs
    search(searching.slow, SPACE, SearchSettings(trials, seed=3, lag=4), folder=place, jobs=jobs)
