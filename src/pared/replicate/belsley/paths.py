"""Ways of removing weights one after another: a network -> its weights at every level of removal."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import nn

from pared import criteria
from pared.criteria.belsley import Reading, belsley_order, flat_weights, laplace_factor, of_reading, surgeon_rounds
from pared.masks import mask_weights
from pared.replicate.belsley.protocol import LEVELS, PRIOR, Array, Subject
from pared.signals import prunable
from pared.signals.curvature import hessian_diagonal
from pared.surgery.edit import replace_all
from pared.types import Scores

Order = Array
"""(n,) indices of weights, the first to go first."""


@dataclass(frozen=True)
class Removals:
    """What the ways of removal know of a network: its weights, and the posterior where it is, or elsewhere."""

    subject: Subject
    seed: int

    @cached_property
    def weights(self) -> Array:
        """All weights, (n,)."""
        return flat_weights(self.subject.model)

    @cached_property
    def counts(self) -> list[int]:
        """How many weights are gone at each level."""
        return [round(level / 100 * len(self.weights)) for level in LEVELS]

    @cached_property
    def factor(self) -> Array:
        """F with F'F the posterior precision at the trained weights."""
        return self.factor_at(self.weights)

    def factor_at(self, weights: Array, prior: float = PRIOR) -> Array:
        """F with F'F the posterior precision at these weights: the given one, or Laplace's with the GGN."""
        if self.subject.precision is not None:
            return self.subject.precision
        return laplace_factor(self._with(weights), self.subject.train, self.subject.problem.loss, prior)

    def scores(self, criterion: Callable[..., Scores]) -> Array:
        """A criterion's scores, (n,)."""
        model, problem = self.subject.model, self.subject.problem
        return prunable(model).flat(criterion(model, self.subject.train, problem.loss)).double().numpy()

    def _with(self, weights: Array) -> nn.Module:
        copied = mask_weights(self.subject.model, {})
        replace_all(copied, prunable(copied).named(torch.from_numpy(weights)))
        return copied


def dropped(found: Removals, order: Order) -> Array:
    """(levels, n): the weights as they are, the first of the order zero."""
    weights = np.tile(found.weights, (len(LEVELS), 1))
    for row, count in zip(weights, found.counts, strict=True):
        row[order[:count]] = 0.0
    return weights


def random(found: Removals) -> Array:
    """In an order from the seed."""
    return dropped(found, np.random.default_rng(found.seed).permutation(len(found.weights)))


def magnitude(found: Removals) -> Array:
    """The smallest first."""
    return dropped(found, np.abs(found.weights).argsort(kind="stable"))


def obd(found: Removals) -> Array:
    """h_ii w_i^2 / 2 with h of the GGN, which is never negative."""
    return dropped(found, found.scores(criteria.obd).argsort(kind="stable"))


def obd_signed(found: Removals) -> Array:
    """h_ii w_i^2 / 2 with h of the exact Hessian and its sign, as printed: what curves downwards goes first."""
    subject = found.subject
    h = hessian_diagonal(subject.model, subject.train, subject.problem.loss).numpy()
    return dropped(found, (h * found.weights**2).argsort(kind="stable"))


def variational(found: Removals) -> Array:
    """|mu_i| / sigma_i of independent Gaussians fitted by variational inference (given: of the marginals)."""
    if found.subject.precision is not None:
        deviation = np.sqrt(np.diag(np.linalg.inv(found.factor.T @ found.factor)))
        return dropped(found, (np.abs(found.weights) / deviation).argsort(kind="stable"))
    fitted = partial(criteria.snr, posterior="variational", prior=PRIOR)
    return dropped(found, found.scores(fitted).argsort(kind="stable"))


def snr_at_optimum(found: Removals) -> Array:
    """|w_i| / sigma_i with 1 / sigma_i^2 the precision's diagonal: what independent Gaussians around w arrive at."""
    return dropped(found, (np.abs(found.weights) * np.linalg.norm(found.factor, axis=0)).argsort(kind="stable"))


def belsley(found: Removals, reading: Reading) -> Array:
    """Belsley's order on one reading of the posterior matrix."""
    return dropped(found, belsley_order(of_reading(found.factor, reading)).order)


@dataclass(frozen=True)
class Variant:
    """One way of Belsley-OBS: pure data.

    `share` of the worst direction that makes a cluster (0: optimal brain surgeon); precision of the `prior`, which
    damps the shifts; whether the posterior is taken `anew` at every level or once.
    """

    share: float = 0.1
    prior: float = PRIOR
    anew: bool = True

    @property
    def name(self) -> str:
        """Its name in the results."""
        kind = f"belsley-obs c={self.share:g}" if self.share else "obs"
        return f"{kind} prior={self.prior:g}" + ("" if self.anew else " once")


def surgeon(found: Removals, variant: Variant) -> Array:
    """Belsley-OBS (share 0: optimal brain surgeon): those that stay are shifted after each removal."""
    first = found.factor_at(found.weights, variant.prior)

    def factor_at(weights: Array) -> Array:
        return found.factor_at(weights, variant.prior) if variant.anew else first

    return np.stack([mean for mean, _ in surgeon_rounds(found.weights, factor_at, found.counts, variant.share)])


CHOSEN, BELSLEY_OBS = Variant(0.0, 30.0), Variant(0.1, 1.0)
VARIANTS = (
    *(Variant(0.0, prior) for prior in (1.0, 3.0, 10.0, 30.0)),
    *(Variant(share, prior) for share in (0.1, 0.5) for prior in (1.0, 10.0)),
    Variant(0.0, 3.0, anew=False),
)
"""What is tried on the problems for choosing."""


PAPERS: dict[str, Callable[[Removals], Array]] = {
    "random": random,
    "obd": obd,
    "variational": variational,
    "belsley": partial(belsley, reading="covariance"),
}
"""The four methods that the paper compares."""

OURS: dict[str, Callable[[Removals], Array]] = {
    "surgeon": partial(surgeon, variant=CHOSEN),
    "belsley-obs": partial(surgeon, variant=BELSLEY_OBS),
}
"""Ways of pared's that shift the weights that stay; their variants were chosen on other data."""

WAYS: dict[str, Callable[[Removals], Array]] = {
    **PAPERS,
    "obd signed": obd_signed,
    "belsley correlation": partial(belsley, reading="correlation"),
    "belsley precision": partial(belsley, reading="precision"),
    "snr at the optimum": snr_at_optimum,
    "magnitude": magnitude,
    **OURS,
}
