"""The page of a tuning: what changed, who contended, the test, and what the rows were for."""

from pathlib import Path
from typing import Any

import numpy as np

from pared.report.page import template
from pared.report.summary import Record, floats
from pared.report.svg import BLUE, GREY, VERMILION, Drawing, canvas, inline, style
from pared.report.tables import NOTHING, Table, count, probability, significant
from pared.retune.record import reasons, times

SHOWN = 30
"""Most columns in the table of what changed."""


def page(record: Record) -> str:
    """HTML page of the record; the same record gives the same page, byte for byte."""
    contest = record["contest"]
    with style():
        drawings = [drawn(record)] if contest and contest["duel"] else []
    html: str = template("pared.retune", "page.html.j2").render(
        record=record,
        reasons=list(reasons(record)),
        drawings=drawings,
        columns=columns(record),
        losses=losses(record),
        contenders=contenders(record) if contest else None,
        tested=tested(record) if contest and contest["duel"] else None,
        trials=trials(record) if contest else None,
        settings=settings(record),
        kinds={},
    )
    return html


def write_page(record: Record, path: Path) -> None:
    """Writes the page to `path` (UTF-8)."""
    path.write_text(page(record), encoding="utf-8", newline="\n")


def drawn(record: Record) -> Drawing:
    """Errors on the parts of the test: the old model's, and those of every network of the challenger."""
    duel = record["contest"]["duel"]
    old, found = floats(duel["old"]), np.array([floats(line) for line in duel["challenger"]])
    places = np.arange(1, len(old) + 1)
    figure, (axes,) = canvas(height=3.4)
    axes.plot(places, old, "o-", color=GREY, label="old model")
    for line in found:
        axes.scatter(places, line, s=18, color=BLUE, alpha=0.6)
    axes.plot(places, found.mean(axis=0), "-", color=BLUE, label="challenger, mean of its networks")
    shipped = record["contest"]["contenders"][record["contest"]["challenger"]]["median"]
    axes.scatter(places, found[shipped], s=34, marker="D", color=VERMILION, zorder=3, label="the one to use")
    axes.set(xlabel="part of the newest rows", ylabel=_error(record), xticks=places)
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    ordered = "in time order" if record["task"] == "forecasting" else "dealt out by lot"
    caption = (
        f"Every part is a fifth of the test rows, {ordered}; a blue point is one of the challenger's networks. All are "
        "compared on the same rows."
    )
    return Drawing("duel", "Old model and challenger on rows that neither has seen", caption, inline(figure, "duel"))


def columns(record: Record) -> Table:
    """Every column before and now, the surest changes first."""
    ranked = sorted(record["change"]["columns"], key=lambda each: each["p_value"])
    rows = [
        (
            each["column"],
            significant(each["before"]),
            significant(each["now"]),
            significant(each["distance"]),
            probability(each["p_value"]),
            str(each["step"]),
            "changed" if each["column"] in record["change"]["shifted"] else "",
        )
        for each in ranked[:SHOWN]
    ]
    head = ("Column", "Mean before", "Mean now", "Largest distance", "p, corrected", "Every … row counts", "")
    strong = tuple(place for place, each in enumerate(ranked[:SHOWN]) if each["column"] in record["change"]["shifted"])
    return Table(head, tuple(rows), strong=strong)


def losses(record: Record) -> Table:
    """The old model's loss before and now."""
    loss = record["change"]["loss"]
    named = (("where it was tested at first", "before"), ("on new rows", "now"))
    rows = [(name, significant(loss[key]["value"]), significant(loss[key]["error"])) for name, key in named]
    what = "Share of errors" if record["task"] == "classification" else "Mean squared error, units of the data"
    return Table(("Old model", what, "Standard error"), tuple(rows))


def contenders(record: Record) -> Table:
    """All that were trained with five seeds, on validation rows."""
    contest, rows = record["contest"], []
    for each in contest["contenders"]:
        ends = sorted(floats(each["validation"]))
        spread = f"{significant(ends[0])} to {significant(ends[-1])}" if np.isfinite(ends).all() else "one diverged"
        mean = significant(each["mean"]) if each["mean"] is not None else NOTHING
        rows.append((_name(each), each["history"], mean, spread, count(each["parameters"])))
    chosen = () if contest["challenger"] is None else (contest["challenger"],)
    head = ("Contender", "Learns from", f"{_error(record)}, mean", "Least to largest", "Parameters")
    return Table(head, tuple(rows), strong=chosen)


def _name(contender: Record) -> str:
    return "old configuration" if contender["trial"] is None else f"trial {contender['trial']}"


def tested(record: Record) -> Table:
    """The one look at the test rows."""
    duel = record["contest"]["duel"]
    rows = [
        ("old model", significant(float(np.mean(duel["old"]))), NOTHING, NOTHING),
        ("challenger", significant(float(np.mean(duel["challenger"]))), times(record, "parts"), times(record, "seeds")),
    ]
    head = ("On test rows", f"{_error(record)}, mean", "Against the old, over parts", "Over networks")
    return Table(head, tuple(rows), strong=(1,) if record["promoted"] else (0,))


def trials(record: Record) -> Table:
    """What the search tried, in its order."""
    names = list(record["contest"]["space"])
    rows = [
        (
            f"trial {each['trial']}",
            significant(each["values"][0]) if each["outcome"] == "complete" else each["outcome"],
            *(_shown(each["point"][name]) if name in each["point"] else NOTHING for name in names),
        )
        for each in record["contest"]["trials"]
    ]
    return Table(("Trial", "Score", *(name.replace("_", " ") for name in names)), tuple(rows))


def settings(record: Record) -> Table:
    """Data, rows and what was told."""
    data, old, rows, told = record["data"], record["old"], record["rows"], record["settings"]
    found = [
        ("old model", f"{old['folder']}, {count(old['parameters'])} parameters"),
        ("made from", f"{old['data']}, {count(old['rows'])} rows{_digest(old['sha256'])}"),
        ("new data", f"{data['name']}, {count(data['rows'])} rows{_digest(data['sha256'])}"),
        ("rows known before", count(rows["known"])),
        ("new rows to learn from", count(rows["train"])),
        ("new rows to choose on", count(rows["validation"])),
        ("new rows to test on", f"{count(sum(rows['test']))}, in {len(rows['test'])} parts"),
        ("trials of the search", str(told["trials"])),
        ("seed", str(told["seed"])),
        ("level", f"{100 * told['level']:g} %"),
        ("pared version", record["pared"]),
    ]
    return Table(("Setting", "Value"), tuple(found), numeric=False)


def _digest(sha256: str | None) -> str:
    return f", SHA-256 {sha256[:16]}" if sha256 else ""


def _error(record: Record) -> str:
    return "share of errors" if record["error"] == "error" else "NRMSE"


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
