"""What a network is worth at every level of removal: error on test data, and what noise on inputs does to it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pared.replicate.belsley.protocol import Array, Subject

NOISE = tuple(float(level) for level in np.linspace(0.0, 1.0, 10))
"""Standard deviations of the noise, in those of an input."""


class Surface(NamedTuple):
    """Each (levels of removal, levels of noise): over draws of noise, the measure's mean and standard deviation, and
    distortion, E |f(x + noise) - f(x)|^2 / Var f(x), NaN where f is constant.
    """

    mean: Array
    spread: Array
    distortion: Array


def quality(subject: Subject, weights: Array) -> Array:
    """(levels,): accuracy in per cent, or RMSE in the target's unit, of weights (levels, n) on the test data."""
    x, y = subject.test.x.double(), subject.test.y
    outputs = [_after(_first(matrices, x), matrices) for matrices in _layers(subject, weights)]
    return np.array([float(_measured(subject, output, y)) for output in outputs])


def surface(subject: Subject, weights: Array, draws: int, seed: int) -> Surface:
    """Noise on the test inputs, the same for all weights (levels, n); in single precision."""
    x, y = subject.test.x.float(), subject.test.y
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((draws, *x.shape), generator=generator) * x.std(dim=0)
    rows = [_with_noise(subject, matrices, x, noise, y) for matrices in _layers(subject, weights)]
    return Surface(*(np.stack(part) for part in zip(*rows, strict=True)))


def _with_noise(subject: Subject, matrices: Sequence[Tensor], x: Tensor, noise: Tensor, y: Tensor) -> list[Array]:
    single = [matrix.float() for matrix in matrices]
    clean, moved = _first(single, x), _first(single, noise)
    plain = _after(clean, single)
    varies = plain.double().var(dim=0).sum()
    found = []
    for level in NOISE:
        output = _after(clean + level * moved, single)
        values = _measured(subject, output, y)
        apart = (output - plain).square().sum(dim=-1).double().mean()
        distortion = float(apart / varies) if float(varies) > 1e-12 else float("nan")
        found.append((float(values.mean()), float(values.std(correction=0)), distortion))
    return [np.array(part) for part in zip(*found, strict=True)]


def _layers(subject: Subject, weights: Array) -> list[list[Tensor]]:
    """The matrices of each row of weights."""
    shapes = [tuple(parameter.shape) for parameter in subject.model.parameters()]
    sizes = [rows * columns for rows, columns in shapes]
    return [
        [part.reshape(shape) for part, shape in zip(torch.split(torch.from_numpy(row), sizes), shapes, strict=True)]
        for row in weights
    ]


def _first(matrices: Sequence[Tensor], x: Tensor) -> Tensor:
    return x @ matrices[0].T


def _after(sums: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    for matrix in matrices[1:]:
        sums = sums.tanh() @ matrix.T
    return sums


def _measured(subject: Subject, output: Tensor, y: Tensor) -> Tensor:
    """(...,): the measure of outputs (..., samples, outputs)."""
    if subject.problem.task == "classes":
        return 100 * (output.argmax(dim=-1) == y).double().mean(dim=-1)
    return subject.unit * (output - y).square().double().mean(dim=(-1, -2)).sqrt()
