"""Dynamic sparse training: as many weights from the first step to the last, but not always the same ones."""

import copy
import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared.data.batches import evenly
from pared.masks import Sparse, mask_weights
from pared.schedules import Constant, Cosine
from pared.signals import prunable, tensor_of
from pared.training.fit import Fit, TrainConfig, TrainingData
from pared.training.fleet import fit_one
from pared.training.parts import part_of
from pared.types import Loss, Masks, Schedule

LOOKED_AT = 1024
"""How many training examples the gradient of closed weights is taken over."""


@dataclass(frozen=True)
class Rewiring:
    """How weights move: after every `every` epochs, up to the share `until` of the training, in each layer alone.

    `fraction(p)`, p = progress / until, is the share of a layer's open weights that close: the smallest ones, or with
    `by_sign` the same share of the positive and of the negative ones. As many open among those that are then closed:
    where the loss has the largest gradients ("gradient"), or anywhere ("random"). They start from zero, so that a
    rewiring changes what the network gives only by what it closes. `density` is the share of weights that are open,
    `dense` names parameters (or patterns) in which all are.
    """

    density: float = 0.1
    every: int = 1
    until: float = 0.75
    fraction: Schedule = Cosine(start=0.3)
    grow: Literal["gradient", "random"] = "gradient"
    by_sign: bool = False
    dense: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1 or not 0 <= self.until <= 1 or self.every < 1:
            raise ValueError(
                "density must lie in (0, 1], until in [0, 1] and every be at least one epoch, got "
                f"{self.density}, {self.until} and {self.every}"
            )
        if self.grow not in ("gradient", "random"):
            raise ValueError(f"weights grow by 'gradient' or 'random', got {self.grow!r}")


def rigl(density: float = 0.1, every: int = 1, dense: tuple[str, ...] = ()) -> Rewiring:
    """RigL: where the gradient is largest, ever fewer: alpha/2 (1 + cos(pi t / T)), alpha = 0.3, T 75 % of it.

    Source: Evci et al., Rigging the Lottery (2020).
    """
    return Rewiring(density, every, dense=dense)


def evolved(density: float = 0.1, every: int = 1, dense: tuple[str, ...] = ()) -> Rewiring:
    """SET: at random, 0.3 of the positive and of the negative weights each time, to the end; new weights start from 0.

    Source: Mocanu et al., Scalable training of artificial neural networks with adaptive sparse connectivity (2018),
    where new weights start from small random values.
    """
    return Rewiring(density, every, 1.0, Constant(0.3), "random", True, dense)


def erdos_renyi(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """Parameter -> density: min(1, eps * sum(shape) / prod(shape)), eps such that `density` of all weights is open.

    Small layers are denser than large ones. Source: Mocanu et al. (2018); Evci et al. (2020) with kernels' sizes.
    Raises ValueError for a density outside (0, 1].
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must lie in (0, 1], got {density}")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    wanted, full = density * sum(sizes.values()), set[str]()
    while True:
        free = [name for name in sizes if name not in full]
        scale = (wanted - sum(sizes[name] for name in full)) / max(1, sum(sum(shapes[name]) for name in free))
        over = {name for name in free if scale * sum(shapes[name]) > sizes[name]}
        if not over:
            return {name: 1.0 if name in full else scale * sum(shapes[name]) / sizes[name] for name in sizes}
        full |= over


def random_masks(model: nn.Module, how: Rewiring, seed: int = 0) -> Masks:
    """Masks for the weights (not the biases) that `how.dense` does not name, drawn with the densities of `erdos_renyi`.

    `how.density` counts the masked weights alone. Every one of them keeps at least one weight open.
    Raises: ValueError where a pattern names nothing, or all.
    """
    shapes = dict(prunable(model).shapes)
    for pattern in how.dense:
        if not fnmatch.filter(shapes, pattern):
            raise ValueError(f"{pattern!r} names none of {', '.join(shapes)}")
        shapes = {name: shape for name, shape in shapes.items() if not fnmatch.fnmatchcase(name, pattern)}
    if not shapes:
        raise ValueError("all weights are to be dense; there is nothing to rewire")
    generator, masks = torch.Generator().manual_seed(seed), Masks()
    for name, share in erdos_renyi(shapes, how.density).items():
        size = math.prod(shapes[name])
        mask = torch.zeros(size, dtype=torch.bool)
        mask[torch.randperm(size, generator=generator)[: max(1, round(share * size))]] = True
        masks[name] = mask.reshape(shapes[name])
    return masks


def rewired(weight: Tensor, mask: Tensor, scores: Tensor, share: float, by_sign: bool = False) -> Tensor:
    """A layer's next mask: the smallest `share` of its open weights close, as many of the highest scores open.

    A weight that closes may open again at once. As many are open as before, exactly. Of equals the earlier closes, and
    opens, first. Raises ValueError for a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of weights that move must lie in [0, 1], got {share}")
    sizes, open_ = weight.detach().abs().flatten(), mask.flatten()
    positive = weight.detach().flatten() > 0
    kinds = [open_ & positive, open_ & ~positive] if by_sign else [open_]
    left = open_.clone()
    for kind in kinds:
        order = sizes.masked_fill(~kind, torch.inf).argsort(stable=True)
        left[order[: int(share * int(kind.sum()))]] = False
    missing = int(open_.sum() - left.sum())
    order = scores.flatten().masked_fill(left, -torch.inf).argsort(stable=True, descending=True)
    left[order[:missing]] = True
    return left.view_as(mask)


def fit_sparse(
    model: nn.Module,
    split: TrainingData,
    config: TrainConfig,
    how: Rewiring = Rewiring(),
    loss: Loss = mse_loss,
    masks: Masks | None = None,
) -> Sparse:
    """Trains a copy of `model` of which only some weights are ever open, and moves them as `how` says.

    Starts from `masks`, by default random ones, and goes on from part to part with the optimiser's state; moments of
    closed weights are zero. The number of open weights of every layer never changes. Masked products are full
    products: this saves parameters, no time. Trained by what `engine_of` names, as a member of a fleet.

    Returns the network, its last masks, and the trainings on the way. Cost: as `fit`, and at each rewiring by gradients
    one backward pass over at most 1,024 examples. Raises: ValueError with patience, which would end a part of the
    training, for masks of biases or frozen weights, and as `random_masks` and `fit` do.
    """
    if config.patience is not None:
        raise ValueError("patience would end a part of the training; leave it out")
    masks = masks or random_masks(model, how, config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    stops = [epoch for epoch in range(how.every, config.epochs, how.every) if epoch < how.until * config.epochs]
    current, fits = mask_weights(model, masks), list[Fit]()
    _check_moving(model, masks)
    for start, stop in zip([0, *stops], [*stops, config.epochs], strict=True):
        if start:
            share = how.fraction(start / (how.until * config.epochs))
            scores = _scores(current, masks, split, how, loss, generator)
            weights = dict(current.named_parameters())
            masks = {name: rewired(weights[name], m, scores[name], share, how.by_sign) for name, m in masks.items()}
        part, before = part_of(config, start, stop), fits[-1] if fits else None
        fits.append(fit_one(current, split, part, loss, before, masks))
        current = fits[-1].model
    return Sparse(current, masks, tuple(fits))


def _check_moving(model: nn.Module, masks: Masks) -> None:
    if vectors := masks.keys() - prunable(model).shapes.keys():
        raise ValueError(
            f"only weights of two axes or more can be rewired, got masks of {', '.join(sorted(vectors))}; "
            "leave those out"
        )
    if frozen := [name for name, weight in model.named_parameters() if name in masks and not weight.requires_grad]:
        raise ValueError(
            f"weights that open have to learn, but {', '.join(frozen)} must not; set requires_grad to True, or name "
            "them in Rewiring(dense=...)"
        )


def _scores(
    model: nn.Module, masks: Masks, split: TrainingData, how: Rewiring, loss: Loss, generator: torch.Generator
) -> dict[str, Tensor]:
    if how.grow == "random":
        shapes = prunable(model).shapes
        return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    looked, batch = copy.deepcopy(model).eval(), evenly(split.train, LOOKED_AT)
    weights = {name: parameter for name, parameter in looked.named_parameters() if name in masks}
    with torch.enable_grad():
        found = torch.autograd.grad(loss(tensor_of(looked(batch.x)), batch.y), list(weights.values()))
    return {name: gradient.abs() for name, gradient in zip(weights, found, strict=True)}
