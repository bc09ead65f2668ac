"""Slow twins of posteriors that are found by iteration: every step written out, every divergence entry by entry."""

import math

import numpy as np
import torch

import reference_curvature as curvature


def adam(start, value, steps, lr):
    """Adam as its formula reads, on named tensors; `value(tensors, step)` is what is minimised."""
    q = {name: tensor.clone() for name, tensor in start.items()}
    m, v = ({name: torch.zeros_like(tensor) for name, tensor in q.items()} for _ in range(2))
    for step in range(steps):
        at = {name: tensor.clone().requires_grad_() for name, tensor in q.items()}
        slopes = torch.autograd.grad(value(at, step), list(at.values()))
        for name, slope in zip(at, slopes, strict=True):
            m[name] = 0.9 * m[name] + 0.1 * slope
            v[name] = 0.999 * v[name] + 0.001 * slope**2
            first, second = m[name] / (1 - 0.9 ** (step + 1)), v[name] / (1 - 0.999 ** (step + 1))
            q[name] = q[name] - lr * first / (second.sqrt() + 1e-8)
    return q


def log_alpha(mean, spread):
    """log(sigma^2 / mean^2), entry by entry, no further than 8 from zero."""
    return torch.stack([(s - torch.log(m**2 + 1e-8)).clamp(-8, 8) for m, s in zip(mean, spread, strict=True)])


def kl_log_uniform(logs):
    """0.63576 - (0.63576 sigmoid(1.8732 + 1.48695 l) - log(1 + 1 / alpha) / 2), summed."""
    total = 0.0
    for log in logs:
        fit = 0.63576 / (1 + torch.exp(-1.87320 - 1.48695 * log)) - torch.log(1 + torch.exp(-log)) / 2
        total = total + 0.63576 - fit
    return total


def kl_unit(mean, spread):
    """KL of independent Gaussians from N(0, 1), summed."""
    return sum((torch.exp(s) + m**2 - 1 - s) / 2 for m, s in zip(mean, spread, strict=True))


def kl_gamma(mean, variance, scale):
    return (
        torch.exp(mean + variance / 2) / scale
        - (mean + torch.log(variance) + 1 + math.log(2)) / 2
        + math.log(scale) / 2
    )


def kl_inverse_gamma(mean, variance):
    return mean / 2 - (torch.log(variance) + 1 + math.log(2)) / 2 + torch.exp(-mean + variance / 2)


class Problem:
    """A network as a function of its weights, and which input each weight reads, in which layer."""

    def __init__(self, model, batch, loss, seed):
        self.model, self.layout, self.weights = curvature.plain(model)
        self.batch, self.loss = batch, loss
        self.generator = torch.Generator().manual_seed(seed)
        self.inputs, self.layers, count = [], [], 0
        for layer, (out, width) in enumerate(self.layout.shapes.values()):
            self.inputs += [count + j for _ in range(out) for j in range(width)]
            self.layers += [layer] * width
            count += width

    def noise(self, size):
        return torch.randn(size, generator=self.generator, dtype=torch.float64)

    def data(self, weights):
        out = curvature.called(self.model, self.layout, weights, self.batch.x)
        return len(self.batch.y) * self.loss(out, self.batch.y)


def variational_dropout(model, batch, loss, steps, lr, seed):
    problem = Problem(model, batch, loss, seed)
    w = problem.weights

    def value(q, step):
        drawn = q["mean"] + torch.exp(q["spread"] / 2) * problem.noise(len(w))
        return problem.data(drawn) + min(1, 2 * step / steps) * kl_log_uniform(log_alpha(q["mean"], q["spread"]))

    q = adam({"mean": w, "spread": torch.full_like(w, -9.0)}, value, steps, lr)
    return -log_alpha(q["mean"], q["spread"])


def group_jeffreys(model, batch, loss, steps, lr, seed):
    problem = Problem(model, batch, loss, seed)
    w, one = problem.weights, torch.ones(len(problem.layers), dtype=torch.float64)

    def value(q, step):
        v = q["mean"] + torch.exp(q["spread"] / 2) * problem.noise(len(w))
        z = q["z"] + torch.exp(q["z spread"] / 2) * problem.noise(len(one))
        drawn = torch.stack([v[i] * z[j] for i, j in enumerate(problem.inputs)])
        kl = kl_log_uniform(log_alpha(q["z"], q["z spread"])) + kl_unit(q["mean"], q["spread"])
        return problem.data(drawn) + min(1, 2 * step / steps) * kl

    start = {"mean": w, "spread": torch.full_like(w, -9.0), "z": one, "z spread": torch.full_like(one, -9.0)}
    q = adam(start, value, steps, lr)
    logs = log_alpha(q["z"], q["z spread"])
    return torch.stack([-logs[j] for j in problem.inputs])


def horseshoe(model, batch, loss, tau, steps, lr, seed):
    problem = Problem(model, batch, loss, seed)
    w, layers = problem.weights, len(problem.layout.shapes)
    sizes = {"a": len(problem.layers), "b": len(problem.layers), "layer a": layers, "layer b": layers}

    def value(q, step):
        v = q["mean"] + torch.exp(q["spread"] / 2) * problem.noise(len(w))
        logs = {
            name: q[name] + torch.exp(q[f"{name} spread"] / 2) * problem.noise(size) for name, size in sizes.items()
        }
        drawn = []
        for i, j in enumerate(problem.inputs):
            layer = problem.layers[j]
            squared = logs["a"][j] + logs["b"][j] + logs["layer a"][layer] + logs["layer b"][layer]
            drawn.append(v[i] * torch.exp(squared / 2))
        kl = kl_unit(q["mean"], q["spread"])
        for name in sizes:
            for mean, spread in zip(q[name], q[f"{name} spread"], strict=True):
                if name in ("a", "layer a"):
                    kl = kl + kl_gamma(mean, torch.exp(spread), tau**2 if name == "layer a" else 1.0)
                else:
                    kl = kl + kl_inverse_gamma(mean, torch.exp(spread))
        return problem.data(torch.stack(drawn)) + min(1, 2 * step / steps) * kl

    start = {"mean": w, "spread": torch.full_like(w, -9.0)}
    start |= {name: torch.zeros(size, dtype=torch.float64) for name, size in sizes.items()}
    start |= {f"{name} spread": torch.full((size,), -9.0, dtype=torch.float64) for name, size in sizes.items()}
    q = adam(start, value, steps, lr)
    modes = []
    for j, layer in enumerate(problem.layers):
        four = [("a", j), ("b", j), ("layer a", layer), ("layer b", layer)]
        mean = sum(q[name][k] for name, k in four) / 2
        modes.append(mean - sum(torch.exp(q[f"{name} spread"][k]) for name, k in four) / 4)
    return torch.stack([modes[j] for j in problem.inputs])


def with_weights(model, layout, weights):
    """The written-out network holding other weights."""
    with torch.no_grad():
        for name, value in layout.named(weights).items():
            model.get_parameter(name).copy_(value)
    return model


def slope(problem, weights, pick=slice(None)):
    at = weights.clone().requires_grad_()
    x, y = problem.batch.x[pick], problem.batch.y[pick]
    return torch.autograd.grad(problem.loss(curvature.called(problem.model, problem.layout, at, x), y), at)[0]


def snapshots(model, batch, loss, count, between, lr, seed):
    """(mean, covariance): half the sample covariance of the snapshots, and half of its diagonal once more."""
    problem, taken = Problem(model, batch, loss, seed), []
    weights = problem.weights
    for step in range(count * between):
        pick = torch.randperm(len(batch.y), generator=problem.generator)[: max(1, len(batch.y) // 4)]
        weights = weights - lr * slope(problem, weights, pick)
        if (step + 1) % between == 0:
            taken.append(weights.numpy())
    whole = np.cov(np.array(taken).T)
    return np.mean(taken, axis=0), whole / 2 + np.diag(np.diag(whole)) / 2


def variational(model, batch, loss, covariance, prior, steps, seed=0):
    """(mean, covariance or variances) by natural gradient under a mean squared error."""
    problem, full, count = Problem(model, batch, loss, seed), covariance == "full", len(batch.y)

    def precision(weights):
        whole = count * curvature.ggn(with_weights(problem.model, problem.layout, weights), batch, "mse")
        whole = whole + prior * torch.eye(len(weights), dtype=torch.float64)
        return whole if full else torch.diag(whole.diagonal())

    def value(mean, noise):
        both = [problem.data(mean + sign * noise).detach() for sign in (1, -1)]
        return float(sum(both) / 2 + prior * (mean**2).sum() / 2)

    mean, held = problem.weights, precision(problem.weights)
    for turn in range(steps):
        rate = 1 / (1 + turn / 5)
        noise = torch.linalg.inv(torch.linalg.cholesky(held)).T @ problem.noise(len(mean))
        draws = [mean + noise, mean - noise]
        going = prior * mean + count * sum(slope(problem, w) for w in draws) / 2
        held = (1 - rate) * held + rate * sum(precision(w) for w in draws) / 2
        step, share = torch.linalg.inv(held) @ going, 1.0
        while not value(mean - share * step, noise) <= value(mean, noise) and share > 1e-6:
            share /= 2
        mean = mean - (share if share > 1e-6 else 0.0) * step
    return mean, torch.linalg.inv(held) if full else 1 / held.diagonal()
