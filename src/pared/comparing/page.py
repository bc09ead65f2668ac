"""The page of a comparison of criteria: tables, the figure, costs."""

from pathlib import Path

from pared.comparing import figures, record, tables
from pared.report import tables as shared
from pared.report.page import template
from pared.report.summary import Record
from pared.report.svg import style
from pared.store import REPORT


def page(content: Record) -> str:
    """HTML page of the record; the same record gives the same page, byte for byte."""
    with style():
        drawing = figures.kept(content)
    html: str = template("pared.comparing", "page.html.j2").render(
        record=content, said=record, tables=tables, shared=shared, drawing=drawing, kinds={}
    )
    return html


def write_page(content: Record, folder: Path) -> None:
    """Writes the page (UTF-8)."""
    (folder / REPORT).write_text(page(content), encoding="utf-8", newline="\n")
