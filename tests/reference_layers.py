"""Slow twins of the criteria that score whole layers, on what enters and leaves them as arrays of rows."""

import numpy as np
import torch

import reference
from reference_bayesian import adam


def cka(x, y):
    """Linear centred kernel alignment by the unbiased estimator, from whole kernels."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)

    def h(a, b):
        trace = np.trace(a @ b)
        both = (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
        return (trace + both - 2 / (n - 2) * (one @ a @ b @ one)) / (n * (n - 3))

    return h(k, m) / np.sqrt(h(k, k) * h(m, m))


def block_influence(x, y):
    """1 - the mean cosine, row by row."""
    return 1 - np.mean([a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(x, y, strict=True)])


def unexplained(x, z, ridge):
    """Share of the variance of z that a ridge regression on x leaves."""
    matrix, shift = reference.ridge_fit(x, z, ridge, intercept=True)
    return np.sum((z - x @ matrix.T - shift) ** 2) / np.sum((z - z.mean(axis=0)) ** 2)


def probe(values, target):
    """R^2 on the odd rows of a ridge regression (penalty 1) on standardised values, fitted to the even ones."""
    x, y = values[::2], target[::2]
    centre, scale = x.mean(axis=0), np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    x, other = (x - centre) / scale, (values[1::2] - centre) / scale
    weight = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ (y - y.mean(axis=0)))
    left, truth = target[1::2] - other @ weight - y.mean(axis=0), target[1::2]
    return float(np.mean(1 - np.sum(left**2, axis=0) / np.sum((truth - truth.mean(axis=0)) ** 2, axis=0)))


def gates(value, count, steps, lr, seed, penalty):
    """P(z != 0) of hard concrete gates after training; `value(z)` is the loss at gates z (count,)."""
    beta, gamma, zeta = 2 / 3, -0.1, 1.1
    generator = torch.Generator().manual_seed(seed)
    ends = [float(value(torch.full((count,), end, dtype=torch.float64))) for end in (0.0, 1.0)]
    price = penalty * abs(ends[0] - ends[1]) / count

    def stays_open(log_a):
        return 1 / (1 + torch.exp(-(log_a - beta * np.log(-gamma / zeta))))

    def objective(q, step):
        u, z = torch.rand(count, generator=generator, dtype=torch.float64), []
        for k in range(count):
            s = 1 / (1 + torch.exp(-(torch.log(u[k]) - torch.log(1 - u[k]) + q["log a"][k]) / beta))
            z.append(torch.clamp(s * (zeta - gamma) + gamma, 0, 1))
        return value(torch.stack(z)) + price * sum(stays_open(log_a) for log_a in q["log a"])

    start = torch.full((count,), 2.0, dtype=torch.float64)
    return stays_open(adam({"log a": start}, objective, steps, lr)["log a"])
