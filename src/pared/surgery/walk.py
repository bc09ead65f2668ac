"""Running a graph on the example: each value gets a layout, by the rule of the operation that made it."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from pared.surgery.atoms import Atoms, Axis, Layout, Size, Spoiled, States, Traced
from pared.surgery.rules import MODULES, OPERATIONS, Rule
from pared.surgery.rules.layouts import labelled, unlabelled
from pared.surgery.slices import StructureError


class Walk(fx.Interpreter):
    """Runs the graph on the example and keeps a layout for each node's value.

    A graph of torch.fx is not made a module: its code, once generated, would name wrapped functions, such as
    `pack_padded_sequence`, in a list of torch's own, on which every later trace in the process fails.
    """

    rules: ClassVar[Mapping[str, Rule]] = OPERATIONS

    def __init__(self, module: nn.Module, atoms: Atoms, graph: fx.Graph | None = None) -> None:
        super().__init__(module, garbage_collect_values=False, graph=graph)
        self.extra_traceback = False
        self.atoms = atoms
        self.layouts: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = super().run_node(n)
        except Exception as error:  # whatever PyTorch or the user's code raises
            raise StructureError(
                f"the example does not run through {n.name!r}{_within(n)}: {error}; give an input that the model takes"
            ) from error
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
        check_plain(name, module)
        return self._applied(MODULES[kind_of(module)], value, (name, module, *arguments), options)

    def _operation_layout(self, node: fx.Node, value: Any, arguments: Any, options: Any) -> Any:
        self.atoms.place = f"the operation {node.name!r}{_within(node)}"
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
        rule = self.rules.get(name) if _is_torch(node.target) else None
        if rule is None:
            return self._without_rule(value, self.atoms.place, arguments, options)
        given = {key: option for key, option in options.items() if key != "out" or option is not None}
        return self._applied(rule, value, arguments, given)

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


def _within(node: fx.Node) -> str:
    """The module in whose forward an operation stands."""
    paths = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path]
    return f" in {paths[-1]!r}" if paths else ""


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


class HollowWalk(Walk):
    """A walk through layers of zeros: what a convolution gives is known without its products."""

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.fetch_attr(target)
        silent = None if len(args) != 1 or kwargs else _silent_convolution(module, args[0])
        return super().call_module(target, args, kwargs) if silent is None else silent


def _silent_convolution(module: Any, x: Any) -> Tensor | None:
    """What a convolution of zeros makes of x; None for any other module, and for an x that it may not take."""
    if type(module) not in (nn.Conv1d, nn.Conv2d, nn.Conv3d) or not isinstance(x, Tensor):
        return None
    weight, axes = module.weight, len(module.kernel_size)
    if (x.dtype, x.device, x.dim()) != (weight.dtype, weight.device, axes + 2) or x.shape[1] != module.in_channels:
        return None
    sizes = []
    for axis, (size, kernel) in enumerate(zip(x.shape[2:], module.kernel_size, strict=True)):
        reach = module.dilation[axis] * (kernel - 1)
        if isinstance(module.padding, str):
            padded = size + (reach if module.padding == "same" else 0)
        else:
            padded = size + 2 * module.padding[axis]
        sizes.append((padded - reach - 1) // module.stride[axis] + 1)
    return x.new_zeros((len(x), module.out_channels, *sizes)) if min(sizes) > 0 else None
