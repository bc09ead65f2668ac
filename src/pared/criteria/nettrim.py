"""Net-Trim: the weights of least total size that leave a layer's outputs nearly as they are."""

import torch
from torch import Tensor


def net_trim_layer(
    inputs: Tensor, targets: Tensor, start: Tensor, epsilon: float, relu: bool, steps: int = 2000
) -> Tensor:
    """min |W|_1 so that |X W' - Y| <= epsilon where Y > 0, and X W' <= 0 where Y = 0 (`relu`; else near Y everywhere).

    `inputs` X (rows, d) with a column of ones where there is a bias, `targets` Y (rows, o): what the layer makes,
    `start` W (o, d). By the alternating direction method of multipliers on the copies P = X W' and V = W:

        W <- (X'X + I)^-1 (X'(P + U) + V + T),  P <- projection of X W' - U,  V <- soft(W - T, 1 / rho),
        U <- U + P - X W',  T <- T + V - W

    with X, Y and epsilon scaled so that the largest entry of X'X is 11. Ends when W moves less than 1e-9 of its size.

    Returns: V (o, d), exactly sparse. Cost: one Cholesky factor O(d^3), then O(rows d o) a step.
    Source: Aghasi, Abdi, Nguyen & Romberg, Net-Trim (2017); the splitting follows their published code.
    """
    scale = 0.3 * float((inputs.T @ inputs).abs().max()) ** 0.5 or 1.0
    x, y, bound = inputs / scale, targets / scale, epsilon / scale
    near = y > 0 if relu else torch.ones_like(y, dtype=torch.bool)
    factor = torch.linalg.cholesky(x.T @ x + torch.eye(x.shape[1]).to(x))
    w = start.clone()
    image, copy = x @ w.T, w.clone()
    image_dual, copy_dual = torch.zeros_like(image), torch.zeros_like(w)
    for _ in range(steps):
        before = w
        image = _projected(x @ w.T - image_dual, y, near, bound)
        copy = torch.nn.functional.softshrink(w - copy_dual, 1 / RHO)
        right = x.T @ (image + image_dual) + (copy + copy_dual).T
        w = torch.cholesky_solve(right, factor).T
        image_dual, copy_dual = image_dual + image - x @ w.T, copy_dual + copy - w
        if float((w - before).norm()) < 1e-9 * float(w.norm()):
            break
    return copy


RHO = 10.0
"""How stiff the splitting is: larger keeps the constraints better and takes more steps."""


def _projected(values: Tensor, targets: Tensor, near: Tensor, bound: float) -> Tensor:
    apart = torch.where(near, values - targets, 0.0)
    length = float(apart.norm())
    inside = targets + apart * min(1.0, bound / length if length > 0 else 1.0)
    return torch.where(near, inside, values.clamp_max(0.0))
