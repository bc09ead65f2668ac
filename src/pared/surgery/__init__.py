"""Surgery: what can be cut, and cutting it exactly."""

from pared.surgery.drop import drop_layer, droppable
from pared.surgery.edit import cut, mask
from pared.surgery.files import load, load_masks, save
from pared.surgery.grow import insert, widen
from pared.surgery.layers import deepen, split_layers
from pared.surgery.optimiser import carry, carry_tensors
from pared.surgery.plan import Deepen, Drop, Factor, Insert, Plan, Split
from pared.surgery.replay import replay
from pared.surgery.slices import Group, Slice, StructureError
from pared.surgery.structure import Structure, by_unit
from pared.surgery.trace import trace

__all__ = [
    "Deepen", "Drop", "Factor", "Group", "Insert", "Plan", "Slice", "Split", "Structure", "StructureError", "by_unit",
    "carry", "carry_tensors", "cut", "deepen", "drop_layer", "droppable", "insert", "load", "load_masks", "mask",
    "replay", "save", "split_layers", "trace", "widen",
]  # fmt: skip
