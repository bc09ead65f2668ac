"""Relevance by collinearity: which weights the posterior cannot tell apart (Grabovoy, Bakhteev & Strijov, 2019)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from pared.criteria.posterior import snapshot_posterior, variational_posterior
from pared.criteria.removal import SQUARE, Array, Removal, removal, removal_of_factor
from pared.signals import CurvatureError, plain_parameters, prunable
from pared.signals.curvature import check_dense, damped, ggn_factor, inverse
from pared.types import Batch, Loss, Scores

Reading = Literal["covariance", "correlation", "precision"]

SMALL = 48
"""Up to this size a whole decomposition is as fast as iterating."""

STEPS, RESTARTS = 40, 10
"""Of Lanczos' iteration, which starts from the direction before; one round of steps mostly finds it again."""


def laplace_factor(model: nn.Module, batch: Batch, loss: Loss, prior: float = 1.0) -> Array:
    """A triangular R with R'R = N G + prior I, the posterior precision of the weights under Laplace's approximation.

    The negative log likelihood is taken to be N L, L the loss over N samples, the prior a Gaussian of variance 1/prior.
    """
    if prior <= 0:
        raise ValueError(f"the prior precision must be positive (else the posterior has no covariance), got {prior}")
    check_dense(prunable(model).size)
    rows = ggn_factor(model, batch, loss).cpu().numpy() * np.sqrt(len(batch.y))
    whole = np.vstack([rows, np.sqrt(prior) * np.eye(rows.shape[1])])
    return np.asarray(scipy.linalg.qr(whole, mode="r")[0][: rows.shape[1]])


def variational_factor(model: nn.Module, batch: Batch, loss: Loss, prior: float = 1.0, steps: int = 20) -> Array:
    """As `laplace_factor`, of the Gaussian fitted by variational inference (see `posterior.variational_posterior`)."""
    _, covariance = variational_posterior(model, batch, loss, "full", prior, steps)
    return _factor_of_inverse(covariance)


def snapshot_factor(
    model: nn.Module, batch: Batch, loss: Loss, count: int = 20, ridge: float = 1e-6, seed: int = 0
) -> Array:
    """As `laplace_factor`, of the covariance of snapshots of descent, S + ridge * mean(diag S) I.

    See `posterior.snapshot_posterior`. Few snapshots leave most directions to the diagonal: the ridge is for weights
    that do not move at all.
    """
    check_dense(prunable(model).size)
    _, root, spread = snapshot_posterior(model, batch, loss, count, seed=seed)
    return _factor_of_inverse(damped(root @ root.T + torch.diag(spread), ridge))


def _factor_of_inverse(covariance: Tensor) -> Array:
    return np.asarray(torch.linalg.cholesky(inverse(covariance), upper=True).cpu().numpy())


Posterior = Callable[[nn.Module, Batch, Loss], Array]
"""`posterior(model, batch, loss)` -> R with R'R the precision of the weights; `functools.partial` sets its options."""


def belsley(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    *,
    reading: Reading = "covariance",
    posterior: Posterior = laplace_factor,
    ridge: float = 0.0,
    recompute: bool = True,
) -> Scores:
    """Places in Belsley's order of removal: the weights that the posterior tells apart least go first.

    The posterior's covariance is S: Laplace's, S^-1 = N G + prior I with G the GGN, unless `posterior` says another
    (`laplace_factor`, `variational_factor` and `snapshot_factor` stand in `pared.criteria.belsley`). The matrix M is S
    itself under "covariance" (whose text the paper follows), S scaled to a unit diagonal under "correlation" (whose
    numbers its table 1 has), S^-1 under "precision" (what its eq. 2.6 calls A_ps). `ridge` adds ridge * mean(diag M) I.
    Each step takes M's worst-conditioned direction and removes the weight with the largest part of its variance in it;
    see `removal`. With `recompute` False M is decomposed once, and the worst component is sought among the numbers of
    weights that are left, as older code of the paper's group does.

    A weight's own size is not looked at: a large weight goes if it is collinear. See `belsley_obs` for the cure.

    Scores: weight parameter -> its shape, place in the order (0 goes first), comparable between layers.
    Cost: the posterior (Laplace's: the GGN's factor), and O(n^2) a removal; memory O(n^2).
    Raises: CurvatureError where M is too large, or its condition beyond what even a factor's rounding shows.
    Source: Grabovoy, Bakhteev & Strijov, Informatics and Applications 13(2), 62 (2019), section 4.
    """
    if reading not in get_args(Reading):
        raise ValueError(f"unknown reading {reading!r}; choose one of {', '.join(get_args(Reading))}")
    factor = of_reading(posterior(model, batch, loss), reading, ridge)
    return _places(model, belsley_order(factor).order if recompute else single_order(factor))


def belsley_obs(model: nn.Module, batch: Batch, loss: Loss, *, share: float = 0.1, prior: float = 1.0) -> Scores:
    """The order of Belsley-OBS: within the worst direction, the weight of least m^2 / S_ii goes, the others make up.

    Each step takes the eigenvector u of the posterior correlation's least eigenvalue, the cluster
    {i : u_i^2 >= share max u^2}, removes the weight of the cluster with the least signal-to-noise ratio, and conditions
    the posterior on its being zero: m <- m - S_.z m_z / S_zz, S <- S - S_.z S_z. / S_zz. `share` 0 is optimal brain
    surgeon; the shifted weights come from `surgeon_path`.

    Scores: weight parameter -> its shape, place in the order (0 goes first), comparable between layers.
    Cost: the GGN's factor, its inverse, and O(n^2) a removal. Raises: CurvatureError as `belsley`.
    Source: this project.
    """
    factor = laplace_factor(model, batch, loss, prior)
    order, _ = surgeon_path(flat_weights(model), factor.T @ factor, share)
    return _places(model, order)


def flat_weights(model: nn.Module) -> Array:
    """The prunable weights as one vector in float64."""
    return np.asarray(prunable(model).flat(plain_parameters(model)).double().cpu().numpy())


def of_reading(factor: Array, reading: Reading = "covariance", ridge: float = 0.0) -> Array:
    """F with F'F = M of a reading, from the triangular factor of the precision."""
    found = factor
    if reading != "precision":
        found = scipy.linalg.solve_triangular(factor, np.eye(len(factor)), trans="T")
    if reading == "correlation":
        found = found / np.linalg.norm(found, axis=0)
    if ridge:
        found = np.vstack([found, np.sqrt(ridge * np.square(found).sum() / len(factor)) * np.eye(len(factor))])
    return np.asarray(found)


def belsley_order(factor: Array) -> Removal:
    """Belsley's order for M = F'F: from M where its condition is below 1e12, else from F, the slower way."""
    values = scipy.linalg.svdvals(factor)
    well = len(factor) >= factor.shape[1] and values[0] ** 2 < SQUARE / 10 * values[-1] ** 2
    return removal(factor.T @ factor) if well else removal_of_factor(factor)


def single_order(factor: Array) -> Array:
    """The order from one decomposition of M = F'F: the worst component whose number is left, its largest share."""
    shares = collinearity(factor.T @ factor).shares
    left, order = np.ones(len(shares), dtype=bool), []
    for _ in range(len(shares) - 1):
        component = np.flatnonzero(left)[-1]
        order.append(int(np.where(left, shares[component], -1.0).argmax()))
        left[order[-1]] = False
    return np.array([*order, *np.flatnonzero(left)])


@dataclass(frozen=True)
class Collinearity:
    """Condition indices lam_1 / lam_j (n,), ascending, and the shares (n components, n parameters) of variances.

    A column of `shares` sums to one: how a parameter's variance divides among the components.
    """

    indices: Array
    shares: Array


def collinearity(matrix: Array, ridge: float = 0.0) -> Collinearity:
    """Belsley's table: plain (not rooted) ratios of eigenvalues, and variance-decomposition proportions.

    eta_j = lam_1 / lam_j, q_ij = (u_ij^2 / lam_j) / sum_k u_ik^2 / lam_k, of matrix + ridge * mean(diag) I.
    Where eigenvalues are zero to rounding, the indices are bounded by 1/eps and the shares are noise: give a ridge.
    Cost: one decomposition. Source: Belsley, Kuh & Welsch, Regression Diagnostics (1980).
    """
    values, vectors = scipy.linalg.eigh(matrix + ridge * np.trace(matrix) / len(matrix) * np.eye(len(matrix)))
    values, vectors = np.maximum(values[::-1], np.finfo(float).eps * values[-1]), vectors[:, ::-1]
    shares = vectors**2 / values
    return Collinearity(values[0] / values, (shares / shares.sum(axis=1, keepdims=True)).T)


def inflation(matrix: Array, ridge: float = 0.0) -> Array:
    """Variance inflation factors: the diagonal of the inverse of the matrix (a correlation) + ridge * mean(diag) I."""
    values, vectors = scipy.linalg.eigh(matrix + ridge * np.trace(matrix) / len(matrix) * np.eye(len(matrix)))
    if values[0] <= np.finfo(float).eps * len(values) * values[-1]:
        raise CurvatureError(f"the matrix is singular (least eigenvalue {values[0]:.3g}); give a ridge")
    return np.asarray((vectors**2 / values).sum(axis=1))


def surgeon_path(mean: Array, precision: Array, share: float = 0.1, count: int | None = None) -> tuple[Array, Array]:
    """Belsley-OBS on a Gaussian N(mean, precision^-1): the order of removal, and the mean after `count` removals.

    Without `count` all but one go. Each step is a rank-one downdate of the covariance (conditioning on a zero) and some
    products with the precision of what is left, scaled by standard deviations, for its top eigenvector.

    Returns: order (n,), of which the first `count` went in turn and the rest stand as they are; mean (n,), exactly zero
    where they went. Cost: O(n^2) a removal. Raises: CurvatureError for a precision that is not positive definite.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, got {share}")
    try:
        covariance = scipy.linalg.cho_solve(scipy.linalg.cho_factor(precision), np.eye(len(precision)))
    except np.linalg.LinAlgError as error:
        raise CurvatureError(f"the precision is not positive definite ({error}); give a larger prior") from error
    own, left, order, direction = mean.copy(), np.arange(len(mean)), [], np.ones(len(mean))
    for _ in range(len(mean) - 1 if count is None else count):
        variances = np.diag(covariance)
        direction = _worst(precision, np.sqrt(variances), direction)
        within = direction**2 >= share * (direction**2).max()
        z = int(np.where(within, own**2 / variances, np.inf).argmin())
        order.append(int(left[z]))
        column = covariance[:, z] / variances[z]
        own = np.delete(own - column * own[z], z)
        covariance = _without(covariance - np.outer(column, covariance[z]), z)
        precision, direction, left = _without(precision, z), np.delete(direction, z), np.delete(left, z)
    shifted = np.zeros(len(mean))
    shifted[left] = own
    return np.array([*order, *left]), shifted


def surgeon_rounds(
    mean: Array, factor_at: Callable[[Array], Array], counts: Sequence[int], share: float = 0.1
) -> Iterator[tuple[Array, Array]]:
    """`surgeon_path` in rounds, the posterior precision F'F, F = `factor_at`(mean), taken anew before each.

    `counts`: how many weights are gone after each round, not falling. Yields (mean (n,), zero where weights went; the
    indices that are left). Cost: a factor and an inverse of what is left a round, O(n^2) a removal.
    """
    current, left = mean.copy(), np.arange(len(mean))
    for count in counts:
        going = count - (len(mean) - len(left))
        if going:
            own = factor_at(current)[:, left]
            order, current[left] = surgeon_path(current[left], own.T @ own, share, going)
            left = np.sort(left[order[going:]])
        yield current.copy(), left


def _without(matrix: Array, index: int) -> Array:
    return np.delete(np.delete(matrix, index, axis=0), index, axis=1)


def _worst(precision: Array, scale: Array, start: Array) -> Array:
    """The eigenvector of the least eigenvalue of the correlation: of the greatest of D H D, D standard deviations."""
    size = len(scale)
    if size <= SMALL:
        return np.asarray(np.linalg.eigh(precision * np.outer(scale, scale))[1][:, -1])
    # what was orthogonal to the last direction must be found, too
    vector: Array = start / np.linalg.norm(start) + 1e-3 * np.random.default_rng(0).standard_normal(size) / np.sqrt(
        size
    )
    for _ in range(RESTARTS):
        vector, error = _lanczos(precision, scale, vector)
        if error < 1e-9:
            break
    return np.asarray(vector)


def _lanczos(precision: Array, scale: Array, start: Array) -> tuple[Array, float]:
    """The top eigenvector of D H D in a Krylov space, orthogonalised twice, and its relative residual."""
    basis = np.zeros((len(scale), STEPS))
    image = np.zeros_like(basis)
    vector = start
    for step in range(STEPS):
        basis[:, step] = vector / np.linalg.norm(vector)
        image[:, step] = scale * (precision @ (scale * basis[:, step]))
        vector = image[:, step]
        for _ in range(2):
            vector = vector - basis[:, : step + 1] @ (basis[:, : step + 1].T @ vector)
        if np.linalg.norm(vector) <= 1e-12 * np.linalg.norm(image[:, step]):
            break
    basis, image = basis[:, : step + 1], image[:, : step + 1]
    values, inner = np.linalg.eigh(basis.T @ image)
    found = basis @ inner[:, -1]
    return found, float(np.linalg.norm(image @ inner[:, -1] - values[-1] * found) / values[-1])


def _places(model: nn.Module, order: Array) -> Scores:
    """Each weight's place in an order of the flat vector."""
    places = torch.empty(len(order), dtype=torch.float64)
    places[torch.from_numpy(order)] = torch.arange(len(order), dtype=torch.float64)
    device = next(model.parameters()).device
    return prunable(model).named(places if device.type == "mps" else places.to(device))
