"""The page of a distillation: tables of its record."""

from pathlib import Path

from pared.distilling import record
from pared.report import tables
from pared.report.page import template
from pared.report.summary import Record
from pared.store import REPORT


def page(content: Record) -> str:
    """HTML page of the record; the same record gives the same page, byte for byte."""
    html: str = template("pared.distilling", "page.html.j2").render(
        record=content, said=record, shared=tables, kinds={}
    )
    return html


def write_page(content: Record, folder: Path) -> None:
    """Writes the page (UTF-8)."""
    (folder / REPORT).write_text(page(content), encoding="utf-8", newline="\n")
