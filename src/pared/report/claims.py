"""What the evidence allows to say, and what it does not: sentences derived from the record."""

from collections.abc import Iterator, Mapping
from typing import Any

from pared.report import summary
from pared.report.summary import NETWORKS, Record, comparison, label, number, points, ratio, signed, subject
from pared.report.tables import count, percent, plural, significant
from pared.report.words import parts, words

ENOUGH, FEWEST = 10, 5  # blocks or seeds for a firm claim; blocks below which nothing is claimed
KINDS = {"better": "good", "not inferior": "good", "inferior": "bad", "inconclusive": "open"}

_ON_CONTROLS = {
    ("trained_on", "better"): "It also beats the undeleted network given the same extra training",
    ("trained_on", "not inferior"): "It also matches the undeleted network given the same extra training",
    ("trained_on", "inferior"): "The undeleted network, given the same extra training, predicts better",
    ("scratch", "better"): "A network of this size trained from scratch with equal compute does worse",
    ("scratch", "not inferior"): "It is as good as a network of its size trained from scratch with equal compute",
    ("scratch", "inferior"): "A network of this size trained from scratch with equal compute predicts better",
    ("random", "better"): "Which {parts} are removed matters: random deletion of the same number does worse",
    ("random", "inferior"): "Random deletion of the same number does better",
}
_NOT_BEATEN = {
    "trained_on": "That deletion improves {forecast}s: the full network given the same extra training is not beaten.",
    "scratch": "That this size needs a large network to start from: a small one trained from scratch is not beaten.",
    "random": "That the criterion finds the right {parts}: random deletion is not beaten.",
}
_NONE_PASSED = (
    "On validation data, no candidate was shown to be as good as the full network, so the full network is shipped."
)
_ONLY_THESE = (
    "That no smaller network would do: only the listed candidates were tried, with this criterion and this budget."
)
_OTHERS = (
    "Anything about other {data}, other architectures or other training budgets: which {parts} can be spared changes "
    "with the length of training."
)
_QUICK = (
    "Anything final: this was a quick run, with little training and few networks. It shows that everything works; "
    "repeat it as a full run before you rely on it."
)


def badge(record: Record) -> tuple[str, str]:
    """Words and kind ("good" | "bad" | "open") of the verdict on the smaller network."""
    found = comparison(record, "full") if subject(record) == "cut" else None
    if found:
        return found["verdict"], KINDS.get(found["verdict"], "open")
    return ("no smaller network passed", "bad") if _none_passed(record) else ("no verdict yet", "open")


def may(record: Record) -> list[str]:
    """What may be claimed."""
    found = [*_about_full(record), *_about_controls(record), *_about_naive(record)]
    return found or ["Nothing: the run holds no comparison on test data that decides anything."]


def may_not(record: Record) -> list[str]:
    """What may not be claimed."""
    return [
        *_not_about_full(record),
        *_not_about_controls(record),
        *_not_about_naive(record),
        *_not_about_amount(record),
        _OTHERS.format(data={"series": "series"}.get(words(record).data, "tables"), parts=parts(record).name),
    ]


def cautions(record: Record) -> list[str]:
    """Remarks that belong beside the claims: the run's own notes, diverged trainings, missing parts."""
    found = list(record.get("notes") or ())
    diverged = sum(bool(outcome["metrics"].get("diverged")) for outcome in record.get("outcomes") or ())
    if diverged and not any("diverged" in note for note in found):
        found.append(f"{plural(diverged, 'training')} diverged: left out of averages, never counted as good.")
    if not any(summary.tested(record, arm) for arm in ("full", "cut")):
        found.append("The run was interrupted or is unfinished: no network has test results.")
    elif not record.get("comparisons"):
        found.append("The run holds no comparisons: averages are shown, but nothing was tested.")
    return found


def _about_full(record: Record) -> Iterator[str]:
    found = comparison(record, "full")
    if subject(record) != "cut" or not found:
        if _none_passed(record):
            yield _NONE_PASSED
        return
    margin, measure = _margin(found), words(record).measure
    amount = f"{count(found.get('pairs'))} pairs in {count(found.get('clusters'))} {words(record).blocks}s"
    sentences = {
        "better": "The smaller network has the lower test error: the ratio to that of the full network is"
        if found.get("scale") != "linear"
        else f"The smaller network has the higher test accuracy: the {measure} is",
        "not inferior": f"To within the margin of {margin} stated beforehand, the smaller network predicts as well as "
        f"the full one: the {measure} is",
        "inferior": f"The smaller network predicts worse than the full one by more than the margin of {margin}: the "
        f"{measure} is",
    }
    if sentence := sentences.get(found["verdict"]):
        yield f"{sentence} {_factor(record, 'full')}, over {amount}."
    if (record.get("shipped") or {}).get("arm") == "full":
        yield "The full network is shipped: the smaller one did not pass the test."
    elif sentence and record.get("candidates"):
        yield (
            f"The size was chosen from {plural(len(record['candidates']), 'candidate')} on validation data and tested "
            "once: this is not the best of several looks at the test data."
        )


def _about_controls(record: Record) -> Iterator[str]:
    if subject(record) == "cut":
        for arm in _NOT_BEATEN:
            sentence = _ON_CONTROLS.get((arm, _verdict(record, arm)))
            if sentence:
                said = sentence.format(parts=parts(record).name)
                yield f"{said}: {words(record).measured} {_factor(record, arm)}."


def _about_naive(record: Record) -> Iterator[str]:
    best = _best_naive(record)
    if best and _verdict(record, best) == "better":
        yield (
            f"The {_name(record)} beats the best {words(record).predictor} of the table, “{label(best).lower()}”: "
            f"{words(record).measured} {_factor(record, best)}."
        )


def _not_about_full(record: Record) -> Iterator[str]:
    found = comparison(record, "full")
    if subject(record) != "cut" or not found:
        yield _ONLY_THESE
    elif found["verdict"] == "inconclusive":
        yield (
            f"That the smaller network is as good, or that it is worse: the {words(record).measure}, "
            f"{_factor(record, 'full')}, leaves it open at a margin of {_limit(found)}."
        )
    elif found["verdict"] == "inferior":
        yield "That the smaller network can replace the full one at this margin."
    elif found["verdict"] == "not inferior" and (number(found.get("low")) or 0) > 0:
        yield f"That nothing is lost: the whole interval lies {words(record).lossy}, a small loss within the margin."
    elif found["verdict"] == "not inferior":
        yield f"That the smaller network is better than the full one: the interval includes {words(record).neutral}."


def _not_about_controls(record: Record) -> Iterator[str]:
    if subject(record) == "cut":
        if not comparison(record, "trained_on"):
            yield "That deletion as such does any good: the control that was trained on is missing."
        for arm, sentence in _NOT_BEATEN.items():
            if _verdict(record, arm) not in ("", "better"):
                yield sentence.format(forecast=words(record).prediction, parts=parts(record).name)


def _not_about_naive(record: Record) -> Iterator[str]:
    best = _best_naive(record)
    if best and _verdict(record, best) != "better":
        yield (
            f"That the {_name(record)} {words(record).predicts} better than any simple rule: the "
            f"{words(record).predictor} “{label(best).lower()}” is not beaten, {words(record).measured} "
            f"{_factor(record, best)}."
        )
    own, share, arm = _shares(record, "test.direction")
    if share > 0.6:  # clearly more than a coin
        yield (
            f"That a one-step direction accuracy of {percent(own)} is remarkable in itself: the naive forecaster "
            f"“{label(arm).lower()}” has {percent(share)}."
        )
    own, share, arm = _shares(record, "test.free_direction")
    if share >= own > 0:
        yield (
            f"That its free-running direction accuracy of {percent(own)} needs a network: “{label(arm).lower()}” has "
            f"{percent(share)}."
        )


def _shares(record: Record, metric: str) -> tuple[float, float, str]:
    """The subject's mean share, and the best naive forecaster's with its name; 0 where there is none."""
    means = {arm: summary.mean(summary.values(record, arm, metric)) for arm in summary.arms(record)}
    best = max(((share, arm) for arm, share in means.items() if arm not in NETWORKS and share), default=(0.0, ""))
    own = means.get(subject(record))
    return (0.0, 0.0, "") if own is None else (own, *best)


def _not_about_amount(record: Record) -> Iterator[str]:
    settings = record.get("settings") or {}
    blocks = int(number((comparison(record, "full") or {}).get("clusters")) or len(record.get("blocks") or ()))
    seeds = len(settings.get("seeds") or ())
    if settings.get("quick"):
        yield _QUICK
    if blocks < FEWEST:
        few = plural(blocks, words(record).blocks)
        yield f"Anything general: {few} cannot carry an interval; at least {FEWEST} are needed."
    elif max(blocks, seeds) < ENOUGH:
        amount = f"{plural(blocks, words(record).blocks)} and {plural(seeds, 'seed')}"
        yield f"Anything firm: {amount} are few; a firm claim needs at least {ENOUGH} of either."
    if seeds == 1:
        yield "How far results vary with the random seed: there was only one."


def _none_passed(record: Record) -> bool:
    return bool(record.get("candidates") and record.get("chosen") is None and record.get("shipped"))


def _best_naive(record: Record) -> str | None:
    """The naive predictor beside which the subject's error is largest."""
    compared = {
        arm: number(found.get("difference")) for arm, found in (record.get("comparisons") or {}).items() if found
    }
    naive = ((value, arm) for arm, value in compared.items() if arm not in NETWORKS and value is not None)
    return max(naive, default=(0, None))[1]


def _margin(found: Mapping[str, Any]) -> str:
    margin = 100 * (summary.limit(found) - 1)
    if found.get("scale") == "linear":
        return plural_points(margin)
    return f"{margin:.2g} %"


def _limit(found: Mapping[str, Any]) -> str:
    linear = found.get("scale") == "linear"
    return plural_points(100 * (summary.limit(found) - 1)) if linear else f"{summary.limit(found):.4g}"


def plural_points(amount: float) -> str:
    """Points of accuracy: 1 point, 0.5 points."""
    return f"{amount:.2g} point{'' if round(amount, 9) == 1 else 's'}"


def _verdict(record: Record, arm: str) -> str:
    return str((comparison(record, arm) or {}).get("verdict", ""))


def _name(record: Record) -> str:
    return "smaller network" if subject(record) == "cut" else "full network"


def _factor(record: Record, arm: str) -> str:
    found = comparison(record, arm) or {}
    if found.get("scale") == "linear":
        bounds = f"{signed(points(found, 'low'))} to {signed(points(found, 'high'))}"
        return f"{signed(points(found, 'difference'))} points ({summary.level(record)} interval {bounds})"
    bounds = f"{significant(ratio(found, 'low'))} to {significant(ratio(found, 'high'))}"
    return f"{significant(ratio(found, 'difference'))} ({summary.level(record)} interval {bounds})"
