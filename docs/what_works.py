"""Prints "What works, measured" from benchmarks/results/growth_*.json: `make docs` writes docs/what-works.md."""

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from growth_rows import Row, read_rows  # noqa: E402 - the path comes first

HEAD = """# What works, measured

This page is written by `docs/what_works.py` from `benchmarks/results/growth_*.json`; do not edit it.

Each row is a method against its honest control, paired by seed: the effect is the method's measure minus the
control's, with its 95 % interval. "No effect" is a result. Costs are seconds of one training on the machine that the
results file names.

| method | data | seeds | measure | effect [95 % interval] | control | cost, s (control) | verdict |
|---|---|---:|---|---|---|---|---|"""


def line(row: Row) -> str:
    """One row of the table."""
    effect = f"{row.effect:+.3g} [{row.low:+.3g}, {row.high:+.3g}]"
    cost = f"{row.cost_seconds:.2g} ({row.control_cost_seconds:.2g})"
    method = f"{row.method} ({row.source})"
    cells = (method, row.data, str(row.seeds), row.measure, effect, row.control, cost, row.verdict)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page() -> str:
    """The whole page: files in the order of their names, rows as written, notes below the table."""
    rows = [row for path in sorted((BENCHMARKS / "results").glob("growth_*.json")) for row in read_rows(path)]
    notes = [f"- {row.method}, {row.data}: {row.note}" for row in rows if row.note]
    return "\n".join([HEAD, *map(line, rows), *(["", "## Notes", "", *notes] if notes else []), ""])


if __name__ == "__main__":
    print(page(), end="")
