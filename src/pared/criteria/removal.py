"""Belsley's path through a matrix: find its worst-conditioned direction, remove who is most involved, and again.

The matrix M (n, n) is positive definite. With lam_1 >= ... >= lam_k the eigenvalues of what is left and u_k the vector
of the least, parameter i's share of its own variance that lies in that direction is

    q_i = (u_ik^2 / lam_k) / sum_j u_ij^2 / lam_j = theta u_i^2 / C_ii,    C = M^-1, (theta, u) its top eigenpair.

The parameter of largest share goes: its row and column leave M, and C' = C - c_j c_j' / C_jj.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from pared.signals import CurvatureError

Array = NDArray[Any]

Spectrum = Callable[[Array], tuple[Array, Array]]
"""Indices that are left -> eigenvalues of C, the greatest first, and its eigenvectors as columns."""

SQUARE, ROOT = 1e12, 1e24
"""Condition numbers of M up to which its eigenvectors can be told from M itself, and from a factor of it."""

TIE = 1e-8
"""Eigenvalues of C that are so close (relative), and shares, count as equal."""

STALE = 1e-6
"""What has shrunk below this part of its size since the last decomposition is not told from rounding any more."""

SHARE_OF_BLOCK, LEAST_BLOCK, MOST_BLOCK, WIDTH = 12, 32, 192, 6
"""A decomposition serves for k/12 removals of k, at least 32 and at most 192; vectors that are iterated together."""


@dataclass(frozen=True)
class Removal:
    """In which order parameters go, and how clear each choice was.

    `order` (n,) holds indices, first removed first; the last one would never go. `margins` (n - 1,) is the lead of each
    choice over the second best, as a part of the best: where it is near zero the order means nothing. `ties` (n - 1,)
    counts the eigenvalues that shared the worst place. `condition` is the largest ratio of eigenvalues at the start.
    """

    order: Array
    margins: Array
    ties: Array
    condition: float


def removal(matrix: Array, tie: float = TIE) -> Removal:
    """The path of a symmetric positive definite matrix.

    Between decompositions of what is left (every k/12 removals of k) C is kept as V (Lam - Z Z') V' in the eigenvectors
    V of the last one, with a column of Z a removal. Its top eigenpair is found by inverse iteration with Woodbury's
    formula, warm-started; Sylvester's law of inertia, at a shift just above it, proves that it is the top one. Where
    eigenvalues tie (within `tie`), the share is summed over all of their vectors, not normalised: it does not depend on
    which vectors were chosen. Of equal shares the lower index goes.

    Cost: a removal takes two products of a k x k matrix and a vector, O(k t^2 + t^3) after t removals since the last
    decomposition, and its share of that one: O(k^2) while t grows with k (to k = 2,300), above that O(k^3 / 192).
    Raises: CurvatureError for a matrix that is not symmetric, not positive definite, or of a condition above 1e12.
    Source: Grabovoy, Bakhteev & Strijov (2019), eq. 4.1 to 4.4, with the indices of (4.4) as their example has them;
    Golub, Some modified matrix eigenvalue problems (1973), for eigenvalues of a diagonal minus a low rank.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.allclose(matrix, matrix.T, rtol=1e-8):
        raise CurvatureError(f"the matrix must be symmetric, got one shaped {matrix.shape}; give (M + M') / 2")
    whole = (matrix + matrix.T) / 2

    def spectrum(left: Array) -> tuple[Array, Array]:
        values, vectors = scipy.linalg.eigh(whole[np.ix_(left, left)], driver="evd")
        return _inverted(values, vectors, SQUARE)

    return _path(spectrum, len(whole), tie)


def removal_of_factor(factor: Array, tie: float = TIE) -> Removal:
    """The path of M = F'F from F (rows, n) itself, for conditions that M's rounding would hide (up to 1e24).

    As `removal`, with singular value decompositions. Raises: CurvatureError for columns that depend on each other.
    """
    root = scipy.linalg.qr(factor, mode="r")[0][: factor.shape[1]]

    def spectrum(left: Array) -> tuple[Array, Array]:
        _, values, vectors = scipy.linalg.svd(root[:, left], full_matrices=len(root) < len(left))
        padded = np.zeros(len(left))
        padded[: len(values)] = values
        return _inverted(padded[::-1] ** 2, vectors[::-1].T, ROOT)

    return _path(spectrum, factor.shape[1], tie)


def _inverted(values: Array, vectors: Array, limit: float) -> tuple[Array, Array]:
    """From M's eigenvalues, the least first, to C's, the greatest first."""
    if not values[0] * limit > values[-1] > 0:
        advice = "give the factor whose square it is, or a ridge" if limit == SQUARE else "give a ridge"
        raise CurvatureError(
            f"the eigenvalues of the matrix go from {values[0]:.3g} to {values[-1]:.3g}, a condition number that its "
            f"rounding hides (above {limit:.0e}): the order of removal would be noise; {advice}"
        )
    return 1 / values, vectors


class _Choice(NamedTuple):
    """Who goes, of those left at the last decomposition; the lead; how many eigenvalues shared the worst place."""

    who: int
    margin: float
    tied: int


def _path(spectrum: Spectrum, size: int, tie: float) -> Removal:
    left, condition = np.arange(size), 1.0
    order: list[int] = []
    choices: list[_Choice] = []
    while len(left) > 1:
        values, vectors = spectrum(left)
        condition = condition if order else float(values[0] / values[-1])
        tied = int((values * (1 + tie) >= values[0]).sum())
        if tied > 1:
            found = _within_cluster(vectors[:, :tied], values[:tied])
        else:
            limit = min(max(LEAST_BLOCK, len(left) // SHARE_OF_BLOCK), MOST_BLOCK)
            found = _block(values, vectors, limit, tie)
        order += [left[choice.who] for choice in found]
        choices += found
        left = np.delete(left, [choice.who for choice in found])
    margins, ties = (np.array([choice[k] for choice in choices]) for k in (1, 2))
    return Removal(np.array([*order, *left]), margins, ties, condition)


def _best(shares: Array) -> tuple[int, float]:
    """The first of the greatest shares, and its lead over the second."""
    if len(shares) == 1:
        return 0, 1.0
    second, best = np.partition(shares, -2)[-2:]
    return int((shares >= best * (1 - TIE)).argmax()), float(1 - second / best)


def _within_cluster(vectors: Array, values: Array) -> list[_Choice]:
    """Removes all but one dimension of the space of tied eigenvalues: what is left of it is orthogonal to who went."""
    space, found = vectors * np.sqrt(values), []
    shares = np.square(space).sum(axis=1)
    for tied in range(len(values), 1, -1):
        index, margin = _best(shares)
        found.append(_Choice(index, margin, tied))
        row = space[index] / np.sqrt(shares[index])
        along = space @ row
        space -= np.outer(along, row)
        shares = np.maximum(shares - along**2, 0.0)
        shares[index] = -1.0
    return found


def _block(values: Array, vectors: Array, limit: int, tie: float) -> list[_Choice]:
    """Up to `limit` removals from one decomposition, fewer where rounding would begin to show or eigenvalues tie."""
    size = len(values)
    found: list[_Choice] = []
    lost = np.zeros((size, limit))
    first = np.square(vectors) @ values
    variances, start = first.copy(), np.eye(size, min(size, WIDTH))
    top, direction = values[0], vectors[:, 0]
    for step in range(min(limit, size - 1)):
        shares = top * direction**2 / variances
        shares[[choice.who for choice in found]] = -1.0
        index, margin = _best(shares)
        found.append(_Choice(index, margin, 1))
        row, before = vectors[index], lost[:, :step]
        column = values * row - before @ (before.T @ row)
        variance = float(row @ column)
        if variance < STALE * first[index]:
            break
        lost[:, step] = column / np.sqrt(variance)
        pair = _top(values, lost[:, : step + 1], start, top)
        if pair is None or pair.value < STALE * values[0] or pair.second * (1 + tie) >= pair.value:
            break
        top, start = pair.value, pair.space
        drop, direction = (vectors @ np.stack([lost[:, step], start[:, 0]], axis=1)).T
        variances = np.maximum(variances - drop**2, np.finfo(float).tiny)
        if (variances < STALE * first).sum() > len(found):
            break
    return found


class _Top(NamedTuple):
    """The greatest eigenvalues, and vectors of the space that they were found in, the greatest first."""

    value: float
    second: float
    space: Array


def _top(values: Array, lost: Array, start: Array, bound: float) -> _Top | None:
    """The top eigenpair of diag(values) - lost lost', known to lie below `bound`; None where it is not proven."""
    shift, highest = bound * (1 + 1e-9), bound * (1 + 1e-9)
    space = start
    for _ in range(8):
        apart = shift - values
        apart[np.abs(apart) < 1e-14 * values[0]] = 1e-14 * values[0]
        scaled = lost / apart[:, None]
        within, turn = np.linalg.eigh(np.eye(lost.shape[1]) + lost.T @ scaled)
        above = int((apart < 0).sum() - (within < 0).sum())  # how many eigenvalues lie above the shift
        for _ in range(3):
            shifted = space / apart[:, None]
            space = shifted - scaled @ (turn @ ((turn.T @ (lost.T @ shifted)) / within[:, None]))
            space = np.linalg.qr(space)[0]
            image = values[:, None] * space - lost @ (lost.T @ space)
            ritz, inner = np.linalg.eigh(space.T @ image)
            space, image, ritz = space @ inner[:, ::-1], image @ inner[:, ::-1], ritz[::-1]
            error = float(np.linalg.norm(image[:, 0] - ritz[0] * space[:, 0]))
            if error < 1e-12 * values[0]:
                break
        second = float(ritz[1]) if len(ritz) > 1 else 0.0
        if above == 0:
            highest = min(highest, shift)
            if highest - ritz[0] <= max(1e-3 * (ritz[0] - second), 1e-11 * ritz[0]):
                return _Top(float(ritz[0]), second, space)
            shift = min(ritz[0] + max(10 * error, 1e-4 * (ritz[0] - second), 1e-12 * ritz[0]), highest)
        else:
            shift = (shift + highest) / 2
    return None
