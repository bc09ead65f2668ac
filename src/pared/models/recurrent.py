"""A forecaster of stacked recurrent layers and a linear dense head."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

Cell = Literal["lstm", "gru", "rnn"]
Init = Literal["keras", "torch"]
CELLS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Forecaster(nn.Module):
    """Recurrent layers read a window, linear dense layers read their last step.

    x (samples, window, inputs) -> (samples, outputs). The default is the network of Huang, Gu & Yang (2022): two LSTM
    layers of 16 and 4 units and two dense layers of 4 and 1 units, all of them linear.

    `init="keras"` draws input weights from Glorot's uniform law, recurrent weights as one orthogonal matrix for all
    gates, and sets biases to 0 but the forget gate's to 1; `init="torch"` keeps PyTorch's uniform law. Thresholds of
    mean |w| mean nothing without naming one of them: at 16 units the output gate starts at 0.100 and 0.125.
    With `dropout` that share of what each recurrent layer puts out is silenced in training.
    `seed` makes the draw reproducible and leaves the global random state alone; None draws from the global one.
    """

    def __init__(  # noqa: PLR0913
        self,
        inputs: int = 1,
        recurrent: Sequence[int] = (16, 4),
        dense: Sequence[int] = (4,),
        outputs: int = 1,
        cell: Cell = "lstm",
        init: Init = "keras",
        seed: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not recurrent or min((*recurrent, *dense, inputs, outputs)) < 1:
            raise ValueError(f"layer sizes must be at least 1, got recurrent={recurrent}, dense={dense}")
        if cell not in CELLS:
            raise ValueError(f"unknown cell {cell!r}; choose one of {', '.join(CELLS)}")
        if init not in get_args(Init):
            raise ValueError(f"unknown init {init!r}; choose one of {', '.join(get_args(Init))}")
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            sizes = (inputs, *recurrent)
            self.recurrent = nn.ModuleList(CELLS[cell](a, b, batch_first=True) for a, b in pairwise(sizes))
            sizes = (recurrent[-1], *dense, outputs)
            self.dropout = nn.Dropout(dropout) if dropout else None
            self.head = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))
            if init == "keras":
                _keras_init(self)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.recurrent:
            x, _ = layer(x)
            x = x if self.dropout is None else self.dropout(x)
        out: Tensor = self.head(x[:, -1])
        return out


@torch.no_grad()
def _keras_init(model: Forecaster) -> None:
    for layer in model.recurrent:
        assert isinstance(layer, nn.RNNBase)
        nn.init.xavier_uniform_(layer.get_parameter("weight_ih_l0"))
        # Keras draws one orthogonal (units, gates * units) matrix; ours is its transpose.
        nn.init.orthogonal_(layer.get_parameter("weight_hh_l0"))
        nn.init.zeros_(layer.get_parameter("bias_ih_l0"))
        nn.init.zeros_(layer.get_parameter("bias_hh_l0"))
        if isinstance(layer, nn.LSTM):
            nn.init.ones_(layer.get_parameter("bias_ih_l0")[layer.hidden_size : 2 * layer.hidden_size])
    for layer in model.head:
        assert isinstance(layer, nn.Linear)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
