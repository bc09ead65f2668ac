"""What a folder that a command left holds, as an entry of the database: read from its files, whatever made it."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from pared import store
from pared.database import provenance
from pared.database.entries import Compared, Cut, Entry, Fit, Run, Trial
from pared.database.provenance import Provenance
from pared.findings import mean_test_metric
from pared.search.book import about_of, is_begun, rows_of
from pared.search.places import FILE as BOOK
from pared.search.places import POINTER
from pared.types import DataError

SEARCH, RESULTS, RETUNE, PARTS = "search.json", "results.json", "retune.json", "parts"
DISTILLED = "distill.json"
FILES = (store.RECORD, SEARCH, BOOK, RESULTS, RETUNE, DISTILLED)


def found_below(base: Path) -> Iterator[Path]:
    """The folders at and below a folder that commands left, by name."""
    for folder in (base, *sorted(path for path in base.rglob("*") if path.is_dir())):
        if folder.name != PARTS and _reader(folder):
            yield folder


def entry_of(folder: Path) -> Entry:
    """A folder as an entry; without a provenance.json its id follows from its record.

    Raises DataError where no command left it, or its files are damaged.
    """
    reader = _reader(folder)
    if reader is None:
        raise DataError(f"{folder} holds no run: none of {', '.join(FILES)} is there")
    own = provenance.read(folder)
    try:
        found = reader(folder, _bare(folder) if own is None else run_of(own))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise store.damaged(folder, error) from error
    return replace(found, run=replace(found.run, folder=str(folder.resolve())))


def run_of(made: Provenance) -> Run:
    """A run of which no more is known than where it comes from."""
    return Run(**asdict(made))


def _reader(folder: Path) -> Callable[[Path, Run], Entry] | None:
    if (folder / store.RECORD).is_file():
        return _of_run
    if (folder / RETUNE).is_file():
        return _of_retuning
    if (folder / SEARCH).is_file() or is_begun(folder):
        return _of_search
    if (folder / PARTS).is_dir():
        return _of_replication
    if (folder / DISTILLED).is_file():
        return _of_distillation
    return _of_comparison if (folder / RESULTS).is_file() else None


def _bare(folder: Path) -> Run:
    """Of a folder without a provenance.json: known by its record, begun when that was written."""
    files = [folder / name for name in (*FILES, POINTER, "settings.json")]
    first = next(path for path in files if path.is_file())
    key = hashlib.sha256(first.read_bytes()).hexdigest()[:32]
    written = datetime.fromtimestamp(first.stat().st_mtime, UTC).isoformat(timespec="seconds")
    return Run(key, "run", "finished", folder.name, written)


def _of_run(folder: Path, run: Run) -> Entry:
    record = store.read_record(folder)
    settings, shipped = record["settings"], record.get("shipped")
    error = "error" if record.get("task") == "classification" else "nrmse"
    small = "cut" if record.get("chosen") else "full"
    size = "nonzeros" if settings.get("what") == "weights" else "parameters"
    run = replace(
        run,
        kind="run",
        status=run.status if shipped or run.status == "failed" else "interrupted",
        data=record["data"]["name"],
        task=record.get("task", "forecasting"),
        seed=settings.get("seed"),
        seconds=run.seconds or record.get("seconds", {}).get("total"),
        pared=record.get("pared"),
        settings=settings,
        finding=record["finding"],
        remarks=record["notes"],
        error=error,
        before=mean_test_metric(_known(record), "full", error),
        after=mean_test_metric(_known(record), small, error),
        parameters_before=record["full_size"].get(size) if shipped else None,
        parameters_after=shipped.get(size) if shipped else None,
    )
    return Entry(
        run=_compared(run, record["comparisons"].get("full")),
        fits=_fits(record["outcomes"], store.read_curves(folder)),
        cuts=[_cut(each, record.get("chosen")) for each in record["candidates"]],
        comparisons=[_comparison(small, arm, each) for arm, each in record["comparisons"].items()],
    )


def _known(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without metrics that are null, which were no finite numbers."""
    known = [
        {**each, "metrics": {name: value for name, value in each["metrics"].items() if value is not None}}
        for each in record["outcomes"]
    ]
    return {**record, "outcomes": known}


def _fits(outcomes: list[dict[str, Any]], curves: list[dict[str, Any]]) -> list[Fit]:
    """The networks, then what needs no training; curves stand in the order of the networks."""
    found = []
    for place, each in enumerate(outcomes):
        own = curves[place] if place < len(curves) else {}
        same = (own.get("block"), own.get("seed")) == (each["block"], each["seed"])
        told = {name: each[name] for name in ("arm", "block", "seed", "ratio", "metrics", "plan")}
        found.append(Fit(**told, curves=own["curves"] if same else None))
    return found


def _cut(candidate: Mapping[str, Any], chosen: str | None) -> Cut:
    return Cut(
        label=candidate["label"],
        removed=candidate["removed"],
        parameters=candidate["parameters"],
        chosen=candidate["label"] == chosen,
        diverged=candidate["diverged"],
        comparison=candidate["comparison"],
    )


def _of_search(folder: Path, run: Run) -> Entry:
    path = folder / SEARCH
    about = about_of(folder) or {}
    record = _json(path) if path.is_file() else {}
    known = record or about
    test = record.get("test") or {}
    trials = [Trial(number=row.pop("trial"), **row) for row in rows_of(folder)]
    spent = sum(trial.seconds or 0.0 for trial in trials)
    run = replace(
        run,
        kind="search",
        status=run.status if record or run.status == "failed" else "interrupted",
        data=known["data"]["name"],
        task=(known.get("base") or {}).get("predicts", "forecasting"),
        seed=known["settings"]["seed"],
        seconds=run.seconds or record.get("seconds", {}).get("total", spent),
        pared=run.pared or record.get("pared"),
        fingerprint=known["data"].get("sha256"),
        settings={**known["settings"], "base": known.get("base"), "space": known["space"]},
        finding=record.get("finding") or f"Not finished; {len(trials)} evaluations are kept.",
        remarks=record.get("notes", []),
        error=record.get("error"),
        before=test.get("start"),
        after=test.get("winner"),
    )
    comparison = test.get("comparison")
    compared = [_comparison("winner", "settings to beat", comparison)] if comparison else []
    return Entry(run=_compared(run, comparison), trials=trials, comparisons=compared)


def _of_retuning(folder: Path, run: Run) -> Entry:
    record = _json(folder / RETUNE)
    duel, contenders = None, []
    if record["contest"] is not None:
        duel, contenders = record["contest"]["duel"], record["contest"]["contenders"]
    run = replace(
        run,
        kind="retuning",
        data=record["data"]["name"],
        task=record["task"],
        seed=record["settings"]["seed"],
        seconds=run.seconds or record["seconds"]["total"],
        pared=record["pared"],
        fingerprint=record["data"]["sha256"],
        settings={**record["settings"], "promoted": record["promoted"]},
        finding=record["finding"],
        remarks=record["notes"],
        error=record["error"],
        before=fmean(duel["old"]) if duel else None,
        after=fmean(error for line in duel["challenger"] for error in line) if duel else None,
        parameters_before=record["old"]["parameters"],
        parameters_after=contenders[record["contest"]["challenger"]]["parameters"] if duel else None,
    )
    named = {"challenger": "parts", "challenger, over its networks": "seeds"} if duel else {}
    compared = [_comparison(name, "old model", duel[key]) for name, key in named.items()] if duel else []
    return Entry(_compared(run, duel["parts"] if duel else None), comparisons=compared)


def _of_comparison(folder: Path, run: Run) -> Entry:
    record = _json(folder / RESULTS)
    settings = record["settings"]
    run = replace(
        run,
        kind="comparison",
        status="interrupted" if record["stopped"] else run.status,
        data=record["data"]["name"],
        task=record["task"],
        seed=settings["seed"],
        seconds=run.seconds or record["seconds"]["total"],
        pared=record["pared"],
        settings=settings,
        finding=f"{len(record['compared'])} criteria on {record['networks']} networks, see its report.",
        error=record["error"],
    )
    found = [
        _comparison(f"{row['criterion']}, {row['repair']}, {row['ratio']:g} removed", against, row[against])
        for row in record["table"]
        for against in ("full", "random")
        if row[against] is not None
    ]
    return Entry(run=run, comparisons=found)


def _of_distillation(folder: Path, run: Run) -> Entry:
    record = _json(folder / DISTILLED)
    found, arm, metric = record["comparisons"], record["shipped"]["arm"], f"test.{record['error']}"
    errors = [each["metrics"].get(metric) for each in record["fits"] if each["arm"] == arm]
    known = [error for error in errors if error is not None]
    run = replace(
        run,
        kind="distillation",
        data=record["data"]["name"],
        task=record["task"],
        seed=record["settings"]["seeds"][0],
        seconds=run.seconds or record["seconds"]["total"],
        pared=record["pared"],
        settings=record["settings"] | {"teacher": record["teacher"]["which"], "run": record["run"]},
        finding=record["finding"],
        remarks=record["notes"],
        error=record["error"],
        before=record["teacher"]["metrics"].get(metric),
        after=sum(known) / len(known) if known else None,
        parameters_before=record["teacher"]["parameters"],
        parameters_after=record["student"]["parameters"],
    )
    fits = [Fit(each["arm"], record["block"], each["seed"], metrics=each["metrics"]) for each in record["fits"]]
    return Entry(
        run=_compared(run, found["test"]),
        fits=fits,
        comparisons=[_comparison("taught", "plain", found["test"])] if found["test"] else [],
    )


def _of_replication(folder: Path, run: Run) -> Entry:
    settings = _json(folder / "settings.json")
    done = len(list((folder / PARTS).glob("*.json")))
    path = folder / RESULTS
    run = replace(
        run,
        kind="replication",
        status=run.status if path.is_file() else "interrupted",
        data=folder.name.removeprefix("replicate-").removesuffix("-quick"),
        settings=settings,
        finding=f"{done} pieces are finished, see its report." if path.is_file() else f"{done} pieces are finished.",
    )
    return Entry(run)


def _compared(run: Run, comparison: Mapping[str, Any] | None) -> Run:
    if comparison is None:
        return run
    told = {name: comparison[name] for name in ("difference", "low", "high", "scale", "verdict")}
    return replace(run, **told)


def _comparison(first: str, second: str, comparison: Mapping[str, Any]) -> Compared:
    own = {each.name for each in fields(Compared)}
    return Compared(first, second, **{name: value for name, value in comparison.items() if name in own})


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise store.damaged(path, error) from error
    if not isinstance(content, dict):
        raise store.damaged(path, ValueError("it holds no object"))
    return content
