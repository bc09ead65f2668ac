"""What a search found as plain data: the record that is stored and drawn, and what may be said of it."""

import math
from collections import Counter
from dataclasses import asdict
from typing import Any

import pared
from pared.evaluation.paired import FEWEST_CLUSTERS
from pared.report.tables import plural, significant
from pared.search.space import Point
from pared.search.story import Found, Tested
from pared.search.trials import Failure


def record(found: Found) -> dict[str, Any]:
    """What search.json holds. Times lie under "seconds" alone; objectives that are times are values of trials."""
    return {
        "format": 1,
        "pared": pared.__version__,
        **found.about,
        "settings": {**found.about["settings"], "trials": found.settings.trials},
        "error": found.config.task.error if found.config else "value",
        "scale": found.scale,
        "trials": [
            {"trial": t.number, "point": t.point, "values": list(t.values), "outcome": t.outcome} for t in found.trials
        ],
        "finalists": [asdict(each) for each in found.finalists],
        "winner": found.winner.number,
        "confirmed": asdict(found.confirmed) if found.confirmed else None,
        "optimism": found.optimism,
        "test": _test(found.test, found.scale) if found.test else None,
        "evaluations": found.evaluations,
        "finding": finding(found),
        "notes": notes(found),
        "failures": [
            {"trial": t.number, "reason": t.result.reason, "traceback": t.result.traceback}
            for t in found.trials
            if isinstance(t.result, Failure)
        ],
    }


def finding(found: Found) -> str:
    """The winner, what may be expected of it, and how it did on test data."""
    what = "NRMSE" if found.config and found.config.task.error == "nrmse" else "error"
    best, number = found.confirmed, found.winner.number
    if best is None:
        return f"Trial {number} has the best score, {what} {significant(found.winner.values[0])}; it was not confirmed."
    interval = ""
    if best.low is not None and best.high is not None:
        interval = f" (95 % interval {significant(best.low)} to {significant(best.high)})"
    seeds = plural(len(best.fresh), "fresh seed")
    text = f"Trial {number} wins: {what} {significant(best.expected)}{interval} is to be expected, from {seeds}."
    return f"{text} {_flattered(found)}{_on_test_data(found)}"


def notes(found: Found) -> list[str]:
    """What a reader must know besides."""
    said = []
    if found.settings.quick:
        said.append("A quick search: few trials, trained briefly. It shows how things work and supports no claim.")
    if found.confirmed is None:
        said.append(
            "No trial was confirmed on fresh seeds: the best score of many is good by luck as well as by merit."
        )
    lost = Counter(trial.outcome for trial in found.trials if not trial.sound and trial.outcome != "stopped early")
    if lost:
        (reason, times), *_ = lost.most_common(1)
        said.append(
            f"{sum(lost.values())} of {plural(len(found.trials), 'trial')} gave no error; {times} of them {reason}."
        )
    if found.test and found.test.comparison and found.test.comparison.clusters < FEWEST_CLUSTERS:
        said.append("Too few rows for five parts to test on: the test cannot tell winner and settings to beat apart.")
    if found.test and found.test.comparison is None and found.test.start:
        said.append("The winner gave no finite error on test data.")
    return said


def shown(point: Point) -> str:
    """A point in one line."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in point.items()
    )


def _flattered(found: Found) -> str:
    assert found.confirmed is not None
    assert found.optimism is not None
    score, by = significant(found.confirmed.score), found.optimism
    size = f"{100 * abs(by):.3g} %" if found.scale == "log" else significant(abs(by))
    if by == 0:
        return f"Its score in the search was {score}, as it is on fresh seeds."
    return f"Its score in the search was {score}, {size} {'too good' if by >= 0 else 'too bad'}."


def _on_test_data(found: Found) -> str:
    test = found.test
    if test is None:
        return ""
    if not test.start:
        return " The settings to beat won themselves."
    if test.comparison is None:
        return ""
    against = test.comparison
    if found.scale == "log":
        with_interval = f"{against.ratio:.3g} times ({against.ratio_low:.3g} to {against.ratio_high:.3g})"
        text = f"its error is {with_interval} that of the settings to beat"
    else:
        points = f"{100 * against.difference:+.2g} points ({100 * against.low:+.2g} to {100 * against.high:+.2g})"
        text = f"its error differs by {points} from that of the settings to beat"
    return f" On data that no trial has seen, {text}: {against.verdict}."


def _test(test: Tested, scale: str) -> dict[str, Any]:
    return {
        "winner": _mean(list(test.winner.values()), scale),
        "start": _mean(list(test.start.values()), scale),
        "comparison": asdict(test.comparison) if test.comparison else None,
    }


def _mean(errors: list[float], scale: str) -> float | None:
    if not errors:
        return None
    if scale == "linear":
        return math.fsum(errors) / len(errors)
    return math.exp(math.fsum(math.log(max(error, 1e-300)) for error in errors) / len(errors))
