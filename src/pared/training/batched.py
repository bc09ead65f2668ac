"""Training of many small networks of one shape in step, as rows of a matrix: the mathematics of `fit` for each."""

import copy
import math
import pickle
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pared.models.recurrent import Forecaster
from pared.training.batched_networks import Networks, of_module, of_stack
from pared.training.fit import Fit, TrainConfig, TrainingData, check_data, finite, optimiser_for, sample_orders
from pared.training.stacks import has_hooks, stack_of
from pared.types import Batch, Loss, Masks

WAVE_BYTES = 128 * 2**20  # about what the networks trained in step may take
CHUNK = 512  # samples of each network in one forward pass over validation data


class Member(NamedTuple):
    """One network to train, as `fit` takes it."""

    model: nn.Module
    split: TrainingData
    config: TrainConfig
    resume: Fit | None
    masks: Masks | None = None

    @property
    def start(self) -> nn.Module:
        """The module that training goes on from."""
        return self.resume.model if self.resume else self.model


@torch.no_grad()
def fit(members: Sequence[Member], loss: Loss) -> list[Fit]:
    """`pared.training.fit` for members that `together` finds alike; the rest of their configurations is their own.

    A network that ends early or diverges leaves the others as they are. Losses and gradients differ from the loop's,
    and with the number of members, by float32 rounding.
    """
    for member in members:
        check_data(member.split, member.config)
    started = time.perf_counter()
    fleet = _Fleet(members, loss)
    while fleet.rows:
        fleet.epoch()
    seconds = (time.perf_counter() - started) / len(members)
    return [fleet.fit(index, seconds) for index in range(len(members))]


def together(member: Member) -> Any:
    """What members must have in common to be trained in step."""
    parts, config, model = member.split, member.config, member.start
    stack = stack_of(model)
    network = (stack.kind, stack.activations, stack.flattens) if stack else _description(model)
    weights = tuple((name, tuple(weight.shape)) for name, weight in model.named_parameters())
    data = tuple((tuple(tensor.shape), tensor.dtype) for part in (parts.train, parts.validation) for tensor in part)
    return type(model), network, weights, data, config.batch_size, config.optimiser


def most_at_once(member: Member) -> int:
    """How many networks like it to train in step: enough to be worth it, in bounded memory."""
    model, x = member.start, member.split.train.x
    weights, samples = sum(weight.numel() for weight in model.parameters()), min(member.config.batch_size, len(x))
    window = x.shape[1] if isinstance(model, Forecaster) else 1
    rows = sum(weight.shape[0] for weight in model.parameters() if weight.ndim) * window
    floats = 6 * weights + rows * samples
    return min(128, max(16, WAVE_BYTES // (4 * floats)))


def _description(model: nn.Module) -> bytes:
    """All of a module but for its weights."""
    return pickle.dumps(copy.deepcopy(model).to("meta"))


def cannot_follow(member: Member, loss: Loss) -> str | None:
    """Why a member's module cannot be trained in step with others; None where it can, which is tried on two samples."""
    model = member.start
    weights = list(model.parameters())
    if not weights or any(not weight.requires_grad for weight in weights):
        return "not all of its weights are trained"
    if len({(weight.dtype, weight.device) for weight in weights}) > 1 or weights[0].device.type != "cpu":
        return "its weights are not of one type on the CPU"
    if any(True for _ in model.buffers()):
        return "it has buffers, which training may change"
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        return "it has recurrent layers that torch.func is slow to follow"
    if any(has_hooks(module) for module in model.modules()):
        return "it has hooks"
    x, y = (part[:2] for part in member.split.train)
    own = torch.cat([weight.detach().flatten() for weight in weights])
    try:
        _description(model)
        _, found = of_module(model, loss).gradient(own.repeat(2, 1), torch.stack([x, x]), torch.stack([y, y]))
        twin = copy.deepcopy(model).train()
        with torch.enable_grad():
            value = loss(twin(x), y)
            expected = torch.autograd.grad(value, list(twin.parameters()))
    except Exception as error:
        return f"torch.func cannot follow it: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    gradient = torch.cat([part.flatten() for part in expected])
    same = torch.allclose(found[0], gradient, rtol=1e-3, atol=1e-5, equal_nan=True)
    return None if same else "torch.func finds another gradient"


class _Fleet:
    """The state of training: a row of weights and moments for each member under way."""

    def __init__(self, members: Sequence[Member], loss: Loss) -> None:
        self.members, self.loss = members, loss
        self.models = [copy.deepcopy(member.start) for member in members]
        self.optimisers = [
            optimiser_for(model, m.config, m.resume) for model, m in zip(self.models, members, strict=True)
        ]
        self.networks = _networks(self.models[0], loss)
        self.rows = list(range(len(members)))  # the members under way, in the order of the rows below
        self.train = _stacked([member.split.train for member in members])
        self.watched = _stacked([member.split.validation for member in members])
        self.state = torch.stack([_packed(optimiser) for optimiser in self.optimisers], 1)
        self.steps = torch.tensor([_steps_of(optimiser) for optimiser in self.optimisers], dtype=torch.float64)
        self.orders = [sample_orders(self.train.x.shape[1], member.config) for member in members]
        self.curves: list[dict[str, list[float]]] = [{"train": [], "validation": []} for _ in members]
        self.best: dict[int, tuple[float, int, Tensor, Tensor]] = {}  # loss, epoch, state, step
        self.done: dict[int, tuple[Tensor, Tensor]] = {}

    def epoch(self) -> None:
        """One epoch of every member under way; those that are through leave."""
        configs = [self.members[index].config for index in self.rows]
        epochs = [len(self.curves[index]["train"]) for index in self.rows]
        rule = _Rule.of(configs, epochs)
        order = torch.stack([next(self.orders[index]) for index in self.rows])
        row = torch.arange(len(self.rows))[:, None]
        total = torch.zeros(len(self.rows), dtype=torch.float64)
        for some in torch.split(order, configs[0].batch_size, dim=1):
            losses, gradient = self.networks.gradient(self.state[0], self.train.x[row, some], self.train.y[row, some])
            self.steps += 1
            rule.step(self.state, gradient, self.steps)
            total += losses.double() * some.shape[1]
        for index, value in zip(self.rows, (total / order.shape[1]).tolist(), strict=True):
            self.curves[index]["train"].append(value)
        if self.watched.x.shape[1]:
            for index, value in zip(self.rows, self._watched().tolist(), strict=True):
                self.curves[index]["validation"].append(value)
        self._leave([place for place, index in enumerate(self.rows) if self._is_through(place, index)])

    def _watched(self) -> Tensor:
        total = torch.zeros(len(self.rows), dtype=torch.float64)
        for x, y in zip(*(torch.split(part, CHUNK, dim=1) for part in self.watched), strict=True):
            losses = torch.vmap(self.loss)(self.networks.outputs(self.state[0], x), y)
            total += losses.double() * x.shape[1]
        return total / self.watched.x.shape[1]

    def _is_through(self, place: int, index: int) -> bool:
        config, curves = self.members[index].config, self.curves[index]
        epoch = len(curves["train"]) - 1
        if not finite(curves):
            return True
        if config.patience is not None:
            value, (least, when) = curves["validation"][-1], self.best.get(index, (math.inf, 0))[:2]
            if value < least:
                self.best[index] = value, epoch, self.state[:, place].clone(), self.steps[place].clone()
            elif epoch - when >= config.patience:
                return True
        return epoch == config.epochs - 1

    def _leave(self, places: Sequence[int]) -> None:
        for place in places:
            index = self.rows[place]
            own = self.state[:, place].clone(), self.steps[place].clone()
            self.done[index] = self.best[index][2:] if index in self.best else own
        stay = [place for place in range(len(self.rows)) if place not in set(places)]
        if places:
            self.rows = [self.rows[place] for place in stay]
            self.state, self.steps = self.state[:, stay].contiguous(), self.steps[stay]
            self.train, self.watched = (Batch(part.x[stay], part.y[stay]) for part in (self.train, self.watched))

    def fit(self, index: int, seconds: float) -> Fit:
        """A member's result."""
        optimiser, config = self.optimisers[index], self.members[index].config
        state, step = self.done[index]
        last = self.best[index][1] if index in self.best else len(self.curves[index]["train"]) - 1
        optimiser.param_groups[0]["lr"] = config.lr * config.schedule(last / config.epochs)
        _unpack(optimiser, state, float(step))
        curves = {name: tuple(values) for name, values in self.curves[index].items()}
        return Fit(self.models[index], optimiser.state_dict(), curves, config.seed, seconds)


def _stacked(batches: Sequence[Batch]) -> Batch:
    return Batch(*(torch.stack(parts).detach() for parts in zip(*batches, strict=True)))


def _networks(model: nn.Module, loss: Loss) -> Networks:
    stack = stack_of(model)
    return of_module(model, loss) if stack is None else of_stack(stack, loss)


class _Rule(NamedTuple):
    """What a step does, each member by its own numbers (members, 1)."""

    optimiser: str
    lr: Tensor
    decay: Tensor
    clip: Tensor | None

    @staticmethod
    def of(configs: Sequence[TrainConfig], epochs: Sequence[int]) -> "_Rule":
        rates = [c.lr * c.schedule(epoch / c.epochs) for c, epoch in zip(configs, epochs, strict=True)]
        clips = [math.inf if c.clip is None else c.clip for c in configs]
        lr, decay, clip = (
            torch.tensor(values, dtype=torch.float64)[:, None]
            for values in (rates, [c.weight_decay for c in configs], clips)
        )
        return _Rule(configs[0].optimiser, lr, decay, clip if clip.isfinite().any() else None)

    def step(self, state: Tensor, gradient: Tensor, steps: Tensor) -> None:
        """One step of Adam, AdamW or gradient descent on `state` = (weights, first, second moment)."""
        weights, first, second = state
        if self.clip is not None:
            gradient *= (self.clip / (gradient.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0).to(gradient)
        if self.decay.any():
            if self.optimiser == "adamw":
                weights *= (1 - self.lr * self.decay).to(weights)
            else:
                gradient.addcmul_(weights, self.decay.to(weights))
        if self.optimiser == "sgd":
            weights.addcmul_(gradient, -self.lr.to(weights))
            return
        beta1, beta2, eps = 0.9, 0.999, 1e-8
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root, size = (1 - beta2 ** steps[:, None]).sqrt(), -self.lr / (1 - beta1 ** steps[:, None])
        scale = second.sqrt().div_(root.to(weights)).add_(eps)
        weights.addcmul_(first / scale, size.to(weights))


def _packed(optimiser: torch.optim.Optimizer) -> Tensor:
    """(3, weights): weights, first and second moments of a network in one row each."""
    parameters = optimiser.param_groups[0]["params"]
    states = [optimiser.state.get(parameter) or {} for parameter in parameters]
    rows = [[parameter.detach() for parameter in parameters]]
    for name in ("exp_avg", "exp_avg_sq"):
        rows.append([state.get(name, torch.zeros_like(p)) for state, p in zip(states, parameters, strict=True)])
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def _steps_of(optimiser: torch.optim.Optimizer) -> float:
    return max((float(state["step"]) for state in optimiser.state.values() if state), default=0.0)


def _unpack(optimiser: torch.optim.Optimizer, state: Tensor, step: float) -> None:
    """Writes weights, moments and steps back to the parameters and the optimiser's state."""
    start = 0
    for parameter in optimiser.param_groups[0]["params"]:
        weights, first, second = (row[start : start + parameter.numel()].view_as(parameter) for row in state)
        parameter.copy_(weights)
        if not isinstance(optimiser, torch.optim.SGD):
            moments = {"exp_avg": first.clone(), "exp_avg_sq": second.clone()}
            optimiser.state[parameter] = {"step": torch.tensor(step), **moments}
        start += parameter.numel()
