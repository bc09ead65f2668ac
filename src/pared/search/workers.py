"""Who makes evaluations: this process, or warm processes beside it, each with one thread.

Threads would share PyTorch's random state. A process that dies is replaced and its task given out again. Where there is
a fork server it alone loads PyTorch, once, and processes start from it in milliseconds.
"""

import contextlib
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, get_all_start_methods, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from pickle import PicklingError
from typing import Protocol

import torch

from pared.search.trials import Call, Failure, Key, Result, SearchError, Task
from pared.training.fleet import interrupts_wait
from pared.types import DataError

MOST_DEATHS = 3
"""A task during which so many processes died counts as failed."""
READY = "ready"


@dataclass
class Backlog:
    """Tasks that wait for a worker, and those that are given up because so many workers died of them."""

    waiting: deque[Task] = field(default_factory=deque)
    failed: deque[tuple[Task, Result]] = field(default_factory=deque)
    deaths: dict[Key, int] = field(default_factory=dict)

    def again(self, task: Task, how: str, counts: bool = True) -> None:
        """A task whose worker died waits again, first; `how` it died is told where it was once too often."""
        deaths = self.deaths[task.key] = self.deaths.get(task.key, 0) + counts
        if deaths < MOST_DEATHS:
            self.waiting.appendleft(task)
        else:
            self.failed.append((task, Failure(f"its process died {deaths} times {how}")))


Done = tuple[Task, Result, float]
"""A task, what came of it, and the seconds that it took."""


class Crew(Protocol):
    """Takes tasks; gives them back in any order, with their results and the seconds that these took."""

    def submit(self, task: Task) -> None: ...
    def collect(self) -> Done: ...


@dataclass(frozen=True)
class Queue:
    """Workers on other machines, for `search(..., jobs=Queue())`: they take tasks from the book's PostgreSQL database.

    jobs    evaluations at a time on this machine besides, 0: none;
    lease   seconds after which the task of a worker that is not heard of is given out again.

    Raises DataError for numbers that cannot be.
    """

    jobs: int = 1
    lease: float = 30.0

    def __post_init__(self) -> None:
        if self.jobs < 0 or not 0 < self.lease < float("inf"):
            raise DataError(f"jobs count from 0 and the lease is a time in seconds, got {self.jobs} and {self.lease}")


@contextmanager
def crew(call: Call, jobs: int, retries: int = 0) -> Iterator[Crew]:
    """`jobs` evaluations at a time; a task that raises is tried `retries` times more. One job works in this process.

    Raises, when collected from: SearchError where processes cannot start.
    """
    if jobs == 1:
        yield _Here(call, retries)
        return
    with warm(call, jobs, retries) as workers:
        yield workers


@contextmanager
def warm(call: Call, jobs: int, retries: int = 0) -> Iterator["Warm"]:
    """As `crew`, but in processes beside this one also where it is one job; without any it is not to be given tasks."""
    workers = Warm(call, jobs, retries)
    try:
        yield workers
    finally:
        workers.close()


def attempted(call: Call, task: Task, retries: int) -> Result:
    """An evaluation, or why there is none after all tries."""
    for _ in range(retries + 1):
        try:
            return call(task)
        except Exception as error:  # whatever a network or a user's function raises is a finding, not the end
            text = " ".join(str(error).split())
            failure = Failure(f"{type(error).__name__}: {text}" if text else type(error).__name__, _trace())
    return failure


def timed(call: Call, task: Task, retries: int) -> tuple[Result, float]:
    """A result and the seconds that it took."""
    started = time.perf_counter()
    return attempted(call, task, retries), time.perf_counter() - started


def _trace() -> str:
    return traceback.format_exc()


class _Here:
    """One at a time, in this process, when collected."""

    def __init__(self, call: Call, retries: int) -> None:
        self._call, self._retries = call, retries
        self._waiting: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def collect(self) -> Done:
        task, threads = self._waiting.popleft(), torch.get_num_threads()
        torch.set_num_threads(1)  # sums are rounded as in a worker
        try:
            return task, *timed(self._call, task, self._retries)
        finally:
            torch.set_num_threads(threads)


@dataclass
class _Worker:
    """A process, the pipe to it, and the task that it was given; `ready` once it has loaded everything."""

    process: SpawnProcess | ForkServerProcess
    pipe: Connection
    task: Task | None = None
    ready: bool = False


class Warm:
    """Processes that are started once, wait for tasks, and are ended by `close` or with this process."""

    def __init__(self, call: Call, jobs: int, retries: int) -> None:
        self._call, self._retries = call, retries
        self._backlog = Backlog()
        self._lost = 0  # processes in a row that died as they started
        self._workers = self._started(jobs)

    @property
    def free(self) -> int:
        """How many more tasks would be begun with at once: none by a process that is still loading."""
        return sum(worker.ready and worker.task is None for worker in self._workers) - len(self._backlog.waiting)

    @property
    def pids(self) -> list[int]:
        """Process ids."""
        return [pid for each in self._workers if (pid := each.process.pid)]

    def submit(self, task: Task) -> None:
        self._backlog.waiting.append(task)
        self._give_out()

    def collect(self) -> Done:
        while (found := self.finished(None)) is None:
            pass
        return found

    def finished(self, patience: float | None) -> Done | None:
        """The next that is finished; None where `patience` seconds pass without news, or the news are others."""
        if not self._backlog.failed:
            ready = connection.wait([worker.pipe for worker in self._workers], patience)
            for worker in [worker for worker in self._workers if worker.pipe in ready]:
                try:
                    answer = worker.pipe.recv()
                except (EOFError, OSError):
                    self._bury(worker)
                    continue
                if answer == READY:
                    worker.ready = True
                    continue
                task, worker.task = worker.task, None
                self._give_out()
                assert task is not None
                return task, *answer
        return (*self._backlog.failed.popleft(), 0.0) if self._backlog.failed else None

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()  # SIGTERM may be turned off, which workers inherit
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()

    def _give_out(self) -> None:
        for worker in self._workers:
            if worker.task is None and self._backlog.waiting:
                worker.task = self._backlog.waiting.popleft()
                with contextlib.suppress(OSError):  # it died: the next look at its pipe shows that
                    worker.pipe.send(worker.task)

    def _bury(self, dead: _Worker) -> None:
        """Replaces a process that died, and gives its task out again, first."""
        dead.process.join()
        dead.pipe.close()
        self._lost = 0 if dead.ready else self._lost + 1
        if (self._lost and (dead.process.exitcode or 0) >= 0) or self._lost >= MOST_DEATHS:
            raise SearchError(
                f"worker processes cannot start (exit code {dead.process.exitcode}); in a script, call the search "
                "below `if __name__ == '__main__':`, or work with one job"
            )
        self._workers.remove(dead)
        if dead.task is not None:
            self._backlog.again(dead.task, _how(dead.process.exitcode), dead.ready)
        self._workers += self._started(1)
        self._give_out()

    def _started(self, count: int) -> list[_Worker]:
        context = _context()
        found = []
        with interrupts_wait():  # Ctrl-C is for this process, which ends the others
            for _ in range(count):
                pipe, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, self._call, self._retries))
                _start(process)
                theirs.close()
                found.append(_Worker(process, pipe))
        return found


def _context() -> SpawnContext | ForkServerContext:
    if "forkserver" not in get_all_start_methods():  # Windows
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["pared.search"])
    return context


def _start(process: SpawnProcess | ForkServerProcess) -> None:
    try:
        process.start()
    except (PicklingError, AttributeError, TypeError) as error:
        raise SearchError(
            f"what is to be evaluated cannot be sent to other processes ({error}); define it at the top of a module, "
            "or work with one job"
        ) from error


def _how(code: int | None) -> str:
    name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return f"({name}){'; perhaps memory ran out' if name == 'SIGKILL' else ''}"


def _work(pipe: Connection, call: Call, retries: int) -> None:
    """What a worker does until its pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe.send(READY)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(timed(call, task, retries))


def _end_with_parent() -> None:
    """A worker must not go on when the search was killed, not even in the midst of a training."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
