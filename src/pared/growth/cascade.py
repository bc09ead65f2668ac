"""Cascade-correlation: units installed one by one and frozen, each trained to follow the error that is left."""

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Generator, Tensor, nn

from pared.growth.candidates import Activation, Objective, pulled, respond, score
from pared.growth.quickprop import Quickprop, quickprop
from pared.types import Batch, DataError


@dataclass(frozen=True)
class CascadeConfig:
    """How a cascade grows; numbers as in cascor1.c of CMU.

    `activation` of units: a sigmoid in (-0.5, 0.5) or exp(-x^2 / 2). `linear` outputs are done at an error index
    RMSE / std(target) of at most `goal`, sigmoid ones (targets of -0.5 and 0.5) once every error is below `goal`.
    `recurrent` gives each unit a trainable loop onto itself (inputs are then sequences). `objective` is what candidates
    maximise, see `pared.growth.candidates.score`.
    """

    max_units: int = 30
    pool: int = 8
    activation: Activation = "sigmoid"
    linear: bool = False
    goal: float = 0.35
    objective: Objective = "covariance"
    recurrent: bool = False
    epochs: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_units < 0 or self.pool < 1 or self.epochs < 1 or self.goal <= 0:
            raise ValueError(
                "max_units must not be negative, pool, epochs and goal must be positive; "
                f"got {self.max_units}, {self.pool}, {self.epochs}, {self.goal}"
            )
        if self.activation not in get_args(Activation) or self.objective not in get_args(Objective):
            raise ValueError(
                f"activation is one of {get_args(Activation)}, objective one of {get_args(Objective)}; "
                f"got {self.activation!r}, {self.objective!r}"
            )


@dataclass(frozen=True)
class CascadeFit:
    """A grown cascade; `errors` are sums of squared errors after each output phase, for 0, 1, 2, ... units."""

    model: "Cascade"
    errors: tuple[float, ...]
    epochs: int
    solved: bool


class Cascade(nn.Module):
    """Outputs that read a 1, the inputs and all units; unit k reads a 1, the inputs and the units before it.

    x (samples, inputs) -> (samples, outputs), or, recurrent, (samples, steps, inputs) -> (samples, steps, outputs) with
    V(t) = f(sum_i w_i I_i(t) + w_s V(t - 1)), V(0) = 0, w_s the last incoming weight. Weights are float64; incoming
    ones are frozen (`requires_grad` is False).
    """

    def __init__(self, inputs: int, outputs: int, activation: Activation, linear: bool, recurrent: bool) -> None:
        super().__init__()
        self.activation, self.linear, self.recurrent = activation, linear, recurrent
        self.incoming = nn.ParameterList()
        self.out = nn.Parameter(torch.zeros(inputs + 1, outputs, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        net = self.values(x) @ self.out
        return net if self.linear else net.sigmoid() - 0.5

    def values(self, x: Tensor) -> Tensor:
        """The 1, the inputs and the units' values, (..., 1 + inputs + units)."""
        x = x.to(self.out.dtype)
        seen = torch.cat([torch.ones_like(x[..., :1]), x], -1)
        for weights in self.incoming:
            unit = respond(seen, weights[:, None], self.activation, self.recurrent)
            seen = torch.cat([seen, unit], -1)
        return seen


def fit_cascade(data: Batch, config: CascadeConfig = CascadeConfig()) -> CascadeFit:
    """Grows a cascade on all of `data` at once: x as `Cascade` reads it, y like its outputs.

    Alternates (A) the output weights by quickprop (rate 0.35 / cases, decay 1e-4) until solved, stagnant for 8 epochs
    within 1 %, or `epochs` are over, and (B) a pool of candidates, drawn from U[-1, 1], by quickprop on `score` (rate
    1 / cases / incoming) until stagnant for 8 epochs within 3 %; the best one is installed for ever. Errors of sigmoid
    outputs are multiplied by f' + 0.1. Linear outputs are solved by least squares at once. Everything is float64; draws
    follow from the seed alone.

    Sources: Fahlman & Lebiere (1990); recurrent: Fahlman (1991). Cost: an epoch of B is a product (cases, incoming) by
    (incoming, pool). Raises DataError for data of another shape, without cases or not finite.
    """
    x, y = _checked(data, config)
    model = Cascade(x.shape[-1], y.shape[-1], config.activation, config.linear, config.recurrent)
    generator = Generator().manual_seed(config.seed)
    errors: list[float] = []
    epochs, solved = 0, False
    with torch.no_grad():
        seen = model.values(x)
        model.out.copy_(2 * torch.rand(model.out.shape, generator=generator, dtype=torch.float64) - 1)
        while True:
            used, left, solved = _train_outputs(model, seen, y, config)
            epochs += used
            errors.append(float((model(x) - y).square().sum()))
            if solved or len(model.incoming) == config.max_units:
                return CascadeFit(model, tuple(errors), epochs, solved)
            used, incoming, outgoing = _train_candidates(seen, left, config, generator)
            epochs += used
            unit = respond(seen, incoming[:, None], config.activation, config.recurrent)
            model.incoming.append(nn.Parameter(incoming, requires_grad=False))
            model.out = nn.Parameter(torch.cat([model.out, outgoing[None]]))
            seen = torch.cat([seen, unit], -1)


def _train_outputs(model: Cascade, seen: Tensor, y: Tensor, config: CascadeConfig) -> tuple[int, Tensor, bool]:
    """Epochs used, the errors (cases, outputs) that candidates are to follow, and whether the goal is met."""
    seen, y = seen.flatten(0, -2), y.flatten(0, -2)
    if config.linear:
        model.out.copy_(torch.linalg.lstsq(seen, y, driver="gelsd").solution)
        left = seen @ model.out - y
        spread = float((y - y.mean(0)).square().sum())
        return 1, left, math.sqrt(float(left.square().sum())) <= config.goal * math.sqrt(spread)
    state, watch = Quickprop.fresh(model.out), _Stagnation(0.01)
    for epoch in range(1, config.epochs + 1):
        out = (seen @ model.out).sigmoid() - 0.5
        wrong = out - y
        left = wrong * (0.35 - out.square())  # the slope of the sigmoid, and 0.1 that keeps saturated outputs learning
        met = bool((wrong.abs() < config.goal).all())
        if met or watch.stagnant(float(wrong.square().sum())):
            return epoch, left, met
        state = quickprop(state, seen.T @ left + 1e-4 * model.out, 0.35 / len(seen))
        model.out.add_(state.step)
    return config.epochs, left, False


def _train_candidates(
    seen: Tensor, left: Tensor, config: CascadeConfig, generator: Generator
) -> tuple[int, Tensor, Tensor]:
    """Epochs used, and the best candidate's incoming and outgoing weights."""
    incoming = seen.shape[-1] + config.recurrent
    weights = 2 * torch.rand((incoming, config.pool), generator=generator, dtype=torch.float64) - 1
    state, watch = Quickprop.fresh(weights), _Stagnation(0.03)
    cases = len(left)
    for epoch in range(1, config.epochs + 1):
        values = respond(seen, weights, config.activation, config.recurrent)
        scores, outgoing, wish = score(values.flatten(0, -2), left, config.objective)
        best = int(scores.argmax())
        if watch.stagnant(float(scores[best])) or epoch == config.epochs:
            break
        pull = pulled(seen, weights, wish.view(values.shape), config.activation, config.recurrent)
        state = quickprop(state, -pull, 1 / (cases * incoming))
        weights = weights + state.step
    return epoch, weights[:, best].clone(), outgoing[best]


class _Stagnation:
    """Says when a value that has moved by more than a share of itself has not done so again for 8 epochs."""

    def __init__(self, share: float) -> None:
        self.share, self.last, self.idle = share, math.nan, -math.inf

    def stagnant(self, value: float) -> bool:
        if math.isnan(self.last):
            self.last = value
        elif abs(value - self.last) > self.share * abs(self.last):
            self.last, self.idle = value, 0
        else:
            self.idle += 1
        return self.idle >= 8


def _checked(data: Batch, config: CascadeConfig) -> Batch:
    x, y = data.x.double(), data.y.double()
    dims = 3 if config.recurrent else 2
    shape = "(samples, steps, columns)" if config.recurrent else "(samples, columns)"
    if x.dim() != dims or y.dim() != dims or x.shape[:-1] != y.shape[:-1] or not len(x):
        raise DataError(f"x and y must both be {shape}, equally many; got {tuple(x.shape)} and {tuple(y.shape)}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise DataError("x or y holds values that are not finite; leave those cases out")
    if not config.linear and bool((y.abs() > 0.5).any()):
        raise DataError("sigmoid outputs lie between -0.5 and 0.5, and so must y; code classes so, or set linear=True")
    return Batch(x, y)
