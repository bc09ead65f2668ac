"""Training of one network: a plain loop, deterministic for a seed, that leaves its arguments alone."""

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared.schedules import Cosine, Plateau, State, Stateful, check_range
from pared.training.bound import Bindings, Bound, private_loss
from pared.training.masked import keep_silent
from pared.types import Batch, Loss, Masks, Schedule

NEVER = Plateau(1.0, factor=1.0)
OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class TrainingData(Protocol):
    """What `fit` reads of a split."""

    @property
    def train(self) -> Batch: ...
    @property
    def validation(self) -> Batch: ...


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained: pure data.

    The learning rate of epoch e is `lr * schedule(e / epochs)`, times what `plateau` makes of the validation losses so
    far (of the training losses where there are no validation data). `clip` bounds the norm of the whole gradient. With
    `patience` training ends when the validation loss has not improved for so many epochs (infinity: never), and the
    best epoch's weights are returned; without it the last epoch's. What is `bound` follows its schedule from step to
    step: dropout, weight decay, a loss's weight, any number that is an attribute of a module (see `Bound`).
    """

    epochs: int = 150
    lr: float = 1e-2
    batch_size: int = 64
    optimiser: str = "adam"
    weight_decay: float = 0.0
    clip: float | None = None
    schedule: Schedule = field(default_factory=Cosine)
    patience: float | None = None
    seed: int = 0
    bound: tuple[Bound, ...] = ()
    plateau: Plateau | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.lr <= 0:
            raise ValueError(
                f"epochs, batch_size and lr must be positive, got {self.epochs}, {self.batch_size}, {self.lr}"
            )
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"unknown optimiser {self.optimiser!r}; choose one of {', '.join(OPTIMISERS)}")
        if isinstance(self.schedule, Stateful):
            raise ValueError(
                f"a learning rate that follows the loss is given by plateau=, got {self.schedule} as schedule"
            )
        if not isinstance(self.bound, tuple):
            raise ValueError(f"bound is a tuple of Bound, got {self.bound!r}; write bound=(Bound(...),)")


@dataclass(frozen=True)
class Midway:
    """What a training that paused needs besides its `Fit` to go on as if it had not.

    How many epochs are made, the state of the random numbers, and with patience the best epoch, its validation loss,
    and the states of network and optimiser then.
    """

    epochs: int
    random: Tensor
    best_loss: float = math.inf
    best_epoch: int = 0
    best: tuple[dict[str, Any], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Fit:
    """A trained network and how it got there.

    `curves` holds the loss per epoch under "train" and "validation" (empty without validation data). `states`
    are those of schedules that follow the loss, by target ("lr": the plateau's); `resume` goes on from them. Where
    training paused, `midway` says what else is needed to complete it.
    """

    model: nn.Module
    optimiser_state: dict[str, Any]
    curves: dict[str, tuple[float, ...]]
    seed: int
    seconds: float
    states: Mapping[str, State] = field(default_factory=dict)
    midway: Midway | None = None

    @property
    def diverged(self) -> bool:
        """Whether training ended in a loss, on either kind of data, that is not a finite number."""
        return not finite(self.curves)


def finite(curves: Mapping[str, Sequence[float]]) -> bool:
    """Whether the last losses are finite numbers."""
    return all(math.isfinite(curve[-1]) for curve in curves.values() if curve)


def fit(
    model: nn.Module,
    split: TrainingData,
    config: TrainConfig,
    loss: Loss = mse_loss,
    resume: Fit | None = None,
    masks: Masks | None = None,
    pause: float = math.inf,
) -> Fit:
    """Trains a copy of `model` on `split.train` and watches `split.validation`.

    The order of samples and any dropout follow from `config.seed` alone; the global random state is as it was.
    `resume` goes on from an earlier fit of the same shape with its optimiser's state (its weights replace the model's);
    after a cut or an insertion: `dataclasses.replace(fit, model=small, optimiser_state=pared.carry(...))`.
    Weights that `masks` silences are zero from the first step on, and their moments in the optimiser with them.
    Training that comes to a loss that is not finite stops at once; the result says `diverged`.
    After `pause` seconds training stops at the end of an epoch; the result has `midway`, and the same call with
    `resume` goes on to what would have come without the pause, bit by bit.

    Returns a `Fit`. Cost: epochs * ceil(samples / batch_size) steps. Raises ValueError on an empty training set, on
    `patience` without validation data, on a batch of one where batch normalisation needs more, on masks that do not fit
    the model, and on bindings without a place or out of range. Warns where training ends before a bound schedule does.
    """
    check_data(split, config)
    check_batches(resume.model if resume else model, split.train.x, config)
    started = time.perf_counter()
    model = copy.deepcopy(resume.model if resume else model)
    optimiser = optimiser_for(model, config, resume)
    loss = private_loss(loss, config.bound)
    bindings = Bindings(config.bound, model, loss, optimiser)
    bindings.begin(resume.states if resume else {})
    slowing = config.plateau or NEVER
    state = (resume and resume.states.get("lr")) or slowing.begin()
    if masks:
        keep_silent(model, optimiser, masks)
    course = course_of(resume)
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if resume and resume.midway:
            torch.set_rng_state(resume.midway.random)
        for epoch, order in course.left(split, config, started + pause):
            for group in optimiser.param_groups:
                group["lr"] = config.lr * config.schedule(epoch / config.epochs) * slowing.value(state)
            course.curves["train"].append(_epoch(model, split.train, order, config, loss, bindings, epoch))
            bindings.write((epoch + 1) / config.epochs)
            if len(split.validation.x):
                course.curves["validation"].append(evaluate_loss(model, split.validation, loss))
            if course.improved(config):
                course.best = copy.deepcopy((model.state_dict(), optimiser.state_dict()))
            if config.plateau and finite(course.curves):
                _, state = slowing.step(state, (course.curves["validation"] or course.curves["train"])[-1])
            if course.ended(config):
                break
        random = torch.get_rng_state()
    if course.best is not None and not course.paused:
        model.load_state_dict(course.best[0])
        optimiser.load_state_dict(course.best[1])
    if not course.paused:
        bindings.finish((course.epochs if course.best is None else course.best_epoch + 1) / config.epochs)
    for module, training in modes:
        module.training = training
    return Fit(
        model=model,
        optimiser_state=optimiser.state_dict(),
        curves={name: tuple(values) for name, values in course.curves.items()},
        seed=config.seed,
        seconds=time.perf_counter() - started + course.seconds,
        states=bindings.states | ({"lr": state} if config.plateau else {}),
        midway=course.midway(random, course.best),
    )


@dataclass
class Course:
    """How far a training has come: its losses, its best epoch, and what the network was then, as an engine keeps it."""

    curves: dict[str, list[float]]
    seconds: float = 0.0
    best_loss: float = math.inf
    best_epoch: int = 0
    best: Any = None
    paused: bool = False

    @property
    def epochs(self) -> int:
        """How many are made."""
        return len(self.curves["train"])

    def left(self, split: TrainingData, config: TrainConfig, until: float) -> Iterator[tuple[int, Tensor]]:
        """The epochs to come with their orders of samples, one at least; `until` is when to pause."""
        begun = self.epochs
        for epoch, order in enumerate(sample_orders(len(split.train.x), config)):
            if epoch < begun:
                continue
            if epoch > begun and time.perf_counter() > until:
                self.paused = True
                return
            yield epoch, order

    def improved(self, config: TrainConfig) -> bool:
        """Whether the last epoch is the best so far, where `patience` asks for it."""
        if config.patience is None or not self.curves["validation"][-1] < self.best_loss or not finite(self.curves):
            return False
        self.best_loss, self.best_epoch = self.curves["validation"][-1], self.epochs - 1
        return True

    def ended(self, config: TrainConfig) -> bool:
        """Whether training diverged, or patience is at its end."""
        waited = self.epochs - 1 - self.best_epoch
        return not finite(self.curves) or (config.patience is not None and 0 < waited >= config.patience)

    def midway(self, random: Tensor, best: tuple[dict[str, Any], dict[str, Any]] | None) -> Midway | None:
        """What a training that paused needs; None for one that came to its end."""
        return Midway(self.epochs, random, self.best_loss, self.best_epoch, best) if self.paused else None


def course_of(resume: Fit | None) -> Course:
    """A new course, or the one of a training that paused."""
    if resume is None or resume.midway is None:
        return Course({"train": [], "validation": []})
    then = resume.midway
    curves = {name: list(values) for name, values in resume.curves.items()}
    return Course(curves, resume.seconds, then.best_loss, then.best_epoch, then.best)


def check_data(split: TrainingData, config: TrainConfig) -> None:
    """Raises ValueError where a split cannot be trained on."""
    if len(split.train.x) == 0:
        raise ValueError("the training set is empty; give fit at least one example")
    if config.patience is not None and len(split.validation.x) == 0:
        raise ValueError("patience watches the validation loss, and there are no validation data; leave patience out")
    check_range(config.schedule, 0.0, math.inf, "the learning rate")
    if split.train.x.dim() < 3 and any(each.target == "length" for each in config.bound):
        raise ValueError(
            f"'length' cuts the steps of sequences (samples, time, ...), got {tuple(split.train.x.shape)}; leave it out"
        )


def check_batches(model: nn.Module, x: Tensor, config: TrainConfig) -> None:
    """Raises ValueError where training would come to a batch of one over which batch normalisation cannot be done.

    Tried on one example, as images have many values a channel even so.
    """
    normalises = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    if not normalises or 1 not in (config.batch_size, len(x) % config.batch_size):
        return
    trial = copy.deepcopy(model).train()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            trial(x[:1])
    except ValueError as error:
        raise ValueError(
            f"{len(x)} examples in batches of {config.batch_size} leave a batch of one, on which this network cannot "
            f"be trained: {error}; choose another batch_size"
        ) from error


def optimiser_for(model: nn.Module, config: TrainConfig, resume: Fit | None) -> torch.optim.Optimizer:
    """A fresh optimiser as configured; `resume` gives it its moments, not its learning rate or weight decay."""
    kind: type[Any] = OPTIMISERS[config.optimiser]
    optimiser: torch.optim.Optimizer = kind(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    if resume:
        own = optimiser.state_dict()["param_groups"]
        state = copy.deepcopy(resume.optimiser_state["state"])
        optimiser.load_state_dict({"state": state, "param_groups": own})
    return optimiser


def is_plain(resume: Fit | None, config: TrainConfig) -> bool:
    """Whether an optimiser's state, which may come from elsewhere, is none, or Adam's at one step of all parameters."""
    states = [state for state in resume.optimiser_state["state"].values() if state] if resume else []
    if not states:
        return True
    return (
        resume is not None
        and config.optimiser != "sgd"
        and len(states) == len(list(resume.model.parameters()))
        and all(state.keys() == {"step", "exp_avg", "exp_avg_sq"} for state in states)
        and len({float(state["step"]) for state in states}) == 1
    )


def sample_orders(count: int, config: TrainConfig) -> Iterator[Tensor]:
    """The order of samples in each epoch, from the seed alone; every engine reads the same one."""
    generator = torch.Generator().manual_seed(config.seed)
    for _ in range(config.epochs):
        yield torch.randperm(count, generator=generator)


def _epoch(
    model: nn.Module,
    batch: Batch,
    order: Tensor,
    config: TrainConfig,
    loss: Loss,
    bindings: Bindings,
    epoch: int,
) -> float:
    model.train()
    optimiser = bindings.optimiser
    total = torch.zeros((), dtype=torch.float64)
    parameters = list(model.parameters())
    steps = torch.split(order.to(batch.x.device), config.batch_size)
    for step, index in enumerate(steps):
        bindings.write((epoch + step / len(steps)) / config.epochs)
        optimiser.zero_grad(set_to_none=True)
        value = loss(model(bindings.newest(batch.x[index])), batch.y[index])
        value.backward()  # type: ignore[no-untyped-call]
        if config.clip is not None:
            nn.utils.clip_grad_norm_(parameters, config.clip)
        optimiser.step()
        total += value.detach().cpu().double() * len(index)
        if bindings.states:
            bindings.follow(value.item())
    return total.item() / len(order)


@torch.no_grad()
def evaluate_loss(model: nn.Module, batch: Batch, loss: Loss = mse_loss, chunk: int = 4096) -> float:
    """Mean loss over a batch, in evaluation mode, in chunks; NaN where the batch is empty. The mode is restored."""
    if len(batch.x) == 0:
        return math.nan
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        chunks = zip(torch.split(batch.x, chunk), torch.split(batch.y, chunk), strict=True)
        parts = [loss(model(x), y).item() * len(x) for x, y in chunks]
    finally:
        for module, training in modes:
            module.training = training
    return sum(parts) / len(batch.x)
