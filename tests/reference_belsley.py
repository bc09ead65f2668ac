"""Belsley's method as the formulas read: a full decomposition for every removal, in any precision."""

import mpmath
import numpy as np


def proportions(matrix):
    """q[i, j] = (u_ij^2 / lam_j) / sum_k u_ik^2 / lam_k and condition indices lam_1 / lam_j, lam descending."""
    values, vectors = np.linalg.eigh(matrix)
    values, vectors = values[::-1], vectors[:, ::-1]
    shares = vectors**2 / values
    return shares / shares.sum(axis=1, keepdims=True), values[0] / values


def order(matrix, tie=1e-8):
    """One after another: the parameter of largest share in the worst direction goes.

    Where the smallest eigenvalues tie, the un-normalised share in all of their directions. Equal shares: lowest index.
    """
    left, gone, margins = list(range(len(matrix))), [], []
    while len(left) > 1:
        values, vectors = np.linalg.eigh(matrix[np.ix_(left, left)])
        tied = [j for j in range(len(left)) if values[j] <= values[0] * (1 + tie)]
        shares = []
        for i in range(len(left)):
            own = sum(vectors[i, j] ** 2 / values[j] for j in tied)
            whole = sum(vectors[i, j] ** 2 / values[j] for j in range(len(left)))
            shares.append(own / whole if len(tied) == 1 else own)
        best, second = sorted(shares)[-1], sorted(shares)[-2]
        margins.append(1 - second / best)
        gone.append(left.pop(next(i for i, share in enumerate(shares) if share >= best * (1 - 1e-8))))
    return gone + left, margins


def exact_order(factor, digits=60):
    """The order of F'F in arithmetic of so many digits."""
    mpmath.mp.dps = digits
    columns, left, gone = mpmath.matrix(factor.tolist()), list(range(factor.shape[1])), []
    while len(left) > 1:
        part = mpmath.matrix([[columns[i, j] for j in left] for i in range(columns.rows)])
        values, vectors = mpmath.eigsy(part.T * part)
        inverse = [sum(vectors[i, j] ** 2 / values[j] for j in range(len(left))) for i in range(len(left))]
        shares = [vectors[i, 0] ** 2 / values[0] / inverse[i] for i in range(len(left))]
        best = max(shares)
        gone.append(left.pop(next(i for i, share in enumerate(shares) if share >= best * (1 - mpmath.mpf("1e-8")))))
    return gone + left


def single(matrix):
    """One decomposition for all: the worst component among the numbers that are left, then the largest share in it."""
    shares, _ = proportions(matrix)
    left, gone = list(range(len(matrix))), []
    while len(left) > 1:
        component = max(left)
        gone.append(max(left, key=lambda i: shares[i, component]))
        left.remove(gone[-1])
    return gone + left


def surgeon(mean, covariance, share=0.1):
    """Belsley-OBS: of those in the worst direction the one of least mean^2 / variance goes."""
    mean, covariance, left, gone = mean.copy(), covariance.copy(), list(range(len(mean))), []
    means = []
    while len(left) > 1:
        own = covariance[np.ix_(left, left)]
        scale = np.sqrt(np.diag(own))
        direction = np.linalg.eigh(own / np.outer(scale, scale))[1][:, 0]
        cluster = [i for i in range(len(left)) if direction[i] ** 2 >= share * max(direction**2)]
        q = left[min(cluster, key=lambda i: mean[left[i]] ** 2 / own[i, i])]
        mean = mean - covariance[:, q] * mean[q] / covariance[q, q]
        mean[q] = 0.0
        covariance = covariance - np.outer(covariance[:, q], covariance[q]) / covariance[q, q]
        left.remove(q)
        gone.append(q)
        mean[gone] = 0.0
        means.append(mean.copy())
    return gone + left, means
