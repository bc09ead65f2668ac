"""Weights that make up for those that are gone: networks with masks, whose other weights were solved for anew.

Every function leaves the model as it is and returns a copy. Biases and normalisations stay.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pared.criteria.belsley import flat_weights, laplace_factor, surgeon_rounds
from pared.criteria.curvature import obs_step
from pared.criteria.layerwise import alive, refitted, sparsegpt
from pared.criteria.nettrim import net_trim_layer
from pared.criteria.removal import Array
from pared.criteria.sparse import hard_thresholding, on_support
from pared.masks import Sparse, mask_weights
from pared.signals import Layout, check_masks, plain_parameters, prunable
from pared.signals.curvature import damped, fisher_factor, ggn_factor, gradient, hessian, inverse
from pared.signals.layers import input_grams, layer_values
from pared.surgery.edit import replace_all
from pared.types import Batch, Loss, Masks


def surgeon(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    ratio: float,
    *,
    share: float = 0.0,
    prior: float = 1.0,
    rounds: int = 10,
) -> Sparse:
    """Optimal brain surgeon, weight by weight, the others shifted after each: `share` 0.1 makes it Belsley-OBS.

    The posterior precision N G + prior I (see `criteria.belsley_obs`) is taken anew at the shifted weights `rounds`
    times, for the weights that are left; in between it is conditioned on each zero. One round goes stale at about half.

    Cost: `rounds` GGN factors and inverses, O(n^2) a weight. Raises: CurvatureError as `criteria.belsley_obs`.
    Source: Hassibi & Stork (1992); for a share above 0, this project.
    """
    _check(ratio)
    layout = prunable(model)

    def factor_at(weights: Array) -> Array:
        at = _with(model, layout.named(torch.from_numpy(weights)))
        return laplace_factor(at, batch, loss, prior)

    gone = round(ratio * layout.size)
    counts = [round(gone * step / rounds) for step in range(1, rounds + 1)]
    *_, (mean, live) = surgeon_rounds(flat_weights(model), factor_at, counts, share)
    stays = torch.zeros(layout.size, dtype=torch.bool)
    stays[torch.from_numpy(live)] = True
    masks = layout.named(stays)
    return Sparse(mask_weights(_with(model, layout.named(torch.from_numpy(mean))), masks), masks)


def refit_weights(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    masks: Masks,
    *,
    matrix: str = "ggn",
    ridge: float = 1e-4,
    first_order: bool = False,
) -> Sparse:
    """The least increase of the loss' quadratic model over all weights that stay, however they were chosen.

    min over d of g'd + d'(H + ridge I)d / 2 with d = -w where `masks` is closed. H is the GGN, the empirical Fisher
    matrix ("fisher": WoodFisher's update, for all weights at once) or the exact Hessian, the ridge absolute, g left out
    unless `first_order`. GGN and Fisher are solved in the space of the rows of their factor, without an n x n matrix.
    With `pared.unit_masks` it is the surgeon of whole units, whose increases `criteria.group_obs` scores (where the
    ridge is its damping times the mean diagonal); cut them afterwards.

    Cost: the factor and O(rows^2 n); with the Hessian O(n^3) and memory O(n^2).
    Raises: CurvatureError for a Hessian that is singular or indefinite in spite of the ridge, or too large.
    Source: Hassibi & Stork (1992), for a set of weights; Singh & Alistarh (2020).
    """
    layout = prunable(model)
    check_masks(plain_parameters(model), masks)
    open_ = {name: masks.get(name, torch.ones(shape, dtype=torch.bool)) for name, shape in layout.shapes.items()}
    keep = layout.flat(open_)
    if matrix == "hessian":
        w, shift = _dense_shift(model, batch, loss, keep, ridge, first_order)
    else:
        _, rows, w, slope = _quadratic(model, batch, loss, matrix, first_order)
        shift = on_support(rows, w, keep.to(w.device), ridge, slope)
    return Sparse(mask_weights(_with(model, layout.named(w + shift)), masks), dict(masks))


def chita(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    ratio: float,
    *,
    ridge: float = 1e-4,
    stages: int = 1,
    first_order: bool = False,
) -> Sparse:
    """Which weights stay and what they become, at once: iterative hard thresholding of the loss' quadratic model.

    min g'd + |A d|^2 / 2 + ridge |d|^2 / 2 over w + d with at most (1 - ratio) n weights, A the per-sample gradients
    over sqrt(N); see `criteria.sparse.hard_thresholding`: steps of doubled lengths with an exact solve on each support,
    in place of the authors' line search and coordinate descent. With several `stages` the model is taken anew at the
    point reached, at rising ratios (exponential), what is gone staying gone. g is left out unless `first_order`: away
    from a minimum it asks for a larger ridge, or the step is far too long.

    Cost: `stages` times the factor and some O(N^2 n). Memory O(N n).
    Source: Benbaki et al., Fast as CHITA (2023).
    """
    _check(ratio)
    layout, current = prunable(model), model
    keep = torch.ones(layout.size, dtype=torch.bool)
    for stage in range(1, stages + 1):
        count = layout.size - round(layout.size * (1 - (1 - ratio) ** (stage / stages)))
        _, rows, w, slope = _quadratic(current, batch, loss, "fisher", first_order)
        found = torch.zeros_like(w)
        own = None if slope is None else slope[keep]
        found[keep] = hard_thresholding(rows[:, keep], w[keep], count, ridge, own)
        keep, current = found != 0, _with(model, layout.named(found))
    masks = layout.named(keep)
    return Sparse(mask_weights(current, masks), masks)


def refit_layers(model: nn.Module, batch: Batch, loss: Loss, masks: Masks, *, damping: float = 1e-2) -> Sparse:
    """Layer by layer, the weights that stay are solved for so that the layer's outputs change least.

    Every row: w_S <- w_S + H_SS^-1 H_SQ w_Q with H the second moments of what enters (of the full network), damped by
    damping * mean(diag H). With masks of `criteria.obc` it is Optimal Brain Compression, with others the repair of
    their choice. Layers that neither multiply nor convolve are masked only.

    Cost: one forward pass, O(outputs d^3) a layer of d inputs. Source: Frantar, Singh & Alistarh (2022).
    """
    check_masks(plain_parameters(model), masks)
    found, grams = plain_parameters(model), input_grams(model, batch, loss)
    new = {}
    for name, mask in masks.items():
        if name in grams:
            weight, groups = found[name], len(grams[name])
            parts = zip(weight.double().flatten(1).chunk(groups), mask.flatten(1).chunk(groups), strict=True)
            solved = [
                refitted(rows.to(gram), damped(alive(gram), damping), keep)
                for (rows, keep), gram in zip(parts, grams[name], strict=True)
            ]
            new[name] = torch.cat(solved).reshape(weight.shape)
    return Sparse(mask_weights(_with(model, new), masks), dict(masks))


def sparse_gpt(
    model: nn.Module, batch: Batch, loss: Loss, ratio: float, *, damping: float = 1e-2, block: int = 128
) -> Sparse:
    """SparseGPT in every layer: one sweep over the columns that chooses what goes and makes up for it.

    See `criteria.layerwise.sparsegpt`. The same share goes in every block of `block` columns of every layer.
    Cost: one forward pass, O(d^3 + outputs d^2) a layer of d inputs. Source: Frantar & Alistarh, SparseGPT (2023).
    """
    _check(ratio)
    weights, new, masks = plain_parameters(model), {}, {}
    for name, gram in input_grams(model, batch, loss).items():
        rows = weights[name].to(gram).flatten(1).chunk(len(gram))
        swept = [sparsegpt(w, damped(alive(g), damping), ratio, block) for w, g in zip(rows, gram, strict=True)]
        masks[name], new[name] = (torch.cat(part).reshape(weights[name].shape) for part in zip(*swept, strict=True))
    return Sparse(mask_weights(_with(model, new), masks), masks)


def net_trim(model: nn.Module, batch: Batch, loss: Loss, *, gain: float = 0.1, steps: int = 2000) -> Sparse:
    """Net-Trim in every linear layer, in parallel: the least sum of sizes that keeps the outputs within epsilon.

    epsilon is `gain` times the length of the layer's outputs. Where ReLU follows, outputs that it silences need only
    stay below zero. Biases are changed together with the weights, but not masked. How many weights go follows from the
    gain. Layers used several times (recurrent ones) see all their uses; convolutions stay.

    Cost: one forward pass, then O(rows d o) a step of a layer.
    Source: Aghasi, Abdi, Nguyen & Romberg, Net-Trim (2017), the parallel scheme.
    """
    weights, new, masks = plain_parameters(model), {}, {}
    for name, values in layer_values(model, batch, loss).items():
        weight, bias = weights[name].to(values.inputs), None if values.bias is None else weights[values.bias]
        inputs = values.inputs if bias is None else torch.nn.functional.pad(values.inputs, (0, 1), value=1.0)
        start = weight if bias is None else torch.cat([weight, bias.to(weight)[:, None]], dim=1)
        targets = values.outputs.clamp_min(0.0) if values.relu else values.outputs
        trimmed = net_trim_layer(inputs, targets, start, gain * float(targets.norm()), values.relu, steps)
        new[name] = trimmed[:, : weight.shape[1]]
        masks[name] = new[name] != 0
        if values.bias is not None:
            new[values.bias] = trimmed[:, -1]
    return Sparse(mask_weights(_with(model, new), masks), masks)


def _quadratic(
    model: nn.Module, batch: Batch, loss: Loss, matrix: str, first_order: bool
) -> tuple[Layout, Tensor, Tensor, Tensor | None]:
    if matrix not in ("ggn", "fisher"):
        raise ValueError(f"unknown matrix {matrix!r}; choose ggn, fisher or hessian")
    layout = prunable(model)
    rows = (ggn_factor if matrix == "ggn" else fisher_factor)(model, batch, loss)
    slope = gradient(model, batch, loss) if first_order else None
    return layout, rows, layout.flat(plain_parameters(model)).detach().to(rows), slope


def _dense_shift(
    model: nn.Module, batch: Batch, loss: Loss, keep: Tensor, ridge: float, first_order: bool
) -> tuple[Tensor, Tensor]:
    """The weights, and the shift of least increase under the exact Hessian that closes those outside `keep`."""
    whole = hessian(model, batch, loss)
    p = inverse(whole + ridge * torch.eye(len(whole)).to(whole))
    w = prunable(model).flat(plain_parameters(model)).to(p)
    slope = gradient(model, batch, loss) if first_order else None
    return w, obs_step(w, p, (~keep).nonzero().flatten().tolist(), slope)[1]


def _with(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy with other weights, in the types of the model's own."""
    own, copied = plain_parameters(model), mask_weights(model, {})
    replace_all(copied, {name: value.detach().to(own[name]).clone() for name, value in weights.items()})
    return copied


def _check(ratio: float) -> None:
    if not 0 < ratio < 1:
        raise ValueError(f"a ratio lies between 0 and 1 (0.5 removes half of the weights), got {ratio}")
