"""The diagonal of second derivatives by one pass backwards, as optimal brain damage was published with."""

from typing import cast

import torch
from torch import Tensor, nn

from pared.signals.curvature import output_curvature
from pared.signals.layout import CurvatureError, OfWeights
from pared.types import Batch, Loss

ELEMENTWISE = (
    nn.Tanh, nn.Sigmoid, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Softsign, nn.Identity,
)  # fmt: skip
"""Activations of one value each."""


def backward_diagonal(model: nn.Module, batch: Batch, loss: Loss, levenberg: bool = False) -> Tensor:
    """LeCun's recursion for h_kk of every prunable weight, (size,), averaged over samples.

    With a = W x and x' = f(a) of a layer, going backwards from the diagonal of d2 loss / d output2:

        E''_a = f'(a)^2 E''_x' + f''(a) dE/dx',   h_W[i, j] = E''_a[i] x_j^2,   E''_x[j] = sum_i W_ij^2 E''_a[i]

    It drops what couples the units of a layer: exact for the last layer, not for deeper ones. `levenberg` drops f'' as
    well, and nothing is negative then (for a convex loss).

    Cost: one forward and two backward passes.
    Raises: CurvatureError for anything but an `nn.Sequential` of Linear layers and elementwise activations, and for a
    loss without second derivative.
    Source: LeCun, Denker & Solla, Optimal Brain Damage (1989).
    """
    of = OfWeights(model, batch, loss)
    layers = [m for m in of.model.modules() if not isinstance(m, nn.Sequential)]
    if not isinstance(of.model, nn.Sequential) or not all(isinstance(m, (nn.Linear, *ELEMENTWISE)) for m in layers):
        raise CurvatureError(
            f"LeCun's recursion follows an nn.Sequential of Linear layers and elementwise activations, this is a "
            f"{type(model).__name__}; use diagonal='ggn' or 'exact'"
        )
    entered: list[Tensor] = []
    value = cast(Tensor, of.x)
    for layer in layers:
        entered.append(value)
        value = layer(value)
    with of.looking():
        out = value.detach().requires_grad_()
        slope = torch.autograd.grad(of.batch_loss(out), out)[0] * of.samples
    second = output_curvature(of).diagonal(dim1=1, dim2=2).reshape(slope.shape)
    names = {id(parameter): name for name, parameter in of.model.named_parameters()}
    found = {name: torch.zeros(shape).to(of.weights) for name, shape in of.layout.shapes.items()}
    for layer, x in zip(reversed(layers), reversed(entered), strict=True):
        if isinstance(layer, nn.Linear):
            rows, ends = x.reshape(-1, x.shape[-1]), second.reshape(-1, second.shape[-1])
            found[names[id(layer.weight)]] += ends.T @ rows.square() / of.samples
            second, slope = second @ layer.weight.square(), slope @ layer.weight
        else:
            with of.looking():
                at = x.detach().requires_grad_()
                first = torch.autograd.grad(layer(at).sum(), at, create_graph=True)[0]
                bend = torch.autograd.grad(first.sum(), at)[0] if first.requires_grad else torch.zeros_like(at)
            first = first.detach()
            second = first.square() * second + (0.0 if levenberg else bend * slope)
            slope = first * slope
    return of.layout.flat(found)
