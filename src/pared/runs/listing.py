"""Runs on the screen: a line a run, one run whole, several side by side."""

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from textwrap import shorten
from typing import Any

from rich.markup import escape
from rich.table import Table

from pared.database.entries import Entry, Note, Run
from pared.report.summary import geometric_mean, mean
from pared.report.tables import significant
from pared.runs.conditions import FIELDS, flat, plain

SHORT = 8
"""Characters of an id that are shown."""
WIDE = 150
"""Columns from which on a list is whole; one that does not go to a terminal is."""
OF_WIDE = ("task", "seed", "time")
STYLES = {"finished": "", "interrupted": "yellow", "failed": "red"}
LONG = ("id", "traceback", "finding", "reason")
"""Fields that do not go into a table of settings."""


def listing(runs: Sequence[Run], width: int) -> Table:
    """A line a run; of an error the interval compares after with before. Where it is narrow, the rest is left out."""
    found = Table(box=None, padding=(0, 2, 0, 0))
    shown = [name for name in CELLS if width >= WIDE or name not in OF_WIDE]
    for name in shown:
        found.add_column(name, no_wrap=name not in ("finding", "error"))
    for run in runs:
        cells = {name: CELLS[name](run) for name in shown}
        if width < WIDE:
            cells["finding"] = shorten(cells["finding"], 40, placeholder=" …")
        found.add_row(*map(escape, cells.values()), style=STYLES.get(run.status, ""))
    return found


def whole(entry: Entry, notes: Sequence[Note], runs: Sequence[Run] = ()) -> list[Any]:
    """Everything that is known of a run, for the screen; `runs` are all, which may have seen the same test data."""
    run = entry.run
    known = [(name, plain(getattr(run, name))) for name in FIELDS if name not in LONG]
    lines: list[Any] = [f"[bold]{escape(run.id)}[/]", escape(run.finding or "")]
    lines += [f"[yellow]Note:[/] {escape(each)}" for each in run.remarks]
    lines += [f"[cyan]{escape(moment(note.written))}[/] {escape(note.text)}" for note in notes]
    pairs = [*((name, text) for name, text in known if text), ("test data", test_looks(run, runs))]
    lines.append(_pairs([*pairs, *_settings(run)]))
    for title, rows in _parts(entry).items():
        if rows:
            lines += ["", f"[bold]{title}[/]", _rows(rows)]
    if run.reason:
        lines += ["", f"[red]{escape(run.reason)}[/]", escape(run.traceback or "")]
    return lines


def test_looks(run: Run, runs: Sequence[Run]) -> str:
    """Whether a run looked at test data, and how many others of the same data did: a look makes the next worth less."""
    others = [
        each
        for each in runs
        if each.id != run.id and run.fingerprint is not None and each.fingerprint == run.fingerprint and _opened(each)
    ]
    own = "looked at" if _opened(run) else "not looked at"
    return f"{own}; {len(others)} other entries of these data did"


def _opened(run: Run) -> bool:
    return run.before is not None or run.after is not None


def side_by_side(runs: Sequence[Run]) -> Table:
    """A column a run; rows that differ are marked and coloured, those of settings come last."""
    found = Table("", "", *(escape(run.id[:SHORT]) for run in runs), box=None, padding=(0, 2, 0, 0))
    names = [name for name in FIELDS if name not in ("id", "traceback", "folder")]
    settings = dict.fromkeys(name for run in runs for name in flat(run))
    own = [flat(run) for run in runs]
    rows = [(name, [plain(getattr(run, name)) for run in runs]) for name in names]
    rows += [(name, [plain(each.get(name)) for each in own]) for name in settings]
    for name, cells in rows:
        if any(cells):
            differ = len(set(cells)) > 1
            found.add_row("≠" if differ else "", *map(escape, (name, *cells)), style="bold yellow" if differ else "")
    return found


def moment(text: str) -> str:
    """A time of the database on this machine's clock, to the minute."""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return text


def duration(seconds: float | None) -> str:
    """Hours, minutes, seconds; two of them."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _told(run: Run) -> str:
    return (run.reason if run.status == "failed" else run.finding) or ""


def _sizes(run: Run) -> str:
    if run.parameters_before is None:
        return ""
    return f"{run.parameters_before} → {run.parameters_after}"


def _errors(run: Run) -> str:
    if run.before is None and run.after is None:
        return ""
    text = " → ".join("–" if value is None else significant(value) for value in (run.before, run.after))
    if run.difference is None:
        return f"{run.error} {text}"
    ends = [run.difference, run.low, run.high]
    if run.scale == "log":
        middle, *interval = ("–" if end is None else f"{math.exp(min(end, 700.0)):.3g}" for end in ends)
        return f"{run.error} {text}, ×{middle} [{', '.join(interval)}]"
    middle, *interval = ("–" if end is None else f"{100 * end:+.2g}" for end in ends)
    return f"{run.error} {text}, {middle} points [{', '.join(interval)}]"


def _settings(run: Run) -> list[tuple[str, str]]:
    return [(name, plain(value)) for name, value in flat(run).items()]


def _pairs(pairs: Sequence[tuple[str, str]]) -> Table:
    found = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in pairs:
        found.add_row(escape(name), escape(text))
    return found


def _rows(rows: Sequence[dict[str, Any]]) -> Table:
    found = Table(*rows[0], box=None, padding=(0, 2, 0, 0))
    for row in rows:
        found.add_row(*(escape(f"{cell:.4g}" if isinstance(cell, float) else plain(cell)) for cell in row.values()))
    return found


def _parts(entry: Entry) -> dict[str, list[dict[str, Any]]]:
    error = f"test.{entry.run.error}"
    arms: dict[str, list[float | None]] = {}
    for fit in entry.fits:
        arms.setdefault(fit.arm, []).append(fit.metrics.get(error))
    compared = ("first", "second", "difference", "low", "high", "verdict")
    return {
        "networks": [
            {"arm": arm, "networks": len(errors), f"mean {error}": _mean(errors, entry.run)}
            for arm, errors in arms.items()
        ],
        "cuts": [
            {"rule": c.label, "removed": c.removed, "parameters": c.parameters, "chosen": c.chosen} for c in entry.cuts
        ],
        "comparisons": [{name: getattr(each, name) for name in compared} for each in entry.comparisons],
        "trials": [
            {"stage": t.stage, "trial": t.number, "seed": t.seed, "values": _values(t.result) or t.reason}
            for t in entry.trials
        ],
    }


def _values(result: dict[str, Any] | None) -> str:
    return plain(result["values"]) if result else ""


def _mean(values: Sequence[float | None], run: Run) -> float | None:
    """Geometric of an NRMSE, as everywhere."""
    known = [value for value in values if value is not None]
    return geometric_mean(known) if run.error == "nrmse" else mean(known)


CELLS: dict[str, Callable[[Run], str]] = {
    "id": lambda run: run.id[:SHORT],
    "when": lambda run: moment(run.begun),
    "kind": lambda run: run.kind,
    "data": lambda run: run.data,
    "task": lambda run: run.task or "",
    "finding": _told,
    "params": _sizes,
    "error": _errors,
    "seed": lambda run: "" if run.seed is None else str(run.seed),
    "time": lambda run: duration(run.seconds),
}
"""Column of a list -> what stands there."""
