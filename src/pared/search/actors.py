"""Workers on a Ray cluster: long-lived actors, on this machine or on many, that make evaluations.

Ray carries tasks there and results back, and nothing else: the driver asks and tells as it does with local workers. An
actor that dies, alone or with its machine, is replaced and its task given out again; actors end with their driver.
"""

import contextlib
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from pared.search.trials import Call, Result, SearchError, Task
from pared.search.workers import MOST_DEATHS, Backlog, Crew, timed
from pared.types import DataError

LOCAL = "local"
PATIENCE = 600
"""Seconds to wait for a first worker: a cluster may have to start machines."""
CONNECTING = 10
"""Seconds to wait for the head of a cluster; Ray itself would wait for minutes."""
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns
    "RAY_worker_niceness": "0",  # else its workers would wait for all else that the machine does
}
"""What Ray is told where it is started here, unless the user says otherwise."""


@dataclass(frozen=True)
class Cluster:
    """Ray actors in the place of local processes, for `search(..., jobs=Cluster())`: pure data.

    workers   evaluations at a time, a processor each; 0: one a processor of the cluster, up to the lag of the search;
    address   HOST:PORT of the head of a cluster, or "auto" for the one that this machine belongs to; None: what
              RAY_ADDRESS says, else Ray is started here, for this search.

    Raises DataError for numbers and addresses that cannot be, and where Ray is not installed.
    """

    workers: int = 0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise DataError(f"workers count from 0 (as many as there are processors), got {self.workers}")
        if self.address not in (None, "auto"):
            _split(self.address)
        if find_spec("ray") is None:
            raise DataError("a search on Ray needs the package ray: pip install 'pared[ray]'")


@contextmanager
def actors(call: Call, cluster: Cluster, lag: int, retries: int = 0) -> Iterator[Crew]:
    """A crew of Ray actors, each with one thread; a task that raises is tried `retries` times more.

    Ray is used where this process has it, else the cluster is joined or started, and left at the end.

    Raises: SearchError where the cluster cannot be reached, or, when collected from, where no actor starts on it.
    """
    with _connected(cluster, lag):
        import ray

        workers = _Actors(call, cluster.workers or min(int(ray.cluster_resources().get("CPU", 1)), lag), retries)
        try:
            yield workers
        finally:
            workers.close()


class _Remote:
    """What an actor is: the call, kept in a process of the cluster."""

    def __init__(self, call: Call, retries: int) -> None:
        torch.set_num_threads(1)
        self._call, self._retries = call, retries

    def ready(self) -> int:
        return os.getpid()

    def work(self, task: Task) -> tuple[Result, float]:
        return timed(self._call, task, self._retries)


@dataclass
class _Actor:
    """An actor as the driver knows it: the answer it owes, the task that this is for; no pid before it is ready."""

    handle: Any
    answer: Any
    task: Task | None = None
    pid: int | None = None


class _Actors:
    """Actors that are started once, wait for tasks, and are ended by `close` or with this process."""

    def __init__(self, call: Call, count: int, retries: int) -> None:
        import ray

        self._backlog = Backlog()
        self._lost = 0  # actors in a row that died as they started
        try:
            self._call = ray.put(call)
        except TypeError as error:
            raise SearchError(f"what is to be evaluated cannot be sent to other processes ({_line(error)})") from error
        self._retries = retries
        self._actors = [self._started() for _ in range(count)]

    def submit(self, task: Task) -> None:
        self._backlog.waiting.append(task)
        self._give_out()

    def collect(self) -> tuple[Task, Result, float]:
        import ray

        while not self._backlog.failed:
            owing = {each.answer: each for each in self._actors if each.answer is not None}
            ready, _ = ray.wait(list(owing), timeout=None if any(each.pid for each in self._actors) else PATIENCE)
            if not ready:
                there, free = (each.get("CPU", 0) for each in (ray.cluster_resources(), ray.available_resources()))
                raise SearchError(
                    f"no worker has started within {PATIENCE} s: the cluster has {there:g} processors, of which "
                    f"{free:g} are free; add machines, or go on with --resume later"
                )
            actor = owing[ready[0]]
            try:
                answer = ray.get(actor.answer)
            except ray.exceptions.RayError as error:
                self._bury(actor, error)
                continue
            task, actor.task, actor.answer = actor.task, None, None
            if task is None:
                actor.pid, self._lost = answer, 0
            self._give_out()
            if task is not None:
                return task, *answer
        return *self._backlog.failed.popleft(), 0.0

    def close(self) -> None:
        import ray

        for actor in self._actors:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(actor.handle)

    def _give_out(self) -> None:
        for actor in self._actors:
            if actor.answer is None and self._backlog.waiting:
                actor.task = self._backlog.waiting.popleft()
                actor.answer = actor.handle.work.remote(actor.task)

    def _bury(self, dead: _Actor, error: Exception) -> None:
        """Replaces an actor that died, and gives its task out again, first."""
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(dead.handle)  # where its answer was lost and not the actor
        self._lost += dead.pid is None
        if self._lost >= MOST_DEATHS:
            raise SearchError(
                f"workers cannot start on the cluster ({_line(error)}); its machines need the versions of Python, Ray "
                "and pared that this one has"
            ) from error
        self._actors.remove(dead)
        if dead.task is not None:
            self._backlog.again(dead.task, f"({_line(error)})")
        self._actors.append(self._started())
        self._give_out()

    def _started(self) -> _Actor:
        import ray

        handle = ray.remote(num_cpus=1)(_Remote).remote(self._call, self._retries)
        return _Actor(handle, handle.ready.remote())


@contextmanager
def _connected(cluster: Cluster, lag: int) -> Iterator[None]:
    """Ray without its dashboard, its usage statistics and what it logs; one that was started here leaves no files."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS", LOCAL)
    own: dict[str, Any] = {}
    if address == LOCAL:
        count = cluster.workers or min(os.cpu_count() or 1, lag)
        own = {"num_cpus": count, "include_dashboard": False}
    try:
        if address not in (LOCAL, "auto"):
            with socket.create_connection(_split(address), timeout=CONNECTING):
                pass
        context = ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # Ray's own kinds of it are many
        raise SearchError(
            f"the Ray cluster at {address} cannot be used ({_line(error)}); start it with `ray start --head`, and give "
            "--address its HOST:PORT"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
        if own:
            shutil.rmtree(context.address_info["session_dir"], ignore_errors=True)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise DataError(f"the address of a Ray cluster is HOST:PORT, or auto, got {address!r}")
    return host, int(port)


def _line(error: Exception) -> str:
    """The first sentence of the last line that an error has to say: in Ray's long ones, the cause."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip().partition(". ")[0].rstrip(".")
