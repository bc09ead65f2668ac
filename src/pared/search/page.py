"""The page of a search: the winner and what may be expected of it, the race, every trial."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from pared.report.claims import KINDS
from pared.report.page import template
from pared.report.summary import Record, floats
from pared.report.svg import BLUE, GREY, VERMILION, Drawing, canvas, inline, style
from pared.report.tables import NOTHING, Table, count, significant
from pared.search.space import Point

BEST = 10
"""Trials in the table of the best."""


def page(record: Record) -> str:
    """HTML page of the record; the same record gives the same page, byte for byte."""
    with style():
        drawings = [history(record)]
    html: str = template("pared.search", "page.html.j2").render(
        record=record,
        drawings=drawings,
        race=race(record),
        best=best(record),
        winner=winner(record),
        tested=tested(record),
        space=space(record),
        settings=settings(record),
        kinds=KINDS,
    )
    return html


def write_page(record: Record, path: Path) -> None:
    """Writes the page to `path` (UTF-8)."""
    path.write_text(page(record), encoding="utf-8", newline="\n")


def history(record: Record) -> Drawing:
    """Scores in the order of the trials, the best so far, and the confirmed errors of the finalists."""
    title = "Scores, and what fresh seeds made of the best"
    scores = floats([trial["values"][0] for trial in record["trials"]])
    known = np.isfinite(scores)
    if not known.any():
        return Drawing("history", title, "Not drawn: no trial gave a finite error.")
    figure, (axes,) = canvas(height=3.8)
    axes.scatter(np.flatnonzero(known), scores[known], s=18, color=GREY, label="score of a trial")
    axes.step(range(len(scores)), np.fmin.accumulate(scores), where="post", color=BLUE, label="best score so far")
    raced = record["finalists"]
    if raced:
        means = np.array([each["expected"] for each in raced])
        ends = np.array([[each[end] or each["expected"] for each in raced] for end in ("low", "high")])
        axes.errorbar(
            [each["trial"] for each in raced],
            means,
            yerr=[means - ends[0], ends[1] - means],
            fmt="D",
            markersize=5,
            capsize=3,
            color=VERMILION,
            label="confirmed on fresh seeds",
        )
    if record["scale"] == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="trial", ylabel=_error(record))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    caption = (
        "Every point is a trial, all on the same seeds and blocks. Diamonds are the errors to expect of finalists, "
        "with 95 % intervals over fresh seeds: that they lie above the line is how far the best of many flatters."
    )
    return Drawing("history", title, caption, inline(figure, "history"))


def race(record: Record) -> Table:
    """The finalists, best first."""
    rows = []
    for each in record["finalists"]:
        interval = NOTHING if each["low"] is None else f"{significant(each['low'])} to {significant(each['high'])}"
        cells = (*map(significant, (each["score"], each["mean"], each["expected"])), interval, str(len(each["fresh"])))
        rows.append((f"trial {each['trial']}", *cells, *_costs(record, each["trial"])))
    head = (
        "Finalist",
        "Score in the search",
        "Mean of fresh seeds",
        "To expect",
        "95 % interval",
        "Seeds",
        *_extra(record),
    )
    won = [place for place, each in enumerate(record["finalists"]) if each["trial"] == record["winner"]]
    return Table(head, tuple(rows), strong=tuple(won))


def best(record: Record) -> Table:
    """The trials with the best scores, and their points."""
    done = [t for t in record["trials"] if t["outcome"] == "complete"]
    ranked = sorted(done, key=lambda t: (t["values"], t["trial"]))[:BEST]
    names = list(record["space"])
    rows = [
        (
            f"trial {t['trial']}",
            significant(t["values"][0]),
            *_shown_costs(record, t["values"]),
            *(_cell(t["point"], name) for name in names),
        )
        for t in ranked
    ]
    head = ("Trial", _error(record), *_extra(record), *(name.replace("_", " ") for name in names))
    won = tuple(place for place, t in enumerate(ranked) if t["trial"] == record["winner"])
    return Table(head, tuple(rows), strong=won)


def winner(record: Record) -> Table:
    """The winner's point."""
    point = next(t["point"] for t in record["trials"] if t["trial"] == record["winner"])
    return Table(
        ("Setting", "Value"), tuple((name.replace("_", " "), _cell(point, name)) for name in point), numeric=False
    )


def tested(record: Record) -> Table:
    """The winner and the settings to beat on test data."""
    test = record["test"]
    if not test:
        return Table((), ())
    verdict = test["comparison"]["verdict"] if test["comparison"] else NOTHING
    rows = [("Winner", significant(test["winner"]), verdict)]
    if test["start"] is not None:
        rows.append(("Settings to beat", significant(test["start"]), NOTHING))
    return Table(("On test data", _error(record), "Verdict"), tuple(rows), strong=(0,))


def space(record: Record) -> Table:
    """Every parameter and what it may be."""
    rows = []
    for name, entry in record["space"].items():
        if entry["kind"] == "categorical":
            text = ", ".join(map(_shown, entry["choices"]))
        else:
            text = f"{_shown(entry['low'])} to {_shown(entry['high'])}"
            kind = {"int": "whole numbers", "power of two": "powers of two"}.get(entry["kind"], "")
            text += f", {kind}" * bool(kind) + ", log scale" * bool(entry.get("log"))
            text += f", step {_shown(entry['step'])}" if entry.get("step") else ""
        for parent, values in (entry.get("when") or {}).items():
            text += f"; where {parent} is {' or '.join(map(_shown, values))}"
        rows.append((name.replace("_", " "), text))
    return Table(("Parameter", "Values"), tuple(rows), numeric=False)


def settings(record: Record) -> Table:
    """What the search was told."""
    told = record["settings"]
    stopping = told["stopping"]
    rule = stopping["rule"] if stopping["rule"] == "none" else f"{stopping['rule']}, after {stopping['warmup']} epochs"
    data = record["data"]
    rows = [
        (
            "data",
            f"{data['name']}, {data['rows']:,} rows, SHA-256 {data['sha256'][:16]}"
            if "rows" in data
            else data["function"],
        ),
        ("trials", f"{told['trials']}, of which {record['evaluations']} evaluations were made"),
        ("sampler", told["sampler"]),
        ("objectives", ", ".join(told["objectives"])),
        ("early stopping", rule),
        ("seed", str(told["seed"])),
        ("asked ahead", str(told["lag"])),
        ("epochs", str(record["base"]["epochs"]) if record["base"] else NOTHING),
        ("pared version", record["pared"]),
    ]
    return Table(("Setting", "Value"), tuple(rows), numeric=False)


def _error(record: Record) -> str:
    return {"nrmse": "NRMSE", "error": "share of errors"}.get(record["error"], "value")


def _extra(record: Record) -> tuple[str, ...]:
    return tuple({"latency": "latency, ms"}.get(name, name) for name in record["settings"]["objectives"][1:])


def _costs(record: Record, number: int) -> tuple[str, ...]:
    values = next(t["values"] for t in record["trials"] if t["trial"] == number)
    return _shown_costs(record, values)


def _shown_costs(record: Record, values: Sequence[float | None]) -> tuple[str, ...]:
    """The values of the objectives after the error."""
    names = record["settings"]["objectives"][1:]
    return tuple(
        count(v) if name == "parameters" else significant(v) for name, v in zip(names, values[1:], strict=True)
    )


def _cell(point: Point, name: str) -> str:
    return _shown(point[name]) if name in point else NOTHING


def _shown(value: object) -> str:
    return "none" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
