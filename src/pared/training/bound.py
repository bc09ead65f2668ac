"""Hyperparameters that follow schedules while a network trains: read before every step, written to the private copy."""

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from pared.models import Mollified, MollifiedGRU, MollifiedLSTM, StochasticDepth
from pared.schedules import State, Stateful, check_range
from pared.types import Loss, Schedule

UNFINISHED = 0.05  # of a schedule's way
SHARES: dict[str, tuple[type[nn.Module], ...]] = {
    "p": (nn.modules.dropout._DropoutNd, Mollified, MollifiedLSTM, MollifiedGRU),
    "survival": (StochasticDepth,),
}
"""Attributes that are shares from 0 to 1, and the modules that have them."""


@dataclass(frozen=True)
class Bound:
    """`target` follows `schedule`.

    Targets: "module.attribute" of the network, where the module's name may be a pattern ("*.p" is the rate of all
    dropouts, ".mix" an attribute of the network itself); "loss.attribute" of a loss that is an object (a weight, a
    temperature); an entry of the optimiser ("weight_decay", "momentum"); "length", the share of the newest steps that
    training sees of each sequence (samples, time, ...). Modules must have the attribute as a number.
    """

    target: str
    schedule: Schedule | Stateful

    def __post_init__(self) -> None:
        if not callable(self.schedule) and not isinstance(self.schedule, Stateful):
            raise ValueError(
                f"{self.target!r} must follow a schedule, got {self.schedule!r}; a number is Constant(...)"
            )


class Bindings:
    """The bindings of one training: where values go, and the states of schedules that follow the loss."""

    def __init__(
        self, bound: tuple[Bound, ...], model: nn.Module, loss: Loss, optimiser: torch.optim.Optimizer
    ) -> None:
        self.bound, self.optimiser = bound, optimiser
        self.states: dict[str, State] = {}
        self.length: float | None = None
        self.places = {each.target: list(_places(each.target, model, loss)) for each in bound}
        if len(self.places) < len(bound):
            raise ValueError(f"a target follows one schedule, got {[each.target for each in bound]}")
        for each in bound:
            self._check(each)
        self._check_apart()

    def begin(self, states: Mapping[str, State]) -> None:
        """Schedules that follow the loss start where `states` left them, or afresh."""
        for each in self.bound:
            if isinstance(each.schedule, Stateful):
                self.states[each.target] = states.get(each.target, each.schedule.begin())

    def write(self, progress: float) -> None:
        """All values of this moment to their places."""
        for each in self.bound:
            value = self._value(each, progress)
            if each.target == "length":
                self.length = value
            elif "." in each.target:
                for owner, attribute in self.places[each.target]:
                    setattr(owner, attribute, value)
            else:
                for group in self.optimiser.param_groups:
                    group[each.target] = value

    def follow(self, loss: float) -> None:
        """One more training loss, of one step."""
        for each in self.bound:
            if isinstance(each.schedule, Stateful) and math.isfinite(loss):
                _, self.states[each.target] = each.schedule.step(self.states[each.target], loss)

    def newest(self, x: torch.Tensor) -> torch.Tensor:
        """The newest steps of sequences, as many as "length" says, at least one."""
        if self.length is None:
            return x
        return x[:, -max(1, math.ceil(self.length * x.shape[1] - 1e-9)) :]

    def finish(self, progress: float) -> None:
        """Writes the values that the returned weights had; warns where training ended before a schedule did."""
        self.write(progress)
        for each in self.bound:
            if isinstance(each.schedule, Stateful):
                continue
            way, left = each.schedule(1.0) - each.schedule(0.0), each.schedule(1.0) - each.schedule(progress)
            if abs(left) > UNFINISHED * abs(way) and progress < 1:
                warnings.warn(
                    f"training ended at {progress:.0%} of the schedule of {each.target!r}: the network has its value "
                    f"{each.schedule(progress):.3g}, not the last, {each.schedule(1.0):.3g}; train longer or without "
                    "patience",
                    stacklevel=3,
                )

    def _check_apart(self) -> None:
        taken: dict[tuple[int, str], str] = {}
        for target, places in self.places.items():
            for owner, attribute in places:
                other = taken.setdefault((id(owner), attribute), target)
                if other != target:
                    raise ValueError(f"{other!r} and {target!r} are the same {attribute} of one module; bind it once")

    def _value(self, each: Bound, progress: float) -> float:
        if isinstance(each.schedule, Stateful):
            return each.schedule.value(self.states[each.target])
        return each.schedule(progress)

    def _check(self, each: Bound) -> None:
        if each.target == "length" or "." in each.target:
            if not self.places[each.target]:
                raise ValueError(
                    f"nothing to bind {each.target!r} to: no module of that name has such an attribute that is a number"
                )
        elif each.target == "lr" or not _is_number(self.optimiser.param_groups[0].get(each.target)):
            raise ValueError(
                f"{each.target!r} is no number of the optimiser to bind; write module.attribute, loss.attribute, "
                f"length, or an entry such as weight_decay (the learning rate follows the configuration's own schedule)"
            )
        if not isinstance(each.schedule, Stateful):
            check_range(each.schedule, *_range(each.target, self.places[each.target]), each.target)


def private_loss(loss: Loss, bound: tuple[Bound, ...]) -> Loss:
    """A copy of the loss where a binding writes to it, else the loss."""
    return copy.deepcopy(loss) if any(each.target.startswith("loss.") for each in bound) else loss


def _places(target: str, model: nn.Module, loss: Loss) -> Iterator[tuple[Any, str]]:
    """Objects and attributes that a target names."""
    if target == "length":
        yield None, target
    pattern, _, attribute = target.rpartition(".")
    owners: Mapping[str, Any] = {"loss": loss} if pattern == "loss" else dict(model.named_modules())
    for name, owner in owners.items():
        value = getattr(owner, attribute, None)
        if "." in target and _is_number(value) and fnmatchcase(name, pattern):
            yield owner, attribute


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _range(target: str, places: list[tuple[Any, str]]) -> tuple[float, float]:
    if target in ("length", "momentum") or any(isinstance(owner, SHARES.get(name, ())) for owner, name in places):
        return 0.0, 1.0
    return (0.0, math.inf) if target == "weight_decay" else (-1e300, 1e300)
