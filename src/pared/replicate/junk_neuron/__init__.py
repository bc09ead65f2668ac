"""Huang, Gu & Yang (2022) on deleting "junk neurons", with controls: see docs/decisions/0010."""

from pathlib import Path

from pared.replicate.junk_neuron.findings import notes, regime
from pared.replicate.junk_neuron.folder import Settings, finished, open_folder, settings, work
from pared.replicate.junk_neuron.page import write_page
from pared.replicate.junk_neuron.protocol import BUDGETS
from pared.replicate.junk_neuron.published import SYSTEMS
from pared.replicate.junk_neuron.record import build
from pared.replicate.parts import REPORT, RESULTS, write

__all__ = ["BUDGETS", "SYSTEMS", "Settings", "open_folder", "report", "settings", "work"]


def report(folder: Path, settings: Settings) -> list[str]:
    """Writes results.json and report.html from what is finished; returns what to say of it."""
    results = finished(folder, settings)
    said = [f"{len(results)} of {len(settings.tasks())} tasks are finished in {folder}"]
    if not any(seed is not None for _, _, seed in results):
        return said
    record = build(results, settings)
    write(folder / RESULTS, record)
    write_page(record, folder / REPORT)
    for name, budget in record["budgets"].items():
        if budget["pooled"]:
            said += [f"{name}: {sentence}" for sentence in regime(budget)[:2]]
    return [*notes(record), *said, f"report: {folder / REPORT}"]
