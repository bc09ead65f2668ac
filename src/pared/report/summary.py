"""What the tables and figures have in common: the tested outcomes of an arm, and their averages."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Record = Mapping[str, Any]

LABELS = {
    "full": "Full network",
    "cut": "Smaller network",
    "trained_on": "Full, trained on",
    "scratch": "Same size, from scratch",
    "random": "Random deletion",
    "persistence": "Persistence",
    "flip": "Direction flips",
    "same": "Direction continues",
    "mean": "Mean of training data",
    "ar": "Linear autoregression",
    "analog": "Nearest analogue",
    "majority": "Most frequent class",
    "linear": "Linear regression",
    "logistic": "Logistic regression",
    "neighbour": "Nearest neighbour",
}
NETWORKS = ("full", "cut", "trained_on", "scratch", "random")


def label(arm: str) -> str:
    """Plain name of an arm; an arm that is not known here keeps its own name."""
    return LABELS.get(arm, arm)


def finite(values: Iterable[Any]) -> list[float]:
    """The values that are finite numbers: null marks a network whose training diverged."""
    return [float(value) for value in values if isinstance(value, int | float) and math.isfinite(value)]


def floats(values: Iterable[Any] | None) -> np.ndarray:
    """Numbers as float64, NaN where the record holds null: a gap in a curve."""
    return np.array([math.nan if value is None else value for value in values or ()], dtype=np.float64)


def number(value: Any) -> float | None:
    """The value where it is a finite number, else None."""
    return next(iter(finite([value])), None)


def geometric_mean(values: list[float]) -> float | None:
    """exp(mean(log values)); None where there are no values."""
    if not values:
        return None
    with np.errstate(divide="ignore"):  # an exactly periodic series is forecast without any error
        return float(np.exp(np.mean(np.log(values))))


def mean(values: list[float]) -> float | None:
    """Arithmetic mean; None where there are no values."""
    return float(np.mean(values)) if values else None


def tested(record: Record, arm: str) -> list[Mapping[str, Any]]:
    """Outcomes of the arm on test data, diverged networks included: these carry no errors, or null.

    Validation alone is looked at for candidates that were not chosen; such a candidate's diverged network is told from
    the chosen one's by the share that was removed from it.
    """
    outcomes = record.get("outcomes") or ()
    shares = {_share(outcome) for outcome in outcomes if outcome["arm"] == arm and _has_test(outcome)}
    shares = shares or ({None} if any(map(_has_test, outcomes)) else set())
    return [
        outcome
        for outcome in outcomes
        if outcome["arm"] == arm
        and (_has_test(outcome) or (outcome["metrics"].get("diverged") and _share(outcome) in shares))
    ]


def _has_test(outcome: Mapping[str, Any]) -> bool:
    return any(key.startswith("test.") for key in outcome["metrics"])


def _share(outcome: Mapping[str, Any]) -> float | None:
    return None if outcome["ratio"] is None else round(outcome["ratio"], 9)


def values(record: Record, arm: str, metric: str) -> list[float]:
    """One finite number for every tested network of the arm that did not diverge."""
    return finite(row["metrics"].get(metric) for row in tested(record, arm))


def by_block(record: Record, arm: str, metric: str) -> dict[int, list[float]]:
    """The same, gathered by block (one value a seed)."""
    blocks: dict[int, list[float]] = {}
    for row in tested(record, arm):
        for value in finite([row["metrics"].get(metric)]):
            blocks.setdefault(row["block"], []).append(value)
    return dict(sorted(blocks.items()))


def arms(record: Record) -> list[str]:
    """Tested arms: the networks first, then the naive forecasters, then any other."""
    present = {outcome["arm"] for outcome in record.get("outcomes") or () if tested(record, outcome["arm"])}
    return [arm for arm in LABELS if arm in present] + sorted(present - LABELS.keys())


def subject(record: Record) -> str:
    """The arm that the comparisons are about: "cut", or "full" where no candidate was chosen."""
    return "cut" if record.get("chosen") is not None and tested(record, "cut") else "full"


def comparison(record: Record, arm: str) -> Mapping[str, Any] | None:
    """Test error of the subject against the arm, None where it was not compared."""
    found: Mapping[str, Any] | None = (record.get("comparisons") or {}).get(arm)
    return found


def level(record: Record) -> str:
    """Level of the intervals as a percentage."""
    return f"{100 * (record.get('settings') or {}).get('level', 0.95):g}\N{NO-BREAK SPACE}%"


def ratio(comparison: Mapping[str, Any], key: str) -> float | None:
    """exp(difference | low | high) of a comparison of log errors: below 1, the first is better."""
    value = number(comparison.get(key))
    return None if value is None or comparison.get("scale", "log") != "log" else math.exp(min(value, 700.0))


def points(comparison: Mapping[str, Any], key: str) -> float | None:
    """Accuracy of the first above the second, in points, of a comparison of errors of classes: above 0, it is better.

    `key`: difference, low or high, as read on the accuracy: the lower end is that of the largest error.
    """
    value = number(comparison.get({"low": "high", "high": "low"}.get(key, key)))
    return None if value is None or comparison.get("scale") != "linear" else -100 * value


def signed(value: float | None) -> str:
    """Points with one decimal and their sign."""
    if value is None:
        return "–"
    return f"{value:+.1f}".replace("-", "−") if abs(value) >= 0.05 else "0.0"


def limit(comparison: Mapping[str, Any]) -> float:
    """Largest ratio of errors that still counts as the same: 1 + margin."""
    return 1 + (number(comparison.get("margin")) or 0.0)


def interval(blocks: Mapping[int, list[float]], coverage: float) -> tuple[float, float, float]:
    """Mean over blocks with a percentile bootstrap interval.

    Whole blocks are drawn, 2,000 times, because networks of one block share their data; the draw is seeded, so that
    a record gives the same page every time.

    Returns: (mean, low, high), in the unit of the values.
    """
    means = np.array([np.mean(each) for each in blocks.values()])
    draws = np.random.default_rng(0).integers(len(means), size=(2000, len(means)))
    low, high = np.quantile(means[draws].mean(axis=1), [(1 - coverage) / 2, (1 + coverage) / 2])
    return float(means.mean()), float(low), float(high)
