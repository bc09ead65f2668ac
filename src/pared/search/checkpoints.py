"""Checkpoints of long evaluations, beside the book: what one that was interrupted goes on from, to the same result.

Trainings pause and go on bit by bit as if they had not; a checkpoint is the state of one that pauses.
"""

import copy
import io
import os
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pared.search.space import key
from pared.search.trials import Task
from pared.training import Fit, TrainConfig
from pared.training.fit import Midway, TrainingData
from pared.training.fleet import fit_one
from pared.types import Loss

FOLDER = "checkpoints"
SECONDS = 60.0
"""How often the state of an evaluation is kept; one that takes less writes nothing."""
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError)


@dataclass
class Course:
    """How far an evaluation has come: the stretch of its trainings that is under way, and what came before.

    `before` are the networks as the stretch found them, `now` those that it has trained so far; the last may be midway.
    """

    stretch: int = 0
    before: list[Fit] = field(default_factory=list)
    now: list[Fit] = field(default_factory=list)
    rungs: dict[int, float] = field(default_factory=dict)
    curves: list[dict[str, tuple[float, ...]]] = field(default_factory=list)
    file: Path | None = None
    of: Mapping[str, str] = field(default_factory=dict)
    due: float = 0.0

    def trained(
        self, models: Sequence[nn.Module], splits: Sequence[TrainingData], configs: Sequence[TrainConfig], loss: Loss
    ) -> list[Fit]:
        """Trains the networks of the stretch, or what is left of it; keeps the state from time to time."""
        for place, (model, split, config) in enumerate(zip(models, splits, configs, strict=True)):
            found = self.now[place] if place < len(self.now) else None
            while found is None or found.midway is not None:
                resume = found or (self.before[place] if self.before else None)
                pause = float("inf") if self.file is None else self.due - time.monotonic()
                found = fit_one(model, split, config, loss, resume, pause=pause)
                self.now[place:] = [found]
                if self.file is not None and time.monotonic() >= self.due:
                    self._keep()
        self.stretch, self.before, self.now = self.stretch + 1, self.now, []
        return self.before

    def _keep(self) -> None:
        """Writes the file, whole or not at all; a disk that is full costs the checkpoint, not the evaluation."""
        assert self.file is not None
        content = {name: getattr(self, name) for name in ("stretch", "rungs", "curves")} | {"of": dict(self.of)}
        content |= {name: [_plain(each) for each in getattr(self, name)] for name in ("before", "now")}
        stored, beside = io.BytesIO(), self.file.with_suffix(".new")
        torch.save(content, stored)
        with suppress(OSError):
            self.file.parent.mkdir(exist_ok=True)
            with beside.open("wb") as opened:
                opened.write(stored.getbuffer())
                opened.flush()
                os.fsync(opened.fileno())
            os.replace(beside, self.file)
        self.due = time.monotonic() + SECONDS


@contextmanager
def course_of(task: Task, models: Sequence[nn.Module], folder: Path | None) -> Iterator[Course]:
    """The course of an evaluation, from its checkpoint in the folder where there is one, else from its begin.

    The checkpoint goes with the end of the evaluation, also where that fails; it stays where the process dies.
    """
    if folder is None:
        yield Course()
        return
    file = folder / "{}-{}-{}.pt".format(*task.key)
    of = {
        "pared": version("pared"),
        "torch": "".join(torch.__version__),
        "point": key(task.point),
        "bars": str(task.milestones),
    }
    try:
        yield replace(_kept(file, of, models), file=file, of=of, due=time.monotonic() + SECONDS)
    except Exception:  # whatever it failed of, it is done; Ctrl-C and kills leave the file to go on from
        _remove(file)
        raise
    _remove(file)


def _kept(file: Path, of: Mapping[str, str], models: Sequence[nn.Module]) -> Course:
    """What the file holds; nothing where it is damaged, or of other versions or another task."""
    try:
        content = torch.load(file, weights_only=True)
        if content["of"] != of:
            return Course()
        before, now = (
            [_fit(each, model) for each, model in zip(content[name], models, strict=False)]
            for name in ("before", "now")
        )
        return Course(content["stretch"], before, now, content["rungs"], content["curves"])
    except UNREADABLE:
        return Course()


def _remove(file: Path) -> None:
    with suppress(OSError):  # other evaluations have theirs in the folder, or there is none
        file.unlink(missing_ok=True)
        file.parent.rmdir()


def _plain(fit: Fit) -> dict[str, Any]:
    """A fit without its module, as tensors and numbers."""
    midway = asdict(fit.midway) if fit.midway else None
    return {
        "weights": fit.model.state_dict(),
        "optimiser_state": fit.optimiser_state,
        "curves": fit.curves,
        "seed": fit.seed,
        "seconds": fit.seconds,
        "states": dict(fit.states),
        "midway": midway,
    }


def _fit(content: Mapping[str, Any], model: nn.Module) -> Fit:
    values = dict(content)
    own = copy.deepcopy(model)
    own.load_state_dict(values.pop("weights"))
    midway = values.pop("midway")
    return Fit(model=own, midway=Midway(**midway) if midway else None, **values)
