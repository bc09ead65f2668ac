"""Grabovoy, Bakhteev & Strijov (2019) on the relevance of weights, with more seeds: see docs/decisions/0016."""

from pathlib import Path

from pared.replicate import parts
from pared.replicate.belsley.findings import notes, sentences
from pared.replicate.belsley.folder import Settings, finished, settings, work
from pared.replicate.belsley.page import write_page
from pared.replicate.belsley.protocol import PROBLEMS
from pared.replicate.belsley.record import build

__all__ = ["PROBLEMS", "Settings", "report", "settings", "work"]


def report(folder: Path, settings: Settings) -> list[str]:
    """Writes results.json and report.html from what is finished; returns what to say of it."""
    results = finished(folder, settings)
    said = [f"{len(results)} of {len(settings.tasks())} tasks are finished in {folder}"]
    if not results:
        return said
    record = build(results, settings)
    parts.write(folder / parts.RESULTS, record)
    write_page(record, folder / parts.REPORT)
    return [*notes(record), *sentences(record), *said, f"report: {folder / parts.REPORT}"]
