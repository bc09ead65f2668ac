"""A comparison of criteria as plain data: what results.json holds, and what may be said of it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pared
from pared.evaluation import Comparison
from pared.evaluation.paired import FEWEST_CLUSTERS
from pared.job import B, Job
from pared.kept import RANDOM, CriteriaComparison
from pared.report.summary import Record, geometric_mean, mean, ratio
from pared.report.tables import compared_text, percent, significant

RESULTS = "results.json"
OF_OTHER_COMMANDS = ("criterion", "thresholds", "scope", "margin", "candidates")
"""Settings of `pared run` that mean nothing here."""
LISTED = 16
"""Most names in a sentence."""


def build(job: Job[B], result: CriteriaComparison, seconds: float, stopped: bool) -> dict[str, Any]:
    """The record: JSON types only, null where a number is not finite."""
    head = dict(job.head)
    settings = {name: value for name, value in head.pop("settings").items() if name not in OF_OTHER_COMMANDS}
    return {
        "format": 1,
        "pared": pared.__version__,
        **head,
        "task": job.config.task.name,
        "settings": settings | {"what": result.what, "criteria": list(result.criteria)},
        "error": result.yardstick.error,
        "networks": len(result.blocks),
        "trained": len(job.blocks) * job.config.seeds,
        "clusters": len(set(result.blocks)),
        "ratios": list(result.ratios),
        "repairs": list(result.repairs),
        "compared": list(result.compared),
        "full": [{"block": b} | m for b, m in zip(result.blocks, result.full, strict=True)],
        "table": _table(result),
        "costs": {n: {"seconds": result.seconds(n), "needs": result.needs[n]} for n in result.compared},
        "refused": [{"criterion": n, "reason": why, "networks": c} for (n, why), c in result.refusals().items()],
        "unscored": _networks_by_part(result, "unscored"),
        "alike": _networks_by_part(result, "alike"),
        "stopped": stopped,
        "scored": [asdict(each) for each in result.scored],
        "kept": [asdict(each) for each in result.kept],
        "seconds": {"total": seconds},
    }


def _table(result: CriteriaComparison) -> list[dict[str, Any]]:
    """A row for each criterion, repair and ratio that there are figures of."""
    rows = []
    for name in result.compared:
        for repair in result.repairs:
            for ratio_ in result.ratios:
                key = name, ratio_, repair
                row = {"criterion": name, "repair": repair, "ratio": ratio_, "diverged": result.diverged(*key)}
                row |= {"full": _plain(result.against_full(*key)), "standing": result.standing(*key)}
                rows.append(row | {"random": None if name == RANDOM else _plain(result.against_random(*key))})
    return rows


def _plain(found: Comparison | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(found).items()}


def _networks_by_part(result: CriteriaComparison, kind: str) -> dict[str, dict[str, int]]:
    """Criterion -> group or parameter -> of how many networks it is not scored, or scored all alike."""
    found: dict[str, dict[str, int]] = {}
    for each in result.scored:
        for part in getattr(each, kind):
            own = found.setdefault(each.criterion, {})
            own[part] = own.get(part, 0) + 1
    return found


def write(record: Record, folder: Path) -> None:
    """Writes results.json."""
    text = json.dumps(record, indent=1, allow_nan=False)
    (folder / RESULTS).write_text(text + "\n", encoding="utf-8")


def cells(record: Record, criterion: str, repair: str) -> list[Mapping[str, Any]]:
    """The rows of one criterion and repair, by rising ratio."""
    found = [row for row in record["table"] if (row["criterion"], row["repair"]) == (criterion, repair)]
    return sorted(found, key=lambda row: float(row["ratio"]))


def whole(record: Record) -> str:
    """What the networks do before anything is removed."""
    if record["task"] == "classification":
        right = mean([each["test.accuracy"] for each in record["full"] if "test.accuracy" in each])
        return f"test accuracy {percent(right)} on average"
    error = geometric_mean([each["test.nrmse"] for each in record["full"] if "test.nrmse" in each])
    return f"test NRMSE {significant(error)} (geometric mean; 1: no better than the training mean)"


def sentences(record: Record) -> list[str]:
    """What the comparison shows, in words."""
    if record["clusters"] < FEWEST_CLUSTERS:
        return [f"Nothing may be claimed from {record['clusters']} blocks; at least {FEWEST_CLUSTERS} are needed."]
    return [*(_standings(record, repair) for repair in record["repairs"]), _repairs(record)]


def _standings(record: Record, repair: str) -> str:
    """Which criteria beat random under a repair, and how often."""
    named: dict[str, list[str]] = {"at every share": [], "at some": [], "at none": [], "worse at some": []}
    for name in record["compared"][1:]:
        standings = [row["standing"] for row in cells(record, name, repair)]
        wins = standings.count("better")
        named["at every share" if wins == len(standings) else "at some" if wins else "at none"].append(name)
        if "worse" in standings:
            named["worse at some"].append(name)
    parts = [f"{how}: {_listed(names)}" for how, names in named.items() if names]
    return f"{repair.capitalize()}, better than random {'; '.join(parts) or 'at none: nothing else was compared'}."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= LISTED else f"{', '.join(names[:LISTED])} and {len(names) - LISTED} more"


def _repairs(record: Record) -> str:
    """What repair does for random orders, at the share nearest to a half."""
    share = min(record["ratios"], key=lambda each: (abs(each - 0.5), each))
    texts = []
    for repair in record["repairs"]:
        row = next(row for row in cells(record, RANDOM, repair) if row["ratio"] == share)
        texts.append(f"{repair} {compared_text(row['full'])}")
    measure = "accuracy − the full network’s, points" if record["task"] == "classification" else "error ÷ full"
    return f"With {100 * share:g} % removed at random, {measure}: {', '.join(texts)}."


def notes(record: Record) -> list[str]:
    """Remarks that limit what the comparison may be quoted for."""
    found = []
    if record["stopped"]:
        found.append("The comparison was interrupted; only what was finished by then is shown.")
    if record["settings"]["quick"]:
        found.append("Quick: the networks are under-trained, which changes what may go; no claim.")
    if record["networks"] < record["trained"]:
        found.append(f"{record['trained'] - record['networks']} of {record['trained']} trainings diverged.")
    for name, parts in record["unscored"].items():
        found.append(f"{name} does not score {', '.join(parts)}: what goes there goes at random.")
    for name, parts in record["alike"].items():
        where = ", ".join(f"{part} ({count} networks)" for part, count in parts.items())
        found.append(f"{name} gives equal scores to all of {where}: there the lower index goes first.")
    diverged = [row for row in record["table"] if row["diverged"]]
    if diverged:
        names = ", ".join(dict.fromkeys(f"{row['criterion']} ({row['repair']})" for row in diverged))
        found.append(f"Networks without a finite error are left out, and never called better: {names}.")
    return found


def above(row: Mapping[str, Any], key: str = "difference") -> float | None:
    """A row's error over the full network's, or its accuracy above it in points; None where there is none."""
    compared = row["full"]
    if compared is None:
        return None
    if compared["scale"] == "log":
        return ratio(compared, key)
    value = compared[{"low": "high", "high": "low"}.get(key, key)]
    return None if value is None else -100 * value
