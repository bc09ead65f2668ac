"""results.json: every table and figure as plain data, from the finished tasks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import pared
from pared.replicate.belsley import toy
from pared.replicate.belsley.analysis import (
    Measure,
    Sample,
    bands,
    difference,
    interval,
    nearest_noise,
    removable,
    samples,
    surface,
)
from pared.replicate.belsley.folder import FORMAT, Results, Settings
from pared.replicate.belsley.paths import CHOSEN, OURS, WAYS
from pared.replicate.belsley.published import METHODS, PAPER

MEASURES: tuple[Measure, ...] = ("kept", "path", "spread", "distortion")


def build(results: Results, settings: Settings) -> dict[str, Any]:
    """The record of what is finished."""
    found = samples(results, settings.problems)
    table = toy.table()
    return {
        "format": FORMAT,
        "pared": pared.__version__,
        "source": PAPER.source,
        "quick": settings.quick,
        "settings": settings.as_dict(),
        "done": len(results),
        "of": len(settings.tasks()),
        "seconds": sum(result["seconds"] for result in results.values()),
        "toy": {name: np.asarray(values).tolist() for name, values in vars(table).items()},
        "chosen": CHOSEN.name,
        "choosing": {sample.problem.name: _choosing(sample) for sample in found if sample.problem.choosing},
        "problems": {sample.problem.name: _problem(sample) for sample in found if not sample.problem.choosing},
    }


def _choosing(sample: Sample) -> dict[str, Any]:
    ways = list(sample.results[0]["ways"])
    return {"seeds": len(sample.results), "kept": {way: interval(sample.each(way, "kept")) for way in ways}}


def _problem(sample: Sample) -> dict[str, Any]:
    problem, published = sample.problem, PAPER.quality[sample.problem.figure]
    pairs = [(first, second) for first in ("belsley", *OURS) for second in WAYS if second != first]
    place = nearest_noise(sample.values("random", "spread"), PAPER.noise[problem.figure]["random"][0])
    return {
        "seeds": len(sample.results),
        "weights": sample.results[0]["weights"],
        "start": interval(sample.values("random", "quality")[:, 0]),
        "end": interval(sample.values("random", "quality")[:, -1]),
        "noise level": place,
        "ways": {way: _way(sample, way, place) for way in WAYS},
        "pairs": {measure: {f"{a} - {b}": difference(sample, measure, a, b) for a, b in pairs} for measure in MEASURES},
        "paper": {
            "start": published["random"][0],
            "kept": {method: removable(problem, published[method]) for method in METHODS},
            "path": {method: float(np.mean(published[method])) for method in METHODS},
            "noise": {method: _averaged(PAPER.noise[problem.figure][method]) for method in METHODS},
        },
    }


def _averaged(noise: Sequence[float]) -> float:
    """Up to 80 % removed."""
    return float(np.mean(noise[:41]))


def _way(sample: Sample, way: str, place: int) -> dict[str, Any]:
    spread = sample.values(way, "spread")
    return {
        "quality": bands(sample.values(way, "quality")),
        "kept": interval(sample.each(way, "kept")) | {"each": sample.each(way, "kept").tolist()},
        "noise": bands(spread[:, :, place]),
        "spread": surface(spread),
        "distortion": surface(sample.values(way, "distortion")),
        "averaged": {measure: interval(sample.each(way, measure)) for measure in MEASURES[1:]},
    }
