"""Low rank: a linear layer becomes two thinner ones, with the least error on what it reads."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pared.signals import module_inputs
from pared.surgery import StructureError
from pared.surgery.edit import replace_module
from pared.types import Inputs


@dataclass(frozen=True)
class Spectrum:
    """How the outputs z = W x of a layer spread: the eigenvectors of Cov(z) as columns, and its eigenvalues.

    `directions` (outputs, k), `energies` (k,), the greatest first; `mean` (inputs,) of x, zero without a bias or data.
    """

    directions: Tensor
    energies: Tensor
    mean: Tensor

    def error(self, rank: int) -> float:
        """E |(W - W_r)(x - mean)|^2 of the best W_r of this rank: the sum of the energies left out."""
        return float(self.energies[rank:].sum())


@dataclass(frozen=True)
class LowRank:
    """A network with factors, the rank of every layer that was replaced, and the error of its outputs (`Spectrum`)."""

    model: nn.Module
    ranks: dict[str, int]
    errors: dict[str, float]


def spectrum(layer: nn.Linear, x: Tensor | None = None) -> Spectrum:
    """The spectrum of a layer's outputs over inputs x (..., inputs); without x, over white ones: W's singular values.

    With C = E x x' (centred where the layer has a bias, which then takes the mean) and C = L L', W L = U S V': the
    directions are U, the energies S^2. W_r = U_r U_r' W is the best map of rank r on these inputs.
    Cost: O(samples inputs^2) and a decomposition. Source: Eckart & Young (1936), for W L.
    """
    weight = layer.weight.detach().double()
    mean, root = weight.new_zeros(weight.shape[1]), torch.eye(weight.shape[1]).to(weight)
    if x is not None:
        rows = x.detach().reshape(-1, weight.shape[1]).to(weight)
        mean = rows.mean(dim=0) if layer.bias is not None else mean
        values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
        root = vectors * values.clamp_min(0.0).sqrt()
    directions, sizes, _ = torch.linalg.svd(weight @ root, full_matrices=False)
    return Spectrum(directions, sizes.square(), mean)


def factored(layer: nn.Linear, found: Spectrum, rank: int) -> nn.Sequential:
    """Linear(inputs, rank) without a bias, then Linear(rank, outputs): U_r' W, then U_r and b + (W - W_r) mean.

    Raises: ValueError for a rank below 1 or above the smaller side.
    """
    if not 1 <= rank <= min(layer.weight.shape):
        raise ValueError(
            f"a rank of {tuple(layer.weight.shape)} lies between 1 and {min(layer.weight.shape)}, got {rank}"
        )
    weight, kept = layer.weight.detach().double(), found.directions[:, :rank]
    like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    first = nn.Linear(layer.in_features, rank, bias=False, **like)
    second = nn.Linear(rank, layer.out_features, bias=layer.bias is not None, **like)
    with torch.no_grad():
        first.weight.copy_(kept.T @ weight)
        second.weight.copy_(kept)
        if layer.bias is not None:
            shift = (weight - kept @ (kept.T @ weight)) @ found.mean
            second.bias.copy_(layer.bias.double() + shift)
    return nn.Sequential(first, second).train(layer.training).requires_grad_(layer.weight.requires_grad)


def pays(layer: nn.Linear, rank: int) -> bool:
    """Whether factors have fewer weights: rank (inputs + outputs) < inputs outputs."""
    return rank * sum(layer.weight.shape) < layer.weight.numel()


def low_rank(
    model: nn.Module,
    x: Inputs | None = None,
    *,
    rank: int | Mapping[str, int] | None = None,
    share: float | None = None,
) -> LowRank:
    """A copy in which linear layers are two thinner ones, wherever that saves weights.

    Either `rank`, one for all layers or by name (others stay), or `share`: how much of the linear layers' weights may
    be left; it goes to the directions that carry most of their layer's output a weight, over all layers. Inputs x make
    it data-aware (see `spectrum`), without them it is the truncated singular value decomposition. Factors that would
    not save weights are not made: such a layer stays as it is. Recurrent modules stay, too: PyTorch's have no place for
    factors; so do tied and parametrised weights, and the layers of attention and of `nn.TransformerEncoderLayer`, which
    reads their weights itself.

    Cost: one forward pass and a decomposition a layer.
    Raises: ValueError unless one of rank and share is given, for a share outside (0, 1) or below what rank 1
    everywhere needs; StructureError for names that are no such layer.
    """
    layers = factorable(model)
    if (rank is None) == (share is None):
        raise ValueError("give either a rank or a share of the weights that may be left")
    if isinstance(rank, Mapping) and (unknown := sorted(set(rank) - set(layers))):
        raise StructureError(f"{unknown[0]!r} is no linear layer that can be factored; those are {', '.join(layers)}")
    read = {} if x is None else module_inputs(model, layers, x)
    spectra = {name: spectrum(layer, read.get(name)) for name, layer in layers.items()}
    if share is not None:
        ranks = _shared(layers, spectra, share)
    else:
        ranks = dict(rank) if isinstance(rank, Mapping) else dict.fromkeys(layers, rank or 0)
    ranks = {name: r for name, r in ranks.items() if pays(layers[name], r)}
    new = copy.deepcopy(model)
    for name, r in ranks.items():
        new = replace_module(new, name, factored(layers[name], spectra[name], r))
    return LowRank(new, ranks, {name: spectra[name].error(r) for name, r in ranks.items()})


def factorable(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers that can be replaced, by name: those whose weight is a parameter of their own only."""
    encoders = [module for module in model.modules() if isinstance(module, nn.TransformerEncoderLayer)]
    within = {id(part) for encoder in encoders for part in encoder.children()}
    holders: dict[int, int] = {}
    for module in model.modules():
        for held in module._parameters.values():
            holders[id(held)] = holders.get(id(held), 0) + 1
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and not parametrize.is_parametrized(module)
        and holders[id(module.weight)] == 1
        and id(module) not in within
    }


def _shared(layers: Mapping[str, nn.Linear], spectra: Mapping[str, Spectrum], share: float) -> dict[str, int]:
    """Ranks for a share: a direction stays if its part of the layer's energy, per weight, is over a threshold."""
    if not 0 < share < 1:
        raise ValueError(f"a share lies between 0 and 1 (0.5 leaves half of the weights), got {share}")
    limit = share * sum(layer.weight.numel() for layer in layers.values())
    worth = {
        name: found.energies
        / found.energies.sum().clamp_min(torch.finfo(torch.float64).tiny)
        / sum(layers[name].weight.shape)
        for name, found in spectra.items()
    }
    thresholds = torch.cat(list(worth.values())).sort().values

    def ranks(threshold: float) -> dict[str, int]:
        return {name: max(1, int((values > threshold).sum())) for name, values in worth.items()}

    def weights(threshold: float) -> int:
        found = ranks(threshold).items()
        return sum(min(layers[name].weight.numel(), r * sum(layers[name].weight.shape)) for name, r in found)

    low, high = 0, len(thresholds) - 1
    if weights(float(thresholds[high])) > limit:
        raise ValueError(f"rank 1 in every layer needs more than {share:g} of the weights; give a larger share")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if weights(float(thresholds[middle])) <= limit else (middle + 1, high)
    return ranks(float(thresholds[low]))
