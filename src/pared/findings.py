"""What a run may say of its evidence: notes, the finding, and figures in words."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats

from pared.data import Block
from pared.evaluation import Comparison, Task
from pared.evaluation.paired import counting_error
from pared.outcomes import CONTROLS, Candidate, Evidence, Outcome
from pared.settings import Settings
from pared.surgery import Drop


@dataclass(frozen=True)
class Words:
    """What a task's data, blocks and naive predictors are called."""

    data: str
    blocks: str
    naive: str
    trivial: str


WORDS = {
    "forecasting": Words("series", "blocks", "forecasters", "repeating the last value or the training mean"),
    "regression": Words("table", "folds", "predictors", "always predicting the training mean"),
    "classification": Words("table", "folds", "predictors", "always naming the most frequent class"),
}


def notes(blocks: Sequence[Block], config: Settings, evidence: Evidence) -> list[str]:
    """Remarks that limit what the run may be quoted for."""
    found, words = [], WORDS[config.task.name]
    if config.quick:
        found.append(
            f"Quick run: {config.epochs} epochs and {config.seeds} seed a block, so the networks are under-trained. It "
            f"shows how pared works; a claim about this {words.data} needs the full run."
        )
    if len(blocks) < 5:
        found.append(f"The {words.data} gives only {len(blocks)} {words.blocks}; fewer than 5 carry no claim.")
    elif len(blocks) < 10:
        found.append(f"The {words.data} is short: {len(blocks)} {words.blocks} instead of 10.")
    if few := _too_few_rows(evidence, config):
        found.append(few)
    trained = list(evidence.networks.values())
    if removed := _removed(evidence, config):
        found.append(removed)
    if found_nothing := _no_better_than_trivial(evidence.outcomes, config.task):
        found.append(
            f"{found_nothing} of the full networks tested err no less than {words.trivial}: "
            "they learnt nothing of use. Train longer (--epochs) before you trust any comparison."
        )
    if config.refit == "distill" and evidence.chosen is not None:
        found.append(
            "Cut networks, those cut at random among them, were refitted on what the uncut network gives beside the "
            "truth (distillation); the network from scratch had the teacher's forward pass as training time instead."
        )
    naive = [name for name, c in evidence.comparisons.items() if name not in ("full", *CONTROLS) and c.difference > 0]
    if naive:
        found.append(
            f"Naive {words.naive} with a smaller error than the network: {', '.join(naive)}. They need no training."
        )
    scratch = evidence.comparisons.get("scratch")
    if scratch is not None and scratch.verdict == "inferior":
        found.append(
            "The small network trained from scratch with equal compute predicts better than the cut one "
            f"({_scratch(scratch)}); where training anew is cheap, train it at this size."
        )
    if diverged := sum(t.fit.diverged for t in trained):
        found.append(
            f"{diverged} of {len(trained)} trainings diverged; their pairs are left out, their rules not eligible."
        )
    return found


def _removed(evidence: Evidence, config: Settings) -> str | None:
    """What removing weights saves and what not; which layers went where each network chose its own."""
    if evidence.chosen is None or config.what == "units":
        return None
    if config.what == "weights":
        return (
            "Weights that are zero are left out of the saved file, but PyTorch multiplies by them: the network is "
            "faster only where whole units went with them. The times are measured."
        )
    plans = [t.plan for (arm, _, _), t in evidence.networks.items() if arm == evidence.chosen.label and t.plan]
    gone = Counter(edit.modules[0] for plan in plans for edit in plan.before if isinstance(edit, Drop))
    layers = ", ".join(f"{name} in {count}" for name, count in gone.most_common())
    return f"Each network chose the layers it could do without. Of {len(plans)} networks these went: {layers}."


def _too_few_rows(evidence: Evidence, config: Settings) -> str | None:
    """Says so where classes are counted on so few rows that not even networks that agree on all could pass."""
    yardstick = config.study.yardstick
    parts = {(o.block, part): o.metrics[f"{part}.rows"] for o in evidence.outcomes for part in ("validation", "test")
             if f"{part}.rows" in o.metrics}  # fmt: skip
    blocks = {block for block, _ in parts}
    rows = sum(value for (_, part), value in parts.items() if part == "validation")
    if len(blocks) < 2 or not rows:
        return None
    open_to = float(stats.t.ppf((1 + config.level) / 2, len(blocks) - 1)) * counting_error(rows)
    if open_to < yardstick.margin:
        return None
    return (
        f"The folds choose on {rows:.0f} rows in all. Even two networks that agree on every one of them may differ by "
        f"{100 * open_to:.1f} points on others, so equals cannot pass a margin of {_margin(config)}: it takes more "
        "rows, or a wider --margin stated beforehand."
    )


def _no_better_than_trivial(outcomes: Sequence[Outcome], task: Task) -> int:
    """Number of full networks whose test error is at least 0.99 of the best trivial predictor's on their block."""
    metric = f"test.{task.error}"
    errors = {(o.arm, o.block, o.seed): o.metrics[metric] for o in outcomes if metric in o.metrics}
    trivial = {block: min(errors.get((arm, block, 0), math.inf) for arm in task.trivial) for _, block, _ in errors}
    return sum(arm == "full" and error >= 0.99 * trivial[block] > 0 for (arm, block, _), error in errors.items())


def finding(evidence: Evidence, config: Settings) -> str:
    """The one sentence of the report."""
    margin = _margin(config)
    if evidence.chosen is None:
        return (
            f"No smaller network predicted as well as the full one within {margin} on validation data; "
            "the full network is shipped."
        )
    against = evidence.comparisons.get("full")
    if against is None:
        return "The smaller network diverged wherever it was to be tested; the full network is shipped."
    less, change = _less(evidence.chosen, evidence.outcomes, config), _change(against, config)
    if not evidence.ships_cut:
        return (
            f"The network with on average {less} failed its test: {change} against the full one, {against.verdict} "
            f"at a margin of {margin}; the full network is shipped."
        )
    beats = against.verdict == "better"
    trained_on = evidence.comparisons.get("trained_on")
    if beats and trained_on is not None and trained_on.verdict == "better":
        verdict = "predicts better than the full one"
    elif beats:
        verdict = "predicts as well as the full one (and is not shown to beat it given the same extra training)"
    else:
        verdict = "predicts as well as the full one"
    return f"With {less} on average, the network {verdict}: {change} at a margin of {margin}."


def _less(chosen: Candidate, outcomes: Sequence[Outcome], config: Settings) -> str:
    """How much smaller the chosen networks are."""
    full = next(o.metrics["parameters"] for o in outcomes if o.arm == "full")
    share = f"{100 * (1 - chosen.parameters / full):.0f} % fewer"
    if config.what == "weights":
        return f"{share} parameters that are not zero"
    gone = f"{100 * chosen.removed:.0f} % of the hidden layers gone and " if config.what == "layers" else ""
    return f"{gone}{share} parameters"


def _margin(config: Settings) -> str:
    margin = config.study.yardstick.margin
    if config.task.scale == "log":
        return f"{100 * margin:g} %"
    return f"{100 * margin:g} point{'' if 100 * margin == 1 else 's'} of accuracy"


def _change(against: Comparison, config: Settings) -> str:
    """The smaller network's error beside the full one's, with its interval: a share, or points of accuracy."""
    level = f"{100 * config.level:g} % interval"
    if against.scale == "log":
        interval = f"{level} {_percent(against.ratio_low)} to {_percent(against.ratio_high)}"
        return f"{_percent(against.ratio)} error ({interval})"
    interval = f"{level} {_points(-against.high)} to {_points(-against.low)}"
    return f"{_points(-against.difference)} points of accuracy ({interval})"


def _points(share: float) -> str:
    if not math.isfinite(share):
        return "unknown"
    return f"{100 * share:+.1f}".replace("-", "−") if abs(share) >= 0.0005 else "0.0"


def _scratch(comparison: Comparison) -> str:
    if comparison.scale == "log":
        return f"error ratio {comparison.ratio:.2f}"
    return f"{_points(comparison.difference)} points of accuracy"


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %".replace("-", "−") if math.isfinite(ratio) else "unknown"


def mean_test_metric(record: Mapping[str, Any], arm: str, metric: str) -> float | None:
    """Mean of a metric over the tested networks of an arm (geometric for nrmse), None where it was not measured."""
    outcomes = [outcome["metrics"] for outcome in record["outcomes"] if outcome["arm"] == arm]
    tested = [metrics for metrics in outcomes if any(name.startswith("test.") for name in metrics)]
    values: list[float] = [m[key] for m in tested for key in (f"test.{metric}", metric) if key in m]
    if not values:
        return None
    if metric == "nrmse":
        return math.exp(sum(map(math.log, values)) / len(values)) if min(values) > 0 else 0.0
    return sum(values) / len(values)


def ratio_text(comparison: Mapping[str, Any]) -> str:
    """A stored comparison as "0.98 [0.95, 1.02]", errors of classes as points of accuracy: "−0.3 [−0.9, +0.4]"."""
    if comparison.get("scale") == "linear":
        points = [_points(-comparison[name]) for name in ("difference", "high", "low")]
        return f"{points[0]} [{points[1]}, {points[2]}]"
    ratio, low, high = (math.exp(comparison[name]) for name in ("difference", "low", "high"))
    if high < 0.01 or low >= 100:
        return "< 0.01" if high < 0.01 else f"{ratio:,.0f} [{low:,.0f}, {high:,.0f}]"
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
