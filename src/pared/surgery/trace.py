"""From a module and an example to its structure: torch.fx writes the graph, the rules follow the units through it."""

import copy
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize, rnn

from pared.surgery.atoms import Atoms, Axis, Layout, Size, Spoiled, States, Traced
from pared.surgery.rules import MODULES, OPERATIONS
from pared.surgery.rules.layouts import labelled, unlabelled
from pared.surgery.structure import Structure, StructureError


def trace(model: nn.Module, example: Tensor | Sequence[Tensor]) -> Structure:
    """Finds which units can be cut, and which entries of which parameters move with each of them.

    `example` is one input of the model (or a sequence of its positional inputs); its values do not matter, its shape
    does. The model's inputs and outputs keep their sizes. Returns a `Structure` whose groups stand in the order of the
    data flow; `structure.explain()` says of every layer what became of it. Cost: one symbolic trace and one forward
    pass. Raises StructureError, naming the place, at an operation without a rule or a control flow that depends on
    data; nothing is guessed. The model and the global random state stay as they are.
    """
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    private = private_copy(model)
    atoms = Atoms(private)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        if kind_of(private) in MODULES:
            _look_at_layer(private, atoms, inputs)
        else:
            Walk(_graph(private), atoms).run(*inputs)
    structure = atoms.structure()
    if not structure.groups:
        raise StructureError(
            f"{type(model).__name__} has no hidden units that can be cut: "
            "every layer's output is an output of the model or meets something that cannot shrink\n"
            + structure.explain()
        )
    return structure


def private_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, to be looked at. Raises StructureError for a model that cannot be copied."""
    try:
        return copy.deepcopy(model).eval()
    except RuntimeError as error:
        raise StructureError(
            f"{type(model).__name__} cannot be copied, because it holds tensors that carry gradients, such as computed "
            "weights (torch.nn.utils.prune, weight_norm) or kept states; make the weights plain or detach the states"
        ) from error


def _graph(model: nn.Module) -> fx.GraphModule:
    try:
        tracer = _Tracer(autowrap_modules=(math, rnn))  # type: ignore[arg-type]
        return fx.GraphModule(model, tracer.trace(model))
    except Exception as error:  # fx passes on whatever the user's forward raises when it is run with symbols
        raise StructureError(
            f"torch.fx cannot follow {type(model).__name__}.forward: {error}; "
            "avoid Python control flow that depends on tensor values, or write the Structure by hand"
        ) from error


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return kind_of(m) in MODULES or (super().is_leaf_module(m, module_qualified_name) and not _is_container(m))


def _look_at_layer(model: nn.Module, atoms: Atoms, inputs: Sequence[Tensor]) -> None:
    """A model that is itself a layer with a rule of its own, such as a transformer's."""
    atoms.place = f"the layer {type(model).__name__}"
    value = model(*inputs)
    layout = MODULES[kind_of(model)](atoms, value, "", model, *(Traced(x, unlabelled(x)) for x in inputs))
    protect(atoms, layout, value)


def protect(atoms: Atoms, layout: Any, value: Any) -> None:
    """What the network returns keeps its size."""
    if isinstance(layout, (Layout, States)):
        for axis in _axes(layout):
            atoms.fix(axis, "is an output of the network")
    elif isinstance(layout, dict):
        for key, part in layout.items():
            protect(atoms, part, value[key])
    elif isinstance(layout, tuple):
        for part in layout:
            protect(atoms, part, None)
    elif isinstance(layout, Spoiled):
        atoms.fix(layout.atoms, layout.why)


def kind_of(module: nn.Module) -> type[nn.Module]:
    """A module's class, as it was before its weights were parametrised."""
    return parametrize.type_before_parametrizations(module)


def _is_container(module: nn.Module) -> bool:
    return isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict))


class Walk(fx.Interpreter):
    """Runs the graph on the example and keeps a layout for each node's value."""

    def __init__(self, module: fx.GraphModule, atoms: Atoms) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False
        self.atoms = atoms
        self.layouts: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.layouts[n] = self._layout(n, value)
        return value

    def _layout(self, node: fx.Node, value: Any) -> Any:
        if node.op == "placeholder":
            return unlabelled(value)
        if node.op == "get_attr":
            return self._attribute(str(node.target), value)
        if node.op == "output":
            self._protect(node.args)
            return None
        arguments, options = self._traced(node.args), self._traced(node.kwargs)
        if node.op == "call_module":
            return self._module_layout(node, value, arguments, options)
        return self._operation_layout(node, value, arguments, options)

    def _attribute(self, name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return unlabelled(value)
        if id(value) in self.atoms.names:
            return self.atoms.parameter(name, value)
        path, _, leaf = name.rpartition(".")
        module = self.atoms.model.get_submodule(path)
        if parametrize.is_parametrized(module, leaf):
            return self.atoms.parameter(name, value)
        return unlabelled(value)

    def _traced(self, argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return Traced(self.env[argument], self.layouts[argument])
        if isinstance(argument, (tuple, list)):
            return type(argument)(map(self._traced, argument))
        if isinstance(argument, dict):
            return {key: self._traced(item) for key, item in argument.items()}
        if isinstance(argument, slice):
            return slice(*map(self._traced, (argument.start, argument.stop, argument.step)))
        return argument

    def _module_layout(self, node: fx.Node, value: Any, arguments: Any, options: Any) -> Any:
        name = str(node.target)
        module = self.module.get_submodule(name)
        self.atoms.place = f"the layer {name!r}"
        rule = MODULES.get(kind_of(module))
        if rule is None:
            return self._without_rule(value, f"the layer {name!r} ({type(module).__name__})", arguments, options)
        check_plain(name, module)
        return self._applied(rule, value, (name, module, *arguments), options)

    def _operation_layout(self, node: fx.Node, value: Any, arguments: Any, options: Any) -> Any:
        self.atoms.place = f"the operation {node.name!r}"
        name = operation_name(node.target)
        if name == "getattr":
            name, arguments = arguments[1], arguments[:1]
            if not isinstance(arguments[0], Traced) or not isinstance(arguments[0].value, Tensor):
                name = ""
        if not isinstance(value, (Tensor, tuple, list)) or isinstance(value, torch.Size):
            counted = self._counted(name, value, arguments, options)
            if counted is not None:
                return counted
        if isinstance(value, Tensor) and name not in _TAKES_SIZES:
            self._mix_sizes((*arguments, *options.values()))
        rule = OPERATIONS.get(name) if _is_torch(node.target) else None
        if rule is None:
            return self._without_rule(value, self.atoms.place, arguments, options)
        return self._applied(rule, value, arguments, options)

    def _applied(self, rule: Callable[..., Any], value: Any, arguments: Any, options: Any) -> Any:
        try:
            return rule(self.atoms, value, *arguments, **options)
        except TypeError as error:
            raise StructureError(
                f"pared's rule for {self.atoms.place} does not know how it is called here: {error}; "
                "call it in the usual way or write the Structure by hand"
            ) from error

    def _counted(self, name: str, value: Any, arguments: Any, options: Any) -> Any:
        """A number computed from sizes remembers what it counts."""
        if name in ("size", "shape", "sym_size"):
            return None
        sizes = [s for s in _flat((*arguments, *options.values())) if isinstance(s, Traced) and _is_size(s)]
        carrying = [s for s in sizes if (s.layout.atoms > 0).any()]
        if name == "getitem" and isinstance(arguments[0].layout, tuple) and isinstance(arguments[1], (int, slice)):
            return arguments[0].layout[arguments[1]]
        if len(carrying) > 1:
            for size in carrying[1:]:
                self.atoms.fix(size.layout.atoms, f"is counted together with another width in {self.atoms.place}")
        if sizes and isinstance(value, (int, float)):
            return carrying[0].layout if carrying else sizes[0].layout
        return None

    def _mix_sizes(self, arguments: Any) -> None:
        for size in _flat(arguments):
            if isinstance(size, Traced) and _is_size(size):
                self.atoms.mix(size.layout.atoms, f"{self.atoms.place} computes with the number of units")

    def _without_rule(self, value: Any, place: str, arguments: Any, options: Any) -> Any:
        """Harmless for an operation that no unit flows into; else refused."""
        entering = [t for t in _flat((*arguments, *options.values())) if isinstance(t, Traced) and labelled(t.layout)]
        made = {name for t in entering for name in self._names(t.layout)}
        if made:
            raise StructureError(
                f"pared has no rule for {place}, which takes the units of {', '.join(sorted(made))}; "
                "replace it by supported layers or write the Structure by hand"
            )
        return unlabelled(value)

    def _names(self, layout: Any) -> list[str]:
        carried = np.concatenate(_axes(layout) or [np.zeros(0, np.int64)])
        return [name for name, axis in self.atoms.made if np.isin(axis[axis > 0], carried).any()] or ["a parameter"]

    def _protect(self, value: Any) -> None:
        for node in _nodes(value):
            protect(self.atoms, self.layouts[node], self.env[node])


_TAKES_SIZES = {
    "view", "reshape", "expand", "unflatten", "zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full",
    "new_empty", "repeat", "split", "layer_norm", "rms_norm", "getitem", "size", "shape", "randn", "rand",
    "_unsafe_view",
}  # fmt: skip


def operation_name(target: Any) -> str:
    """The common name of a function, a method and an ATen operation; in-place forms are named as the others."""
    if isinstance(target, str):
        name = target
    elif isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.split("::")[1]
    else:
        name = getattr(target, "__name__", "")
    if target in (operator.iadd, operator.isub, operator.imul, operator.itruediv):
        name = name.removeprefix("i")
    return name if name.startswith("_") else name.rstrip("_")


def _is_torch(target: Any) -> bool:
    """Whether a function is PyTorch's or Python's own, not one of the user's with a name like theirs."""
    if isinstance(target, (str, torch._ops.OpOverload)):
        return True
    home = getattr(target, "__module__", None) or ""
    return home.partition(".")[0] in ("", "torch", "_operator", "builtins", "math")


def check_plain(name: str, module: nn.Module) -> None:
    """Raises StructureError for a layer whose weights hooks compute before each pass."""
    computed = [hook for hook in module._forward_pre_hooks.values() if hasattr(hook, "apply") or hasattr(hook, "name")]
    if computed:
        held = (*module._parameters, *module._buffers)
        extra = sorted(name for name in held if name.endswith(("_orig", "_mask", "_g", "_v")))
        raise StructureError(
            f"{name!r} holds {', '.join(extra) or 'hooks'}: its weights are computed by hooks (torch.nn.utils.prune, "
            "weight_norm), which pared cannot cut; make them plain first, as with torch.nn.utils.prune.remove, or use "
            "torch.nn.utils.parametrizations"
        )


def _is_size(traced: Traced) -> bool:
    return isinstance(traced.layout, Size)


def _axes(layout: Any) -> list[Axis]:
    if isinstance(layout, Layout):
        return list(layout.axes)
    if isinstance(layout, States):
        return [axis for layer in layout.layers for axis in layer.axes]
    if isinstance(layout, dict):
        return [axis for part in layout.values() for axis in _axes(part)]
    if isinstance(layout, tuple):
        return [axis for part in layout for axis in _axes(part)]
    return []


def _flat(arguments: Any) -> list[Any]:
    if isinstance(arguments, (tuple, list)) and not isinstance(arguments, Traced):
        return [item for part in arguments for item in _flat(part)]
    if isinstance(arguments, slice):
        return _flat((arguments.start, arguments.stop, arguments.step))
    return [arguments]


def _nodes(value: Any) -> list[fx.Node]:
    if isinstance(value, fx.Node):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return [node for item in value for node in _nodes(item)]
    return []
