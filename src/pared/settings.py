"""What a run is told: everything that decides its result but the data, for a series and for a table."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal, get_args

from pared import criteria
from pared.cutting import Cutting, Layers, Units, Weights, What
from pared.data import Framing, Series, resolve_predict
from pared.data.examples import TableTask
from pared.evaluation import CLASSIFICATION, FORECASTING, REGRESSION, Task
from pared.models import MLP, Forecaster
from pared.models.mlp import Activation
from pared.models.recurrent import Cell, Init
from pared.outcomes import label
from pared.schedules import HALVED, Cosine
from pared.selection import Ratio, Rule, Scope, Threshold
from pared.sizes import Bisection, LayerByLayer, OneByOne, Search
from pared.study import StudySettings
from pared.targets import Mixed, Soft, Teaching
from pared.training import TrainConfig
from pared.types import Criterion, DataError

Predict = Literal["values", "increments", "auto"]
USUAL = {"units": "taylor", "weights": "obd", "layers": "replaceability"}
"""The criterion for what is removed where none is named."""
Decay = Literal["cosine", "constant", "plateau"]
"""How the learning rate goes on after the warm-up: down to 0, as it is, or halved where the validation loss stalls."""
Optimiser = Literal["adam", "adamw", "sgd"]
"""What trains: with adamw the weight decay is decoupled; sgd is without momentum."""

Refitting = Literal["plain", "distill"]
"""What a network learns from after a cut: the truth alone, or what the uncut one gives, too."""


@dataclass(frozen=True, kw_only=True)
class Settings(ABC):
    """What every kind of run is told, and what follows from it.

    `refit_epochs` 0 is a fifth of `epochs`, half of them where layers go; `margin` None is the task's own: 5 % of the
    error, or a point of accuracy.
    """

    epochs: int = 300
    refit_epochs: int = 0
    lr: float = 1e-2
    refit_lr: float = 3e-3
    batch_size: int = 64
    weight_decay: float = 0.0
    clip: float | None = None
    schedule: Decay = "cosine"
    dropout: float = 0.0
    refit: Refitting = "plain"
    optimiser: Optimiser = "adam"
    seed: int = 0
    seeds: int = 2
    what: What = "units"
    criterion: str = "auto"
    ratios: tuple[float, ...] | Literal["search"] = "search"
    thresholds: tuple[float, ...] = ()
    scope: Scope = "global"
    keep: tuple[str, ...] = ()
    margin: float | None = 0.05
    level: float = 0.95
    quick: bool = False

    @property
    @abstractmethod
    def task(self) -> Task:
        """What the networks predict."""

    def check(self) -> None:
        """Raises DataError for values that cannot be."""
        if self.what not in get_args(What):
            raise DataError(f"unknown {self.what!r}; choose one of {', '.join(get_args(What))}")
        if self.criterion not in ("auto", *criteria.__all__):
            raise DataError(f"unknown criterion {self.criterion!r}; choose one of auto, {', '.join(criteria.__all__)}")
        if self.refit not in get_args(Refitting):
            raise DataError(f"unknown refit {self.refit!r}; choose one of {', '.join(get_args(Refitting))}")
        if self.what == "layers" and self.scope != "global":
            raise DataError("whole layers are ranked with each other alone; leave scope away")
        if self.what == "layers" and self.thresholds:
            raise DataError("whole layers go by their order; leave thresholds away")
        if self.seeds < 1 or self.seed < 0:
            raise DataError(f"there must be at least 1 seed, from 0 on; got seeds={self.seeds}, seed={self.seed}")
        if self.margin is not None and not 0 < self.margin < (math.inf if self.task.scale == "log" else 1):
            allows = "finite (0.05 allows 5 % more error)"
            if self.task.scale == "linear":
                allows = "below 1 (0.01 allows one point less accuracy)"
            raise DataError(f"the margin must be positive and {allows}, got {self.margin}")
        if not all(map(math.isfinite, (self.lr, self.refit_lr, *self.thresholds))):
            raise DataError(f"learning rate and thresholds must be finite, got {self.lr} and {self.thresholds}")
        self._check_regularisation()
        try:
            self._check_rules()
            self.refitting  # noqa: B018  (checks its numbers)
        except ValueError as error:
            raise DataError(str(error)) from error

    def _check_regularisation(self) -> None:
        if not 0 <= self.weight_decay < math.inf or not 0 < (1 if self.clip is None else self.clip) < math.inf:
            raise DataError(
                f"weight decay must be finite and not negative, clip finite and positive, got {self.weight_decay} and "
                f"{self.clip}"
            )
        if self.optimiser not in get_args(Optimiser):
            raise DataError(f"unknown optimiser {self.optimiser!r}; choose one of {', '.join(get_args(Optimiser))}")
        if not 0 <= self.dropout < 1 or self.schedule not in get_args(Decay):
            raise DataError(
                f"dropout must be a share below 1 and schedule one of {', '.join(get_args(Decay))}, got "
                f"{self.dropout} and {self.schedule!r}"
            )

    def _check_rules(self) -> None:
        labels = [label(rule) for rule in self.rules]
        if not labels:
            raise DataError("there is nothing to try; give at least one ratio or threshold")
        if len(set(labels)) < len(labels):
            raise DataError(f"ratios and thresholds must differ, got {', '.join(labels)}")

    @property
    def rules(self) -> tuple[Rule | Search, ...]:
        """What is tried, in order."""
        search: dict[str, Search] = {
            "units": LayerByLayer() if self.scope == "group" else Bisection(),
            "weights": Bisection(tolerance=1 / 32),  # most of them may go, so that a sixteenth would be coarse
            "layers": OneByOne(),
        }
        ratios: Iterable[Rule | Search] = (search[self.what],) if self.ratios == "search" else map(Ratio, self.ratios)
        return (*ratios, *map(Threshold, self.thresholds))

    @property
    def cutting(self) -> Cutting:
        """What the networks lose, and how."""
        criterion: Criterion = getattr(criteria, USUAL[self.what] if self.criterion == "auto" else self.criterion)
        if self.what == "layers":
            return Layers(criterion, self.keep)
        if self.what == "weights":
            return Weights(criterion, "layer" if self.scope == "group" else "global", self.keep)
        return Units(criterion, self.scope, self.keep)

    @property
    def training(self) -> TrainConfig:
        """How the full network is trained; without the warm-up some networks of smooth flows never learn anything."""
        return TrainConfig(
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            optimiser=self.optimiser,
            weight_decay=self.weight_decay,
            clip=self.clip,
            schedule=Cosine(end=0.0 if self.schedule == "cosine" else 1.0, warm=0.1),
            patience=math.inf,
            plateau=HALVED if self.schedule == "plateau" else None,
        )

    @property
    def refitting(self) -> TrainConfig:
        """How a network is trained on after a cut."""
        share = 0.5 if self.what == "layers" else 0.2  # a layer that is gone takes longer to make up for
        epochs = self.refit_epochs or max(1, round(share * self.epochs))
        return replace(self.training, epochs=epochs, lr=self.refit_lr, schedule=Cosine(), plateau=None)

    @property
    def teaching(self) -> Teaching | None:
        """How the uncut network teaches the cut one, where it does."""
        if self.refit == "plain":
            return None
        return Soft() if self.task is CLASSIFICATION else Mixed()

    @property
    def resolved(self) -> dict[str, Any]:
        """What follows from the fields, as the record's settings hold it."""
        return {
            "refit_epochs": self.refitting.epochs,
            "seeds": list(range(self.seed, self.seed + self.seeds)),
            "criterion": USUAL[self.what] if self.criterion == "auto" else self.criterion,
            "candidates": [label(rule) for rule in self.rules],
            "margin": self.study.yardstick.margin,
        }

    @property
    def study(self) -> StudySettings:
        """What the study is told."""
        return StudySettings(
            train=self.training,
            refit=self.refitting,
            rules=self.rules,
            cutting=self.cutting,
            margin=self.margin,
            level=self.level,
            task=self.task,
            teach=self.teaching,
        )


@dataclass(frozen=True)
class RunConfig(Settings):
    """Everything that decides a run's result but the data: pure data, written to config.toml.

    `window` 0 and `predict` "auto" take what suits the series.
    """

    cell: Cell = "lstm"
    recurrent: tuple[int, ...] = (16, 4)
    dense: tuple[int, ...] = (4,)
    init: Init = "keras"
    window: int = 0
    horizon: int = 1
    predict: Predict = "auto"

    def __post_init__(self) -> None:
        self.check()
        try:
            Framing(self.window or 1, self.horizon)
            self.network(1, {}, seed=0)
        except ValueError as error:
            raise DataError(str(error)) from error

    @property
    def task(self) -> Task:
        """What the networks predict."""
        return FORECASTING

    def framing(self, series: Series) -> Framing:
        """Window, horizon and target, with what suits the series filled in."""
        return Framing(self.window or series.window, self.horizon, resolve_predict(series, self.predict))

    def network(self, inputs: int, widths: Mapping[str, int], seed: int | None = None) -> Forecaster:
        """A fresh network, or a smaller one with `widths` (group name -> units, 0: without that layer)."""
        recurrent = _left({f"recurrent.{i}.l0": width for i, width in enumerate(self.recurrent)}, widths)
        dense = _left({f"head.{i}": width for i, width in enumerate(self.dense)}, widths)
        return Forecaster(inputs, recurrent, dense, cell=self.cell, init=self.init, seed=seed, dropout=self.dropout)


@dataclass(frozen=True)
class TableConfig(Settings):
    """Everything that decides the result of a run on a table but the data: pure data, written to config.toml."""

    predicts: TableTask
    hidden: tuple[int, ...] = (64, 32)
    activation: Activation = "relu"
    _: KW_ONLY
    epochs: int = 200
    batch_size: int = 32
    margin: float | None = None

    def __post_init__(self) -> None:
        self.check()
        if not self.hidden:
            raise DataError("a network for a table needs a hidden layer to remove units from; give --hidden 64,32")
        try:
            self.network(1, 1, {}, seed=0)
        except ValueError as error:
            raise DataError(str(error)) from error

    @property
    def task(self) -> Task:
        """What the networks predict."""
        return CLASSIFICATION if self.predicts == "classification" else REGRESSION

    def network(self, inputs: int, outputs: int, widths: Mapping[str, int], seed: int | None = None) -> MLP:
        """A fresh network, or a smaller one with `widths` (group name -> units, 0: without that layer)."""
        step = 3 if self.dropout else 2  # modules a layer
        hidden = _left({f"layers.{step * i}": width for i, width in enumerate(self.hidden)}, widths)
        return MLP(inputs, hidden, outputs, self.activation, seed, self.dropout)


def _left(layers: Mapping[str, int], widths: Mapping[str, int]) -> list[int]:
    """The widths of layers, some of which are told to be others; those told to be 0 are left out."""
    return [widths.get(name, width) for name, width in layers.items() if widths.get(name) != 0]
