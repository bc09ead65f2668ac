"""Curvature layer by layer: second moments of what each weight multiplies, and of the gradients of what it makes.

A layer is a weight that `linear` or a convolution takes: z = W x + b for every row x (a sample, a step, a patch). W is
seen as (outputs, inputs), `weight.flatten(1)`; a convolution in g groups has g blocks of outputs, each with inputs of
its own, so that everything comes as (g, ...).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pared.signals.curvature import output_roots
from pared.signals.layout import OfWeights
from pared.signals.readings import Calls
from pared.types import Batch, Loss

CONVOLUTIONS: dict[str, Callable[..., Tensor]] = {
    "conv1d": functional.conv1d,
    "conv2d": functional.conv2d,
    "conv3d": functional.conv3d,
}


@dataclass(frozen=True)
class LayerCurvature:
    """What one weight's local curvature is made of.

    `inputs` (g, d, d): mean of x x' over samples, where x x' is summed over a sample's steps and places;
    `outputs` (g, o, o): likewise of the gradients of z, in the GGN's sense, None where they were not asked for.
    With `outputs`, the GGN of W is about outputs (x) inputs: exact for one sample and one row, and for a last layer
    under a squared error.
    """

    inputs: Tensor
    outputs: Tensor | None = None


def input_grams(model: nn.Module, batch: Batch, loss: Loss) -> dict[str, Tensor]:
    """(2/N) sum x x' for every weight that linear layers and convolutions multiply: name -> (groups, inputs, inputs).

    It is the Hessian, for each row of W alike, of the local problem (1/N) sum ||W x - W' x||^2. Inputs are those of the
    whole network; recurrent layers are written out, so that weight_hh reads its own states. A weight that is used
    several times sums over its uses; one used in another way (an embedding, a transposed convolution) is left out.

    Cost: one forward pass and O(rows inputs^2) a layer.
    Source: Dong, Chen & Pan, Learning to prune deep neural networks via layer-wise OBS (2017).
    """
    of = OfWeights(model, batch, loss)
    grams: dict[str, Tensor] = {}
    for use in _uses(of, of.weights)[0]:
        part = torch.einsum("grd,gre->gde", use.rows, use.rows) * (2 / of.samples)
        grams[use.name] = grams.get(use.name, 0.0) + part
    return grams


def kronecker(model: nn.Module, batch: Batch, loss: Loss) -> dict[str, LayerCurvature]:
    """Kronecker factors of every layer's GGN: A = E[x x'], S = E[d d'], d the gradients of z for columns of Lam^(1/2).

    G_W ~ S (x) A, rows of W outermost: the mean of the product is taken for the product of the means; steps and places
    of one sample count as rows of their own.

    Cost: one forward pass, one backward pass an output, O(rows (inputs^2 + outputs^2)).
    Raises: CurvatureError as `ggn`.
    Source: Martens & Grosse, Optimizing neural networks with Kronecker-factored approximate curvature (2015);
    Eschenhagen et al., KFAC for modern architectures (2023), for shared weights.
    """
    of = OfWeights(model, batch, loss)
    roots = output_roots(of)
    with of.looking():
        weights = of.weights.clone().requires_grad_()
        uses, out = _uses(of, weights)
        out = out.flatten(1)
        inputs: dict[str, Tensor] = {}
        made: dict[str, Tensor] = {}
        rows: dict[str, int] = {}
        for use in uses:
            inputs[use.name] = inputs.get(use.name, 0.0) + torch.einsum("grd,gre->gde", use.rows, use.rows).detach()
            rows[use.name] = rows.get(use.name, 0) + use.rows.shape[1]
        for column in range(out.shape[1]):
            slopes = torch.autograd.grad(
                (out * roots[:, :, column]).sum(), [u.out for u in uses], retain_graph=True, allow_unused=True
            )
            for use, slope in zip(uses, slopes, strict=True):
                d = use.made(torch.zeros_like(use.out) if slope is None else slope)
                made[use.name] = made.get(use.name, 0.0) + torch.einsum("gro,grp->gop", d, d).detach()
    # x x' is summed over a sample's rows; the gradients are averaged over rows
    return {name: LayerCurvature(inputs[name] / of.samples, made[name] / rows[name]) for name in inputs}


@dataclass(frozen=True)
class LayerValues:
    """What entered a linear layer (rows, d) and left it (rows, o); its bias; whether ReLU took that up."""

    inputs: Tensor
    outputs: Tensor
    bias: str | None
    relu: bool


def layer_values(model: nn.Module, batch: Batch, loss: Loss) -> dict[str, LayerValues]:
    """The values of every linear layer, over all of its uses. Cost: one forward pass; holds all values."""
    of = OfWeights(model, batch, loss)
    uses: dict[str, list[_Use]] = {}
    for use in _uses(of, of.weights)[0]:
        if use.axis == -1:
            uses.setdefault(use.name, []).append(use)
    return {
        name: LayerValues(
            torch.cat([use.rows[0] for use in own]),
            torch.cat([use.out.reshape(-1, use.out.shape[-1]) for use in own]).detach(),
            own[0].bias,
            all(use.relu for use in own),
        )
        for name, own in uses.items()
    }


@dataclass(frozen=True)
class LayerSlopes:
    """What a weight multiplied, (rows, d), the samples' loss gradients of what it made, (rows, o), and its bias."""

    inputs: Tensor
    slopes: Tensor
    bias: str | None


def layer_slopes(model: nn.Module, batch: Batch, loss: Loss) -> dict[str, LayerSlopes]:
    """Rows of every linear layer and convolution, over all of its uses; layers in several groups are left out.

    With the rows' columns in the order of `weight.flatten(1)`, the weight's gradient is slopes' inputs / samples.
    Recurrent layers are written out, so that weight_hh reads its own states. In float64.
    Cost: one forward and one backward pass; holds all values.
    """
    of = OfWeights(model, batch, loss)
    with of.looking():
        uses, out = _uses(of, of.weights.clone().requires_grad_())
        slopes = torch.autograd.grad(of.batch_loss(out), [use.out for use in uses], allow_unused=True)
    own: dict[str, list[tuple[_Use, Tensor]]] = {}
    for use, slope in zip(uses, slopes, strict=True):
        if len(use.rows) == 1:
            made = use.made(torch.zeros_like(use.out) if slope is None else slope)[0]
            own.setdefault(use.name, []).append((use, made * of.samples))
    return {
        name: LayerSlopes(
            torch.cat([use.rows[0] for use, _ in found]), torch.cat([made for _, made in found]), found[0][0].bias
        )
        for name, found in own.items()
    }


@dataclass
class _Use:
    """One call that took a weight: rows (g, r, d) of what it multiplied, and what came out."""

    name: str
    rows: Tensor
    out: Tensor
    axis: int
    bias: str | None = None
    relu: bool = False

    def made(self, out: Tensor) -> Tensor:
        """(g, r, outputs of a group) of something shaped like what came out."""
        last = out.movedim(self.axis, -1)
        return last.reshape(-1, len(self.rows), last.shape[-1] // len(self.rows)).movedim(1, 0)


def _uses(of: OfWeights, weights: Tensor) -> tuple[list[_Use], Tensor]:
    """Runs the network, with named parts of `weights` as its weights, and collects the calls that take one of them."""
    parts = of.layout.named(weights)
    names = {id(part): name for name, part in parts.items()}
    vectors = {id(parameter): name for name, parameter in of.model.named_parameters()}
    found: list[_Use] = []

    def see(call: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        given = dict(zip(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), args, strict=False))
        given |= kwargs
        name = names.get(id(given.get("weight")))
        if call in ("relu", "relu_") and args:
            for use in found:
                use.relu = use.relu or use.out is args[0]
        if name is None:
            return
        if call == "linear":
            x = given["input"].detach()
            bias = vectors.get(id(given.get("bias")))
            found.append(_Use(name, x.reshape(1, -1, x.shape[-1]), out, -1, bias))
        elif call in CONVOLUTIONS:
            rows = _patches(CONVOLUTIONS[call], given)
            bias = vectors.get(id(given.get("bias")))
            found.append(_Use(name, rows, out, 1 - given["weight"].dim(), bias))

    with of.looking(), Calls(see):
        out = of.output_of(parts, of.x)
    return found, out


def _patches(convolution: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
    """(groups, rows, inputs of a group): what each place's kernel saw, by convolving with single ones."""
    weight, x = given["weight"].detach(), given["input"].detach()
    groups, inputs = given.get("groups", 1), weight[0].numel()
    ones = torch.eye(inputs, dtype=x.dtype, device=x.device).reshape(inputs, *weight.shape[1:])
    options = {key: given[key] for key in ("stride", "padding", "dilation") if key in given}
    seen = convolution(x, ones.repeat(groups, *(1,) * (weight.dim() - 1)), groups=groups, **options)
    last = seen.movedim(1 - weight.dim(), -1)
    return last.reshape(-1, groups, inputs).movedim(1, 0)
