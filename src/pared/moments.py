"""Means and second moments of values that come in parts, in float64, and the ridge regression that they give."""

import torch
from torch import Tensor

BUFFERED_VALUES = 2**22
"""How many values wait before they are summed: bounds memory whatever the data."""
WIDE = 1024
"""From so many columns on products are made in the values' own precision, block by block, and summed in float64."""


class Moments:
    """Count, mean and summed squares about it of rows that come in parts (Chan, Golub & LeVeque 1983).

    Where some part comes without a bias that could take over an intercept, squares are about zero and the mean is 0.
    """

    def __init__(self) -> None:
        self.count, self.centred = 0, True
        self.biases: set[str] = set()
        self.mean = self.squares = torch.zeros(0)
        self._rows: list[Tensor] = []
        self._waiting = 0

    def add(self, values: Tensor, bias: str | None) -> None:
        """Rows along the last axis of `values`; `bias` names what could take over an intercept."""
        if bias is None:
            self.forget_means()
        else:
            self.biases.add(bias)
        most = max(1, BUFFERED_VALUES // values.shape[-1])
        for rows in torch.split(values.reshape(-1, values.shape[-1]), most):
            self._rows.append(rows.detach().clone())
            self._waiting += len(rows)
            if self._waiting >= most:
                self._sum()

    def forget_means(self) -> None:
        """Squares about zero from here on, and for what came before."""
        if not self.centred:
            return
        self._sum()
        if self.count:
            self.squares = self.squares + self.count * torch.outer(self.mean, self.mean)
            self.mean = torch.zeros_like(self.mean)
        self.centred = False

    def _sum(self) -> None:
        if not self._rows:
            return
        rows = torch.cat(self._rows)
        wide = rows.shape[1] >= WIDE and rows.dtype == torch.float32
        rows = rows if wide else (rows.cpu() if rows.device.type == "mps" else rows).double()  # which has no float64
        self._rows, self._waiting = [], 0
        count, total = len(rows), self.count + len(rows)
        if count == 0:
            return
        mean = rows.mean(dim=0) if self.centred else rows.new_zeros(rows.shape[1])
        around = rows.sub_(mean)
        product, mean = (around.T @ around).cpu(), mean.double().cpu()
        if self.count == 0:
            self.squares, self.mean = torch.zeros(len(mean), len(mean), dtype=torch.float64), torch.zeros_like(mean)
        shift = mean - self.mean
        self.squares += product
        self.squares.addr_(shift, shift, alpha=self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def rows(self) -> int:
        """How many rows have come."""
        self._sum()
        return self.count

    def regression(self, kept: Tensor, lost: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Ridge regression of the lost columns on the kept ones: (A (lost, kept), a (lost,))."""
        self._sum()
        nothing = torch.zeros(len(lost), len(kept), dtype=torch.float64), torch.zeros(len(lost), dtype=torch.float64)
        if not self.count:
            return nothing
        within = self.squares[kept][:, kept] / self.count
        sizes = self.squares.diagonal() / self.count + self.mean.square()
        constant = 1e-12 * sizes.mean()  # variances below this are rounding
        scale = within.diagonal().mean().clamp_min(constant)
        if scale == 0:  # nothing to repair from: every unit is dead
            return nothing
        within.diagonal().add_(ridge * scale)
        matrix = torch.linalg.solve(within, self.squares[kept][:, lost] / self.count).T
        return matrix, self.mean[lost] - matrix @ self.mean[kept]

    def damped(self, ridge: float) -> Tensor:
        """S + r I with the mean second moments S of all columns and r = ridge * mean diag S, 1 where all are 0."""
        self._sum()
        moments = self.squares / max(self.count, 1)
        scale = float(moments.diagonal().mean()) or 1 / ridge
        return moments + ridge * scale * torch.eye(len(moments), dtype=torch.float64)


def ridge_regression(x: Tensor, z: Tensor, ridge: float, intercept: bool = True) -> tuple[Tensor, Tensor]:
    """(V (outputs, inputs), c (outputs,)) that minimise ||z - V x - c||^2 + r ||V||^2 over rows of x and z.

    r = ridge * mean of the squared sizes of x's columns (about their means where there is an intercept c).
    """
    x_mean = x.mean(0) if intercept else torch.zeros_like(x[0])
    z_mean = z.mean(0) if intercept else torch.zeros_like(z[0])
    centred = x - x_mean
    gram = centred.T @ centred
    damping = ridge * gram.diagonal().mean().clamp_min(torch.finfo(gram.dtype).tiny)
    gram = gram + damping * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    matrix = torch.linalg.solve(gram, centred.T @ (z - z_mean)).T
    return matrix, z_mean - matrix @ x_mean
