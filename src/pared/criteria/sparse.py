"""Quadratic models of the loss under a bound on the number of weights, never as an n x n matrix."""

import torch
from torch import Tensor


def increase(rows: Tensor, shift: Tensor, ridge: float, slope: Tensor | None = None) -> Tensor:
    """g'd + |A d|^2 / 2 + ridge |d|^2 / 2."""
    quadratic = ((rows @ shift).square().sum() + ridge * shift.square().sum()) / 2
    return quadratic if slope is None else quadratic + slope @ shift


def on_support(rows: Tensor, weights: Tensor, keep: Tensor, ridge: float, slope: Tensor | None = None) -> Tensor:
    """The shift d of least `increase` that takes the weights outside `keep` to zero; (n,).

    (A_S' A_S + ridge I) d_S = -(g_S + A_S' A_Q d_Q), d_Q = -w_Q: in the space of the rows where they are fewer
    (Woodbury), else of the weights. Cost: O(min(rows, |S|)^2 max(rows, |S|)).
    """
    shift = torch.where(keep, 0.0, -weights)
    right = -(rows.T @ (rows @ shift))[keep]
    right = right if slope is None else right - slope[keep]
    own = rows[:, keep]
    if own.shape[1] <= len(own):
        shift[keep] = torch.linalg.solve(own.T @ own + ridge * torch.eye(own.shape[1]).to(own), right)
    else:
        small = own @ own.T + ridge * torch.eye(len(own)).to(own)
        shift[keep] = (right - own.T @ torch.linalg.solve(small, own @ right)) / ridge
    return shift


def hard_thresholding(
    rows: Tensor, weights: Tensor, count: int, ridge: float, slope: Tensor | None = None, steps: int = 100
) -> Tensor:
    """At most `count` weights w + d of low `increase`: projected gradient steps, each followed by an exact solve.

        w <- the `count` largest of w - t grad, then `on_support` of those, with t the best of 1/L, 2/L, 4/L ... 2^16/L,
        L = |A|^2 + ridge. From the largest weights on, until no step lowers the objective: it never rises.

    Cost: a step O(rows n) and a solve for every support that is tried. Returns: the new weights, zero elsewhere.
    """
    lipschitz = float(torch.linalg.matrix_norm(rows, 2)) ** 2 + ridge
    keep = _largest(weights, count)
    shift = on_support(rows, weights, keep, ridge, slope)
    best = increase(rows, shift, ridge, slope)
    for _ in range(steps):
        step = rows.T @ (rows @ shift) + ridge * shift
        step = (step if slope is None else step + slope) / lipschitz
        trials = [_largest(weights + shift - 2.0**power * step, count) for power in range(DOUBLINGS)]
        trials = [t for k, t in enumerate(trials) if not torch.equal(t, keep if k == 0 else trials[k - 1])]
        moved = [on_support(rows, weights, trial, ridge, slope) for trial in trials]
        values = [float(increase(rows, d, ridge, slope)) for d in moved]
        if not values or min(values) >= best * (1 - 1e-12):
            break
        found = values.index(min(values))
        keep, shift, best = trials[found], moved[found], increase(rows, moved[found], ridge, slope)
    return torch.where(keep, weights + shift, 0.0)


DOUBLINGS = 17
"""How many lengths of a step are tried."""


def _largest(values: Tensor, count: int) -> Tensor:
    keep = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    return keep.index_fill(0, values.abs().argsort(descending=True, stable=True)[:count], True)
