"""Training of Boltzmann machines: what is seen becomes more probable, what the machine makes up less."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from pared.models.rbm import RBM, gibbs
from pared.types import DataError


@dataclass(frozen=True)
class ContrastiveConfig:
    """How a machine is trained: `updates` by Adagrad, each on `batch_size` rows of the data.

    Each is followed by `gibbs` rounds of sampling: of `chains` that go on from update to update (persistent), or, with
    chains 0, of the rows themselves (contrastive divergence).
    """

    updates: int = 2000
    lr: float = 0.05
    batch_size: int = 64
    gibbs: int = 1
    chains: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.updates, self.batch_size, self.gibbs) < 1 or self.lr <= 0 or self.chains < 0:
            raise ValueError(
                "updates, lr, batch_size and gibbs must be positive, chains not negative; got "
                f"{self.updates}, {self.lr}, {self.batch_size}, {self.gibbs}, {self.chains}"
            )


@dataclass(frozen=True)
class ContrastiveFit:
    """A trained machine, what its chains are at (none without chains), and the optimiser's state."""

    model: RBM
    particles: Tensor
    optimiser_state: dict[str, Any]


def contrast(model: RBM, seen: Tensor, made_up: Tensor) -> Tensor:
    """mean F(seen) - mean F(made_up): with samples of P(v) as `made_up`, its gradient is that of -log P(seen).

    Source: Hinton (2002), contrastive divergence; Tieleman (2008), persistent chains.
    """
    out: Tensor = model(seen).mean() - model(made_up.detach()).mean()
    return out


def fit_contrastive(
    model: RBM, x: Tensor, config: ContrastiveConfig = ContrastiveConfig(), resume: ContrastiveFit | None = None
) -> ContrastiveFit:
    """Trains a copy of `model` on rows x of zeros and ones, (samples, visible).

    Chains start at rows of the data. `resume` goes on from an earlier fit: its machine, its chains, its optimiser.
    Samples and orders follow from `config.seed` alone; the global random state is as it was. Cost of an update: two
    free energies and their gradients, and 2 gibbs products of (chains, hidden) with W. Raises DataError for rows of
    another width, none, or other values than 0 and 1.
    """
    check_rows(model, x)
    model = copy.deepcopy(resume.model if resume else model)
    x, generator = x.to(model.weight), Generator().manual_seed(config.seed)
    optimiser = torch.optim.Adagrad(model.parameters(), lr=config.lr, eps=1e-2)
    if resume:
        own = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": copy.deepcopy(resume.optimiser_state["state"]), "param_groups": own})
    rows = drawn_rows(len(x), config.batch_size, generator)
    particles = resume.particles if resume else x[torch.randint(len(x), (config.chains,), generator=generator)]
    for _ in range(config.updates):
        seen = x[next(rows)]
        made_up = gibbs(model, particles if config.chains else seen, config.gibbs, generator)
        optimiser.zero_grad()
        contrast(model, seen, made_up).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        particles = made_up if config.chains else particles
    return ContrastiveFit(model, particles, optimiser.state_dict())


def drawn_rows(count: int, size: int, generator: Generator) -> Iterator[Tensor]:
    """Batches of row numbers for ever: every row once, in an order that is drawn, then again."""
    while True:
        yield from torch.split(torch.randperm(count, generator=generator), size)


def check_rows(model: RBM, x: Tensor) -> None:
    """Raises DataError for rows that the machine cannot see."""
    visible = len(model.visible_bias)
    if x.dim() != 2 or x.shape[1] != visible or not len(x):
        raise DataError(f"rows must be (samples, {visible}), at least one; got {tuple(x.shape)}")
    if not ((x == 0) | (x == 1)).all():
        raise DataError("units of a Boltzmann machine are 0 or 1, and so must the data be; give x > threshold")
