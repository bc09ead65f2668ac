"""What a criterion's scores remove from one network, units or weights, and the least-squares repair of what is left."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pared import criteria
from pared.compensate import Refit, refits, refitted_copy
from pared.data.batches import example
from pared.masks import mask_weights, select_weights
from pared.reconstruct import refit_layers
from pared.selection import Count, select
from pared.signals import check_masks, prunable
from pared.surgery import Plan, Structure, by_unit, cut, trace
from pared.training import Fit
from pared.types import Batch, Criterion, Loss, Masks, Scores


class Removed(NamedTuple):
    """A network after a removal, as it is and repaired; `resume` is where a training of the repaired one starts."""

    plain: nn.Module
    repaired: nn.Module
    resume: Fit | None


class Removal(Protocol):
    """One network of which something is removed; `shapes` says what is scored, by name."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...
    def scores(self, criterion: Criterion) -> Scores: ...
    def at_random(self, seed: int) -> Scores: ...
    def remove(self, scores: Scores, ratio: float) -> Removed: ...


@dataclass(frozen=True)
class Units:
    """Units of a network: the same share goes from every group that no pattern of `keep` names."""

    model: nn.Module
    batch: Batch
    loss: Loss
    keep: tuple[str, ...] = ()

    @cached_property
    def structure(self) -> Structure:
        """What can be cut."""
        return trace(self.model, example(self.batch.x))

    @cached_property
    def _refits(self) -> Callable[[Plan], Sequence[Refit]]:
        return refits(self.model, self.structure, self.batch.x, groups=self.shapes)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Group -> its number of units."""
        cut_ = (group for group in self.structure if not any(fnmatchcase(group.name, each) for each in self.keep))
        return {group.name: (group.width,) for group in cut_}

    def scores(self, criterion: Criterion) -> Scores:
        """Scores of units, those of weights reduced by `by_unit`. Raises ValueError for scores of other things."""
        found = criterion(self.model, self.batch, self.loss)
        if not any(name in self.structure for name in found):
            found = by_unit(found, self.structure)
        own = {name: found[name] for name in self.shapes if name in found and found[name].dim()}
        if not own:
            raise ValueError(_other(found, "units"))
        return own

    def at_random(self, seed: int) -> Scores:
        """The yardstick's scores."""
        found = criteria.random(self.model, self.batch, self.loss, seed=seed)
        return {name: found[name] for name in self.shapes}

    def remove(self, scores: Scores, ratio: float) -> Removed:
        """The lowest-scored units of every group go; repaired as `compensate` does. Raises ValueError as `select`."""
        plan = select(scores, self.structure, ratio, keep=self.keep)
        repaired = refitted_copy(self.model, self._refits(plan))
        return Removed(cut(self.model, self.structure, plan), cut(repaired, self.structure, plan), None)


@dataclass(frozen=True)
class Weights:
    """Weights of a network: the same share of every weight matrix becomes zero, all but one at most; biases stay."""

    model: nn.Module
    batch: Batch
    loss: Loss

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Parameter -> its shape."""
        return prunable(self.model).shapes

    def scores(self, criterion: Criterion) -> Scores:
        """Scores of weights. Raises ValueError for scores of other things."""
        found = criterion(self.model, self.batch, self.loss)
        own = {name: found[name] for name in self.shapes if name in found}
        if not own:
            raise ValueError(_other(found, "weights"))
        return own

    def at_random(self, seed: int) -> Scores:
        """The yardstick's scores."""
        return criteria.random(self.model, self.batch, self.loss, seed=seed, of="weights")

    def remove(self, scores: Scores, ratio: float) -> Removed:
        """The lowest-scored weights of every parameter go; repaired by `reconstruct.refit_layers`.

        Raises ValueError where that are none.
        """
        counts = {name: min(round(ratio * values.numel()), values.numel() - 1) for name, values in scores.items()}
        gone = {name: Count(count) for name, count in counts.items() if count > 0}
        if not gone:
            raise ValueError(f"a share of {ratio:g} removes nothing from so few weights; ask for more")
        masks = {name: select_weights({name: scores[name]}, count)[name] for name, count in gone.items()}
        repaired = refit_layers(self.model, self.batch, self.loss, masks).model
        return Removed(mask_weights(self.model, masks), repaired, held_at_zero(repaired, masks))


def _other(found: Mapping[str, Tensor], wanted: str) -> str:
    """Why scores of other things are of no use."""
    if any(values.dim() == 0 for values in found.values()):
        return f"it scores whole layers, not {wanted}"
    names = ", ".join(map(repr, list(found)[:3])) or "nothing"
    return f"it scores no {wanted} of this network; its scores are of {names}"


def held_at_zero(model: nn.Module, masks: Masks) -> Fit:
    """Where a training by Adam starts that leaves the weights outside `masks` at zero, in a fleet as well as alone.

    Their second moment is infinite, so that every step of theirs is 0; all others train as under `fit(masks=...)`.
    Raises: ValueError for masks that do not fit the parameters.
    """
    parameters = dict(model.named_parameters())
    check_masks({name: parameter.detach() for name, parameter in parameters.items()}, masks)
    state = {}
    for place, (name, parameter) in enumerate(parameters.items()):
        second = torch.zeros_like(parameter.detach())
        if name in masks:
            second = second.masked_fill(~masks[name].to(second.device), torch.inf)
        state[place] = {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(second), "exp_avg_sq": second}
    return Fit(mask_weights(model, masks), {"state": state}, {}, seed=0, seconds=0.0)
