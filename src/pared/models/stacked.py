"""What recurrent modules become: several layers as modules of one layer each, and a layer that is gone."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class Stacked(nn.Module):
    """The layers of a `nn.LSTM`, `nn.GRU` or `nn.RNN` one by one, with the same weights, arguments and results.

    The final states come as a tuple with one tensor (samples, width) for each layer and direction, as `h_n[-1]` reads
    it, because tensors of several widths cannot be stacked; initial states may be given in that form or as one tensor.
    """

    def __init__(self, module: nn.RNNBase) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_layer(module, k) for k in range(module.num_layers))
        self.batch_first, self.dropout = module.batch_first, module.dropout
        self.directions = 2 if module.bidirectional else 1
        self.pair = isinstance(module, nn.LSTM)
        self.train(module.training)

    def forward(self, x: Any, hx: Any = None) -> tuple[Any, Any]:
        finals = []
        for k, layer in enumerate(self.layers):
            x, state = layer(x, None if hx is None else self._initial(hx, k))
            finals.append(state)
            if self.dropout and self.training and k < len(self.layers) - 1:
                x = _dropped(x, self.dropout)
        if not self.pair:
            return x, self._each(finals)
        return x, (self._each([h for h, _ in finals]), self._each([c for _, c in finals]))

    def _each(self, states: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One tensor for each layer and direction."""
        return tuple(state[d] for state in states for d in range(self.directions))

    def _initial(self, hx: Any, k: int) -> Any:
        own = range(k * self.directions, (k + 1) * self.directions)
        if self.pair:
            return tuple(torch.stack([part[i] for i in own]) for part in hx)
        return torch.stack([hx[i] for i in own])


class Passing(nn.Module):
    """What a dropped recurrent layer becomes: its input is its output, and it has no states."""

    def forward(self, x: Any, hx: Any = None) -> tuple[Any, None]:
        return x, None


def _dropped(x: Any, p: float) -> Any:
    if isinstance(x, PackedSequence):
        return x._replace(data=torch.dropout(x.data, p, True))
    return torch.dropout(x, p, True)


def _layer(module: nn.RNNBase, k: int) -> nn.RNNBase:
    """One layer with the weights of layer k, which it owns."""
    directions = 2 if module.bidirectional else 1
    size = module.input_size if k == 0 else (module.proj_size or module.hidden_size) * directions
    more: dict[str, Any] = {"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNN) else {}
    if module.proj_size:
        more["proj_size"] = module.proj_size
    kind: Callable[..., nn.RNNBase] = type(module)
    with torch.random.fork_rng(devices=[]):
        layer = kind(
            size,
            module.hidden_size,
            bias=module.bias,
            batch_first=module.batch_first,
            bidirectional=module.bidirectional,
            **more,
        )
    for name, _ in list(layer.named_parameters()):
        own = module.get_parameter(name.replace("_l0", f"_l{k}"))
        layer.register_parameter(name, nn.Parameter(own.detach().clone(), requires_grad=own.requires_grad))
    layer._init_flat_weights()
    return layer
