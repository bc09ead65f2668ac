"""Gaussian posteriors of a network's weights, and the signal-to-noise ratio they give every weight.

The negative log likelihood is taken to be N L, with L the loss averaged over N samples; the prior is a Gaussian of mean
zero and precision `prior`.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from pared.signals import CurvatureError, prunable
from pared.signals.curvature import check_dense, ggn_at, ggn_diagonal_at, gradient_at, inverse
from pared.signals.layout import OfWeights
from pared.types import Batch, Loss, Scores

Covariance = Literal["diagonal", "full"]


def snr(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    *,
    posterior: Literal["laplace", "variational", "snapshots"] = "laplace",
    covariance: Covariance = "diagonal",
    prior: float = 1.0,
    steps: int = 20,
) -> Scores:
    """|mu_i| / sigma_i of a Gaussian posterior: weights that might as well be zero go first.

    `posterior` says how it is found (see `laplace_posterior`, `variational_posterior`, `snapshot_posterior`; `steps`
    are the second's steps and the third's snapshots), `covariance` whether weights are independent ("diagonal") or
    not. At a minimum the diagonal one orders like `obd` and the full one like `obs`: their squares are twice those.

    Scores: weight parameter -> its shape, no unit, >= 0; comparable between layers.
    Cost: a GGN (laplace), 2 `steps` of them (variational), 10 `steps` on minibatches (snapshots); full: O(n^3) each.
    Raises: CurvatureError for losses without second derivative, and for networks too large for a full covariance.
    Source: Graves, Practical variational inference for neural networks (2011).
    """
    if posterior == "snapshots":
        mean, root, spread = snapshot_posterior(model, batch, loss, steps)
        deviation = (spread + root.square().sum(dim=1)).sqrt()  # of either covariance: they share their diagonal
    elif posterior == "laplace":
        mean, matrix = laplace_posterior(model, batch, loss, covariance, prior)
        deviation = (matrix.diagonal() if covariance == "full" else matrix).sqrt()
    elif posterior == "variational":
        mean, matrix = variational_posterior(model, batch, loss, covariance, prior, steps)
        deviation = (matrix.diagonal() if covariance == "full" else matrix).sqrt()
    else:
        raise ValueError(f"unknown posterior {posterior!r}; choose laplace, variational or snapshots")
    smallest = torch.finfo(mean.dtype).tiny
    return prunable(model).named(mean.abs() / deviation.clamp_min(smallest))


def laplace_posterior(
    model: nn.Module, batch: Batch, loss: Loss, covariance: Covariance = "full", prior: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The network's weights as mean, and (N G + prior I)^-1: (n, n), or with "diagonal" 1 / (N G_ii + prior): (n,).

    The diagonal is that of the precision, which is what independent weights fitted by Kullback and Leibler's divergence
    have. Cost: one GGN, and O(n^3) for the full one. Source: MacKay, A practical Bayesian framework (1992).
    """
    of = _of(model, batch, loss, covariance, prior)
    return of.weights, _covariance(_precision(of, covariance, prior))


def variational_posterior(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    covariance: Covariance = "full",
    prior: float = 1.0,
    steps: int = 20,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """The Gaussian q that maximises E_q log p(data | w) - KL(q || prior), by natural gradient from Laplace's.

    With P its precision, means over a draw w from q and its mirror image, and r_t = 1 / (1 + t / 5):

        P <- (1 - r) P + r (prior I + N G(w)),   m <- m - s P^-1 (prior m + N g(w))

    with s = 1 halved until E_q of the loss and the prior's term, over the same draws, do not rise.

    Returns: mean (n,) and covariance (n, n), or with "diagonal" variances (n,).
    Cost: 2 `steps` GGNs and gradients; full: O(n^3) each. Exact for linear networks under a squared error.
    Source: Khan et al., Fast and scalable Bayesian deep learning by weight-perturbation in Adam (2018).
    """
    of = _of(model, batch, loss, covariance, prior)
    generator = torch.Generator().manual_seed(seed)
    mean, precision = of.weights.clone(), _precision(of, covariance, prior)
    for turn in range(steps):
        rate = 1 / (1 + turn / 5)
        noise = _drawn(precision, torch.randn(len(mean), generator=generator, dtype=torch.float64).to(mean))
        slope, found = prior * mean, torch.zeros_like(precision)
        for sign in (1, -1):
            of.weights = mean + sign * noise
            slope = slope + of.samples * gradient_at(of) / 2
            found = found + _precision(of, covariance, prior) / 2
        precision = (1 - rate) * precision + rate * found
        step = torch.linalg.solve(precision, slope) if precision.dim() == 2 else slope / precision
        mean = mean - _bounded(of, mean, noise, step, prior) * step
    return mean, _covariance(precision)


def snapshot_posterior(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    count: int = 20,
    between: int = 10,
    lr: float = 1e-2,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of snapshots of descent on minibatches, a root D (n, count) and spread (n,): S = diag(spread) + D D'.

    Every `between` steps (of a quarter of the batch, in an order from the seed) a snapshot is taken. D D' is half of
    their covariance, of rank `count` - 1, and spread half of its diagonal.
    Cost: `count` * `between` forward and backward passes. Memory O(n count).
    Source: Maddox et al., A simple baseline for Bayesian uncertainty in deep learning (2019).
    """
    of = OfWeights(model, batch, loss)
    generator, seen = torch.Generator().manual_seed(seed), []
    for step in range(count * between):
        pick = torch.randperm(of.samples, generator=generator)[: max(1, of.samples // 4)].to(of.y.device)
        of.weights = of.weights - lr * gradient_at(of, pick)
        if (step + 1) % between == 0:
            seen.append(of.weights)
    taken = torch.stack(seen, dim=1)
    mean = taken.mean(dim=1)
    apart = taken - mean[:, None]
    spread = apart.square().sum(dim=1) / (count - 1) / 2
    return mean, apart / (2 * (count - 1)) ** 0.5, spread


def _of(model: nn.Module, batch: Batch, loss: Loss, covariance: Covariance, prior: float) -> OfWeights:
    if covariance not in ("diagonal", "full"):
        raise ValueError(f"a covariance is 'diagonal' or 'full', got {covariance!r}")
    if prior <= 0:
        raise CurvatureError(f"the prior precision must be positive, else the posterior has no covariance; got {prior}")
    of = OfWeights(model, batch, loss)
    if covariance == "full":
        check_dense(of.layout.size, "covariance='diagonal'")
    return of


def _precision(of: OfWeights, covariance: Covariance, prior: float) -> Tensor:
    """(n, n), or its diagonal (n,)."""
    if covariance == "diagonal":
        return of.samples * ggn_diagonal_at(of) + prior
    return of.samples * ggn_at(of) + prior * torch.eye(of.layout.size).to(of.weights)


def _covariance(precision: Tensor) -> Tensor:
    return inverse(precision) if precision.dim() == 2 else 1 / precision


def _drawn(precision: Tensor, noise: Tensor) -> Tensor:
    """Noise of this precision from noise of precision one."""
    if precision.dim() == 1:
        return noise / precision.sqrt()
    factor: Tensor = torch.linalg.cholesky(precision)
    drawn: Tensor = torch.linalg.solve_triangular(factor.T, noise[:, None], upper=True)
    return drawn.flatten()


@torch.no_grad()
def _bounded(of: OfWeights, mean: Tensor, noise: Tensor, step: Tensor, prior: float) -> float:
    """How much of a step can be taken."""

    def value(at: Tensor) -> float:
        losses = sum(float(of.loss(at + sign * noise)) for sign in (1, -1))
        return of.samples * losses / 2 + prior * float(at.square().sum()) / 2

    share, before = 1.0, value(mean)
    while share > 1e-6 and not value(mean - share * step) <= before:
        share /= 2
    return share if share > 1e-6 else 0.0
