"""Prints "What works, measured" from benchmarks/results/growth_*.json: `make docs` writes docs/what-works.md."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from growth_rows import Row, Verdict, read_rows  # noqa: E402 - the path comes first

TOPICS = {
    "Schedules": ("schedules", "mollifying", "lstm_mollified"),
    "Growing": (
        "cascade", "nodes", "initialisers", "splitting", "net2net", "nonparametric", "lstm_size", "columns",
        "specialists", "experts", "neurogenesis", "endless", "autoencoder",
    ),
    "Growing and cutting in one loop": ("shape",),
    "Few weights from the first step": ("sparse",),
    "Populations": ("population",),
    "Tasks in turn": ("successive",),
    "Teacher and student": ("distill",),
}  # fmt: skip
"""Heading -> its results files, growth_<name>.json. What has none is told at the end."""
VERDICTS: dict[str, tuple[Verdict, ...]] = {
    "better than": ("better",),
    "as good as": ("not inferior", "no effect"),
    "inferior to": ("inferior",),
    "not told apart from": ("inconclusive",),
}

HEAD = """# What works, measured

This page is written by `docs/what_works.py` from `benchmarks/results/growth_*.json`; do not edit it.

Every method of changing a network while it trains, against its honest controls, paired by seed. First in short, then
with figures: the effect is the method's measure minus the control's, with its 95 % interval. "As good as" is within the
margin: 5 % of an error, one point of accuracy. "No effect" is a result. Costs are processor seconds of one training on
the machine that the results file names; a note says where they are wall seconds.

## In short
"""


def cell(text: str) -> str:
    """Text within a table."""
    return text.replace("|", "\\|")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns of text."""
    lines = [columns, ["---"] * len(columns), *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def grouped(rows: Sequence[Row], same: Callable[[Row], tuple[str, ...]]) -> dict[tuple[str, ...], list[Row]]:
    """Rows by what they have in common, in the order of the first of each."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(same(row), []).append(row)
    return found


def in_short(rows: Sequence[Row]) -> str:
    """A line a method, data set and measure: its controls by verdict."""
    lines = []
    for (method, data, measure), own in grouped(rows, lambda row: (row.method, row.data, row.measure)).items():
        by_verdict = [dict.fromkeys(row.control for row in own if row.verdict in some) for some in VERDICTS.values()]
        lines.append((method, data, measure.split(",")[0], *("; ".join(controls) for controls in by_verdict)))
    return table(("method", "data", "measure", *VERDICTS), lines)


def figures(rows: Sequence[Row]) -> str:
    """A table a method, data set and measure."""
    parts = []
    by = grouped(rows, lambda row: (row.method, row.source, row.data, str(row.seeds), row.measure))
    for (method, source, data, seeds, measure), own in by.items():
        lines = [
            (
                row.control,
                f"{row.effect:+.3g} [{row.low:+.3g}, {row.high:+.3g}]",
                row.verdict,
                f"{row.cost_seconds:.2g} ({row.control_cost_seconds:.2g})",
                row.note,
            )
            for row in own
        ]
        columns = ("control", "effect [95 % interval]", "verdict", "cost, s (control)", "note")
        parts.append(f"### {method} ({source})\n\n{data}; {seeds} seeds; {measure}.\n\n{table(columns, lines)}\n")
    return "\n".join(parts)


def page() -> str:
    """The whole page: topics in their order, rows as written."""
    files = {path.stem.removeprefix("growth_"): path for path in (BENCHMARKS / "results").glob("growth_*.json")}
    told = {name for names in TOPICS.values() for name in names}
    topics = TOPICS | {"Others": tuple(sorted(files.keys() - told))}
    rows = {
        topic: [row for name in names if name in files for row in read_rows(files[name])]
        for topic, names in topics.items()
    }
    parts = [HEAD, in_short([row for some in rows.values() for row in some]), ""]
    for topic, own in rows.items():
        parts += [f"## {topic}\n", figures(own)] if own else []
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
