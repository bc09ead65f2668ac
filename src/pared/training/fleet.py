"""Many small networks: every member is trained as `fit` would train it alone, several at a time."""

import copy
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Literal, NamedTuple

import torch
from joblib import Parallel, delayed
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared.training import kernel
from pared.training.fit import Fit, TrainConfig, TrainingData, fit
from pared.training.stacks import stack_of, takes
from pared.types import Loss

Engine = Literal["auto", "kernel", "loop"]


def fit_many(
    models: Sequence[nn.Module],
    splits: Sequence[TrainingData],
    configs: Sequence[TrainConfig],
    loss: Loss = mse_loss,
    resume: Sequence[Fit] | None = None,
    jobs: int = 1,
    engine: Engine = "auto",
) -> list[Fit]:
    """Trains member i on `splits[i]` with `configs[i]`, as `fit` does; the result does not depend on its companions.

    `jobs` members are trained at a time, each on one processor. A small recurrent forecaster or MLP is trained by the
    compiled kernel (`kernel.supports`), any other member by the plain loop: its own shape decides, never how many there
    are. `engine` overrides that; the two agree to float32 rounding.

    Returns the fits in the order of the models. Raises ValueError when the three lists differ in length, and with
    `engine="kernel"` where a member is beyond it.
    """
    fits: list[Fit | None] = [None] * len(models)
    for index, member in fit_each(models, splits, configs, loss, resume, jobs, engine):
        fits[index] = member
    return [member for member in fits if member is not None]


def fit_each(
    models: Sequence[nn.Module],
    splits: Sequence[TrainingData],
    configs: Sequence[TrainConfig],
    loss: Loss = mse_loss,
    resume: Sequence[Fit] | None = None,
    jobs: int = 1,
    engine: Engine = "auto",
) -> Iterator[tuple[int, Fit]]:
    """`fit_many` as a stream: yields (index, fit) in the order in which members finish.

    Closing it, or an interrupt, drops the members that have not begun and stops the others after their epoch.
    """
    if not len(models) == len(splits) == len(configs) == (len(resume) if resume else len(models)):
        counts = f"{len(models)} models, {len(splits)} splits, {len(configs)} configs"
        raise ValueError(f"give one split and one config a model, got {counts}")
    earlier: Sequence[Fit | None] = resume or [None] * len(models)
    members = [_Member(*parts) for parts in zip(models, splits, configs, earlier, strict=True)]
    by_kernel = {index: _goes_to_kernel(index, member, loss, engine) for index, member in enumerate(members)}
    if jobs == 1:
        for index, member in enumerate(members):
            yield index, _fit_by_kernel(member, loss) if by_kernel[index] else _fit_by_loop(member, loss)
    else:
        yield from _in_threads({index: member for index, member in enumerate(members) if by_kernel[index]}, loss, jobs)
        rest = {index: member for index, member in enumerate(members) if not by_kernel[index]}
        yield from _in_processes(rest, loss, jobs)


class _Member(NamedTuple):
    model: nn.Module
    split: TrainingData
    config: TrainConfig
    resume: Fit | None

    @property
    def start(self) -> nn.Module:
        """The module that training goes on from."""
        return self.resume.model if self.resume else self.model


def _goes_to_kernel(index: int, member: _Member, loss: Loss, engine: Engine) -> bool:
    if engine not in ("auto", "kernel", "loop"):
        raise ValueError(f"unknown engine {engine!r}; choose auto, kernel or loop")
    if engine == "loop":
        return False
    suits = kernel.supports(member.start, loss) and kernel.reads(member.start, member.split, loss)
    if engine == "kernel" and not suits:
        raise ValueError(f"the kernel cannot train member {index}; see kernel.supports, or use engine='auto'")
    return suits


def _in_threads(members: dict[int, _Member], loss: Loss, jobs: int) -> Iterator[tuple[int, Fit]]:
    if not members:
        return
    for kind in {kernel.kind_of(member.start) for member in members.values()}:
        kernel.compiled(kind)
    stop = threading.Event()
    pool = ThreadPoolExecutor(jobs)
    try:
        indices = {pool.submit(_fit_by_kernel, member, loss, stop): index for index, member in members.items()}
        for future in as_completed(indices):
            yield indices.pop(future), future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _in_processes(members: dict[int, _Member], loss: Loss, jobs: int) -> Iterator[tuple[int, Fit]]:
    if members:
        calls = (delayed(_fit_on_one_thread)(index, member, loss) for index, member in members.items())
        with interrupts_wait():
            fits = Parallel(n_jobs=jobs, return_as="generator_unordered")(calls)
        yield from fits


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Ctrl-C waits until the end; in processes that start meanwhile for ever, as this one is to end them, silently."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # the first worker would start it, which unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fit_on_one_thread(index: int, member: _Member, loss: Loss) -> tuple[int, Fit]:
    torch.set_num_threads(1)
    return index, _fit_by_loop(member, loss)


def _fit_by_kernel(member: _Member, loss: Loss, stop: threading.Event | None = None) -> Fit:
    return kernel.fit(member.model, member.split, member.config, loss, member.resume, stop)


def _fit_by_loop(member: _Member, loss: Loss) -> Fit:
    return fit(member.model, member.split, member.config, loss, member.resume)


def predict_many(models: Sequence[nn.Module], inputs: Tensor | Sequence[Tensor], jobs: int = 1) -> list[Tensor]:
    """What each model gives for its input: `inputs` holds one tensor a model, or is one that all of them read.

    Equal to `model(x)` in evaluation mode without gradients, to float32 rounding. Small recurrent forecasters run in
    the compiled kernel, others as they are, `jobs` at a time. Returns one tensor a model. Raises ValueError when the
    numbers of models and inputs differ.
    """
    each = [inputs] * len(models) if isinstance(inputs, Tensor) else inputs
    if len(models) != len(each):
        raise ValueError(f"give one input a model, or one tensor for all, got {len(models)} models, {len(each)} inputs")
    if jobs == 1:
        return list(map(_predicted, models, each))
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(_predicted, models, each))


def _predicted(model: nn.Module, x: Tensor) -> Tensor:
    return inference(model, x)(x)


def inference(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """A model in evaluation mode, without gradients, as the fastest function of tensors like x, in any number.

    Worth it for many calls with few samples, as in free runs. The weights are those of now. One thread at a time may
    call the function.
    """
    stack = stack_of(model)
    if stack is not None and takes(stack, x) and kernel.runs(model):
        return kernel.forward(model, x)
    frozen = copy.deepcopy(model).eval()
    return torch.no_grad()(frozen)
