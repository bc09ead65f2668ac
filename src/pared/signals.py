"""What can be looked at in a network: what each weight multiplies, and gradients with respect to units.

The only place with hooks. Every function works on a private copy in evaluation mode: the model stays as it is.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

Gates = dict[str, Tensor]
"""Group name -> one factor per unit; 1 leaves the unit as it is, 0 removes it."""


class _Slice(Protocol):
    @property
    def parameter(self) -> str: ...
    @property
    def axis(self) -> int: ...
    @property
    def role(self) -> str: ...
    @property
    def blocks(self) -> int: ...
    @property
    def inner(self) -> int: ...
    def indices(self, width: int, units: range) -> list[int]: ...


class _Group(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def slices(self) -> Iterable[_Slice]: ...


def _private(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode without backward hooks, which torch.func cannot batch."""
    private = copy.deepcopy(model).eval()
    for module in private.modules():
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
    return private


def reading_slices(groups: Iterable[_Group]) -> list[tuple[_Group, _Slice]]:
    """The (group, slice) pairs through which units are read."""
    return [(group, s) for group in groups for s in group.slices if s.role == "out"]


def open_gates(model: nn.Module, groups: Iterable[_Group]) -> Gates:
    """Gates of one for every unit, on the model's device and in its type."""
    like = next(model.parameters())
    return {group.name: torch.ones(group.width, device=like.device, dtype=like.dtype) for group in groups}


def gated(model: nn.Module, groups: Iterable[_Group]) -> Callable[[Gates, Tensor], Tensor]:
    """`call(gates, x)`: the model's output when unit j's value h_j is read as gates[group][j] * h_j everywhere.

    The same gate holds at every time step and in the unit's own recurrence, because it multiplies the reading weights.
    """
    private = _private(model)
    tensors = {name: tensor.detach() for name, tensor in private.named_parameters()} | dict(private.named_buffers())
    rows = [
        (group.name, s, torch.tensor(s.indices(group.width, range(group.width)))) for group, s in reading_slices(groups)
    ]

    def call(gates: Gates, x: Tensor) -> Tensor:
        changed: dict[str, Tensor] = {}
        for group, s, index in rows:
            weight = changed.get(s.parameter, tensors[s.parameter])
            factor = torch.ones(weight.shape[s.axis], device=weight.device, dtype=weight.dtype)
            each = gates[group].repeat_interleave(s.inner).repeat(s.blocks)
            factor = factor.index_put((index.to(weight.device),), each)
            changed[s.parameter] = weight * factor.reshape(-1, *(1,) * (weight.dim() - s.axis - 1))
        out: Tensor = functional_call(private, tensors | changed, (x,))
        return out

    return call


def unit_gradients(
    model: nn.Module, groups: Iterable[_Group], x: Tensor, value: Callable[[Tensor, Tensor], Tensor], y: Tensor
) -> dict[str, Tensor]:
    """Per-sample gradients of `value(output, target)` with respect to the unit gates at one.

    `value` maps one sample's output (1, ...) and target (1, ...) to a tensor. By the chain rule the entry is
    h_j dvalue/dh_j summed over time.

    Returns group -> (samples, *value's shape, units). Cost: one vectorised forward and backward.
    """
    groups = list(groups)
    call = gated(unrolled(model), groups)
    sizes = {s.parameter: model.get_parameter(s.parameter).numel() for _, s in reading_slices(groups)}
    chunk = max(1, min(256, _BATCHED_ENTRIES // max(1, sum(sizes.values()))))

    def of_gates(gates: Gates, x: Tensor, y: Tensor) -> Tensor:
        return value(call(gates, x[None]), y[None])

    with torch.random.fork_rng(devices=[]):
        gradients = vmap(jacrev(of_gates), in_dims=(None, 0, 0), chunk_size=chunk, randomness="different")(
            open_gates(model, groups), x, y
        )
    return {name: gradient.detach() for name, gradient in gradients.items()}


_BATCHED_ENTRIES = 20_000_000
"""How many gated weights vmap may hold at a time: 80 MB in float32."""


@torch.no_grad()
def read_values(model: nn.Module, groups: Iterable[_Group], x: Tensor) -> dict[str, Tensor]:
    """What each reading parameter multiplies when the model runs on `x`: parameter name -> (rows, axis length).

    For `weight_hh` of a recurrent layer these are its own states at all steps but the last, for a Linear or `weight_ih`
    the values that enter, one row for every sample and position. Cost: two forward passes of the recurrent layers.
    """
    private = _private(model)
    wanted = {s.parameter for _, s in reading_slices(groups)}
    entered: dict[str, list[Tensor]] = {name.rpartition(".")[0]: [] for name in wanted}
    handles = [
        private.get_submodule(path).register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        for path, seen in entered.items()
    ]
    try:
        with torch.random.fork_rng(devices=[]):
            private(x)
    finally:
        for handle in handles:
            handle.remove()
    values: dict[str, list[Tensor]] = {name: [] for name in wanted}
    for path, inputs in entered.items():
        module = private.get_submodule(path)
        for entering in inputs:
            for leaf, seen in _read_by_parameters(module, entering).items():
                if f"{path}.{leaf}" in values:
                    values[f"{path}.{leaf}"].append(seen.reshape(-1, seen.shape[-1]))
    return {name: torch.cat(parts) for name, parts in values.items()}


def _read_by_parameters(module: nn.Module, entering: Tensor) -> Mapping[str, Tensor]:
    if not isinstance(module, nn.RNNBase):
        return {"weight": entering}
    seen: dict[str, Tensor] = {}
    for k, layer in enumerate(single_layers(module)):
        states, _ = layer(entering)
        time = entering.dim() - 2 if module.batch_first or entering.dim() == 2 else 0
        seen |= {f"weight_ih_l{k}": entering, f"weight_hh_l{k}": states.narrow(time, 0, states.shape[time] - 1)}
        entering = states
    return seen


@torch.no_grad()
def module_inputs(model: nn.Module, paths: Iterable[str], x: Tensor) -> dict[str, Tensor]:
    """What enters each module (its first argument) when the model runs on `x`; of several calls, all along axis 0."""
    private = _private(model)
    entered: dict[str, list[Tensor]] = {path: [] for path in paths}
    handles = [
        private.get_submodule(path).register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        for path, seen in entered.items()
    ]
    try:
        with torch.random.fork_rng(devices=[]):
            private(x)
    finally:
        for handle in handles:
            handle.remove()
    return {path: torch.cat(seen) for path, seen in entered.items()}


def single_layers(module: nn.RNNBase) -> list[nn.RNNBase]:
    """The layers of a multi-layer recurrent module as modules of one layer each, with the same weights."""
    layers = []
    for k in range(module.num_layers):
        size = module.input_size if k == 0 else module.hidden_size
        more = {"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNN) else {}
        kind: Callable[..., nn.RNNBase] = type(module)
        with torch.random.fork_rng(devices=[]):
            layer = kind(size, module.hidden_size, bias=module.bias, batch_first=module.batch_first, **more)
        own = {name: value for name, value in module.state_dict().items() if name.endswith(f"_l{k}")}
        state = {f"{name.rpartition('_l')[0]}_l0": value for name, value in own.items()}
        layer.load_state_dict(state, assign=True)
        layers.append(layer.eval())
    return layers


def unrolled(model: nn.Module) -> nn.Module:
    """A copy whose recurrent modules are written out step by step, so that torch.func can differentiate and batch them.

    PyTorch's own recurrent kernels have no batching rule and no second derivative on the CPU. Parameters keep their
    names.
    """
    private = copy.deepcopy(model)
    for path, module in list(private.named_modules()):
        if isinstance(module, nn.RNNBase):
            parent, _, leaf = path.rpartition(".")
            if not path:
                return _Unrolled(module)
            setattr(private.get_submodule(parent), leaf, _Unrolled(module))
    return private


class _Unrolled(nn.Module):
    def __init__(self, module: nn.RNNBase) -> None:
        super().__init__()
        for name, parameter in module.named_parameters():
            self.register_parameter(name, parameter)
        self.kind, self.layers, self.bias = type(module), module.num_layers, module.bias
        self.batch_first, self.width = module.batch_first, module.hidden_size
        self.phi = torch.relu if getattr(module, "nonlinearity", "tanh") == "relu" else torch.tanh

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        time = x.dim() - 2 if self.batch_first or x.dim() == 2 else 0
        finals = []
        for k in range(self.layers):
            state = x.new_zeros(*x.select(time, 0).shape[:-1], self.width)
            memory, states = state, []
            for entering in nn.functional.linear(x, *self._pair("ih", k)).unbind(time):
                state, memory = self._step(entering, state, memory, *self._pair("hh", k))
                states.append(state)
            x = torch.stack(states, time)
            finals.append((state, memory))
        h, c = (torch.stack(parts) for parts in zip(*finals, strict=True))
        return x, (h, c) if self.kind is nn.LSTM else h

    def _pair(self, kind: str, k: int) -> tuple[Tensor, Tensor | None]:
        return getattr(self, f"weight_{kind}_l{k}"), getattr(self, f"bias_{kind}_l{k}") if self.bias else None

    def _step(
        self, entering: Tensor, state: Tensor, memory: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        fed_back = nn.functional.linear(state, weight, bias)
        if self.kind is nn.LSTM:
            i, f, g, o = (entering + fed_back).chunk(4, dim=-1)
            memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(memory), memory
        if self.kind is nn.GRU:
            (r, z, n), (hr, hz, hn) = entering.chunk(3, dim=-1), fed_back.chunk(3, dim=-1)
            update = torch.sigmoid(z + hz)
            candidate = torch.tanh(n + torch.sigmoid(r + hr) * hn)
            return (1 - update) * candidate + update * state, memory
        return self.phi(entering + fed_back), memory
