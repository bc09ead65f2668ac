"""What a run shows on the screen: what it found, its table of controls; and tables of numbers as CSV."""

import csv
import sys
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from pared import store
from pared.findings import mean_test_metric, ratio_text
from pared.terminal import err, out

COLUMNS = {  # metric -> heading, and whether it is a share
    "forecasting": {"nrmse": ("NRMSE", False), "direction": ("1-step", True), "free_direction": ("free", True)},
    "regression": {"nrmse": ("NRMSE", False), "r2": ("R2", False)},
    "classification": {"accuracy": ("accuracy", True)},
}


def summary(record: dict[str, Any], folder: Path) -> None:
    """Size, error, verdict and controls on the screen."""
    out.print()
    out.print(f"[bold]{escape(record['finding'])}[/]", soft_wrap=True)
    for note in record["notes"]:
        out.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    out.print(_controls_table(record))
    first = "cut" if record["chosen"] else "full"
    for line in _legend(record, first):
        out.print(line, style="dim")
    small, full = record["shipped"], record["full_size"]
    example = "prediction" if record.get("task") else "forecast"
    names = {"nonzeros": "parameters not zero"} if record["settings"]["what"] == "weights" else {}
    names |= {"parameters": "parameters", "macs": "multiply-adds"}
    sizes = [f"{small[key]} of {full[key]} {name}" for key, name in names.items()]
    out.print(f"shipped: {', '.join(sizes)}, {small['milliseconds']:.2f} of {full['milliseconds']:.2f} ms a {example}")
    out.print(f"report: {escape(str(folder / store.REPORT))}", soft_wrap=True)


def _legend(record: dict[str, Any], first: str) -> list[str]:
    task = record.get("task", "forecasting")
    if task == "classification":
        return [
            f"* shipped. Points: accuracy of '{first}' above that of the row; verdict: on '{first}' against the row."
        ]
    found = [f"* shipped. Ratio: error of '{first}' over that of the row; verdict: on '{first}' against the row."]
    if task == "forecasting":
        found.append("1-step, free: shares of right directions, one step ahead and free-running.")
    return found


def _controls_table(record: dict[str, Any]) -> Table:
    task = record.get("task", "forecasting")
    shown = COLUMNS[task]
    compared = "points" if task == "classification" else "error ratio"
    size, sizes = ("nonzeros", "not 0") if record["settings"]["what"] == "weights" else ("parameters", "param.")
    columns = ("network", *(heading for heading, _ in shown.values()), sizes, compared, "verdict")
    table = Table(*columns, box=None, padding=(0, 1, 0, 0))
    for name in dict.fromkeys(("full", "cut", *record["comparisons"])):
        values = {metric: mean_test_metric(record, name, metric) for metric in (*shown, size)}
        if values[next(iter(shown))] is None:
            continue
        found = record["comparisons"].get(name)
        table.add_row(
            name + ("*" if name == record["shipped"]["arm"] else ""),
            *(_cell(values[metric], share) for metric, (_, share) in shown.items()),
            "" if values[size] is None else f"{values[size]:.0f}",
            ratio_text(found) if found else "",
            found["verdict"] if found else "",
        )
    return table


def _cell(value: float | None, share: bool) -> str:
    if value is None:
        return ""
    return f"{100 * value:.1f}%" if share else f"{value:.3g}"


def write_csv(file: Path | None, header: tuple[str, ...], rows: list[list[Any]]) -> None:
    if file is None:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([header, *rows])
        return
    with file.open("x", newline="", encoding="utf-8") as stream:  # "x": never overwrites
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    err.print(f"written: {escape(str(file))}", soft_wrap=True)
