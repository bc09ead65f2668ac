"""Networks that are a plain stack of layers: what the engines for many small networks are written for."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from pared.models.mlp import MLP
from pared.models.recurrent import Forecaster
from pared.models.stacked import Passing
from pared.types import Loss

Kind = Literal["lstm", "gru", "rnn", "mlp"]
_KINDS: dict[type[nn.Module], Kind] = {nn.LSTM: "lstm", nn.GRU: "gru", nn.RNN: "rnn", nn.Linear: "mlp"}
_ACTIVATIONS: dict[type[nn.Module], str] = {nn.Tanh: "tanh", nn.ReLU: "relu", nn.Sigmoid: "sigmoid"}


class Stack(NamedTuple):
    """A network's layers in the order of its parameters.

    `layers` are recurrent ones of one kind or, in an MLP, linear ones with an activation; `head` are the linear layers
    after them. `activations` holds one name a layer of an MLP or RNN. Recurrent stacks read x (samples, window, inputs)
    and pass on the last step, MLPs read (samples, inputs) or, where they flatten, (samples, ...).
    """

    kind: Kind
    layers: tuple[nn.Module, ...]
    activations: tuple[str, ...]
    head: tuple[nn.Linear, ...]
    flattens: bool = False

    @property
    def inputs(self) -> int:
        first = self.layers[0]
        return int(first.in_features if isinstance(first, nn.Linear) else first.input_size)  # type: ignore[arg-type]

    @property
    def outputs(self) -> int:
        return self.head[-1].out_features

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for layer in (*self.layers, *self.head) for parameter in layer.parameters()]


def stack_of(model: nn.Module) -> Stack | None:
    """A model's stack; None where it is another network, or where something else may happen in its forward pass.

    Stacks are: a `Forecaster` whose layers are all LSTM, all GRU or all RNN; an `MLP`; a `nn.Sequential` of linear
    layers and tanh, ReLU or sigmoid, the last layer a linear one, perhaps after a `nn.Flatten`. With biases, without
    dropout and hooks, in float32 on the CPU. What `drop_layer` leaves of a layer is passed over.
    """
    stack: Stack | None = None
    if type(model) is Forecaster and model.dropout is None:
        stack = _recurrent(model)
    elif type(model) is MLP and type(model.layers) is nn.Sequential:
        stack = _dense(list(model.layers), flattens=True)
    elif type(model) is nn.Sequential and len(model):
        flattens = type(model[0]) is nn.Flatten and (model[0].start_dim, model[0].end_dim) == (1, -1)
        stack = _dense(list(model)[1:] if flattens else list(model), flattens)
    if stack is None or not all(layer.bias is not None for layer in (*stack.layers, *stack.head)):
        return None
    weights = list(model.parameters())
    plain = (
        [id(weight) for weight in weights] == [id(weight) for weight in stack.parameters]
        and all(weight.dtype == torch.float32 and weight.device.type == "cpu" for weight in weights)
        and not any(has_hooks(module) for module in model.modules())
    )
    return stack if plain else None


def _recurrent(model: Forecaster) -> Stack | None:
    layers, head = _present(model.recurrent), _present(model.head)
    one_kind = len({type(layer) for layer in layers}) == 1
    if not one_kind or not all(_is_plain(layer) for layer in layers) or not all(type(m) is nn.Linear for m in head):
        return None
    kind = _KINDS[type(layers[0])]
    names = tuple(str(layer.nonlinearity) for layer in layers) if kind == "rnn" else ()
    return Stack(kind, layers, names, head)  # type: ignore[arg-type]


def _present(modules: Iterable[nn.Module]) -> tuple[nn.Module, ...]:
    """Those that do anything to what they are given."""
    return tuple(module for module in modules if type(module) not in (nn.Identity, Passing))


def _is_plain(layer: nn.Module) -> bool:
    return (
        isinstance(layer, nn.RNNBase)
        and type(layer) in _KINDS
        and layer.num_layers == 1
        and bool(layer.bias)
        and layer.batch_first
        and not layer.bidirectional
        and layer.proj_size == 0
    )


def _dense(modules: Sequence[nn.Module], flattens: bool) -> Stack | None:
    """Linear layers, each but the last followed by an activation."""
    modules = _present(modules)
    linear, between = tuple(modules[::2]), modules[1::2]
    activations = tuple(_ACTIVATIONS.get(type(module), "") for module in between)
    if not all(type(layer) is nn.Linear for layer in linear) or not all(activations) or not len(modules) % 2:
        return None
    *layers, last = linear
    return Stack("mlp", tuple(layers), activations, (last,), flattens) if layers else None  # type: ignore[arg-type]


def has_hooks(module: nn.Module) -> bool:
    """Whether a module's forward or backward pass may do more than its class says."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in vars(module)


def takes(stack: Stack, x: Tensor) -> bool:
    """Whether x is what a stack reads, in float32 on the CPU."""
    if not _is_float(x):
        return False
    if stack.kind != "mlp":
        return x.ndim == 3 and x.shape[1] > 0 and x.shape[2] == stack.inputs
    return (x.ndim == 2 or (stack.flattens and x.ndim > 2)) and x[:1].numel() == stack.inputs * len(x[:1])


def answers(stack: Stack, x: Tensor, y: Tensor, loss: Loss) -> bool:
    """Whether y is what a stack can be trained to answer: (samples, outputs), or classes for cross entropy."""
    if loss is mse_loss:
        return y.shape == (len(x), stack.outputs) and _is_float(y)
    in_range = y.dtype == torch.int64 and bool(((y >= 0) & (y < stack.outputs)).all())
    return loss is cross_entropy and y.shape == (len(x),) and y.device.type == "cpu" and in_range


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"
