"""A recurrent module whose weights are products of two thin ones."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.functional import linear

from pared.models.unrolled import Unrolled


class Factored(Unrolled):
    """`nn.LSTM`, `nn.GRU` or `nn.RNN` with W = W_out W_in in the place of some of its weights, and all else the same.

    `ranks` names weights and their ranks, as {"weight_hh_l0": 4}: for each of these there are `weight_hh_l0_out` (rows,
    rank) and `weight_hh_l0_in` (rank, columns), zeros at first; the other parameters are those of `module`. A step
    multiplies by the thin ones, first in, then out, in single operations, not in PyTorch's fused kernel. At ranks of an
    eighth of the width that is faster from about 300 units on (10 times and more at 512, sample by sample), slower
    below (10 times at 16).
    """

    def __init__(self, module: nn.RNNBase, ranks: Mapping[str, int]) -> None:
        super().__init__(module)
        self.dropout = module.dropout
        for leaf, rank in ranks.items():
            weight = module.get_parameter(leaf)
            for end, shape in (("out", (len(weight), rank)), ("in", (rank, weight.shape[1]))):
                factor = nn.Parameter(weight.detach().new_zeros(shape), requires_grad=weight.requires_grad)
                self.register_parameter(f"{leaf}_{end}", factor)
            del self._parameters[leaf]
        self.train(module.training)

    def multiplied(self, kind: str, suffix: str, x: Tensor) -> Tensor:
        """W x + b, as W_out (W_in x) + b where there are factors."""
        leaf = f"weight_{kind}_{suffix}"
        if leaf in self._parameters:
            return super().multiplied(kind, suffix, x)
        return linear(linear(x, getattr(self, f"{leaf}_in")), getattr(self, f"{leaf}_out"), self.bias_of(kind, suffix))

    def extra_repr(self) -> str:
        """What kind it is, and the shapes of the factors."""
        thin = {name: tuple(p.shape) for name, p in self.named_parameters() if name.endswith(("_out", "_in"))}
        return ", ".join([self.kind, *(f"{name}={shape}" for name, shape in thin.items())])

    def recurrent_shape(self, suffix: str) -> tuple[int, int]:
        """Rows and columns of the recurrent weight."""
        leaf = f"weight_hh_{suffix}"
        if leaf in self._parameters:
            return super().recurrent_shape(suffix)
        return len(getattr(self, f"{leaf}_out")), getattr(self, f"{leaf}_in").shape[1]
