"""Recurrent modules written out step by step: every weight multiplies in plain sight, and torch.func can batch them."""

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear

from pared.models.unrolled import Unrolled, step
from pared.signals.private import exchanged


def unrolled(model: nn.Module) -> nn.Module:
    """A copy whose recurrent modules are written out step by step, so that torch.func can differentiate and batch them.

    PyTorch's own recurrent kernels have no batching rule and no second derivative on the CPU. Parameters keep their
    names; several layers, both directions, projections, initial states and packed sequences are those of PyTorch.
    Dropout between layers is left out, as in evaluation mode.
    """
    return written_out(copy.deepcopy(model))


def written_out(model: nn.Module) -> nn.Module:
    """The same model with its recurrent modules exchanged."""
    return exchanged(model, _written_out)


def _written_out(module: nn.Module) -> nn.Module | None:
    if isinstance(module, nn.RNNBase):
        return Unrolled(module)
    return _Cell(module) if isinstance(module, nn.LSTMCell | nn.GRUCell | nn.RNNCell) else None


class _Cell(nn.Module):
    """One step of a cell."""

    def __init__(self, module: nn.LSTMCell | nn.GRUCell | nn.RNNCell) -> None:
        super().__init__()
        self.weight_ih, self.weight_hh = module.weight_ih, module.weight_hh
        self.bias_ih, self.bias_hh = module.bias_ih, module.bias_hh
        relu = getattr(module, "nonlinearity", "tanh") == "relu"
        self.kind = type(module).__name__.removesuffix("Cell") + ("_RELU" if relu else "")
        self.input_size, self.hidden_size = module.input_size, module.hidden_size

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        if hx is None:
            state = memory = input.new_zeros(*input.shape[:-1], self.hidden_size)
        else:
            state, memory = hx if self.kind == "LSTM" else (hx, hx)
        entering = linear(input, self.weight_ih, self.bias_ih)
        new = step(self.kind, entering, linear(state, self.weight_hh, self.bias_hh), state, memory)
        return new if self.kind == "LSTM" else new[0]
