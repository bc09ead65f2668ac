"""Tables of the page: every cell is text, made from the record alone."""

from pared.comparing.record import cells
from pared.kept import MARKS
from pared.report.summary import Record, level
from pared.report.tables import NOTHING, Table, compared_text, significant


def against_full(record: Record, repair: str) -> Table:
    """What is left after each share, against the full networks; marks say how the criterion stands to random."""
    rows = []
    for name in record["compared"]:
        found = [compared_text(row["full"]) + _mark(row["standing"]) for row in cells(record, name, repair)]
        rows.append((name, *found))
    return Table((_head(record), *_shares(record)), tuple(rows), rules=(1,))


def against_random(record: Record, repair: str) -> Table:
    """Each criterion against the random orders of the same networks."""
    rows = []
    for name in record["compared"][1:]:
        found = [compared_text(row["random"]) + _mark(row["standing"]) for row in cells(record, name, repair)]
        rows.append((name, *found))
    return Table((_head(record), *_shares(record)), tuple(rows))


def _mark(standing: str) -> str:
    return "\N{NO-BREAK SPACE}" + (MARKS[standing] or "\N{FIGURE SPACE}")  # type: ignore[index]


def _head(record: Record) -> str:
    return f"Criterion [{level(record)} interval]"


def _shares(record: Record) -> tuple[str, ...]:
    return tuple(f"{100 * ratio:g}\N{NO-BREAK SPACE}%" for ratio in sorted(record["ratios"]))


def costs(record: Record) -> Table:
    """What the scores of one network take, and what they ask for."""
    rows = []
    for name in record["compared"]:
        found = record["costs"][name]
        rows.append((name, f"{significant(found['seconds'])} s", found["needs"] or NOTHING))
    return Table(("Criterion", "Median time", "What it takes, by its docstring"), tuple(rows), numeric=False)


def refused(record: Record) -> Table:
    """Criteria without scores, and why."""
    rows = [
        (each["criterion"], f"{each['networks']} of {record['networks']}", each["reason"]) for each in record["refused"]
    ]
    return Table(("Criterion", "Networks", "Why it gave no scores"), tuple(rows), numeric=False)
