"""Sparsity from priors: posteriors that are trained to say which weights, or groups of them, are noise.

Each criterion trains a private posterior by Adam on the whole batch, a draw of all weights a step from one seed,
minimising N L + c KL with c rising from 0 to 1 over the first half; N L is the negative log likelihood. The published
methods draw pre-activations instead of weights, which has less noise and needs every layer's code.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from pared.signals.layout import OfWeights
from pared.types import Batch, Loss, Scores

START = -9.0
"""The logarithm of variances before training."""

Posterior = dict[str, Tensor]


def variational_dropout(
    model: nn.Module, batch: Batch, loss: Loss, *, steps: int = 300, lr: float = 1e-2, seed: int = 0
) -> Scores:
    """-log alpha_i, alpha = sigma^2 / theta^2: the noise that a weight bears, under a log-uniform prior.

    q(w_i) = N(theta_i, sigma_i^2); log alpha > 3 (a score below -3) is a dropout rate above 0.95: it goes.

    Scores: weight parameter -> its shape, no unit, in [-8, 8]; comparable between layers.
    Cost: `steps` forward and backward passes.
    Source: Molchanov, Ashukha & Vetrov, Variational dropout sparsifies deep neural networks (2017).
    """
    of = OfWeights(model, batch, loss)

    def start() -> Posterior:
        return {"mean": of.weights, "spread": torch.full_like(of.weights, START)}

    def draw(q: Posterior, noise: Callable[[Tensor], Tensor]) -> Tensor:
        return q["mean"] + (q["spread"] / 2).exp() * noise(q["mean"])

    def divergence(q: Posterior) -> Tensor:
        return kl_log_uniform(log_alpha(q["mean"], q["spread"])).sum()

    q = _trained(of, start(), draw, divergence, steps, lr, seed)
    return of.layout.named(-log_alpha(q["mean"], q["spread"]))


def group_jeffreys(
    model: nn.Module, batch: Batch, loss: Loss, *, steps: int = 300, lr: float = 1e-2, seed: int = 0
) -> Scores:
    """-log alpha of a whole input: the weights that read it share a scale z under Jeffreys' prior.

    w_ij = z_j v_ij along the second axis of each weight, q(z_j) = N(mu_j, alpha_j mu_j^2), v_ij ~ N(0, 1) beforehand.
    Scores below about -3 go, as a gap shows.

    Scores: weight parameter -> its shape, the same for all weights that read one input (`by_unit` with role "out" makes
    it a unit's), no unit, in [-8, 8]. Cost: `steps` forward and backward passes.
    Source: Louizos, Ullrich & Welling, Bayesian compression for deep learning (2017).
    """
    of = OfWeights(model, batch, loss)
    groups = _Groups(of)

    def start() -> Posterior:
        one = torch.ones(groups.count).to(of.weights)
        return {
            "mean": of.weights, "spread": torch.full_like(of.weights, START),
            "scale": one, "scale spread": torch.full_like(one, START),
        }  # fmt: skip

    def draw(q: Posterior, noise: Callable[[Tensor], Tensor]) -> Tensor:
        v = q["mean"] + (q["spread"] / 2).exp() * noise(q["mean"])
        return v * groups.each(q["scale"] + (q["scale spread"] / 2).exp() * noise(q["scale"]))

    def divergence(q: Posterior) -> Tensor:
        own = q["spread"].exp() + q["mean"].square() - 1 - q["spread"]
        return kl_log_uniform(log_alpha(q["scale"], q["scale spread"])).sum() + own.sum() / 2

    q = _trained(of, start(), draw, divergence, steps, lr, seed)
    return of.layout.named(groups.each(-log_alpha(q["scale"], q["scale spread"])))


def horseshoe(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    *,
    tau: float = 1.0,
    steps: int = 300,
    lr: float = 1e-2,
    seed: int = 0,
) -> Scores:
    """The mode of the logarithm of an input's scale under a horseshoe prior.

    w_ij = s z_j v_ij with half-Cauchy s (of width `tau`, one a layer) and z_j (one an input, along the second axis),
    each the root of a Gamma times an inverse Gamma variable, v ~ N(0, 1) beforehand; log-normal posteriors of all four.
    The score is mean minus variance of log(s z_j).

    Scores: weight parameter -> its shape, the same for all weights that read one input (`by_unit` with role "out" makes
    it a unit's), a logarithm of a scale, any sign. Cost: `steps` forward and backward passes.
    Source: Louizos, Ullrich & Welling, Bayesian compression for deep learning (2017).
    """
    of = OfWeights(model, batch, loss)
    groups = _Groups(of)
    scales = {"a": groups.count, "b": groups.count, "layer a": groups.layers, "layer b": groups.layers}

    def start() -> Posterior:
        zeros = {name: torch.zeros(count).to(of.weights) for name, count in scales.items()}
        spreads = {f"{name} spread": torch.full_like(zero, START) for name, zero in zeros.items()}
        return {"mean": of.weights, "spread": torch.full_like(of.weights, START)} | zeros | spreads

    def draw(q: Posterior, noise: Callable[[Tensor], Tensor]) -> Tensor:
        v = q["mean"] + (q["spread"] / 2).exp() * noise(q["mean"])
        logs = {name: q[name] + (q[f"{name} spread"] / 2).exp() * noise(q[name]) for name in scales}
        z = logs["a"] + logs["b"] + groups.of_layer(logs["layer a"] + logs["layer b"])
        return v * groups.each((z / 2).exp())

    def divergence(q: Posterior) -> Tensor:
        own = q["spread"].exp() + q["mean"].square() - 1 - q["spread"]
        total = own.sum() / 2
        for name in scales:
            mean, spread = q[name], q[f"{name} spread"]
            width = tau**2 if name == "layer a" else 1.0
            kl = kl_gamma(mean, spread, width) if name.endswith("a") else kl_inverse_gamma(mean, spread)
            total = total + kl.sum()
        return total

    q = _trained(of, start(), draw, divergence, steps, lr, seed)
    mean = q["a"] + q["b"] + groups.of_layer(q["layer a"] + q["layer b"])
    variance = q["a spread"].exp() + q["b spread"].exp()
    variance = variance + groups.of_layer(q["layer a spread"].exp() + q["layer b spread"].exp())
    return of.layout.named(groups.each(mean / 2 - variance / 4))


def log_alpha(mean: Tensor, spread: Tensor) -> Tensor:
    """log(sigma^2 / mean^2), within [-8, 8]; `spread` is log sigma^2."""
    return (spread - (mean.square() + 1e-8).log()).clamp(-8.0, 8.0)


def kl_log_uniform(log_alpha: Tensor) -> Tensor:
    """KL of N(theta, alpha theta^2) from the log-uniform prior, up to a constant, by a fit (good to 0.02).

    Source: Molchanov, Ashukha & Vetrov (2017).
    """
    return 0.63576 * torch.sigmoid(-1.87320 - 1.48695 * log_alpha) + torch.log1p((-log_alpha).exp()) / 2


def kl_gamma(mean: Tensor, spread: Tensor, scale: float = 1.0) -> Tensor:
    """KL of a log-normal variable (mean, log variance of its logarithm) from Gamma(1/2, scale)."""
    whole = (mean + spread.exp() / 2).exp() / scale
    return whole - (mean + spread + 1 + math.log(2)) / 2 + math.log(scale) / 2


def kl_inverse_gamma(mean: Tensor, spread: Tensor) -> Tensor:
    """KL of a log-normal variable (mean, log variance of its logarithm) from the inverse Gamma(1/2, 1)."""
    return mean / 2 - (spread + 1 + math.log(2)) / 2 + (-mean + spread.exp() / 2).exp()


class _Groups:
    """The inputs of every weight (its second axis) in one row."""

    def __init__(self, of: OfWeights) -> None:
        self.layout, self.widths = of.layout, [shape[1] for shape in of.layout.shapes.values()]
        self.count, self.layers = sum(self.widths), len(self.widths)

    def each(self, values: Tensor) -> Tensor:
        """One value an input -> one a weight, (n,)."""
        parts = zip(self.layout.shapes.items(), torch.split(values, self.widths), strict=True)
        return self.layout.flat(
            {name: part.reshape(1, -1, *(1,) * (len(shape) - 2)).expand(shape) for (name, shape), part in parts}
        )

    def of_layer(self, values: Tensor) -> Tensor:
        """One value a layer -> one an input."""
        return values.repeat_interleave(torch.tensor(self.widths, device=values.device))


def _trained(
    of: OfWeights,
    start: Mapping[str, Tensor],
    draw: Callable[[Posterior, Callable[[Tensor], Tensor]], Tensor],
    divergence: Callable[[Posterior], Tensor],
    steps: int,
    lr: float,
    seed: int,
) -> Posterior:
    """The posterior after `steps` steps of Adam."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.device)

    q = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimiser = torch.optim.Adam(q.values(), lr=lr)
    with of.looking():
        for step in range(steps):
            optimiser.zero_grad()
            share = min(1.0, 2 * step / steps)
            value = of.samples * of.loss(draw(q, noise)) + share * divergence(q)
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return {name: value.detach() for name, value in q.items()}
