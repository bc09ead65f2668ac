"""Whole layers taken out, with a repair of what read them."""

import copy
from contextlib import suppress
from typing import Literal, cast

import torch
from torch import Tensor, fx, nn

from pared.models.stacked import Passing, Stacked
from pared.moments import ridge_regression
from pared.signals import module_calls, module_inputs, private, tensor_of
from pared.surgery.edit import replace_all, replace_module, submodule
from pared.surgery.plan import Drop, Plan, Reader
from pared.surgery.resize import resized
from pared.surgery.slices import StructureError
from pared.surgery.structure import Structure
from pared.surgery.trace import graph_of, trace

Method = Literal["least_squares", "bussgang", "exact"]
PASSED = (
    nn.Identity, nn.Dropout, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.BatchNorm1d,
    nn.LayerNorm, nn.RMSNorm,
)  # fmt: skip
"""What goes with a layer where it stands between it and its readers: a normalisation would have the old width."""


def drop_layer(
    model: nn.Module, layer: str, x: Tensor, method: Method = "least_squares", ridge: float = 1e-6
) -> tuple[nn.Module, Plan]:
    """A copy without a hidden layer: what read its units now reads its input, refitted to give what it gave.

    With Z = V phi(W x + b) + c the readers' pre-activations, (N samples and steps):

        least_squares   [V' c'] = argmin ||Z - V' x - c'||^2 + r ||V'||^2, r = ridge * mean square of x; always best
        bussgang        V' = V D W, c' = c + V (E phi(a) - D E a) + V D b, D = diag Cov(phi(a), a) / Var(a)
        exact           V' = V W, c' = V b + c; for a layer with no nonlinearity behind it

    The layer and the activations and normalisations between it and its readers become identities; a recurrent layer
    passes its input on and its memory is lost, so train on afterwards. A residual block is dropped by naming the module
    whose output is added to its input, if it returns a tensor of the same shape: it then becomes an identity, and
    nothing is refitted. `x` are the model's inputs, looked at once before and once after.

    Returns the model and the plan that replays it. Cost: two forward passes, O(N d^2 + d^3).
    Raises StructureError where the readers are neither linear nor recurrent, or something else meets the layer's units.
    Source: section 7.2 of this project's method reference; Bussgang's theorem for the gain.
    """
    if not is_layer(model, layer):
        return _drop_block(model, layer, x)
    edit = without(model, layer, x)
    readers = [reader.parameter.rpartition(".")[0] for reader in edit.readers]
    small = dropped(copy.deepcopy(model), edit)
    old, new = module_inputs(model, readers, x), module_inputs(small, readers, x)
    weights: dict[str, Tensor] = {}
    for path in readers:
        leaf = _leaf(model, path)
        bias = leaf.replace("weight", "bias")
        weights[f"{path}.{leaf}"], shift = _refitted(model, layer, path, (old, new), method, ridge)
        if getattr(model.get_submodule(path), bias, None) is not None:
            weights[f"{path}.{bias}"] = shift
    replace_all(small, weights)
    _try(small, x, layer)
    return small, Plan({}).then(edit)


def droppable(model: nn.Module, x: Tensor) -> tuple[str, ...]:
    """Names of the hidden layers and residual blocks that `drop_layer` can take out, in the order of the modules.

    A residual block is a module that, with all of its weights at zero, hands on its input: x + f(x). Of nested ones the
    innermost counts. Cost: one trace, one forward pass and one of each block.
    """
    structure = trace(model, x[:1])
    blocks = [name for name, module in model.named_modules() if name and _may_be_block(module)]
    calls = module_calls(model, blocks, x[:1])
    found: list[str] = []
    for name, module in reversed(list(private(model).named_modules())):
        holds_another = any(inner.startswith(f"{name}.") for inner in found if inner in calls)
        if name in calls and not holds_another and len(calls[name]) == 1 and _is_residual(module, *calls[name][0]):
            found.append(name)
        elif is_layer(model, name):
            with suppress(StructureError):
                _neighbourhood(model, structure, name)
                found.append(name)
    return tuple(reversed(found))


def _may_be_block(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and any(True for _ in module.parameters())


@torch.no_grad()
def _is_residual(module: nn.Module, enters: Tensor, leaves: Tensor) -> bool:
    if enters.shape != leaves.shape:
        return False
    silent = copy.deepcopy(module)
    for weight in silent.parameters():
        weight.zero_()
    try:
        return torch.equal(tensor_of(silent(enters)), enters)
    except (TypeError, RuntimeError):  # it takes more than one input
        return False


def is_layer(model: nn.Module, name: str) -> bool:
    """Whether a module is dropped with a refit of its readers; any other must be a residual block."""
    return isinstance(submodule(model, name), (nn.Linear, nn.RNNBase))


def without(model: nn.Module, layer: str, x: Tensor) -> Drop:
    """What goes with a layer, and the weights that then read its input. Raises StructureError as `drop_layer` does."""
    before = submodule(model, layer)
    between, readers = _neighbourhood(model, trace(model, x[:1]), layer)
    width = before.in_features if isinstance(before, nn.Linear) else cast(nn.RNNBase, before).input_size
    return Drop((layer, *between), tuple(Reader(f"{path}.{_leaf(model, path)}", width) for path in readers))


def _leaf(model: nn.Module, path: str) -> str:
    """The name of the weight with which a module reads."""
    return "weight_ih_l0" if isinstance(model.get_submodule(path), nn.RNNBase) else "weight"


def dropped(model: nn.Module, edit: Drop) -> nn.Module:
    """Drops in place; the readers' weights become zeros of the new shape."""
    model = _passing(model, edit)
    tensors = dict(model.named_parameters())
    new = {}
    for name, width in edit.readers:
        if name not in tensors:
            raise StructureError(f"the plan refits {name!r}, which this network does not have; use it on the right one")
        new[name] = tensors[name].detach().new_zeros(len(tensors[name]), width)
    replace_all(model, new)
    for name, _ in edit.readers:
        resized(model.get_submodule(name.rpartition(".")[0]), ())
    return model


def _passing(model: nn.Module, edit: Drop) -> nn.Module:
    for name in edit.modules:
        recurrent = isinstance(submodule(model, name), (nn.RNNBase, Stacked))
        model = replace_module(model, name, Passing() if recurrent else nn.Identity())
    return model


def _drop_block(model: nn.Module, block: str, x: Tensor) -> tuple[nn.Module, Plan]:
    edit = Drop((block,))
    small = _passing(copy.deepcopy(model), edit)
    _try(small, x, block)
    return small, Plan({}).then(edit)


def _try(model: nn.Module, x: Tensor, layer: str) -> None:
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copy.deepcopy(model).eval()(x[:1])
    except Exception as error:  # whatever the user's forward raises
        raise StructureError(
            f"the network does not run without {layer!r}: {error}; its output may be used in more places than that of "
            "a layer that can be dropped"
        ) from error


def _neighbourhood(model: nn.Module, structure: Structure, layer: str) -> tuple[list[str], list[str]]:
    """Modules between a layer and its readers, and the readers."""
    own = [g for g in structure if g.name == layer or g.name.startswith(f"{layer}.l")]
    shared = {note.layer for note in structure.notes if note.group in {g.name for g in own}}
    outside = sorted(name for name in shared if name != layer and not name.startswith(f"{layer}.l"))
    if not own or outside:
        why = f"its units are joined with those of {', '.join(outside)}" if outside else "its units cannot be cut"
        raise StructureError(f"{layer!r} cannot be dropped: {why}\n{structure.explain()}")
    readers = {s.parameter.rpartition(".")[0] for g in own for s in g.slices if s.role == "out"} - {layer}
    held: dict[tuple[str, int | None], int] = {}
    for group in own:
        for s in group.slices:
            if s.parameter.rpartition(".")[0] in readers:
                held[s.parameter, s.length] = held.get((s.parameter, s.length), 0) + group.width
    for (parameter, length), width in held.items():
        path = parameter.rpartition(".")[0]
        if not isinstance(model.get_submodule(path), (nn.Linear, nn.RNNBase)):
            raise StructureError(f"{layer!r} cannot be dropped: its reader {path!r} is neither linear nor recurrent")
        if width != length:
            raise StructureError(f"{layer!r} cannot be dropped: {parameter!r} reads more than its units, one by one")
    return _between(model, layer, readers), sorted(readers)


def _between(model: nn.Module, layer: str, readers: set[str]) -> list[str]:
    graph = graph_of(model)
    found: list[str] = []
    todo = [node for node in graph.nodes if node.op == "call_module" and node.target == layer]
    while todo:
        for user in todo.pop().users:
            if user.op == "call_module" and str(user.target) not in readers:
                if type(model.get_submodule(str(user.target))) in PASSED:
                    found.append(str(user.target))
                    todo.append(user)
            elif user.op != "call_module" and _moves(user):
                todo.append(user)
    return list(dict.fromkeys(found))


def _moves(node: fx.Node) -> bool:
    """Whether an operation only picks steps or an output."""
    return getattr(node.target, "__name__", str(node.target)) in (
        "getitem",
        "select",
        "squeeze",
        "unsqueeze",
        "flatten",
    )


Inputs = dict[str, Tensor]


def _refitted(
    model: nn.Module, layer: str, path: str, inputs: tuple[Inputs, Inputs], method: Method, ridge: float
) -> tuple[Tensor, Tensor]:
    """The reader's new weight and bias."""
    reader, old, leaf = model.get_submodule(path), inputs[0][path], _leaf(model, path)
    weight = reader.get_parameter(leaf).detach()
    bias = getattr(reader, leaf.replace("weight", "bias"), None)
    new = inputs[1][path].flatten(0, -2).double()
    z = old.flatten(0, -2).double() @ weight.double().T
    offset = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.detach().double()
    source = model.get_submodule(layer)
    if method == "least_squares":
        matrix, shift = ridge_regression(new, z, ridge, bias is not None)
    elif method in ("exact", "bussgang"):
        if not isinstance(source, nn.Linear):
            raise StructureError(f"method {method!r} needs a linear layer, {layer!r} is recurrent; use least_squares")
        matrix, shift = _composed(source, weight.double(), old.flatten(0, -2).double(), new, method == "exact")
    else:
        raise ValueError(f"unknown method {method!r}; choose least_squares, bussgang or exact")
    return matrix.to(weight), (offset + shift).to(weight)


def _composed(source: nn.Linear, weight: Tensor, made: Tensor, x: Tensor, exact: bool) -> tuple[Tensor, Tensor]:
    w = source.weight.detach().double()
    b = torch.zeros(len(w), dtype=w.dtype) if source.bias is None else source.bias.detach().double()
    if exact:
        return weight @ w, weight @ b
    a = x @ w.T + b
    centred = a - a.mean(0)
    gain = (centred * (made - made.mean(0))).mean(0) / centred.square().mean(0).clamp_min(1e-300)
    return weight @ (gain[:, None] * w), weight @ (made.mean(0) - gain * a.mean(0) + gain * b)
