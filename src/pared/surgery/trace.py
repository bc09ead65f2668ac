"""From a module and an example to its structure: torch.fx writes the graph, the rules follow the units through it."""

import copy
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from pared.surgery import rules
from pared.surgery.rules import Builder, States
from pared.surgery.structure import Structure, StructureError


def trace(model: nn.Module, example: Tensor | Sequence[Tensor]) -> Structure:
    """Finds which units can be cut, and which entries of which parameters move with each of them.

    `example` is one input of the model (or a sequence of its positional inputs); its values do not matter, its shape
    does. The model's inputs and outputs keep their sizes. Returns a `Structure` whose groups stand in the order of the
    data flow. Cost: one symbolic trace and one forward pass. Raises StructureError, naming the place, at an operation
    without a rule, at weights that two modules share, or a control flow that depends on data; nothing is guessed. The
    model and the global random state stay as they are.
    """
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    try:
        private = copy.deepcopy(model).eval()
    except RuntimeError as error:
        raise StructureError(
            f"{type(model).__name__} cannot be copied, because it holds tensors that carry gradients, such as computed "
            "weights (torch.nn.utils.prune, weight_norm) or kept states; make the weights plain or detach the states"
        ) from error
    builder = Builder()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        _Walk(_graph(private), builder).run(*inputs)
    structure = builder.structure()
    if not structure.groups:
        raise StructureError(
            f"{type(model).__name__} has no hidden units that can be cut: "
            "every layer's output is an output of the model or meets something that cannot shrink"
        )
    _check_untied(model, structure)
    return structure


def _graph(model: nn.Module) -> fx.GraphModule:
    try:
        return fx.GraphModule(model, _Tracer().trace(model))
    except Exception as error:  # fx passes on whatever the user's forward raises when it is run with symbols
        raise StructureError(
            f"torch.fx cannot follow {type(model).__name__}.forward: {error}; "
            "avoid Python control flow that depends on tensor values, or write the Structure by hand"
        ) from error


def _check_untied(model: nn.Module, structure: Structure) -> None:
    touched = {s.parameter for group in structure for s in group.slices}
    names: dict[Tensor, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    for tied in names.values():
        owners = {model.get_submodule(name.rpartition(".")[0]) for name in tied}
        if len(owners) > 1 and touched & set(tied):
            raise StructureError(f"{' and '.join(tied)} are one weight in two places, which pared cannot cut; untie it")


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in rules.MODULES or super().is_leaf_module(m, module_qualified_name)


class _Walk(fx.Interpreter):
    """Runs the graph on the example and keeps a layout for each node's value."""

    def __init__(self, module: fx.GraphModule, builder: Builder) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False
        self.builder = builder
        self.layouts: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.layouts[n] = self._layout(n, value)
        return value

    def _layout(self, node: fx.Node, value: Any) -> Any:
        if node.op in ("placeholder", "get_attr"):
            return _unlabelled(value)
        if node.op == "output":
            self._protect(node.args)
            return None
        if node.op == "call_module":
            return self._module_layout(node, value)
        return self._operation_layout(node, value)

    def _module_layout(self, node: fx.Node, value: Any) -> Any:
        name = str(node.target)
        module = self.module.get_submodule(name)
        rule = rules.MODULES.get(type(module))
        if rule is not None:
            if len(node.args) != 1 or node.kwargs:
                raise StructureError(
                    f"{name!r} is given initial states or further arguments, which pared cannot follow yet"
                )
            entering = self._tensor_layout(self._node(node.args[0]), f"the layer {name!r}")
            return rule(self.builder, name, module, entering)
        if isinstance(module, rules.POINTWISE_MODULES):
            return self.layouts[self._node(node.args[0])]
        return self._without_rule(node, value, f"the layer {name!r} ({type(module).__name__})")

    def _operation_layout(self, node: fx.Node, value: Any) -> Any:
        target: str | Callable[..., Any] = node.target
        place = f"the operation {node.name!r}"
        if target is operator.getitem:
            source, index = node.args
            layout = self.layouts[self._node(source)]
            if isinstance(self.env[self._node(source)], tuple):
                return layout[index]
            return rules.indexed(layout, index, place)
        tensors = [source for source in node.all_input_nodes if isinstance(self.env[source], Tensor)]
        pointwise = rules.POINTWISE_METHODS if node.op == "call_method" else rules.POINTWISE_FUNCTIONS
        if target in pointwise and len(tensors) == 1:
            return self.layouts[tensors[0]]
        if target in rules.JOINING or (node.op == "call_method" and target in rules.JOINING_METHODS):
            met = [(self._tensor_layout(source, place), self.env[source]) for source in tensors]
            return rules.joined(self.builder, place, value, met)
        return self._without_rule(node, value, place)

    def _without_rule(self, node: fx.Node, value: Any, place: str) -> Any:
        """Harmless for an operation that no unit flows into; else refused."""
        units = sorted({group for source in node.all_input_nodes for group in _groups(self.layouts[source])})
        if units:
            raise StructureError(
                f"pared has no rule for {place}, which takes the units of {', '.join(units)}; "
                "replace it by supported layers or write the Structure by hand"
            )
        if node.op == "call_module" and any(True for _ in self.module.get_submodule(str(node.target)).parameters()):
            raise StructureError(f"pared has no rule for {place}; replace it or write the Structure by hand")
        return _unlabelled(value)

    def _protect(self, value: Any) -> None:
        for node in _nodes(value):
            for group in _groups(self.layouts[node]):
                self.builder.protect(group)

    def _tensor_layout(self, node: fx.Node, place: str) -> rules.Layout:
        layout: rules.Layout | States = self.layouts[node]
        if isinstance(layout, States):
            raise StructureError(f"{place} takes the final states of all layers at once; take one, as in h_n[-1]")
        return layout

    @staticmethod
    def _node(argument: Any) -> fx.Node:
        if not isinstance(argument, fx.Node):
            raise StructureError(f"pared expected a tensor, got the constant {argument!r}")
        return argument


def _unlabelled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return (None,) * value.dim()
    if isinstance(value, (tuple, list)):
        return tuple(_unlabelled(v) for v in value)
    return None


def _groups(layout: Any) -> set[str]:
    if isinstance(layout, States):
        return _groups(layout.layers)
    if isinstance(layout, rules.Segment):
        return {layout.group} if layout.group is not None else set()
    if isinstance(layout, tuple):
        return set().union(*map(_groups, layout))
    return set()


def _nodes(value: Any) -> list[fx.Node]:
    if isinstance(value, fx.Node):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return [node for item in value for node in _nodes(item)]
    return []
