"""Criteria from second derivatives over weights: what removing one would add to the loss."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from pared.data.batches import example, suited_batch
from pared.signals import Layout, plain_parameters, prunable
from pared.signals import curvature as signals
from pared.signals.curvature import inverse, inverse_parts
from pared.signals.recursion import backward_diagonal
from pared.surgery import Group, trace
from pared.surgery.slices import Role, check_role
from pared.types import Batch, Loss, Scores

Matrix = Literal["ggn", "fisher", "hessian"]

DIAGONALS: dict[str, Callable[[nn.Module, Batch, Loss], Tensor]] = {
    "exact": signals.hessian_diagonal,
    "ggn": signals.ggn_diagonal,
    "fisher": signals.fisher_diagonal,
    "hutchinson": signals.hutchinson,
    "lecun": backward_diagonal,
    "levenberg": partial(backward_diagonal, levenberg=True),
}
MATRICES = {"ggn": signals.ggn, "fisher": signals.fisher, "hessian": signals.hessian}


def obd(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    *,
    diagonal: Literal["ggn", "exact", "hutchinson", "lecun", "levenberg", "fisher"] = "ggn",
    gradient: bool = False,
) -> Scores:
    """Optimal brain damage: s_k = h_kk w_k^2 / 2, the loss that removing a weight adds if nothing couples it.

    `diagonal` says where h comes from: the GGN, the exact Hessian, Hutchinson's estimate of it (128 draws, seed 0),
    LeCun's recursion backwards and its Levenberg-Marquardt form (chains of Linear layers only), the empirical Fisher
    matrix. Negative h (away from a minimum) would make a large weight go first: they count as 0, with a warning.
    `gradient` adds the first-order term, s_k = -g_k w_k + h_kk w_k^2 / 2.

    Scores: weight parameter -> its shape, unit of the loss, >= 0 (any sign with `gradient`); comparable between layers.
    Cost: a vectorised backward pass an output (ggn); a Hessian-vector product a weight (exact), or 128 (hutchinson);
    two backward passes (lecun, levenberg, fisher). Raises: CurvatureError for a loss without second derivative.
    Source: LeCun, Denker & Solla, Optimal Brain Damage (1989).
    """
    if diagonal not in DIAGONALS:
        raise ValueError(f"unknown diagonal {diagonal!r}; choose one of {', '.join(DIAGONALS)}")
    h = DIAGONALS[diagonal](model, batch, loss)
    negative = int((h < 0).sum())
    if negative:
        warnings.warn(
            f"{negative} of {len(h)} second derivatives are negative (the network is not at a minimum) and count as 0; "
            "diagonal='ggn' has none",
            stacklevel=2,
        )
    w = _weights(model).to(h)
    scores = h.clamp_min(0.0) * w.square() / 2
    if gradient:
        scores = scores - signals.gradient(model, batch, loss) * w
    return prunable(model).named(scores)


def obs(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    *,
    matrix: Matrix = "ggn",
    damping: float = 1e-4,
    gradient: bool = False,
    recursive: bool = False,
) -> Scores:
    """Optimal brain surgeon: s_q = w_q^2 / (2 [H^-1]_qq), the loss that removing a weight adds once the others make up.

    H is the GGN, the empirical Fisher matrix or the exact Hessian, plus damping * mean(diag H) I. With `gradient`,
    s_q = (w_q - [H^-1 g]_q)^2 / (2 [H^-1]_qq) - g' H^-1 g / 2, right also away from a minimum. With `recursive` H^-1 is
    built up from the samples, as published (not for the exact Hessian): sooner where they are few. `obs_step` gives
    the shift of the others, for one weight or many; `pared.reconstruct.surgeon` makes it.

    Scores: weight parameter -> its shape, unit of the loss, >= 0 (any sign with `gradient`); comparable between layers.
    Cost: the matrix and O(n^3), or `recursive` O(samples outputs n^2); memory O(n^2).
    Raises: CurvatureError for a loss without second derivative, a matrix that is singular or indefinite after damping,
    and networks too large for it.
    Source: Hassibi & Stork, Second order derivatives for network pruning (1992); with the gradient Singh &
    Alistarh, WoodFisher (2020) ("WoodTaylor").
    """
    _check_matrix(matrix)
    if recursive and matrix == "hessian":
        raise ValueError("the exact Hessian is no sum over samples' rows; use matrix='ggn' or 'fisher' with recursive")
    if recursive:
        p = signals.recursive_inverse(model, batch, loss, damping, matrix == "fisher")
    else:
        p = inverse(MATRICES[matrix](model, batch, loss), damping)
    w = _weights(model).to(p)
    return prunable(model).named(_surgeon(w, p.diagonal(), _slope(model, batch, loss, gradient), p))


def group_obs(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    *,
    matrix: Matrix = "ggn",
    damping: float = 1e-4,
    gradient: bool = False,
    role: Role | None = None,
) -> Scores:
    """Optimal brain surgeon of whole units: the loss that removing all weights of a unit at once adds.

        s_j = w_S' ([H^-1]_SS)^-1 w_S / 2

    once all other weights make up, with S the prunable weights that make or read unit j (`role` "out": only those that
    read it, which is enough to silence it) and H as in `obs`; with `gradient` as `obs_step` has it. The shift of the
    others is `pared.reconstruct.refit_weights` with `pared.unit_masks`, for one unit or many, best of those that read.

    Scores: group -> (units,), unit of the loss, >= 0 (any sign with `gradient`); comparable between groups. A group
    whose units no prunable weight makes or reads is left out.
    Cost: the matrix and O(n^3), O(n |S| + |S|^3) a unit; memory O(n^2).
    Raises: CurvatureError as `obs`; for networks too large `least_squares` does the same layer by layer.
    Source: Hassibi & Stork (1992), for a set of weights.
    """
    _check_matrix(matrix)
    check_role(role)
    layout, batch = prunable(model), suited_batch(batch, model)
    signals.check_dense(layout.size, "least_squares (units, one small matrix for each layer that reads them)")
    structure = trace(model, example(batch.x))
    p = inverse(MATRICES[matrix](model, batch, loss), damping)
    w, g = _weights(model).to(p), _slope(model, batch, loss, gradient)
    scores: Scores = {}
    for group in structure:
        places = unit_places(layout, group, role)
        if places:
            increases = [obs_step(w, p, each.tolist(), g)[0] for each in places]
            scores[group.name] = torch.tensor(increases, dtype=p.dtype, device=p.device)
    return scores


def unit_places(layout: Layout, group: Group, role: Role | None = None) -> list[Tensor]:
    """For each unit of a group, where the weights that make or read it lie in the flat vector, each place once."""
    places: list[list[Tensor]] = [[] for _ in range(group.width)]
    for s in group.slices:
        if s.parameter in layout.shapes and role in (None, s.role):
            shape, span = layout.shapes[s.parameter], layout.place(s.parameter)
            own = torch.arange(span.start, span.stop).reshape(shape)
            for j, found in enumerate(places):
                found.append(own.index_select(s.axis, torch.tensor(s.indices(group.width, [j]))).flatten())
    return [torch.unique(torch.cat(found)) for found in places if found]


def obs_step(
    weights: Tensor, inverse: Tensor, gone: Sequence[int], gradient: Tensor | None = None
) -> tuple[float, Tensor]:
    """The least increase of g'd + d'Hd/2 over shifts d that make the weights `gone` zero, and that shift.

    With P = H^-1, r = w_Q - (P g)_Q and l = P_QQ^-1 r:  d = -P g - P_.Q l,  increase r' l / 2 - g' P g / 2.
    Cost: O(n |Q| + |Q|^3). Source: Hassibi & Stork (1992), for a set Q.
    """
    q = torch.as_tensor(list(gone))
    free = torch.zeros_like(weights) if gradient is None else inverse @ gradient
    rest = weights[q] - free[q]
    multiplier = torch.linalg.solve(inverse[q][:, q], rest)
    shift = -free - inverse[:, q] @ multiplier
    shift[q] = -weights[q]
    constant = 0.0 if gradient is None else float(gradient @ free)
    return float(rest @ multiplier - constant) / 2, shift


def woodfisher(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    *,
    damping: float = 1e-5,
    block: int | None = None,
    gradient: bool = False,
) -> Scores:
    """Optimal brain surgeon with the empirical Fisher matrix, never formed: s_q = w_q^2 / (2 [F^-1]_qq).

    F = (1/N) sum g_i g_i' + damping I (absolute), inverted by Woodbury's formula from the N per-sample gradients;
    `block` cuts the vector of weights into diagonal blocks of so many, each with an inverse of its own. With `gradient`
    it is WoodTaylor, (w_q - [F^-1 g]_q)^2 / (2 [F^-1]_qq) - g' F^-1 g / 2 (block by block).

    Scores: weight parameter -> its shape, unit of the loss, >= 0 (any sign with `gradient`); comparable between layers.
    Cost: one vectorised backward pass and O(N^2 n); memory O(N n).
    Raises: ValueError for a damping that is not positive.
    Source: Singh & Alistarh, WoodFisher (2020).
    """
    if damping <= 0:
        raise ValueError(f"the Fisher matrix of few samples is singular: damping must be positive, got {damping}")
    rows = signals.fisher_factor(model, batch, loss)
    w, g = _weights(model).to(rows), _slope(model, batch, loss, gradient)
    parts = []
    for place in range(0, len(w), block or len(w)):
        span = slice(place, place + (block or len(w)))
        slope = torch.zeros_like(w[span]) if g is None else g[span]
        diagonal, (free,) = inverse_parts(rows[:, span], damping, slope[None])
        parts.append((w[span] - free).square() / (2 * diagonal) - slope @ free / 2)
    return prunable(model).named(torch.cat(parts))


def _check_matrix(matrix: str) -> None:
    if matrix not in MATRICES:
        raise ValueError(f"unknown matrix {matrix!r}; choose one of {', '.join(MATRICES)}")


def _weights(model: nn.Module) -> Tensor:
    return prunable(model).flat(plain_parameters(model)).detach()


def _slope(model: nn.Module, batch: Batch, loss: Loss, wanted: bool) -> Tensor | None:
    return signals.gradient(model, batch, loss) if wanted else None


def _surgeon(weights: Tensor, diagonal: Tensor, gradient: Tensor | None, inverse: Tensor) -> Tensor:
    if gradient is None:
        return weights.square() / (2 * diagonal)
    free = inverse @ gradient
    return (weights - free).square() / (2 * diagonal) - gradient @ free / 2
