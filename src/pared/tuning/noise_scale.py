"""The gradient noise scale: how many examples a batch must hold before more of them stop to help."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared.signals import forked
from pared.signals.private import private
from pared.training import fit_many
from pared.training.fit import TrainConfig, TrainingData
from pared.types import Batch, Loss

SIZES = tuple(2**k for k in range(3, 11))
"""Batch sizes that are tried."""


@dataclass(frozen=True)
class NoiseScale:
    """`signal` = |G|^2 of the true gradient G, `noise` = trace of the covariance of one example's gradient."""

    signal: float
    noise: float

    @property
    def examples(self) -> float | None:
        """B_simple = noise / signal; None where the signal cannot be told from zero: undetermined."""
        return self.noise / self.signal if self.signal > 0 and self.noise > 0 else None


def noise_scale(
    model: nn.Module,
    batch: Batch,
    loss: Loss = mse_loss,
    small: int = 8,
    large: int = 128,
    draws: int = 16,
    seed: int = 0,
) -> NoiseScale:
    """Signal and noise of the gradient at a network's weights, from batches of two sizes b < B.

        |G|^2 = (B |g_B|^2 - b |g_b|^2) / (B - b),     noise = (|g_b|^2 - |g_B|^2) / (1 / b - 1 / B)

    Each draw takes B examples at random and deals them out to small batches, whose mean gradient is g_B; both
    estimates are free of bias, and are averaged over the draws before they are divided. In evaluation mode; the model
    stays as it is.

    Returns: NoiseScale, in squared units of the gradient. Cost: draws * B / b backward passes of b examples.
    Raises: ValueError unless 0 < 2 b <= B, for fewer than 2 b examples. B shrinks to a multiple of b that there is.
    Source: McCandlish, Kaplan, Amodei et al., An empirical model of large-batch training (2018), appendix A.
    """
    large = min(large, len(batch.x)) // max(small, 1) * small
    if not 0 < 2 * small <= large or draws < 1:
        raise ValueError(f"the large batch must hold two small ones or more; got {small} of {len(batch.x)} examples")
    copied, generator = private(model).requires_grad_(), torch.Generator().manual_seed(seed)
    signal = noise = 0.0
    with forked(copied), torch.enable_grad():
        for _ in range(draws):
            order = torch.randperm(len(batch.x), generator=generator)[:large]
            parts = [_gradient(copied, Batch(batch.x[i], batch.y[i]), loss) for i in torch.split(order, small)]
            of_small = sum(float(g @ g) for g in parts) / len(parts)
            mean = torch.stack(parts).mean(dim=0)
            of_large = float(mean @ mean)
            signal += (large * of_large - small * of_small) / (large - small) / draws
            noise += (of_small - of_large) / (1 / small - 1 / large) / draws
    return NoiseScale(signal, noise)


def _gradient(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    weights = [p for p in model.parameters() if p.is_floating_point()]
    found = torch.autograd.grad(loss(model(batch.x), batch.y), weights, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(w) if g is None else g).flatten().double() for g, w in zip(found, weights, strict=True)]
    )


def batch_size_for(scale: NoiseScale, seconds: dict[int, float], slack: float = 0.1) -> int | None:
    """The largest batch up to the noise scale whose time an example is within `slack` of the fastest of these.

    `seconds`: batch size -> seconds an example. The smallest size where all are beyond the noise scale; None where that
    is undetermined.
    """
    if scale.examples is None:
        return None
    useful = {size: time for size, time in seconds.items() if size <= scale.examples} or {min(seconds): 0.0}
    fastest = min(useful.values())
    return max(size for size, time in useful.items() if time <= (1 + slack) * fastest)


def seconds_an_example(
    model: nn.Module, split: TrainingData, config: TrainConfig, loss: Loss = mse_loss
) -> dict[int, float]:
    """Batch size -> seconds that training takes an example, by the engine that `fit_many` takes; best of three epochs.

    Sizes are powers of two from 8 to 1,024, up to half of the training examples.
    """
    found = {}
    for size in (size for size in SIZES if 2 * size <= len(split.train.x)):
        short = replace(config, epochs=1, batch_size=size)
        found[size] = min(fit_many([model] * 3, [split] * 3, [short] * 3, loss), key=lambda f: f.seconds).seconds
    return {size: seconds / len(split.train.x) for size, seconds in found.items()}


def rescaled_lr(lr: float, before: int, after: int, optimiser: str) -> float:
    """The learning rate for another batch size: proportional to it for SGD, to its square root for Adam.

    Source: Goyal et al. (2017) and Malladi et al. (2022).
    """
    return lr * (after / before if optimiser == "sgd" else math.sqrt(after / before))
