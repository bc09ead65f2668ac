"""What a tuning leaves as plain data: the record that is stored and drawn, and what may be said of it."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import pared
from pared import evaluation
from pared.data import Series
from pared.database.folders import RETUNE
from pared.report.summary import Record
from pared.report.tables import plural, significant
from pared.retune.contest import Contender, Contest, Duel, Ring
from pared.retune.deployed import Data, Deployed, Rows, head, sha256, size
from pared.retune.drift import Change
from pared.retune.rows import Shares
from pared.retune.subjects import subject


def record(ring: Ring, changed: Change, found: Contest | None, forced: bool) -> dict[str, Any]:
    """What retune.json holds; `found` is None where nothing asked for a contest. Times lie under "seconds" alone."""
    deployed, new, settings = ring.deployed, ring.new, ring.deployed.settings
    content: dict[str, Any] = {
        "format": 1,
        "pared": pared.__version__,
        "task": settings.task.name,
        "error": settings.task.error,
        "scale": settings.task.scale,
        "old": _old(deployed),
        "data": {
            "name": new.name,
            "rows": size(new),
            "columns": list(deployed.columns),
            "sha256": sha256(new),
            "source": new.source,
        },
        "settings": {"trials": ring.trials, "seed": ring.seed, "forced": forced, "level": settings.level},
        "rows": _rows(ring.shares),
        "change": _change(changed),
        "contest": _contest(ring, found) if found else None,
        "promoted": found is not None and found.won,
    }
    return content | {"finding": finding(content), "notes": list(notes(content))}


def _old(deployed: Deployed) -> dict[str, Any]:
    return {
        "id": deployed.id,
        "folder": str(deployed.folder),
        "data": deployed.name,
        "rows": deployed.rows,
        "sha256": deployed.sha256,
        "trained": deployed.trained,
        "points": len(deployed.points),
        "searched": deployed.searched,
        "evaluations": deployed.evaluations,
        "parameters": evaluation.parameters(deployed.model.network),
        "settings": asdict(deployed.settings),
    }


def _rows(shares: Shares) -> dict[str, Any]:
    """How many rows are for what."""
    return {
        "known": len(shares.known),
        "new": len(shares.looked_at) + len(shares.tested),
        "train": len(shares.train),
        "validation": len(shares.validation),
        "test": [len(part) for part in shares.test],
    }


def _change(changed: Change) -> dict[str, Any]:
    return {
        "columns": [asdict(shift) for shift in changed.shifts],
        "shifted": [shift.column for shift in changed.shifted],
        "loss": {"before": changed.before._asdict(), "now": changed.now._asdict(), "worse": changed.worse},
    }


def _contest(ring: Ring, found: Contest) -> dict[str, Any]:
    ranked = sorted((trial for trial in found.trials if trial.sound), key=lambda trial: (trial.values, trial.number))
    chosen = found.challenger
    return {
        "trained": _learnt_from(ring, chosen) if chosen else None,
        "tested": ring.shares.tested.tolist(),
        "space": found.space.as_dict(),
        "started": found.started,
        "best": [trial.point for trial in ranked],
        "trials": [
            {"trial": t.number, "point": t.point, "values": list(t.values), "outcome": t.outcome} for t in found.trials
        ],
        "contenders": [_contender(each) for each in found.contenders],
        "challenger": found.contenders.index(chosen) if chosen else None,
        "duel": _duel(found.duel) if found.duel else None,
    }


def _learnt_from(ring: Ring, chosen: Contender) -> int:
    """How many rows the challenger was trained on."""
    call = subject(ring.new, chosen.config, ring.shares, chosen.history, ring.deployed.trained)
    (block,) = call.blocks(chosen.config, False)  # type: ignore[arg-type]  # settings of its own kind
    spans: Any = block
    return spans.spans["train"][1] - spans.spans["train"][0] if isinstance(ring.new, Series) else len(block.train.x)


def _contender(each: Contender) -> dict[str, Any]:
    return {
        "trial": each.trial,
        "point": each.point,
        "history": each.history,
        "config": asdict(each.config),
        "parameters": evaluation.parameters(each.models[0].network),
        "validation": list(each.validation),
        "mean": each.mean,
        "median": each.median,
    }


def _duel(found: Duel) -> dict[str, Any]:
    return {
        "old": found.old.tolist(),
        "challenger": found.challenger.tolist(),
        "parts": asdict(found.parts),
        "seeds": asdict(found.seeds),
    }


def finding(record: Record) -> str:
    """What is to be done, and why."""
    contest = record["contest"]
    if contest is None:
        return f"Keep the old model: {_unchanged(record)}."
    if contest["duel"] is None:
        return "Keep the old model: no contender could be trained, some of the networks of each diverged."
    told = f"the error of {_challenger(record)} is {times(record, 'parts')} the old model's on the newest rows"
    if record["promoted"]:
        return f"Promote: {told}, which neither the rows nor the seeds leave to chance."
    if contest["duel"]["parts"]["verdict"] == "better":
        return f"Keep the old model: {told}, but {times(record, 'seeds')} over seeds: that may be chance."
    return f"Keep the old model: {told}: it is not shown to be better."


def _challenger(record: Record) -> str:
    chosen = record["contest"]["contenders"][record["contest"]["challenger"]]
    what = f"trial {chosen['trial']}" if chosen["trial"] is not None else "the old configuration, trained anew"
    return f"{what} on {chosen['history']}"


def times(record: Record, clusters: str) -> str:
    """The challenger's error against the old model's, with its interval: over "parts" or "seeds"."""
    found = record["contest"]["duel"][clusters]
    ends = [found[end] for end in ("difference", "low", "high")]
    if found["scale"] == "log":
        middle, low, high = (significant(float(np.exp(min(end, 700.0)))) for end in ends)
        return f"{middle} times ({low} to {high})"
    middle, low, high = (f"{100 * end:+.2g}" for end in ends)
    return f"{middle} points ({low} to {high}) from"


def _unchanged(record: Record) -> str:
    count = record["rows"]["train"] + record["rows"]["validation"]
    return (
        f"in {plural(count, 'new row')} no column is distributed otherwise than before, and its loss is not above that "
        "where it was tested, beyond chance"
    )


def reasons(record: Record) -> Iterator[str]:
    """What changed, a sentence each."""
    change = record["change"]
    if change["shifted"]:
        names = ", ".join(change["shifted"][:8]) + (" and others" if len(change["shifted"]) > 8 else "")
        yield f"Distributed otherwise than before: {names}."
    loss = change["loss"]
    now, before = (significant(loss[key]["value"]) for key in ("now", "before"))
    more = "more" if loss["worse"] else "not more"
    yield f"The old model's loss is {now} on new rows, {before} where it was tested: {more} beyond two standard errors."


def notes(record: Record) -> Iterator[str]:
    """What a reader must know besides."""
    old, contest = record["old"], record["contest"]
    if record["settings"]["forced"]:
        yield "The contest was asked for (--force), whether or not anything had changed."
    if old["sha256"] is None:
        yield "The run kept no fingerprint of its data: only their number of rows was checked."
    if contest and old["searched"] and not old["points"]:
        yield "The search that the old run began with was not found, so its best points were not tried again."
    if contest and any(None in each["validation"] or np.inf in each["validation"] for each in contest["contenders"]):
        yield "Contenders of which a network diverged could not become the challenger."


def earlier(base: Path, deployed: Deployed) -> list[tuple[Path, Record]]:
    """What was left in a folder by earlier tunings of the same model, by name; damaged ones are passed over."""
    found = []
    for path in sorted(base.glob(f"retune-*/{RETUNE}")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["old"]["id"] == deployed.id:
                found.append((path.parent, content))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def answered(new: Data, before: list[tuple[Path, Record]], force: bool) -> tuple[Path, Record] | None:
    """What earlier tunings found on the same data, that of a contest first; with `force` of a contest alone."""
    same = [(path, content) for path, content in before if content["data"]["sha256"] == sha256(new)]
    contests = [(path, content) for path, content in same if content["contest"]]
    return next(iter(contests if force else [*contests, *same]), None)


def spent(new: Data, before: list[tuple[Path, Record]]) -> int:
    """How many rows of the new data earlier tunings tested on, or knew of when they did: these are not new any more."""
    counts = [0]
    for _, content in before:
        first = head(new, content["data"]["rows"]) if content["contest"] else None
        if first is not None and sha256(first) == content["data"]["sha256"]:
            counts.append(size(first))
    return max(counts)


def without(fresh: Rows, count: int) -> Rows:
    """New rows but for the first `count` rows of the data."""
    return fresh[fresh >= count]
