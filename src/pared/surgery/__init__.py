"""Surgery: what can be cut, and cutting it exactly."""

from pared.surgery.edit import cut, mask, replay
from pared.surgery.files import load, save
from pared.surgery.structure import Group, Plan, Slice, Structure, StructureError
from pared.surgery.trace import trace

__all__ = [
    "Group", "Plan", "Slice", "Structure", "StructureError", "cut", "load", "mask", "replay", "save", "trace",
]  # fmt: skip
