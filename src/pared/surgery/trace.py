"""From a module and an example to its structure: torch.fx writes the graph, the rules follow the units through it."""

import math
import operator
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import rnn

from pared.surgery.atoms import Atoms, Traced
from pared.surgery.copies import blanks, copied, own_weights
from pared.surgery.edit import replace_all
from pared.surgery.exported import trace_exported
from pared.surgery.rules import MODULES
from pared.surgery.rules.layouts import unlabelled
from pared.surgery.slices import StructureError
from pared.surgery.structure import Structure
from pared.surgery.units import structure_of
from pared.surgery.walk import HollowWalk, Walk, kind_of, protect


def trace(model: nn.Module, example: Tensor | Sequence[Tensor]) -> Structure:
    """Finds which units can be cut, and which entries of which parameters move with each of them.

    `example` is one input of the model (or a sequence of its positional inputs); its values do not matter, its shape
    does. The model's inputs and outputs keep their sizes. Returns a `Structure` whose groups stand in the order of the
    data flow; `structure.explain()` says of every layer what became of it.

    Cost: one symbolic trace and one forward pass, without a copy of the weights where only torch's own layers read
    them; seconds where torch.fx cannot follow the model and torch.export must (see `trace_exported`). Raises
    StructureError, naming the place, at an operation without a rule or a control flow that depends on data; nothing is
    guessed. The model and the global random state stay as they are. An autocast region around the call does not reach
    the example's run.
    """
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), without_autocast(model, inputs):
        structure = _looked_at(model, inputs) if kind_of(model) in MODULES else _followed(model, inputs)
    if not structure.groups:
        raise StructureError(
            f"{type(model).__name__} has no hidden units that can be cut: every layer's output is an output of the "
            f"model or meets something that cannot shrink\n{structure.explain()}"
        )
    return structure


@contextmanager
def without_autocast(model: nn.Module, inputs: Sequence[Tensor]) -> Iterator[None]:
    """A block in which no autocast region of the caller reaches the devices of the model and its inputs."""
    kinds = {"cpu", *(tensor.device.type for tensor in (*model.parameters(), *model.buffers(), *inputs))}
    with ExitStack() as regions:
        for kind in sorted(kinds):
            if torch.amp.is_autocast_available(kind):
                regions.enter_context(torch.autocast(kind, enabled=False))
        yield


def _followed(model: nn.Module, inputs: Sequence[Tensor]) -> Structure:
    """By torch.fx where it can follow the model, else by torch.export."""
    if found := _followed_without_weights(model, inputs):
        return found
    private = private_copy(model)
    try:
        graph = graph_of(private)
    except Exception as error:  # fx passes on whatever the user's forward raises when it is run with symbols
        return trace_exported(private, inputs, error)
    return _walked(Walk, private, graph, inputs)


def _followed_without_weights(model: nn.Module, inputs: Sequence[Tensor]) -> Structure | None:
    """With zeros in all of torch's own layers, which saves their copy; None where more is asked of them than a shape.

    While symbols run through the user's code the layers have no values at all, so that none can be read by mistake.
    """
    weights = own_weights(model)
    try:
        hollow = copied(model, instead={name: torch.empty_like(t, device="meta") for name, t in weights.items()})
        if not {*map(id, hollow.modules())}.isdisjoint(map(id, model.modules())):
            return None  # the user's own way to copy shares modules, whose weights must stay
        graph = graph_of(hollow.eval())
        if any(_is_hollow(hollow, str(node.target)) for node in graph.nodes if node.op == "get_attr"):
            return None
        replace_all(hollow, blanks(weights))
        return _walked(HollowWalk, hollow, graph, inputs)
    except Exception:  # whatever it is, the model with its weights shows it and has the better words for it
        return None


def _is_hollow(model: nn.Module, name: str) -> bool:
    """Whether a graph asks for a tensor that has no values."""
    value = operator.attrgetter(name)(model)
    return isinstance(value, Tensor) and value.is_meta


def _walked(walk: type[Walk], model: nn.Module, graph: fx.Graph, inputs: Sequence[Tensor]) -> Structure:
    atoms = Atoms(model)
    walk(model, atoms, graph).run(*inputs)
    return structure_of(atoms)


def graph_of(model: nn.Module) -> fx.Graph:
    """The model's calls as torch.fx sees them, with the layers that have rules as leaves."""
    return _Tracer(autowrap_modules=(math, rnn)).trace(model)  # type: ignore[arg-type]


def _looked_at(model: nn.Module, inputs: Sequence[Tensor]) -> Structure:
    """A model that is itself a layer with a rule of its own, such as a transformer's."""
    private = private_copy(model)
    atoms = Atoms(private, place=f"the layer {type(model).__name__}")
    value = private(*inputs)
    layout = MODULES[kind_of(private)](atoms, value, "", private, *(Traced(x, unlabelled(x)) for x in inputs))
    protect(atoms, layout, value)
    return structure_of(atoms)


def private_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, to be looked at. Raises StructureError for a model that cannot be copied."""
    try:
        return copied(model).eval()
    except RuntimeError as error:
        raise StructureError(
            f"{type(model).__name__} cannot be copied, because it holds tensors that carry gradients, such as computed "
            "weights (torch.nn.utils.prune, weight_norm) or kept states; make the weights plain or detach the states"
        ) from error


class _Tracer(fx.Tracer):
    """Looks into every module that has no rule of its own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return kind_of(m) in MODULES
