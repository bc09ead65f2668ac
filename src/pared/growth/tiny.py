"""TINY: new units that bring what the loss asks for and present weights cannot give, at an amplitude that is tried."""

from collections.abc import Mapping
from itertools import product

import torch
from torch import Tensor, nn

from pared.growth.entries import answer, check_growth, makers, newest, readers, with_values
from pared.growth.probes import Desired, desired
from pared.surgery import Structure, insert
from pared.surgery.origins import grown_structure
from pared.types import Batch, Loss

AMPLITUDES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""What inputs and outputs of new units are multiplied by, both: what they bring grows with the square."""


def tiny(
    model: nn.Module, structure: Structure, batch: Batch, loss: Loss, counts: Mapping[str, int], seed: int = 0,
    amplitudes: tuple[float, ...] = AMPLITUDES,
) -> nn.Module:  # fmt: skip
    """New units that lower the loss at once: least squares of what it asks for beyond the present units' reach.

    With z what a new unit gives per unit of each weight that makes it, S = E[z z'], v = -(g - X X^+ g) the desired
    change of the readers (g the loss gradient there, X what they read) and N = E[z v']:

        S^(-1/2) N = U s V',   inputs alpha_k = sqrt(s_k) S^(-1/2) u_k,   outputs omega_k = sqrt(s_k) v_k

    then inputs +-gamma alpha and outputs +-gamma omega, with the sign and the amplitude gamma of the lowest loss on the
    batch; silent units where none lowers it, and beyond the rank of N (singular values above 1e-3 of the largest,
    eigenvalues of S above 1e-6). In feed-forward layers z is the input of the layer, times the activation's slope.

    The loss on the batch never rises; the outputs change. Cost: a forward and a backward pass with twice as many new
    units as one has inputs, least squares, 12 forward passes. Raises as `check_growth`, `insert` and `desired` do.
    Source: Verbockhaven, Rudkiewicz, Charpiat & Chevallier, Growing tiny networks (2024).
    """
    check_growth(structure, batch, counts)
    new, grown = insert(model, structure, counts, seed), grown_structure(structure, counts)
    units = newest(grown, counts)
    best = _loss(new, batch, loss)
    for name, count in counts.items():
        inputs, outputs = best_units(desired(model, structure, batch, loss, name), count)
        made, read = makers(new, grown, units, name), readers(new, grown, units, name)
        made, read = ({parameter: where[: len(inputs)] for parameter, where in each.items()} for each in (made, read))
        silent = new
        for amplitude, sign in product(amplitudes, (1.0, -1.0)):
            tried = with_values(silent, [(made, sign * amplitude * inputs), (read, sign * amplitude * outputs)])
            found = _loss(tried, batch, loss)
            if found < best:
                new, best = tried, found
    return new


def best_units(what: Desired, count: int) -> tuple[Tensor, Tensor]:
    """(units, makers) and (units, readers) of at most `count` units: the leading part of S^(-1/2) N."""
    values, vectors = torch.linalg.eigh(what.moments)
    kept = values > 1e-6 * values.max()
    root = vectors[:, kept] * values[kept].rsqrt() @ vectors[:, kept].T
    left, sizes, right = torch.linalg.svd(root @ what.gain, full_matrices=False)
    many = min(count, int((sizes > 1e-3 * sizes.max()).sum()))
    scale = sizes[:many].sqrt()[:, None]
    return scale * (root @ left[:, :many]).T, scale * right[:many]


def _loss(model: nn.Module, batch: Batch, loss: Loss) -> float:
    return loss(answer(model, batch.x), batch.y).item()
