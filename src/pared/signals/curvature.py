"""Curvature of a loss over a network's prunable weights: dense matrices, their factors and their diagonals.

All in float64 and in the order of `prunable(model)`. With L the loss averaged over N samples, J_i = d output_i / d w,
Lam_i = d2 loss_i / d output_i^2 and g_i = d loss_i / d w:

    Hessian  H = d2 L / d w^2                          exact; indefinite away from a minimum
    GGN      G = (1/N) sum_i J_i' Lam_i J_i            positive semidefinite where the loss is convex
    Fisher   F = (1/N) sum_i g_i g_i'                  empirical: rank <= N, vanishes where the fit is perfect

Source: Martens, New insights and perspectives on the natural gradient method (2020).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from pared.signals.layout import CurvatureError, OfWeights, gradient_of
from pared.types import Batch, Loss

DENSE_BYTES = 4 * 2**30
"""How much memory dense matrices (three of them: matrix, inverse, workspace) may take."""

AT_A_TIME = 64
"""How many rows of a Hessian are found together."""


BLOCKWISE = "obc or sparse_gpt (one small matrix a layer), woodfisher with blocks, or chita"
"""What does without a dense matrix over all weights."""


def check_dense(size: int, instead: str = BLOCKWISE) -> None:
    """Raises CurvatureError where dense size x size matrices would not fit into `DENSE_BYTES`."""
    needed, gib = 3 * 8 * size * size, 2**30
    if needed > DENSE_BYTES:
        raise CurvatureError(
            f"dense curvature of {size:,} weights needs {needed / gib:,.1f} GiB (three {size:,} x {size:,} matrices in "
            f"float64), the limit is {DENSE_BYTES / gib:,.1f} GiB; use {instead}"
        )


def gradient(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """dL/dw, (size,). Cost: one forward and backward pass."""
    return gradient_at(OfWeights(model, batch, loss))


def gradient_at(of: OfWeights, pick: Tensor | None = None) -> Tensor:
    """dL/dw at the weights that `of` holds, of all samples or of those that `pick` names."""
    with of.looking():
        weights = of.weights.clone().requires_grad_()
        return gradient_of(of.loss(weights, pick), weights).detach()


def hessian(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """The exact Hessian, (size, size), symmetrised.

    Cost: one Hessian-vector product a weight. Raises: CurvatureError for a loss without second derivative and for a
    network too large for a dense matrix.
    """
    of = OfWeights(model, batch, loss)
    check_dense(of.layout.size)
    rows = torch.cat([part for _, part in _hessian_rows(of)])
    return (rows + rows.T) / 2


def hessian_diagonal(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """The diagonal of the exact Hessian, (size,), any sign, without a dense matrix.

    Cost: one Hessian-vector product a weight. Raises: CurvatureError for a loss without second derivative.
    """
    return torch.cat([part.diagonal(start) for start, part in _hessian_rows(OfWeights(model, batch, loss))])


def hutchinson(model: nn.Module, batch: Batch, loss: Loss, draws: int = 128, seed: int = 0) -> Tensor:
    """An unbiased estimate of the Hessian's diagonal: mean of v * Hv over vectors v of random signs; (size,), any sign.

    Its variance at weight i is 2 sum_{j != i} H_ij^2 / draws. Cost: `draws` Hessian-vector products.
    Raises: CurvatureError for a loss without second derivative.
    Source: Hutchinson (1990); Bekas, Kokiopoulou & Saad (2007).
    """
    of = OfWeights(model, batch, loss)
    generator = torch.Generator().manual_seed(seed)
    signs = 2.0 * torch.randint(2, (draws, of.layout.size), generator=generator, dtype=torch.int8).to(of.weights) - 1
    products = torch.cat([part for _, part in _products(of, signs)])
    return (signs * products).mean(dim=0)


def hessian_products(model: nn.Module, batch: Batch, loss: Loss, vectors: Tensor) -> Tensor:
    """H v for each row v: (rows, size). Cost: one Hessian-vector product a row."""
    return torch.cat([part for _, part in _products(OfWeights(model, batch, loss), vectors)])


def ggn(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """The generalised Gauss-Newton matrix, (size, size), positive semidefinite.

    Cost: one backward pass an output, vectorised over samples, and O(samples outputs size^2).
    Raises: CurvatureError for a loss without second derivative, one that is not convex in the output, and a network too
    large for a dense matrix.
    """
    of = OfWeights(model, batch, loss)
    check_dense(of.layout.size)
    return ggn_at(of)


def ggn_at(of: OfWeights) -> Tensor:
    """The GGN at the weights that `of` holds."""
    return _squared(of, _ggn_rows(of))


def fisher(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """The empirical Fisher matrix, (size, size), of rank <= samples. Cost: O(samples size^2). Raises: as `ggn`."""
    of = OfWeights(model, batch, loss)
    check_dense(of.layout.size)
    return _squared(of, _fisher_rows(of))


def ggn_factor(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """A with A'A = GGN, (at most 2 size rows or so, size): what to use where squaring would lose the small end.

    Rows are Lam_i^(1/2) J_i / sqrt(N); where they are many, QR takes them together as they come.
    Cost: as `ggn`. Raises: as `ggn`.
    """
    of = OfWeights(model, batch, loss)
    return _stacked(of, _ggn_rows(of))


def fisher_factor(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """(samples, size): rows g_i / sqrt(N), so that A'A is the empirical Fisher matrix. Memory: samples x size."""
    of = OfWeights(model, batch, loss)
    return torch.cat(list(_fisher_rows(of)))


def ggn_diagonal(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """The diagonal of the GGN, (size,), >= 0, without a dense matrix. Cost: one backward pass an output and sample."""
    return ggn_diagonal_at(OfWeights(model, batch, loss))


def ggn_diagonal_at(of: OfWeights) -> Tensor:
    """The GGN's diagonal at the weights that `of` holds."""
    return _summed(of, _ggn_rows(of))


def gradient_variances(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """Mean of (g_i - mean g)^2 over samples, (size,), >= 0: the diagonal of the gradients' covariance.

    Cost: one backward pass and one vectorised one.
    """
    of = OfWeights(model, batch, loss)
    mean = gradient_at(of) / of.samples**0.5
    return _summed(of, (rows - mean for rows in _fisher_rows(of)))


def fisher_diagonal(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    """Mean of g_i^2 over samples, (size,), >= 0. Cost: one vectorised backward pass."""
    of = OfWeights(model, batch, loss)
    return _summed(of, _fisher_rows(of))


def damped(matrix: Tensor, damping: float) -> Tensor:
    """M + damping * mean(diag M) I: damping is relative to the matrix."""
    return matrix + damping * matrix.diagonal().mean() * torch.eye(
        len(matrix), dtype=matrix.dtype, device=matrix.device
    )


def inverse(matrix: Tensor, damping: float = 0.0) -> Tensor:
    """The inverse of a symmetric positive definite matrix in float64, after `damped`.

    Cost: O(n^3). Raises: CurvatureError for a matrix that is not finite, singular to rounding, or indefinite.
    """
    whole = damped(matrix.double(), damping)
    if not whole.isfinite().all():
        raise CurvatureError("the curvature matrix holds infinities or NaN: scale the inputs, or look at the loss")
    factor, info = torch.linalg.cholesky_ex(whole)
    if int(info) or float(factor.diagonal().square().min()) < len(whole) * 1e-16 * float(whole.diagonal().max()):
        values = torch.linalg.eigvalsh(whole)
        kind = "indefinite" if float(values[0]) < -1e-12 * float(values[-1]) else "singular"
        raise CurvatureError(
            f"the curvature matrix is {kind}: its eigenvalues go from {float(values[0]):.3g} to "
            f"{float(values[-1]):.3g}, and the damping was {damping:g} times its mean diagonal; give more damping"
            + (", or use the GGN or the Fisher matrix, which are never indefinite" if kind == "indefinite" else "")
        )
    return torch.cholesky_inverse(factor)


def recursive_inverse(model: nn.Module, batch: Batch, loss: Loss, damping: float, fisher: bool = False) -> Tensor:
    """The inverse of the GGN, or the empirical Fisher matrix, built up from the rows of its factor: (size, size).

    From P = I / r, r = damping * mean diagonal, for every block A of rows that comes by (of one row it is the recursion
    P <- P - P a a' P / (1 + a' P a)):

        P <- P - P A' (I + A P A')^-1 A P

    The same as `inverse` of the matrix, damped, without forming it. Cost: the rows twice, and O(rows size^2), which is
    less than O(size^3) where samples times outputs are fewer than weights. Raises: CurvatureError for a damping that is
    not positive, and as `ggn`. Source: Hassibi & Stork (1992), by blocks.
    """
    of = OfWeights(model, batch, loss)
    check_dense(of.layout.size)
    make = _fisher_rows if fisher else _ggn_rows
    scale = float(_summed(of, make(of)).mean())
    ridge = damping * scale
    if not ridge > 0:
        raise CurvatureError(
            f"the recursion starts from I / (damping * mean diagonal), and both must be positive; got {damping:g} and "
            f"{scale:.3g}"
        )
    return updated_inverse(torch.eye(of.layout.size).to(of.weights) / ridge, make(of))


def updated_inverse(inverse: Tensor, parts: Iterable[Tensor]) -> Tensor:
    """(M + sum of A'A)^-1 from M^-1 (size, size), over blocks A (rows, size); see `recursive_inverse`."""
    for part in parts:
        for rows in torch.split(part, AT_A_TIME):
            image = rows @ inverse
            inner = image @ rows.T + torch.eye(len(rows)).to(rows)
            inverse = inverse - image.T @ torch.linalg.solve(inner, image)
    return inverse


def _hessian_rows(of: OfWeights) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, of.layout.size, AT_A_TIME):
        rows = torch.zeros(min(AT_A_TIME, of.layout.size - start), of.layout.size).to(of.weights)
        rows[torch.arange(len(rows)), start + torch.arange(len(rows))] = 1.0
        for _, part in _products(of, rows):
            yield start, part


def _products(of: OfWeights, vectors: Tensor) -> Iterator[tuple[int, Tensor]]:
    output_curvature(of)  # says what is wrong with a loss that has no second derivative
    with of.looking():
        weights = of.weights.clone().requires_grad_()
        slope = gradient_of(of.loss(weights), weights, create_graph=True)
        for start in range(0, len(vectors), AT_A_TIME):
            yield start, _product(slope, weights, vectors[start : start + AT_A_TIME].to(weights)).detach()


def _product(slope: Tensor, weights: Tensor, vectors: Tensor) -> Tensor:
    if not slope.requires_grad:
        return torch.zeros_like(vectors)
    try:
        found = torch.autograd.grad(slope, weights, vectors, retain_graph=True, is_grads_batched=True)
    except RuntimeError:  # an operation without batching rule
        return torch.stack([torch.autograd.grad(slope, weights, v, retain_graph=True)[0] for v in vectors])
    return found[0]


def _ggn_rows(of: OfWeights) -> Iterator[Tensor]:
    """Lam_i^(1/2) J_i / sqrt(N), in chunks (samples x outputs, size)."""
    roots = output_roots(of)
    for start, rows in of.jacobian():
        yield (roots[start : start + len(rows)].mT @ rows).flatten(0, 1) / of.samples**0.5


def _fisher_rows(of: OfWeights) -> Iterator[Tensor]:
    for _, rows in of.jacobian("loss"):
        yield rows[:, 0] / of.samples**0.5


def output_roots(of: OfWeights) -> Tensor:
    """R_i with R_i R_i' = Lam_i, (samples, outputs, outputs). Raises CurvatureError where a Lam is indefinite."""
    curvature = output_curvature(of)
    if not curvature.isfinite().all():
        raise CurvatureError(
            "the second derivatives of the loss hold infinities or NaN: scale the data, or look at the loss"
        )
    values, vectors = torch.linalg.eigh(curvature)
    if float(values.min()) < -1e-9 * float(values.max()):
        raise CurvatureError(
            f"the loss is not convex in the network's output (eigenvalue {float(values.min()):.3g}), so it has no "
            "Gauss-Newton matrix; use the exact Hessian or the Fisher matrix"
        )
    return cast(Tensor, vectors * values.clamp_min(0.0).sqrt()[:, None, :])


def output_curvature(of: OfWeights) -> Tensor:
    """Lam_i, (samples, outputs, outputs). Raises CurvatureError for a loss without second derivative."""
    out = of.outputs()

    def value(flat: Tensor, target: Tensor) -> Tensor:
        return of.of_sample(flat.reshape(out.shape[1:]), target)

    flat = out.flatten(1)
    with of.looking():
        value(flat[0], of.y[0])  # a loss that cannot be called at all says so itself
        try:
            found = vmap(jacrev(jacrev(value)), randomness="different")(flat, of.y)
        except RuntimeError:
            found = torch.stack([_by_hand(value, row, target) for row, target in zip(flat, of.y, strict=True)])
    if not found.any():
        raise CurvatureError(
            "the loss has no second derivative with respect to the network's output: it is zero for every sample, as "
            "for the absolute error; use mse_loss or cross_entropy here, or a criterion of first order (taylor, snip)"
        )
    return cast(Tensor, found.detach())


def _by_hand(value: Callable[[Tensor, Tensor], Tensor], row: Tensor, target: Tensor) -> Tensor:
    at = row.clone().requires_grad_()
    try:
        slope = gradient_of(value(at, target), at, create_graph=True)
        return torch.stack([gradient_of(entry, at, retain_graph=True) for entry in slope])
    except RuntimeError as error:
        raise CurvatureError(
            f"the loss cannot be differentiated twice: {error}; use mse_loss or cross_entropy here, or a criterion of "
            "first order (taylor, snip)"
        ) from error


def _squared(of: OfWeights, parts: Iterator[Tensor]) -> Tensor:
    total = torch.zeros(of.layout.size, of.layout.size).to(of.weights)
    for rows in parts:
        total += rows.T @ rows
    return total


def _summed(of: OfWeights, parts: Iterable[Tensor]) -> Tensor:
    total = torch.zeros_like(of.weights)
    for rows in parts:
        total += rows.square().sum(dim=0)
    return total


def _stacked(of: OfWeights, parts: Iterator[Tensor]) -> Tensor:
    held = torch.zeros(0, of.layout.size).to(of.weights)
    for rows in parts:
        held = torch.cat([held, rows])
        if len(held) > 2 * of.layout.size:
            held = torch.linalg.qr(held, mode="r")[1]
    return held


def inverse_parts(rows: Tensor, ridge: float, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Diagonal of P and P v for each row v of `vectors`, P = (rows' rows + ridge I)^-1, without the matrix.

    P = (I - A' (ridge I + A A')^-1 A) / ridge with A the rows: it is what Woodbury's recursion
    P <- P - P a a' P / (1 + a' P a) from P = I / ridge arrives at. Cost: O(rows^2 size), memory O(rows size).
    """
    one = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    factor = torch.linalg.cholesky(rows @ rows.T + ridge * one)
    half = torch.linalg.solve_triangular(factor, rows, upper=False)
    return (1 - half.square().sum(dim=0)) / ridge, (vectors - (vectors @ half.T) @ half) / ridge
