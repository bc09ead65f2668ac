"""Neurogenesis deep learning: an autoencoder meets class after class, and gains units where it cannot rebuild one."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from pared.growth.intrinsic_replay import ClassCode, class_code, intrinsic_replay
from pared.growth.levels import check_untied, plasticity, stability, trained
from pared.models import Autoencoder
from pared.seeds import seed_of
from pared.surgery import Structure, insert, trace
from pared.surgery.origins import grown_structure
from pared.training.fit import TrainConfig

BASE_CLASSES = (1, 7)
"""The digits with which the paper begins; its networks of MNIST have levels of 200, 100, 75 and 20 units."""

SLOWER = 0.01
"""What learns slowly, in the paper: lr / 100."""

Label = int | str


@dataclass(frozen=True)
class Neurogenesis:
    """When an autoencoder grows for a class, and how its units learn.

    A row is an outlier of level l if its error there exceeds the level's threshold, which is the `percentile` of the
    base classes' errors. While more than the share `max_outliers` of a class are outliers, level l gains units,
    `units` for each outlier and at least one, up to `max_units` for this class (one number, or one a level). A level
    also gains `above` units, within the same limit, once the level below it grew. New units learn at the configured
    rate, decoders at `slower` times that; so does all that learns to keep the old. `coupling` epochs train all levels
    together in the end, as slowly; the paper has none. `ridge` is added to the variances of codes.

    The paper says lr / 100 and leaves the rest open; the shares and limits are those of a later replication.
    """

    percentile: float = 95.0
    units: float = 0.01
    max_units: int | tuple[int, ...] = 100
    max_outliers: float = 0.1
    above: int = 1
    slower: float = SLOWER
    coupling: int = 0
    ridge: float = 1e-6

    def __post_init__(self) -> None:
        if not (0 <= self.percentile <= 100 and 0 <= self.max_outliers <= 1 and 0 < self.slower <= 1):
            raise ValueError(
                "percentile must lie from 0 to 100, max_outliers and slower are shares, slower above 0; got "
                f"{self.percentile}, {self.max_outliers} and {self.slower}"
            )
        limits = self.max_units if isinstance(self.max_units, tuple) else (self.max_units,)
        if min(self.units, self.above, self.coupling, *limits) < 0 or not self.ridge > 0:
            raise ValueError(
                "units, max_units, above and coupling must not be negative, ridge must be positive; got "
                f"{self.units}, {self.max_units}, {self.above}, {self.coupling} and {self.ridge}"
            )

    def limits(self, levels: int) -> tuple[int, ...]:
        """`max_units` of each level; ValueError where there is not one number a level."""
        found = self.max_units if isinstance(self.max_units, tuple) else (self.max_units,) * levels
        if len(found) != levels:
            raise ValueError(f"max_units must be one number, or one for each of {levels} levels; got {found}")
        return found


@dataclass(frozen=True)
class Learnt:
    """How a class was learnt: units that each level gained, rows that are still outliers there, steps of training."""

    label: Label
    gained: tuple[int, ...]
    outliers: tuple[int, ...]
    updates: int


@dataclass(frozen=True)
class NeurogenesisFit:
    """An autoencoder between two classes: what it is, when it grows, what it remembers, how it came here."""

    model: Autoencoder
    structure: Structure
    how: Neurogenesis
    thresholds: tuple[float, ...]
    codes: Mapping[Label, ClassCode]
    learnt: tuple[Learnt, ...] = ()


@torch.no_grad()
def level_errors(model: Autoencoder, x: Tensor) -> Tensor:
    """What is lost by encoding through l levels and back: RE_l(x) = |x - dec_1(.. dec_l(enc_l(.. enc_1(x))))|^2 / d.

    x (rows, d) -> (rows, levels), squared error an input. Cost: a pass for each level.
    Source: Draelos et al. (2017), whose error is d times that.
    """
    rebuilt = [model.decode(model.encode(x, level), level) for level in range(1, model.levels + 1)]
    return torch.stack([(x - each).square().mean(1) for each in rebuilt], 1)


def with_level_units(model: Autoencoder, structure: Structure, level: int, count: int, seed: int = 0) -> Autoencoder:
    """A copy whose level (from 1) has `count` units more, in encoder and decoder, and rebuilds as before at all levels.

    Raises StructureError as `insert` does.
    """
    return cast(Autoencoder, insert(model, structure, _counts(model, level, count), seed))


def begin_neurogenesis(
    model: Autoencoder,
    classes: Mapping[Label, Tensor],
    how: Neurogenesis = Neurogenesis(),
    thresholds: tuple[float, ...] | None = None,
) -> NeurogenesisFit:
    """What an autoencoder that was trained on the base `classes` starts from: thresholds, and a memory of each class.

    classes: label -> (rows, inputs). Explicit `thresholds`, squared errors an input, one a level, take the place of the
    percentile. Train the model by `fit_stacked` before: where `fit` trained all levels at once, shallow ones rebuild
    badly without the deeper, and so do not grow.

    Returns a `NeurogenesisFit`. Cost: a trace, and a pass over the rows for each level. Raises ValueError for a tied
    autoencoder, one cut to unlike levels, no class, and classes or thresholds that cannot be.
    """
    check_untied(model)
    named = dict(model.named_parameters())
    pairs = ([named[f"{side}.{k}.weight"].shape for side in ("encoder", "decoder")] for k in range(model.levels))
    if any(up != down[::-1] for up, down in pairs):
        raise ValueError("encoder and decoder must be mirror images; cut both sides of a level alike")
    how.limits(model.levels)
    if not classes:
        raise ValueError("there is no base class; name at least one that the autoencoder was trained on")
    for label, x in classes.items():
        _check_rows(model, label, x)
    rows = torch.cat(list(classes.values()))
    errors = level_errors(model, rows).double()
    found = tuple(errors.quantile(how.percentile / 100, dim=0).tolist()) if thresholds is None else tuple(thresholds)
    if len(found) != model.levels or not all(0 <= each < math.inf for each in found):
        raise ValueError(f"thresholds must be {model.levels} finite numbers, not negative; got {found}")
    codes = {label: class_code(model, x, how.ridge) for label, x in classes.items()}
    return NeurogenesisFit(copy.deepcopy(model), trace(model, rows[:2]), how, found, codes)


def learn_class(
    before: NeurogenesisFit, label: Label, x: Tensor, config: TrainConfig, replay: Tensor | None = None
) -> NeurogenesisFit:
    """Learns one class more, x (rows, inputs), level by level, and rehearses those before by `intrinsic_replay`.

    While a level has too many outliers it gains units, which change nothing at first. Then, with the level as a network
    of its own, from h_(l-1) to h_(l-1) through h_l: in *plasticity* the outliers alone train the new units at
    `config.lr` and the decoder slowly, while old rows of the encoder stay as they are to the bit; in *stability* the
    class and what is replayed train both slowly. The level above one that grew gains a unit and does the same on the
    whole class; rows of its decoder that rebuild new units learn at `config.lr`. Each phase is a training of its own,
    of `config.epochs` epochs and one schedule. With Adam "slowly" means that steps are so much shorter: decoders learn
    as W_0 + slower V, and a weight decay draws V to 0.

    `replay` (rows, inputs) takes the place of the draws: real old rows, or none. Memories of earlier classes are padded
    as the code grows and never made anew, so no old row is read.

    Returns a `NeurogenesisFit`; the one passed in stays as it is. Cost: two trainings of one level for every gain.
    Raises, before training, ValueError for a class that is learnt already, has no label, fewer than two rows, or rows
    that do not fit, and for patience; DivergedError where a loss ceases to be finite.
    Source: Draelos et al., Neurogenesis deep learning: Extending deep networks to accommodate new classes (2017),
    algorithm 1; there links to the level above are random, so that growth changes what is rebuilt.
    """
    _check_class(before, label, x, config, replay)
    seed, how, levels = seed_of(config.seed, len(before.codes)), before.how, before.model.levels
    old = intrinsic_replay(before.model, before.codes.values(), seed) if replay is None else replay
    lesson = _Lesson(x, torch.cat([x, old]), before.thresholds, how, replace(config, seed=seed))
    now = _Now(before.model, before.structure, (0,) * levels, 0)
    for level in range(1, levels + 1):
        if level > 1 and now.gained[level - 2]:
            now = _connected(now, level, lesson)
        now = _grown(now, level, lesson)
    if how.coupling:
        slow = replace(config, epochs=how.coupling, lr=config.lr * how.slower, seed=seed_of(seed, now.updates))
        now = now.after(trained(now.model, lesson.both, slow), slow, lesson.both)
    width = now.structure[f"encoder.{levels - 1}"].width
    codes = {known: code.padded(width, how.ridge) for known, code in before.codes.items()}
    codes[label] = class_code(now.model, x, how.ridge)
    outliers = tuple(len(_outliers(now.model, level, lesson)) for level in range(1, levels + 1))
    learnt = (*before.learnt, Learnt(label, now.gained, outliers, now.updates))
    return replace(before, model=now.model, structure=now.structure, codes=codes, learnt=learnt)


@dataclass(frozen=True)
class _Lesson:
    """A class, with and without what is replayed, and how it is learnt."""

    x: Tensor
    both: Tensor
    thresholds: tuple[float, ...]
    how: Neurogenesis
    config: TrainConfig


@dataclass(frozen=True)
class _Now:
    """An autoencoder within a lesson: units that each level has gained, and steps of training so far."""

    model: Autoencoder
    structure: Structure
    gained: tuple[int, ...]
    updates: int

    def after(self, model: Autoencoder, config: TrainConfig, x: Tensor) -> "_Now":
        """The same after a training on x."""
        return replace(self, model=model, updates=self.updates + config.epochs * math.ceil(len(x) / config.batch_size))


def _grown(now: _Now, level: int, lesson: _Lesson) -> _Now:
    """Units for a level until it rebuilds the class, or has all it may gain."""
    how, limit = lesson.how, lesson.how.limits(now.model.levels)[level - 1]
    while len(rows := _outliers(now.model, level, lesson)) > how.max_outliers * len(lesson.x):
        count = min(max(1, round(how.units * len(rows))), limit - now.gained[level - 1])
        if count < 1:
            break
        now = _learnt(_gained(now, level, count, lesson), level, rows, lesson, count, 0)
    return now


def _connected(now: _Now, level: int, lesson: _Lesson) -> _Now:
    """A level above one that grew gains its units and learns to rebuild those below."""
    limit = lesson.how.limits(now.model.levels)[level - 1]
    count = min(lesson.how.above, limit)
    now = _gained(now, level, count, lesson) if count else now
    return _learnt(now, level, lesson.x, lesson, count, now.gained[level - 2])


def _gained(now: _Now, level: int, count: int, lesson: _Lesson) -> _Now:
    model = with_level_units(now.model, now.structure, level, count, seed_of(lesson.config.seed, now.updates))
    gained = tuple(units + count * (place == level) for place, units in enumerate(now.gained, 1))
    structure = grown_structure(now.structure, _counts(now.model, level, count))
    return replace(now, model=model, structure=structure, gained=gained)


def _learnt(now: _Now, level: int, rows: Tensor, lesson: _Lesson, new: int, fresh: int) -> _Now:
    """Plasticity on `rows`, then stability."""
    slower = lesson.how.slower
    config = replace(lesson.config, seed=seed_of(lesson.config.seed, now.updates))
    now = now.after(plasticity(now.model, level, rows, config, slower, new, fresh), config, rows)
    config = replace(config, seed=seed_of(lesson.config.seed, now.updates))
    return now.after(stability(now.model, level, lesson.both, config, slower), config, lesson.both)


def _outliers(model: Autoencoder, level: int, lesson: _Lesson) -> Tensor:
    return lesson.x[level_errors(model, lesson.x)[:, level - 1] > lesson.thresholds[level - 1]]


def _counts(model: Autoencoder, level: int, count: int) -> dict[str, int]:
    """The groups of a level: its code, and what the level above rebuilds of it."""
    return {f"encoder.{level - 1}": count} | ({f"decoder.{level}": count} if level < model.levels else {})


def _check_class(before: NeurogenesisFit, label: Label, x: Tensor, config: TrainConfig, replay: Tensor | None) -> None:
    if label in before.codes:
        raise ValueError(f"class {label!r} is learnt already, as are {', '.join(map(repr, before.codes))}")
    if config.patience is not None:
        raise ValueError("patience would need validation data, which a class has not; leave it out")
    _check_rows(before.model, label, x)
    if replay is not None and len(replay) and replay.shape[1:] != x.shape[1:]:
        raise ValueError(f"what is replayed must be rows like the class's, got {tuple(replay.shape)}")


def _check_rows(model: Autoencoder, label: Label, x: Tensor) -> None:
    if not isinstance(label, (int, str)):
        raise ValueError(f"a class needs a label, a whole number or a word, to be remembered by; got {label!r}")
    inputs = model.get_parameter("encoder.0.weight").shape[1]
    if x.dim() != 2 or x.shape[1] != inputs or len(x) < 2:
        raise ValueError(
            f"class {label!r} must have at least two rows of {inputs} inputs, (rows, {inputs}); got {tuple(x.shape)}"
        )
    if not x.isfinite().all():
        raise ValueError(f"class {label!r} has inputs that are not finite; leave those rows out")
