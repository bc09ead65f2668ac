"""Low rank: a weight becomes a product of two thinner ones, with the least error on what it reads."""

import copy
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pared.signals import forked, private
from pared.signals.readings import Calls
from pared.signals.unrolled import written_out
from pared.surgery import Factor, Plan, StructureError
from pared.surgery.factors import RECURRENT, thinned
from pared.types import Inputs


@dataclass(frozen=True)
class Spectrum:
    """How the outputs z = W x of a weight spread: the eigenvectors of Cov(z) as columns, and its eigenvalues.

    `directions` (outputs, k), `energies` (k,), the greatest first; `mean` (inputs,) of x, zero without a bias or data.
    """

    directions: Tensor
    energies: Tensor
    mean: Tensor

    def error(self, rank: int) -> float:
        """E |(W - W_r)(x - mean)|^2 of the best W_r of this rank: the sum of the energies left out."""
        return float(self.energies[rank:].sum())


class Matrix(NamedTuple):
    """A weight (outputs, inputs) that can be factored, and the bias that is added to its product."""

    weight: Tensor
    bias: Tensor | None

    def pays(self, rank: int) -> bool:
        """Whether factors have fewer weights: rank (inputs + outputs) < inputs outputs."""
        return rank * sum(self.weight.shape) < self.weight.numel()


class Factors(NamedTuple):
    """W_in (rank, inputs), W_out (outputs, rank), and the bias that goes with them."""

    into: Tensor
    out: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class LowRank:
    """A network with factors, the ranks of the weights that have them, the products' errors (`Spectrum`), the plan.

    Linear layers are named as modules, recurrent weights as parameters. `plan` makes the network's shapes again
    (`replay`), so that `save(folder, model, plan)` and `load` take it; `plan.then(cut_plan)` where it is cut later.
    """

    model: nn.Module
    ranks: dict[str, int]
    errors: dict[str, float]
    plan: Plan


def spectrum(matrix: Matrix, x: Tensor | None = None) -> Spectrum:
    """The spectrum of W's outputs over inputs x (..., inputs); without x, over white ones: W's singular values.

    With C = E x x' (centred where there is a bias, which then takes the mean) and C = L L', W L = U S V': the
    directions are U, the energies S^2. W_r = U_r U_r' W is the best map of rank r on these inputs.
    Cost: O(samples inputs^2) and a decomposition. Source: Eckart & Young (1936), for W L.
    """
    weight = matrix.weight.detach().double()
    mean, root = weight.new_zeros(weight.shape[1]), torch.eye(weight.shape[1]).to(weight)
    if x is not None:
        rows = x.detach().reshape(-1, weight.shape[1]).to(weight)
        mean = rows.mean(dim=0) if matrix.bias is not None else mean
        values, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
        root = vectors * values.clamp_min(0.0).sqrt()
    directions, sizes, _ = torch.linalg.svd(weight @ root, full_matrices=False)
    return Spectrum(directions, sizes.square(), mean)


@torch.no_grad()
def factors(matrix: Matrix, found: Spectrum, rank: int) -> Factors:
    """W_in = U_r' W and W_out = U_r, with the bias b + (W - W_r) mean."""
    weight, kept = matrix.weight.double(), found.directions[:, :rank]
    into, bias = kept.T @ weight, matrix.bias
    if bias is not None:
        bias = (bias.double() + (weight - kept @ into) @ found.mean).to(bias)
    return Factors(into.to(matrix.weight), kept.to(matrix.weight), bias)


def low_rank(
    model: nn.Module,
    x: Inputs | None = None,
    *,
    rank: int | Mapping[str, int] | None = None,
    share: float | None = None,
) -> LowRank:
    """A copy in which linear layers are two thinner ones and recurrent weights products, wherever that saves weights.

    Either `rank`, one for all weights or by name (others stay), or `share`: how much of these weights may be left; it
    goes to the directions that carry most of their weight's output a weight, over all of them. Inputs x make it
    data-aware (see `spectrum`; a recurrent weight reads the states of all steps), without them it is the truncated
    singular value decomposition. Factors that would not save weights are not made. A linear layer becomes two, a
    recurrent module (LSTM, GRU, RNN, in every form) `pared.models.Factored`, which saves time only where it is wide,
    from about 300 units on. What stays: projections of recurrent modules, cells, tied and parametrised weights, the
    layers of attention and of `nn.TransformerEncoderLayer`, which reads their weights itself.

    Names are those of linear layers ("head.0") and of recurrent parameters ("lstm.weight_hh_l0", all gates in one).
    Cost: one forward pass and a decomposition a weight.
    Raises: ValueError unless one of rank and share is given, for a share outside (0, 1) or below what rank 1
    everywhere needs; StructureError for names of nothing that can be factored and ranks out of range.
    """
    matrices = factorable(model)
    if (rank is None) == (share is None):
        raise ValueError("give either a rank or a share of the weights that may be left")
    if isinstance(rank, Mapping) and (unknown := sorted(set(rank) - set(matrices))):
        raise StructureError(f"{unknown[0]!r} is no weight that can be factored; those are {', '.join(matrices)}")
    read = {} if x is None else _inputs(model, matrices, x)
    spectra = {name: spectrum(matrix, read.get(name)) for name, matrix in matrices.items()}
    if share is not None:
        ranks = _shared(matrices, spectra, share)
    else:
        ranks = dict(rank) if isinstance(rank, Mapping) else dict.fromkeys(matrices, rank or 0)
    edit = Factor({name: r for name, r in ranks.items() if matrices[name].pays(r)})
    new = thinned(copy.deepcopy(model), edit)
    for name, r in edit.ranks.items():
        _fill(new, name, factors(matrices[name], spectra[name], r))
    errors = {name: spectra[name].error(r) for name, r in edit.ranks.items()}
    return LowRank(new, dict(edit.ranks), errors, Plan({}).then(edit))


@torch.no_grad()
def _fill(model: nn.Module, name: str, found: Factors) -> None:
    held = dict(model.named_parameters())
    if name in dict(model.named_modules()):
        places = [f"{name}.0.weight", f"{name}.1.weight", f"{name}.1.bias"]
    else:
        path, _, leaf = name.rpartition(".")
        places = [f"{name}_in", f"{name}_out", f"{path}.{leaf.replace('weight', 'bias')}"]
    for place, value in zip(places, found, strict=True):
        if value is not None:
            held[place.lstrip(".")].copy_(value)


def factorable(model: nn.Module) -> dict[str, Matrix]:
    """The weights that can be replaced, by name: parameters of a linear layer or recurrent module, and of it only."""
    encoders = [module for module in model.modules() if isinstance(module, nn.TransformerEncoderLayer)]
    within = {id(part) for encoder in encoders for part in encoder.children()}
    holders: dict[int, int] = defaultdict(int)
    for module in model.modules():
        for held in module._parameters.values():
            holders[id(held)] += 1
    found = {}
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module) or id(module) in within:
            continue
        if type(module) is nn.Linear:
            found[name] = Matrix(module.weight, module.bias)
        elif type(module) in RECURRENT:
            for leaf, weight in module.named_parameters():
                if leaf.startswith(("weight_ih", "weight_hh")):
                    bias = getattr(module, leaf.replace("weight", "bias"), None)
                    found[f"{name}.{leaf}".lstrip(".")] = Matrix(weight, bias)
    return {name: matrix for name, matrix in found.items() if holders[id(matrix.weight)] == 1}


@torch.no_grad()
def _inputs(model: nn.Module, matrices: Mapping[str, Matrix], x: Inputs) -> dict[str, Tensor]:
    """What each weight multiplies when the model runs on x: (rows, inputs)."""
    copied = written_out(private(model))
    parameters = dict(copied.named_parameters())
    names = {id(parameters[n if n in parameters else f"{n}.weight".lstrip(".")]): n for n in matrices}
    rows: dict[str, list[Tensor]] = defaultdict(list)

    def see(function: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if function == "linear" and len(args) > 1 and id(args[1]) in names:
            rows[names[id(args[1])]].append(args[0].reshape(-1, args[0].shape[-1]).clone())

    with forked(copied), Calls(see):
        copied(*((x,) if isinstance(x, Tensor) else x))
    return {name: torch.cat(parts) for name, parts in rows.items()}


def _shared(matrices: Mapping[str, Matrix], spectra: Mapping[str, Spectrum], share: float) -> dict[str, int]:
    """Ranks for a share: a direction stays if its part of the weight's energy, per entry, is over a threshold."""
    if not 0 < share < 1:
        raise ValueError(f"a share lies between 0 and 1 (0.5 leaves half of the weights), got {share}")
    shapes = {name: matrix.weight.shape for name, matrix in matrices.items()}
    limit = share * sum(shape.numel() for shape in shapes.values())
    worth = {
        name: found.energies / found.energies.sum().clamp_min(torch.finfo(torch.float64).tiny) / sum(shapes[name])
        for name, found in spectra.items()
    }
    thresholds = torch.cat(list(worth.values())).sort().values

    def ranks(threshold: float) -> dict[str, int]:
        return {name: max(1, int((values > threshold).sum())) for name, values in worth.items()}

    def weights(threshold: float) -> int:
        return sum(min(shapes[name].numel(), r * sum(shapes[name])) for name, r in ranks(threshold).items())

    low, high = 0, len(thresholds) - 1
    if weights(float(thresholds[high])) > limit:
        raise ValueError(f"rank 1 in every layer needs more than {share:g} of the weights; give a larger share")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if weights(float(thresholds[middle])) <= limit else (middle + 1, high)
    return ranks(float(thresholds[low]))
