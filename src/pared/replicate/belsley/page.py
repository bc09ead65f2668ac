"""The page of the replication: findings, the paper's table and figures beside ours."""

from pathlib import Path

from pared.replicate.belsley import figures, findings, tables
from pared.replicate.belsley.findings import Record
from pared.report.claims import KINDS
from pared.report.page import template
from pared.report.svg import style

OWN_KINDS = {"holds": "good", "the opposite holds": "bad", "not shown": "open"}


def page(record: Record) -> str:
    """HTML page of the record; the same record gives the same page, byte for byte."""
    with style():
        drawings = figures.drawings(record)
    html: str = template("pared.replicate.belsley", "page.html.j2").render(
        record=record, findings=findings, tables=tables, drawings=drawings, kinds=KINDS | OWN_KINDS
    )
    return html


def write_page(record: Record, path: Path) -> None:
    """Writes the page to `path` (UTF-8)."""
    path.write_text(page(record), encoding="utf-8", newline="\n")
