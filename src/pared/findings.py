"""What a run may say of its evidence: notes, the finding, and figures in words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pared.data import Block
from pared.evaluation import Task
from pared.outcomes import CONTROLS, Evidence, Outcome
from pared.settings import Budget


def notes(blocks: Sequence[Block], config: Budget, evidence: Evidence) -> list[str]:
    """Remarks that limit what the run may be quoted for."""
    found = []
    if config.quick:
        found.append(
            f"Quick run: {config.epochs} epochs and {config.seeds} seed a block, so the networks are under-trained. It "
            "shows how pared works; a claim about this series needs the full run."
        )
    if len(blocks) < 5:
        found.append(f"The series gives only {len(blocks)} blocks; fewer than 5 carry no claim.")
    elif len(blocks) < 10:
        found.append(f"The series is short: {len(blocks)} blocks instead of 10.")
    trained = list(evidence.networks.values())
    if found_nothing := _no_better_than_trivial(evidence.outcomes, config.task):
        found.append(
            f"{found_nothing} of the full networks tested err no less than repeating the last value or the training "
            "mean: they learnt nothing of use. Train longer (--epochs) before you trust any comparison."
        )
    naive = [name for name, c in evidence.comparisons.items() if name not in ("full", *CONTROLS) and c.ratio > 1]
    if naive:
        found.append(
            f"Naive forecasters with a smaller error than the network: {', '.join(naive)}. They need no training."
        )
    scratch = evidence.comparisons.get("scratch")
    if scratch is not None and scratch.verdict == "inferior":
        found.append(
            "The small network trained from scratch with equal compute predicts better than the cut one "
            f"(error ratio {scratch.ratio:.2f}); where training anew is cheap, train it at this size."
        )
    if diverged := sum(t.fit.diverged for t in trained):
        found.append(
            f"{diverged} of {len(trained)} trainings diverged; their pairs are left out, their rules not eligible."
        )
    return found


def _no_better_than_trivial(outcomes: Sequence[Outcome], task: Task) -> int:
    """Number of full networks whose test error is at least 0.99 of the best trivial predictor's on their block."""
    metric = f"test.{task.error}"
    errors = {(o.arm, o.block, o.seed): o.metrics[metric] for o in outcomes if metric in o.metrics}
    trivial = {block: min(errors.get((arm, block, 0), math.inf) for arm in task.trivial) for _, block, _ in errors}
    return sum(arm == "full" and error >= 0.99 * trivial[block] > 0 for (arm, block, _), error in errors.items())


def finding(evidence: Evidence, config: Budget) -> str:
    """The one sentence of the report."""
    margin = f"{100 * config.margin:g} %"
    if evidence.chosen is None:
        return (
            f"No smaller network predicted as well as the full one within {margin} on validation data; "
            "the full network is shipped."
        )
    against = evidence.comparisons.get("full")
    if against is None:
        return "The smaller network diverged wherever it was to be tested; the full network is shipped."
    full = next(o.metrics["parameters"] for o in evidence.outcomes if o.arm == "full")
    less = 1 - evidence.chosen.parameters / full
    interval = f"{100 * config.level:g} % interval {_percent(against.ratio_low)} to {_percent(against.ratio_high)}"
    change = f"{_percent(against.ratio)} error ({interval})"
    if not evidence.ships_cut:
        return (
            f"The network with on average {100 * less:.0f} % fewer parameters failed its test: {change} against the "
            f"full one, {against.verdict} at a margin of {margin}; the full network is shipped."
        )
    beats = against.verdict == "better"
    trained_on = evidence.comparisons.get("trained_on")
    if beats and trained_on is not None and trained_on.verdict == "better":
        verdict = "predicts better than the full one"
    elif beats:
        verdict = "predicts as well as the full one (and is not shown to beat it given the same extra training)"
    else:
        verdict = "predicts as well as the full one"
    return (
        f"With {100 * less:.0f} % fewer parameters on average, the network {verdict}: {change} at a margin of {margin}."
    )


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %".replace("-", "−") if math.isfinite(ratio) else "unknown"


def mean_test_metric(record: Mapping[str, Any], arm: str, metric: str) -> float | None:
    """Mean of a metric over the tested networks of an arm (geometric for the error), None where it was not measured."""
    tested = [o["metrics"] for o in record["outcomes"] if o["arm"] == arm and "test.nrmse" in o["metrics"]]
    values: list[float] = [m[key] for m in tested for key in (f"test.{metric}", metric) if key in m]
    if not values:
        return None
    if metric == "nrmse":
        return math.exp(sum(map(math.log, values)) / len(values)) if min(values) > 0 else 0.0
    return sum(values) / len(values)


def ratio_text(comparison: Mapping[str, Any]) -> str:
    """A stored comparison as "0.98 [0.95, 1.02]"."""
    ratio, low, high = (math.exp(comparison[name]) for name in ("difference", "low", "high"))
    if high < 0.01 or low >= 100:
        return "< 0.01" if high < 0.01 else f"{ratio:,.0f} [{low:,.0f}, {high:,.0f}]"
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
