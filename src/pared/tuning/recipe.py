"""How a network is made and trained, as data; one change of it; what is to be learnt, as functions of it."""

import math
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared.models.mlp import Activation
from pared.models.recurrent import Cell
from pared.schedules import HALVED, Cosine
from pared.training.fit import TrainConfig, TrainingData
from pared.tuning.checks import same_rows
from pared.types import Batch, Loss


@dataclass(frozen=True)
class Recipe:
    """Everything that rule-based tuning may change: pure data.

    `hidden` are the units of the hidden layers, recurrent ones where `cell` is given. `warm` is the share of the
    training in which the learning rate rises; then it falls as half a cosine, stays, or halves where the validation
    loss stalls. `stop` "best" takes the weights of the epoch with the lowest validation loss. `scale` brings inputs and
    numeric targets to mean 0 and deviation 1 on the training rows, `apart` leaves out training rows that validation
    holds too.
    """

    hidden: tuple[int, ...] = (64,)
    activation: Activation = "relu"
    cell: Cell | None = None
    dropout: float = 0.0
    epochs: int = 100
    lr: float = 1e-3
    batch_size: int = 32
    optimiser: str = "adam"
    weight_decay: float = 0.0
    clip: float | None = None
    schedule: Literal["cosine", "constant", "plateau"] = "cosine"
    warm: float = 0.0
    stop: Literal["last", "best"] = "last"
    scale: bool = False
    apart: bool = False

    def training(self, seed: int) -> TrainConfig:
        """How `fit` is told to train it."""
        return TrainConfig(
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            optimiser=self.optimiser,
            weight_decay=self.weight_decay,
            clip=self.clip,
            schedule=Cosine(end=0.0 if self.schedule == "cosine" else 1.0, warm=self.warm),
            patience=math.inf if self.stop == "best" else None,
            seed=seed,
            plateau=HALVED if self.schedule == "plateau" else None,
        )

    def as_dict(self) -> dict[str, Any]:
        """Field -> value: a plain configuration, from which a search may start."""
        return asdict(self)


FIELDS = frozenset(field.name for field in fields(Recipe))


@dataclass(frozen=True)
class Change:
    """New values of one field of a recipe, or of some that only make sense together: pure data."""

    values: dict[str, Any]

    def of(self, recipe: Recipe) -> Recipe:
        """The changed recipe."""
        return replace(recipe, **self.values)

    def words(self, recipe: Recipe) -> str:
        """In words: "epochs 100 -> 200"."""
        return difference(recipe, self.of(recipe))


def difference(before: Recipe, after: Recipe) -> str:
    """What differs, in words: "epochs 100 -> 200"; empty where nothing does."""
    old, new = before.as_dict(), after.as_dict()
    return ", ".join(f"{name} {_shown(old[name])} -> {_shown(new[name])}" for name in old if old[name] != new[name])


def described(recipe: Recipe) -> str:
    """The main fields, and what else is not as usual, in words."""
    usual, own = Recipe().as_dict(), recipe.as_dict()
    main = ("hidden", "activation" if recipe.cell is None else "cell", "epochs", "lr", "batch_size")
    rest = [name for name in own if name not in (*main, "activation", "stop", "warm") and own[name] != usual[name]]
    return ", ".join(f"{name} {_shown(own[name])}" for name in (*main, *rest))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Prepared:
    """Data as a recipe trains on them; `shift` and `factor` bring its targets back to the given units."""

    train: Batch
    validation: Batch
    shift: Tensor
    factor: Tensor

    def given(self, values: Tensor) -> Tensor:
        """Targets, or outputs that answer them, in the units that the data came in; classes and logits as they are."""
        return values * self.factor + self.shift if values.is_floating_point() else values


@dataclass(frozen=True)
class Problem:
    """What is to be learnt.

    build   recipe, seed -> a freshly initialised network of that recipe;
    split   training and validation data as they came;
    loss    what training minimises, and what recipes are compared by;
    fields  the fields of the recipe that `build` and the data heed: no other is ever changed.
    """

    build: Callable[[Recipe, int], nn.Module]
    split: TrainingData
    loss: Loss = mse_loss
    fields: Collection[str] = FIELDS

    def data(self, recipe: Recipe) -> Prepared:
        """The data as the recipe wants them."""
        train, validation = self.split.train, self.split.validation
        if recipe.apart:
            seen = same_rows(validation, train)
            train = Batch(train.x[~seen], train.y[~seen])
        shift, factor = torch.zeros(()), torch.ones(())
        if recipe.scale:
            enters = moments(train.x)
            train, validation = (Batch(_scaled(x, *enters), y) for x, y in (train, validation))
            if train.y.is_floating_point():
                shift, factor = moments(train.y)
                train, validation = (Batch(x, _scaled(y, shift, factor)) for x, y in (train, validation))
        return Prepared(train, validation, shift, factor)


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every column, 1 for a constant; columns lie along the last axis, of images none.

    Returns: two tensors that fit the values.
    """
    axes = tuple(range(values.ndim - 1)) if 1 < values.ndim <= 3 else tuple(range(values.ndim))
    shift, spread = values.mean(dim=axes), values.std(dim=axes, correction=0)
    return shift, torch.where(spread > 0, spread, 1.0)


def _scaled(values: Tensor, shift: Tensor, factor: Tensor) -> Tensor:
    return (values - shift) / factor if values.is_floating_point() else values
