"""Many small networks: every member is trained as `fit` would train it alone, several at a time."""

import copy
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import resource_tracker

import torch
from joblib import Parallel, delayed
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared.training import batched, kernel
from pared.training.batched import Member
from pared.training.engines import FEW, Engine, choose, waves
from pared.training.fit import Fit, TrainConfig, TrainingData, check_batches, check_data, fit
from pared.training.stacks import stack_of, takes
from pared.types import Loss, Masks


def fit_many(  # noqa: PLR0913
    models: Sequence[nn.Module],
    splits: Sequence[TrainingData],
    configs: Sequence[TrainConfig],
    loss: Loss = mse_loss,
    resume: Sequence[Fit] | None = None,
    jobs: int = 1,
    engine: Engine = "auto",
    progress: bool = False,
) -> list[Fit]:
    """Trains member i on `splits[i]` with `configs[i]`, as `fit` does; the result does not depend on its companions.

    `jobs` members are trained at a time, each on one processor. A small recurrent forecaster or MLP is trained by the
    compiled kernel; where numba is not, or where it is another small module that `torch.func` can follow, in step with
    members of its shape, if there are at least eight; any other member by the plain loop. `engine_of` says which and
    why, `engine` overrides it. A member's shape decides, but for that number eight: in step, a member differs from the
    loop, and with its companions, by float32 rounding (gradients by under 1e-5 of the largest), elsewhere by no bit.

    A member whose loss is no finite number, NaN among its data say, ends alone: its fit says `diverged`, and its place
    in the list says which it is. `progress` draws a bar on stderr. To go on after an interruption, take the fits from
    `fit_each`, store them as they come, and call it again for the members that are missing.

    Returns the fits in the order of the models. Raises ValueError when the lists differ in length, and, naming the
    member, where it has no training data or is beyond the `engine` asked for.
    """
    fits: list[Fit | None] = [None] * len(models)
    stream = fit_each(models, splits, configs, loss, resume, jobs, engine)
    bar = track(stream, "training", len(models), console=Console(stderr=True), disable=not progress)
    for index, member in bar:
        fits[index] = member
    return [member for member in fits if member is not None]


def fit_each(  # noqa: PLR0913
    models: Sequence[nn.Module],
    splits: Sequence[TrainingData],
    configs: Sequence[TrainConfig],
    loss: Loss = mse_loss,
    resume: Sequence[Fit] | None = None,
    jobs: int = 1,
    engine: Engine = "auto",
    masks: Sequence[Masks | None] | None = None,
) -> Iterator[tuple[int, Fit]]:
    """`fit_many` as a stream: yields (index, fit) in the order in which members finish.

    Weights that a member's `masks` silence are zero and stay zero, as in `fit`. Closing the stream, or an interrupt,
    drops the members that have not begun and stops the others after their epoch.
    """
    if not len(models) == len(splits) == len(configs) == (len(resume) if resume else len(models)):
        counts = f"{len(models)} models, {len(splits)} splits, {len(configs)} configs"
        raise ValueError(f"give one split and one config a model, got {counts}")
    earlier: Sequence[Fit | None] = resume or [None] * len(models)
    silent: Sequence[Masks | None] = masks or [None] * len(models)
    members = dict(enumerate(Member(*parts) for parts in zip(models, splits, configs, earlier, silent, strict=True)))
    chosen: dict[str, dict[int, Member]] = {"kernel": {}, "batched": {}, "loop": {}}
    for index, member in members.items():
        chosen[_engine(index, member, loss, engine)][index] = member
    groups, alone = waves(chosen["batched"], jobs, few=1 if engine == "batched" else FEW)
    rest = sorted([*chosen["loop"], *alone])
    if jobs == 1:
        for index in sorted([*chosen["kernel"], *rest]):
            yield index, (_fit_by_kernel if index in chosen["kernel"] else _fit_by_loop)(members[index], loss)
        for group in groups:
            yield from zip(group, batched.fit([members[index] for index in group], loss), strict=True)
    else:
        yield from _in_threads(chosen["kernel"], loss, jobs)
        tasks = [*groups, *([index] for index in rest)]
        yield from _in_processes([{index: members[index] for index in task} for task in tasks], loss, jobs)


def _engine(index: int, member: Member, loss: Loss, engine: Engine) -> str:
    """The engine for a member; errors name it."""
    try:
        check_data(member.split, member.config)
        check_batches(member.start, member.split.train.x, member.config)
        return choose(member, loss, engine).engine
    except ValueError as error:
        raise ValueError(f"member {index}: {error}") from error


def _in_threads(members: dict[int, Member], loss: Loss, jobs: int) -> Iterator[tuple[int, Fit]]:
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


def _in_processes(groups: list[dict[int, Member]], loss: Loss, jobs: int) -> Iterator[tuple[int, Fit]]:
    if groups:
        calls = (delayed(_fit_on_one_thread)(group, loss) for group in groups)
        with interrupts_wait():
            fits = Parallel(n_jobs=jobs, return_as="generator_unordered")(calls)
        for some in fits:
            yield from some


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


def _fit_on_one_thread(group: dict[int, Member], loss: Loss) -> list[tuple[int, Fit]]:
    torch.set_num_threads(1)
    members = list(group.values())
    fits = [_fit_by_loop(members[0], loss)] if len(members) == 1 else batched.fit(members, loss)
    return list(zip(group, fits, strict=True))


def _fit_by_kernel(member: Member, loss: Loss, stop: threading.Event | None = None) -> Fit:
    return kernel.fit(member.model, member.split, member.config, loss, member.resume, stop, member.masks)


def _fit_by_loop(member: Member, loss: Loss) -> Fit:
    return fit(member.model, member.split, member.config, loss, member.resume, member.masks)


def fit_one(
    model: nn.Module,
    split: TrainingData,
    config: TrainConfig,
    loss: Loss = mse_loss,
    resume: Fit | None = None,
    masks: Masks | None = None,
    pause: float = math.inf,
) -> Fit:
    """`fit` by the kernel where it trains this member, else by the plain loop: what `fit_each` makes of one member."""
    train = kernel.fit if choose(Member(model, split, config, resume, masks), loss, "auto").engine == "kernel" else fit
    return train(model, split, config, loss, resume, masks=masks, pause=pause)


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
