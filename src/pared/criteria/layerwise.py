"""Criteria that look at one layer at a time: what its outputs lose, by second moments of what enters it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pared.signals import plain_parameters, prunable
from pared.signals.curvature import damped, inverse
from pared.signals.layers import input_grams
from pared.types import Batch, Loss, Scores

HELD_ENTRIES = 20_000_000
"""How many entries of inverses are held at a time, one inverse a row of weights."""


def wanda(model: nn.Module, batch: Batch, loss: Loss) -> Scores:
    """|W_ij| ||x_j||: a weight's size times the length of what it multiplies (over samples, steps and places).

    Scores: weight parameter -> its shape, unit of the layer's output, >= 0; compare them within an output row
    (`select_weights` with scope "row"), not between layers. Layers that neither multiply nor convolve are left out.
    Cost: one forward pass. Source: Sun, Liu, Bair & Kolter, Wanda (2024).
    """

    def score(rows: Tensor, gram: Tensor) -> Tensor:
        return rows.abs() * (gram.diagonal() * len(batch.y) / 2).sqrt()

    return _by_layer(model, batch, loss, score)


def layer_obs(model: nn.Module, batch: Batch, loss: Loss, *, damping: float = 1e-2) -> Scores:
    """Layer-wise optimal brain surgeon: s = w_q^2 / (2 [P]_qq), P the inverse of H = (2/N) sum x x' of what enters.

    It is the least mean squared change of the layer's outputs once the row's other weights make up. Biases stay.
    H is damped by damping * mean(diag H).

    Scores: weight parameter -> its shape, unit of a squared output, >= 0; comparable within a layer.
    Cost: one forward pass, O(rows d^2 + d^3) a layer of d inputs.
    Source: Dong, Chen & Pan, Learning to prune deep neural networks via layer-wise OBS (2017).
    """

    def score(rows: Tensor, gram: Tensor) -> Tensor:
        return rows.square() / (2 * inverse(alive(gram), damping).diagonal())

    return _by_layer(model, batch, loss, score)


def obc(model: nn.Module, batch: Batch, loss: Loss, *, damping: float = 1e-2) -> Scores:
    """Exact layer-wise surgeon: what each removal adds when every row loses its weights one by one, the rest making up.

    See `obc_trace`. A weight's score is the running maximum of its row's trace up to its own removal, so that any
    threshold removes a beginning of every row's order. `pared.reconstruct.layerwise` gives the weights that make up.

    Scores: weight parameter -> its shape, unit of a squared output, >= 0; comparable within a layer.
    Cost: one forward pass, O(outputs d^3) a layer of d inputs.
    Source: Frantar, Singh & Alistarh, Optimal Brain Compression (2022).
    """

    def score(rows: Tensor, gram: Tensor) -> Tensor:
        order, losses = obc_trace(rows, damped(alive(gram), damping))
        return torch.empty_like(losses).scatter_(1, order, losses.cummax(dim=1).values)

    return _by_layer(model, batch, loss, score)


def obc_trace(rows: Tensor, hessian: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of W (o, d): the order in which its weights go, (o, d), and what each adds, (o, d), in that order.

    Each row has its own P = H^-1: the least w_j^2 / P_jj goes, w -= P_.j w_j / P_jj, P -= P_.j P_j. / P_jj; it adds
    half of that to tr((W - W') H (W - W')') / 2. Cost: O(o d^3); memory o d^2 at a time, in parts.
    """
    d = rows.shape[1]
    orders, losses = [], []
    whole = inverse(hessian)
    for part in torch.split(rows.double(), max(1, HELD_ENTRIES // (d * d))):
        w, p = part.clone(), whole.repeat(len(part), 1, 1)
        each, gone = torch.arange(len(part)), torch.zeros(len(part), d, dtype=torch.bool)
        order, loss = [], []
        for _ in range(d):
            diagonal = p.diagonal(dim1=1, dim2=2)
            cost = torch.where(gone, torch.inf, w.square() / torch.where(gone, 1.0, diagonal))
            j = cost.argmin(dim=1)
            loss.append(cost[each, j] / 2)
            order.append(j)
            column = p[each, :, j] / diagonal[each, j, None]
            w = w - column * w[each, j, None]
            p = p - column[:, :, None] * p[each, j][:, None, :]
            gone[each, j] = True
            w[gone] = 0.0
        orders.append(torch.stack(order, dim=1))
        losses.append(torch.stack(loss, dim=1))
    return torch.cat(orders), torch.cat(losses)


def refitted(rows: Tensor, hessian: Tensor, keep: Tensor) -> Tensor:
    """The W' (o, d), zero where `keep` is not, that minimises tr((W - W') H (W - W')') row by row.

    w'_S = w_S + H_SS^-1 H_SQ w_Q: where optimal brain surgeon's steps end, in whatever order. Cost: O(o d^3).
    """
    found = torch.zeros_like(rows)
    for i, stays in enumerate(keep):
        s, q = stays.nonzero().flatten(), (~stays).nonzero().flatten()
        if len(s):
            found[i, s] = rows[i, s] + torch.linalg.solve(hessian[s][:, s], hessian[s][:, q] @ rows[i, q])
    return found


def sparsegpt(rows: Tensor, hessian: Tensor, ratio: float, block: int = 128) -> tuple[Tensor, Tensor]:
    """Which weights of W (o, d) stay, and W' that makes up for the others, columns left to right in one sweep.

    U is the upper Cholesky factor of H^-1 (H^-1 = U'U). In each block of columns the share `ratio` of least
    (w / U_ii)^2, over all rows, goes; then column by column W_.(i:) -= (w_i - w'_i) / U_ii U_i(i:), so that columns
    already passed are never touched again.

    Returns keep (o, d) boolean, W' (o, d). Cost: O(d^3 + o d^2).
    Source: Frantar & Alistarh, SparseGPT (2023).
    """
    upper = torch.linalg.cholesky(inverse(hessian), upper=True)
    w, keep = rows.double().clone(), torch.ones_like(rows, dtype=torch.bool)
    for start in range(0, w.shape[1], block):
        stop = min(start + block, w.shape[1])
        cost = (w[:, start:stop] / upper.diagonal()[start:stop]).square()
        lowest = cost.flatten().argsort(stable=True)[: round(ratio * cost.numel())]
        keep[:, start:stop] = (
            torch.ones(cost.numel(), dtype=torch.bool).index_fill(0, lowest, False).reshape(cost.shape)
        )
        for i in range(start, stop):
            error = torch.where(keep[:, i], 0.0, w[:, i]) / upper[i, i]
            w[:, i:] -= torch.outer(error, upper[i, i:])
            w[~keep[:, i], i] = 0.0
    return keep, w


def alive(gram: Tensor) -> Tensor:
    """An input that is always zero gets a curvature of one: its weights do nothing, and the matrix has an inverse."""
    dead = gram.diagonal() == 0
    return gram + torch.diag(dead.to(gram))


def _by_layer(model: nn.Module, batch: Batch, loss: Loss, score: Callable[[Tensor, Tensor], Tensor]) -> Scores:
    """`score(rows (o, d), gram (d, d))` for every layer, and every group of a convolution, put back in shape."""
    weights, grams = plain_parameters(model), input_grams(model, batch, loss)
    scores: Scores = {}
    for name, shape in prunable(model).shapes.items():
        if name in grams:
            parts = weights[name].to(grams[name]).flatten(1).chunk(len(grams[name]))
            found = [score(rows, gram) for rows, gram in zip(parts, grams[name], strict=True)]
            scores[name] = torch.cat(found).reshape(shape)
    if not scores:
        raise ValueError(f"{type(model).__name__} has no layer that multiplies or convolves; use magnitude or obd")
    return scores
