"""A distillation as plain data: what distill.json holds, which network ships, and what may be said of it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import pared
from pared import evaluation
from pared.distilling.lesson import Arm, Found, Key, Lesson
from pared.evaluation import Comparison, compare
from pared.evaluation.paired import FEWEST_CLUSTERS, counting_error
from pared.outcomes import Metrics
from pared.report.summary import Record
from pared.report.tables import NOTHING, Table, compared_text, count, percent, significant
from pared.types import DivergedError

DISTILLED = "distill.json"


def shipped_key(lesson: Lesson, found: Found) -> Key:
    """The arm with the smaller mean error on validation data, the seed of its (lower) median; of equals the plain one.

    Raises DivergedError where no student came through.
    """
    errors = _errors(lesson, found, "validation")
    if not errors:
        raise DivergedError("all trainings of the student ended in a loss that is not finite; lower the learning rate")
    log = lesson.job.config.task.scale == "log"
    means: dict[Arm, float] = {}
    for arm in ("plain", "taught"):
        values = [math.log(error) if log else error for (name, _), error in errors.items() if name == arm]
        if values:
            means[arm] = float(np.mean(values))
    best = min(means, key=lambda arm: means[arm])
    ranked = sorted((error, seed) for (arm, seed), error in errors.items() if arm == best)
    return best, ranked[(len(ranked) - 1) // 2][1]


def _errors(lesson: Lesson, found: Found, part: str) -> dict[Key, float]:
    metric = f"{part}.{lesson.job.config.task.error}"
    return {key: m[metric] for key, m in found.metrics.items() if math.isfinite(m.get(metric, math.nan))}


def compared(lesson: Lesson, found: Found, part: str) -> Comparison | None:
    """Taught against plain over the seeds that came through in both; None where there is none."""
    errors = _errors(lesson, found, part)
    seeds = [seed for seed in lesson.seeds if {("taught", seed), ("plain", seed)} <= errors.keys()]
    if not seeds:
        return None
    first, second = ([errors[arm, seed] for seed in seeds] for arm in ("taught", "plain"))
    rows = found.teacher.get(f"{part}.rows")
    own = lesson.job.config.study.yardstick
    least = counting_error(rows) if rows else 0.0
    return compare(first, second, own.margin, seeds, own.scale, own.level, least)


def build(lesson: Lesson, found: Found, run: Path, which: str, seconds: float) -> dict[str, Any]:
    """The record: JSON types only."""
    arm, seed = shipped_key(lesson, found)
    example, config = lesson.block.train.x[:1], lesson.job.config
    comparisons = {part: compared(lesson, found, part) for part in ("validation", "test")}
    head = dict(lesson.job.head)
    epochs = {name: training.epochs for name, training in lesson.trainings.items()}
    kept = ("seed", "criterion", "candidates", "ratios", "thresholds", "scope", "keep", "what", "refit", "refit_lr")
    settings = {name: value for name, value in head.pop("settings").items() if name not in (*kept, "refit_epochs")}
    told = {"seeds": list(lesson.seeds), "epochs": epochs, "teaching": _how(lesson)}
    record = _plain({
        "format": 1,
        "pared": pared.__version__,
        **head,
        "task": config.task.name,
        "run": run.name,
        "settings": settings | told,
        "block": lesson.block.block,
        "error": config.task.error,
        "teacher": {"which": which} | _size(lesson.teacher, example) | {"metrics": dict(found.teacher)},
        "student": _size(lesson.student(0), example),
        "fits": [
            {"arm": key[0], "seed": key[1], "metrics": dict(found.metrics[key])}
            | {"curves": {name: list(curve) for name, curve in each.curves.items()}}
            for key, each in found.fits.items()
        ],
        "comparisons": {part: asdict(each) if each else None for part, each in comparisons.items()},
        "shipped": {"arm": arm, "seed": seed},
        "seconds": {"total": seconds},
    })  # fmt: skip
    return {**record, "finding": finding(record), "notes": notes(record)}


def _how(lesson: Lesson) -> str:
    told = ", ".join(f"{name} {value:g}" for name, value in vars(lesson.how).items())
    return f"{type(lesson.how).__name__} ({told})"


def _size(model: Any, example: Any) -> dict[str, int]:
    return {"parameters": evaluation.parameters(model), "macs": evaluation.macs(model, example)}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(record: Record, folder: Path) -> None:
    """Writes distill.json."""
    (folder / DISTILLED).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def finding(record: Record) -> str:
    """What was found, in a sentence or two."""
    found, arm = record["comparisons"]["test"], record["shipped"]["arm"]
    ships = f"Ships the student that was {'taught' if arm == 'taught' else 'trained alone'}, by validation data."
    if found is None:
        return f"No pair of trainings came through: nothing may be claimed. {ships}"
    unit = "accuracy above" if found["scale"] == "linear" else "error over"
    said = f"Taught: {unit} that of the student alone {compared_text(found)} over {found['pairs']} seeds on test data"
    verdict = found["verdict"] if found["clusters"] >= FEWEST_CLUSTERS else "too few seeds for a claim"
    return f"{said}: {verdict}. {ships}"


def notes(record: Record) -> list[str]:
    """What limits what may be said."""
    own = record["settings"]
    found = [
        f"All seeds share block {record['block']} and one teacher: the interval speaks for other starts of the "
        "student, not for other data.",
        f"Equal compute: the student alone trains {own['epochs']['plain']} epochs, the taught one "
        f"{own['epochs']['taught']}, the difference being what the teacher's answers cost; the teacher's own training, "
        "which was there before, is not counted.",
    ]
    metric = f"test.{record['error']}"
    lost = [each for each in record["fits"] if each["metrics"].get(metric) is None]
    return [*found, f"{len(lost)} of {len(record['fits'])} trainings diverged and are left out."] if lost else found


def networks(record: Record) -> Table:
    """Teacher and students: size and mean errors."""
    rows = []
    for name, arm in (("teacher", None), ("student, taught", "taught"), ("student alone", "plain")):
        own = record["teacher"] if arm is None else record["student"]
        metrics = [own["metrics"]] if arm is None else [f["metrics"] for f in record["fits"] if f["arm"] == arm]
        errors = [_shown(record, _mean(metrics, f"{part}.{record['error']}")) for part in ("validation", "test")]
        rows.append((name, count(own["parameters"]), count(own["macs"]), *errors))
    measure = "accuracy" if record["task"] == "classification" else record["error"].upper()
    head = ("Network", "Parameters", "Multiply-adds", f"Validation {measure}", f"Test {measure}")
    return Table(head, tuple(rows), strong=(1 if record["shipped"]["arm"] == "taught" else 2,))


def _mean(metrics: Sequence[Metrics], name: str) -> float | None:
    values = [each[name] for each in metrics if each.get(name) is not None]
    return sum(values) / len(values) if values else None


def _shown(record: Record, value: float | None) -> str:
    if value is None:
        return NOTHING
    return percent(1 - value) if record["task"] == "classification" else significant(value)


def pairs(record: Record) -> Table:
    """Taught against plain on both kinds of data."""
    rows = []
    for part, found in record["comparisons"].items():
        shown = (compared_text(found), found["verdict"], str(found["pairs"])) if found else (NOTHING, NOTHING, "0")
        rows.append((f"{part} data", *shown))
    unit = "Accuracy − alone, points" if record["task"] == "classification" else "Error ÷ alone"
    return Table(("Taught against alone", f"{unit} [interval]", "Verdict", "Seeds"), tuple(rows))
