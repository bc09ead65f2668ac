"""The second way to trace: torch.export runs the model's Python and writes ATen operations, which then are followed.

It takes control flow that depends on shapes or settings, which torch.fx cannot, and takes seconds. All sizes are
numbers in its graph, so what it finds is tried out before it is believed.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from pared.surgery.atoms import Atoms
from pared.surgery.check import verified
from pared.surgery.copies import held_tensors
from pared.surgery.rules import OPERATIONS, Rule, exported
from pared.surgery.rules.layouts import unlabelled
from pared.surgery.slices import StructureError
from pared.surgery.structure import Structure
from pared.surgery.units import structure_of
from pared.surgery.walk import Walk

EXPORTED: Mapping[str, Rule] = {**OPERATIONS, **exported.RULES}


def trace_exported(model: nn.Module, inputs: Sequence[Tensor], why_not_fx: Exception) -> Structure:
    """The structure that torch.export's graph shows, each group tried out on the inputs.

    Raises StructureError where neither torch.fx (`why_not_fx`) nor torch.export can follow the model.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the flat weights of recurrent modules
            program = torch.export.export(model, tuple(inputs))
    except Exception as error:  # export passes on whatever the user's forward raises
        raise StructureError(
            f"torch.fx cannot follow {type(model).__name__}.forward: {_first_line(why_not_fx)}; "
            f"nor can torch.export: {_first_line(error)}; "
            "avoid Python control flow that depends on tensor values, or write the Structure by hand"
        ) from error
    atoms = Atoms(model, literal=True)
    held = held_tensors(model)
    names = program.graph_signature.inputs_to_parameters | program.graph_signature.inputs_to_buffers
    walk = _ExportedWalk(program.graph_module, atoms, names)
    constants = program.constants
    given = iter(inputs)
    values = []
    for node in program.graph.nodes:
        if node.op == "placeholder":
            name = names.get(node.name) or program.graph_signature.inputs_to_lifted_tensor_constants.get(node.name)
            values.append(next(given) if name is None else held[name] if name in held else constants[name])
    walk.run(*values)
    return verified(model, structure_of(atoms), inputs)


class _ExportedWalk(Walk):
    """Parameters are arguments of the graph."""

    rules = EXPORTED

    def __init__(self, module: fx.GraphModule, atoms: Atoms, names: dict[str, str]) -> None:
        super().__init__(module, atoms)
        self.names = names

    def _layout(self, node: fx.Node, value: Any) -> Any:
        if node.op == "placeholder" and node.name in self.names and isinstance(value, Tensor):
            return self.atoms.parameter(self.names[node.name], value)
        if node.op == "placeholder":
            return unlabelled(value)
        return super()._layout(node, value)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
