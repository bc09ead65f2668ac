"""Huang, Gu & Yang (2022) on deleting "junk neurons", with controls: see docs/decisions/0010."""

from pathlib import Path

from pared.replicate.junk_neuron.folder import RESULTS, Settings, finished, open_folder, settings, work, write
from pared.replicate.junk_neuron.protocol import BUDGETS
from pared.replicate.junk_neuron.published import SYSTEMS
from pared.replicate.junk_neuron.record import build

__all__ = ["BUDGETS", "SYSTEMS", "Settings", "open_folder", "report", "settings", "work"]


def report(folder: Path, settings: Settings) -> list[str]:
    """Writes results.json from what is finished; returns what to say."""
    results = finished(folder, settings)
    if results:
        write(folder / RESULTS, build(results, settings))
    return [f"{len(results)} of {len(settings.tasks())} tasks are finished in {folder}"]
