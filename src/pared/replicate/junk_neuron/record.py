"""results.json: every table and figure as plain data, from the finished tasks."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import mean
from typing import Any

import pared
from pared.replicate.junk_neuron.analysis import (
    FULL,
    HALF,
    LONGER,
    ONE,
    QUARTER,
    TWIN,
    Amount,
    Cell,
    Sample,
    accuracy_difference,
    best_of_thresholds,
    best_threshold,
    error_ratio,
    level,
    naive,
    samples,
)
from pared.replicate.junk_neuron.arms import READINGS, Order
from pared.replicate.junk_neuron.folder import FORMAT, Results, Settings
from pared.replicate.junk_neuron.protocol import Budget, parameters, window_of
from pared.replicate.junk_neuron.published import PAPER

AMOUNTS = (ONE, QUARTER, HALF)
ORDERS: tuple[Order, ...] = ("out", "in", "random", "largest")


def contrasts() -> dict[str, tuple[Cell, Cell]]:
    """Every paired difference of two kinds of network: name -> (first, second)."""
    found = {"reseeded - full": (TWIN, FULL), "trained on - full": (LONGER, FULL)}
    for amount in AMOUNTS:
        by = {order: (Cell("surgery", order, amount), Cell("refit", order, amount)) for order in ORDERS}
        equal = Cell("equal_compute", "", amount)
        found[f"{amount.rule}: scratch - full"] = Cell("scratch", "", amount), FULL
        found[f"{amount.rule}: equal compute - trained on"] = equal, LONGER
        found[f"{amount.rule}: refit by out - equal compute"] = by["out"][1], equal
        found[f"{amount.rule}: refit by out - full"] = by["out"][1], FULL
        for order, (surgery, refit) in by.items():
            found[f"{amount.rule}: surgery by {order} - full"] = surgery, FULL
            found[f"{amount.rule}: refit by {order} - trained on"] = refit, LONGER
        for reading in READINGS:
            for other in ("random", "largest"):
                for place, kind in enumerate(("surgery", "refit")):
                    found[f"{amount.rule}: {kind} by {reading} - by {other}"] = by[reading][place], by[other][place]
    return found


def build(results: Results, settings: Settings) -> dict[str, Any]:
    """The record of what is finished."""
    return {
        "format": FORMAT,
        "pared": pared.__version__,
        "source": PAPER.source,
        "quick": settings.quick,
        "settings": settings.as_dict(),
        "budgets": {budget.name: _budget(results, settings, budget) for budget in settings.budgets},
    }


def _budget(results: Results, settings: Settings, budget: Budget) -> dict[str, Any]:
    tasks = [task for task in settings.tasks() if task.budget == budget]
    done = [result for (name, _, _), result in results.items() if name == budget.name]
    found = samples(results, budget.name, settings.systems)
    return {
        "done": len(done),
        "of": len(tasks),
        "seconds": sum(result["seconds"]["wall"] for result in done),
        "processor": sum(result["seconds"]["processor"] for result in done),
        "networks": sum("treatment" in row for result in done for row in result["rows"]),
        "systems": {sample.system.name: _system(results, budget, sample) for sample in found},
        "pooled": _contrasts(found) if found else {},
        "rule": _rules(found) if found else {},
    }


def _system(results: Results, budget: Budget, sample: Sample) -> dict[str, Any]:
    system, seeds = sample.system, [seed for seed, _ in sample.results]
    return {
        "seeds": seeds,
        "steps": budget.steps(system),
        "epochs": budget.training(system, 0).epochs,
        "window": window_of(system, budget.view),
        "parameters": parameters(system),
        "full": asdict(level(sample.group(FULL))),
        "naive": {name: asdict(each) for name, each in naive(results, budget.name, system).items()},
        "sweep": [_sweep(sample, place) for place in range(len(system.thresholds))],
        "contrasts": _contrasts([sample]),
        "rule": _rules([sample]),
        "best_threshold": best_threshold(sample),
        "gate": sample.results[0][1]["gate"],
        "index": {
            reading: [float(value) for value in sample.results[0][1]["index"][0][reading]] for reading in READINGS
        },
    }


def _sweep(sample: Sample, place: int) -> dict[str, Any]:
    """What became of one threshold of the paper: networks of its published size, and those that it gives here."""
    published = Cell("scratch", "", Amount("published", place))
    amount = Amount("below", place)
    by_reading = {}
    for reading in READINGS:
        cells = {kind: Cell(kind, reading, amount) for kind in ("scratch", "surgery", "refit")}
        by_reading[reading] = {
            "units": mean(amount.units(sample.system, index[reading]) for index in sample.index.values()),
            "scratch": _both([sample], cells["scratch"], FULL),
            "surgery": _both([sample], cells["surgery"], FULL),
            "refit": _both([sample], cells["refit"], LONGER),
        }
    return {
        "threshold": sample.system.thresholds[place],
        "size": sample.system.sizes[place + 1],
        "published": asdict(level(sample.group(published))),
        "difference": _both([sample], published, FULL),
        "hits": asdict(accuracy_difference([sample], published, FULL, "hits")),
        "free_hits": asdict(accuracy_difference([sample], published, FULL, "free_hits")),
        "below": by_reading,
    }


def _both(found: Sequence[Sample], first: Cell, second: Cell) -> dict[str, Any]:
    return {
        "free": asdict(accuracy_difference(found, first, second)),
        "nrmse": asdict(error_ratio(found, first, second)),
    }


def _contrasts(found: Sequence[Sample]) -> dict[str, Any]:
    return {name: _both(found, *cells) for name, cells in contrasts().items()}


def _rules(found: Sequence[Sample]) -> dict[str, Any]:
    return {measure: asdict(best_of_thresholds(found, measure)) for measure in ("hits", "free_hits")}
