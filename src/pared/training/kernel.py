"""Training of one small network by a compiled kernel: the same mathematics as `fit`, an order faster."""

import copy
import functools
import importlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from pared.signals import check_masks
from pared.training.fit import (
    Course,
    Fit,
    TrainConfig,
    TrainingData,
    check_data,
    course_of,
    is_plain,
    optimiser_for,
)
from pared.training.fit import fit as fit_by_loop
from pared.training.kernel_layout import LANES, STEPS, Floats, Ints, Layout, layout
from pared.training.stacks import Stack, answers, stack_of, takes
from pared.types import Loss, Masks

MOST_WEIGHTS = 2**16  # beyond, the loop's matrix products fill the processor, and may use several cores


@functools.cache
def available() -> bool:
    """Whether numba can be imported here."""
    try:
        import numba  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


@functools.cache
def compiled(kind: str) -> ModuleType:
    """The compiled functions for stacks of a kind; a dense layer is an RNN's of one step.

    The first call on a machine compiles them (10 to 20 s a kind), later ones read numba's cache.
    """
    return importlib.import_module(f"pared.training.kernel_{'rnn' if kind == 'mlp' else kind}")


def runs(model: nn.Module) -> bool:
    """Whether the kernel computes what this model does, faster than PyTorch: a stack of at most 65,536 weights."""
    return (
        available() and sum(weight.numel() for weight in model.parameters()) <= MOST_WEIGHTS and bool(stack_of(model))
    )


def supports(model: nn.Module, loss: Loss = mse_loss) -> bool:
    """Whether the kernel trains this member, and faster than the plain loop.

    It takes what it `runs`: stacks of recurrent or dense layers (`stacks.stack_of`) of at most 65,536 weights, all of
    them trained; mean squared error or cross entropy.
    """
    return (
        loss in (mse_loss, cross_entropy) and all(weight.requires_grad for weight in model.parameters()) and runs(model)
    )


def reads(model: nn.Module, split: TrainingData, loss: Loss = mse_loss) -> bool:
    """Whether a split's data are what a supported model takes, all in windows of one length, and is to answer."""
    stack = _stack(model)
    return all(
        takes(stack, x) and answers(stack, x, y, loss) and _window(stack, x) == _window(stack, split.train.x)
        for x, y in (split.train, split.validation)
        if len(x)
    )


def _stack(model: nn.Module) -> Stack:
    stack = stack_of(model)
    if stack is None:
        raise ValueError(f"the kernel cannot run this {type(model).__name__}; see stack_of for what it takes")
    return stack


def kind_of(model: nn.Module) -> str:
    """The kind of a supported model's layers, as `compiled` names it."""
    return _stack(model).kind


def _window(stack: Stack, x: Tensor) -> int:
    return 1 if stack.kind == "mlp" else x.shape[1]


def forward(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The model, one that the kernel `runs`, as a function of tensors like x, in any number, with its weights of now.

    Equal to `model(x)` to float32 rounding, without gradients. One thread at a time may call it.
    """
    stack = _stack(model)
    places = layout(stack, _window(stack, x), batch_size=1)
    weights, memory = _floats(places.weights), _memory(places)
    for parameter, place in zip(stack.parameters, places.places, strict=True):
        weights[place] = _flat(parameter)
    predict = compiled(stack.kind).predict

    def evaluated(x: Tensor) -> Tensor:
        output = np.empty((len(x), stack.outputs), np.float32)
        predict(_rows(x), np.arange(len(x)), places.network, weights, memory, output)
        return torch.from_numpy(output)

    return evaluated


def fit(  # noqa: PLR0913
    model: nn.Module,
    split: TrainingData,
    config: TrainConfig,
    loss: Loss = mse_loss,
    resume: Fit | None = None,
    stop: threading.Event | None = None,
    masks: Masks | None = None,
    pause: float = math.inf,
) -> Fit:
    """`pared.training.fit` for a member that `supports` accepts.

    Weights, curves and optimiser state agree with the plain loop to float32 rounding, and either resumes from the
    other's fit. Weights that `masks` silences are zero after every step, and their moments. `stop`, once set, ends
    training after the epoch under way; `pause` as in `fit`.

    Returns a `Fit`. Raises ValueError where the data do not suit the model or the training set is empty, and
    CancelledError when stopped.
    """
    check_data(split, config)
    source = resume.model if resume else model
    if not reads(source, split, loss):
        raise ValueError(
            f"the kernel cannot read x {tuple(split.train.x.shape)} and y {tuple(split.train.y.shape)} for this model; "
            "give float32 x (samples, window, inputs) or (samples, inputs) to an MLP, and float32 y (samples, outputs) "
            "or, for cross entropy, int64 classes (samples,), on the CPU"
        )
    if not is_plain(resume, config):
        return fit_by_loop(model, split, config, loss, resume, masks, pause)
    started = time.perf_counter()
    trained = copy.deepcopy(source)
    optimiser = optimiser_for(trained, config, resume)
    stack = _stack(trained)
    places = layout(stack, _window(stack, split.train.x), config.batch_size, loss is cross_entropy)
    member = _packed(optimiser, places, config, _silent(trained, places, masks or {}))
    course = course_of(resume)
    if course.best is not None:
        trained.load_state_dict(course.best[0])
        optimiser.load_state_dict(course.best[1])
        then = _packed(optimiser, places, config, member.silent)
        course.best = then.state, then.rule
    epochs = _unstopped(course.left(split, config, started + pause), stop)
    _train(member, compiled(stack.kind), split, config, loss, epochs, course)
    best = None
    if course.paused and course.best is not None:
        _unpack(replace(member, state=course.best[0], rule=course.best[1]), optimiser)
        best = copy.deepcopy((trained.state_dict(), optimiser.state_dict()))
    _unpack(member, optimiser)
    return Fit(
        model=trained,
        optimiser_state=optimiser.state_dict(),
        curves={name: tuple(values) for name, values in course.curves.items()},
        seed=config.seed,
        seconds=time.perf_counter() - started + course.seconds,
        midway=course.midway(torch.get_rng_state(), best),
    )


@dataclass(frozen=True)
class _Member:
    """One network as the compiled functions see it: `state` is (weights, gradient, first moment, second moment).

    `silent` are the places of weights that stay zero.
    """

    layout: Layout
    state: tuple[Floats, Floats, Floats, Floats]
    rule: Any
    memory: Floats
    silent: Ints

    def silence(self) -> None:
        weights, _, first, second = self.state
        for array in (weights, first, second):
            array[self.silent] = 0.0


def _silent(model: nn.Module, places: Layout, masks: Masks) -> Ints:
    """Where the weights lie that masks do not keep."""
    parameters = dict(model.named_parameters())
    check_masks({name: parameter.detach() for name, parameter in parameters.items()}, masks)
    gone = [
        place[~masks[name].flatten().numpy()]
        for name, place in zip(parameters, places.places, strict=True)
        if name in masks
    ]
    return np.concatenate(gone) if gone else np.empty(0, np.int64)


def _packed(optimiser: torch.optim.Optimizer, places: Layout, config: TrainConfig, silent: Ints) -> _Member:
    group = optimiser.param_groups[0]
    state = tuple(_floats(places.weights) for _ in range(4))
    weights, _, first, second = state
    rule = np.zeros(1, STEPS)
    rule["lr"] = group["lr"]
    for parameter, place in zip(group["params"], places.places, strict=True):
        weights[place] = _flat(parameter)
        if moments := optimiser.state.get(parameter):
            first[place], second[place] = _flat(moments["exp_avg"]), _flat(moments["exp_avg_sq"])
            rule["step"] = float(moments["step"])
    if not isinstance(optimiser, torch.optim.SGD):
        rule["adam"], (rule["beta1"], rule["beta2"]), rule["eps"] = 1.0, group["betas"], group["eps"]
    rule["decay"], rule["clip"] = group["weight_decay"], config.clip or 0.0
    rule["decoupled"] = group.get("decoupled_weight_decay", isinstance(optimiser, torch.optim.AdamW))
    member = _Member(places, cast(Any, state), rule, _memory(places), silent)
    member.silence()
    return member


def _memory(places: Layout) -> Floats:
    memory, plan = _floats(places.memory), places.network[2][0]
    memory.reshape(plan["tiles"], plan["tile_size"])[:, plan["ones"] : plan["ones"] + LANES] = 1.0
    return memory


def _unstopped(epochs: Iterator[tuple[int, Tensor]], stop: threading.Event | None) -> Iterator[tuple[int, Tensor]]:
    """Epochs until `stop` is set."""
    for each in epochs:
        if stop is not None and stop.is_set():
            raise CancelledError
        yield each


def _train(
    member: _Member,
    kernel: ModuleType,
    split: TrainingData,
    config: TrainConfig,
    loss: Loss,
    epochs: Iterator[tuple[int, Tensor]],
    course: Course,
) -> None:
    """Trains the member in place, epoch by epoch."""
    train, watched = (_rows(split.train.x), _targets(split.train.y)), _rows(split.validation.x)
    everything, network = np.arange(len(watched)), member.layout.network
    outputs = np.empty((len(watched), int(network[2]["outputs"][0])), np.float32)
    for epoch, order in epochs:
        member.rule["lr"] = config.lr * config.schedule(epoch / config.epochs)
        course.curves["train"].append(_epoch(member, kernel, train, order.numpy(), config.batch_size))
        if len(watched):
            kernel.predict(watched, everything, network, member.state[0], member.memory, outputs)
            course.curves["validation"].append(loss(torch.from_numpy(outputs), split.validation.y).item())
        if course.improved(config):
            course.best = copy.deepcopy((member.state, member.rule))
        if course.ended(config):
            break
    if course.best is not None and not course.paused:
        for kept, array in zip((*course.best[0], course.best[1]), (*member.state, member.rule), strict=True):
            array[:] = kept


def _epoch(member: _Member, kernel: ModuleType, train: tuple[Floats, Floats], order: Ints, batch_size: int) -> float:
    """One epoch; returns the mean loss. Where weights are to stay zero, they are silenced after every step."""
    network = member.layout.network
    if not len(member.silent):
        mean: float = kernel.train_epoch(train, order, batch_size, network, member.state, member.rule, member.memory)
        return mean
    total = 0.0
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        mean = kernel.train_epoch(train, some, batch_size, network, member.state, member.rule, member.memory)
        member.silence()
        total += mean * len(some)
    return total / len(order)


@torch.no_grad()
def _unpack(member: _Member, optimiser: torch.optim.Optimizer) -> None:
    """Writes weights, moments and steps back to the parameters and the optimiser's state."""
    weights, _, first, second = member.state
    group = optimiser.param_groups[0]
    group["lr"] = float(member.rule["lr"][0])
    for parameter, place in zip(group["params"], member.layout.places, strict=True):
        parameter.copy_(torch.from_numpy(weights[place]).view_as(parameter))
        if not isinstance(optimiser, torch.optim.SGD):
            optimiser.state[parameter] = {
                "step": torch.tensor(float(member.rule["step"][0])),
                "exp_avg": torch.from_numpy(first[place]).view_as(parameter),
                "exp_avg_sq": torch.from_numpy(second[place]).view_as(parameter),
            }


def _targets(y: Tensor) -> Floats:
    """Numbers, or the number of the class, which float32 holds exactly up to 2**24, a row a sample."""
    return _rows(y.float() if y.is_floating_point() else y.float()[:, None])


def _rows(tensor: Tensor) -> Floats:
    """A row a sample."""
    return tensor.detach().flatten(1).contiguous().numpy()


def _flat(tensor: Tensor) -> Floats:
    return cast(Floats, tensor.detach().reshape(-1).numpy())


def _floats(count: int) -> Floats:
    """Zeros that begin on a cache line."""
    memory = np.zeros(count + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + count]
