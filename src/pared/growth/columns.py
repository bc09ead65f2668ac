"""Progressive networks: a new column for a new task, which hears the earlier ones while these stay as they are."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pared.signals import forked, inputs_of


class Adapter(nn.Module):
    """What a layer hears of earlier columns: U relu(V alpha h + b), h being what that layer reads in all of them.

    alpha is one learned number, V maps to as many values as the layer reads, and U and b are zero at first.
    h (..., sum of the earlier widths) -> (..., width).
    """

    def __init__(self, earlier: int, width: int, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.down, self.up = nn.Linear(earlier, width), nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.down.bias)  # drawn biases would silence few, small values for good
        nn.init.zeros_(self.up.weight)

    def forward(self, earlier: Tensor) -> Tensor:
        out: Tensor = self.up(torch.relu(self.down(self.scale * earlier)))
        return out


class Progressive(nn.Module):
    """Columns, one a task; each layer l in `layers` of a column also hears what layer l reads in the columns before.

        x_l^(k) = h_l^(k) + U_l relu(V_l alpha_l [h_l^(1), ..., h_l^(k-1)] + b_l)

    h_l^(k) is what layer l of column k is given, x_l^(k) what it reads. For a layer that begins with a linear map W
    (dense, LSTM, GRU) that is the paper's U^(k) with W U_l in its place. x -> the output of the newest column, or of
    `column`. All columns but the newest are frozen, in evaluation mode even in training.

    `first` is the network of the first task, any module that has `layers`: names of modules that are called once and
    read a tensor whose last axis holds the features. `add_column` makes the further ones.
    Source: Rusu et al., Progressive Neural Networks (2016), equation 2.
    """

    def __init__(self, first: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        if not layers:
            raise ValueError("name at least one layer that is to hear the earlier columns")
        self.layers = tuple(layers)
        self.columns = nn.ModuleList([first])
        self.adapters = nn.ModuleList([nn.ModuleList()])

    def forward(self, x: Tensor, column: int = -1) -> Tensor:
        last = range(len(self.columns))[column]
        return self._run(x, last)[0]

    def heard(self, x: Tensor) -> list[Tensor]:
        """[h_l^(1), ...] of all columns, one tensor for each layer."""
        return self._run(x, len(self.columns) - 1)[1]

    def _run(self, x: Tensor, last: int) -> tuple[Tensor, list[Tensor]]:
        heard: list[Tensor] = []
        for column, adapters in zip(self.columns[: last + 1], self.adapters, strict=False):
            assert isinstance(adapters, nn.ModuleList)
            added = {name: adapter(h) for name, adapter, h in zip(self.layers, adapters, heard, strict=False)}
            out, own = inputs_of(column, self.layers, x, added)
            new = [own[name] for name in self.layers]
            heard = [torch.cat(pair, -1) for pair in zip(heard, new, strict=True)] if heard else new
        return out, heard

    def train(self, mode: bool = True) -> "Progressive":
        """The newest column alone changes its mode."""
        super().train(mode)
        for column in self.columns[:-1]:
            column.eval()
        return self


def add_column(model: Progressive, network: nn.Module, x: Tensor, scale: float = 0.1, seed: int = 0) -> Progressive:
    """A copy of `model` with one more column, a copy of `network`, that is to learn the next task; the rest is frozen.

    At first the new column computes what `network` does, and whatever it learns, the earlier ones give the same to the
    bit. `x` is any batch of the new task, `scale` what alpha starts with. Train the result by `fit`.

    Returns a new module. Cost: adapters of n (n' + n + 1) + 1 weights for a layer that reads n values here and n' in
    all earlier columns; running column k runs those before it.
    Raises: ValueError for layers that `network` lacks, does not call once or that read values of other shapes there.
    """
    with torch.no_grad(), forked(model):
        _, own = inputs_of(copy.deepcopy(network).eval(), model.layers, x)
        heard = copy.deepcopy(model).eval().heard(x)
    for name, h in zip(model.layers, heard, strict=True):
        if own[name].shape[:-1] != h.shape[:-1]:
            raise ValueError(
                f"{name!r} reads {tuple(own[name].shape)} in the new column, {tuple(h.shape)} in the earlier ones: "
                "all axes but the last must be equal; name another layer"
            )
    grown = copy.deepcopy(model).requires_grad_(False)
    with forked(model):
        torch.manual_seed(seed)
        sizes = [(h.shape[-1], own[name].shape[-1]) for name, h in zip(model.layers, heard, strict=True)]
        adapters = nn.ModuleList(Adapter(earlier, width, scale) for earlier, width in sizes)
    grown.columns.append(copy.deepcopy(network))
    grown.adapters.append(adapters.to(heard[0].device, heard[0].dtype))
    return grown.train(model.training)
