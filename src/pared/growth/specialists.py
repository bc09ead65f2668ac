"""Self-informed growth: classes that a trained network confuses are found, and each group of them gets units."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pared.signals import forked, inputs_of, tensor_of
from pared.training.fit import Fit, TrainConfig, TrainingData, fit
from pared.types import Batch

Groups = tuple[tuple[int, ...], ...]
"""Classes that are told apart together."""


@torch.no_grad()
def confusion(model: nn.Module, batch: Batch) -> Tensor:
    """How a classifier errs: the share of the probability it puts elsewhere that goes to each class.

        A_ij = mean of p(j | x) over examples of class i, for j != i, over the row's sum;  A_ii = 0

    Take data that the network was not trained on and will not be tested on. Returns (classes, classes), float64; a row
    is zero where a class has no examples. Cost: a forward pass. Raises ValueError for labels that are no class.
    """
    p = tensor_of(copy.deepcopy(model).eval()(batch.x)).double().softmax(1)
    _check_labels(batch.y, p.shape[1])
    found = p.new_zeros(p.shape[1], p.shape[1]).index_add(0, batch.y, p).fill_diagonal_(0)
    sums = found.sum(1, keepdim=True)
    return torch.where(sums > 0, found / sums, 0.0)


def confusable(confused: Tensor, groups: int, seed: int = 0) -> Groups:
    """Classes that are taken for each other, by spectral clustering of (A + A') / 2; single classes are left out.

    Returns at most `groups` tuples of classes, in the order of their first classes. Cost: an eigendecomposition of
    (classes, classes). Raises ValueError for fewer than 2 groups, or not fewer than there are classes.
    Source: Warde-Farley, Rabinovich & Anguelov, Self-informed neural network structure learning (2014); Ng, Jordan &
    Weiss, On spectral clustering (2002).
    """
    if confused.dim() != 2 or len(set(confused.shape)) != 1 or not 2 <= groups < len(confused):
        raise ValueError(f"2 groups or more, fewer than classes, of a square matrix; got {groups} of {confused.shape}")
    affinity = (confused + confused.T) / 2 + 1e-9  # so that no class is out of reach of the others
    clustering = import_module("sklearn.cluster").SpectralClustering  # here, since it takes a second to import
    labels = clustering(groups, affinity="precomputed", random_state=seed).fit_predict(affinity.numpy())
    clusters = (tuple(int(k) for k in range(len(labels)) if labels[k] == label) for label in set(labels.tolist()))
    return tuple(sorted(cluster for cluster in clusters if len(cluster) > 1))


class Specialists(nn.Module):
    """A classifier, the generalist, and hidden units beside it for groups of classes.

        logit_k = generalist_k(x) + u_k . relu(V_g h(x) + c_g)    for k in group g

    h is what the generalist's layer `reads` is given, (samples, features). u is zero at first. The generalist stays in
    evaluation mode, also in training. `specialise` makes one. Source: as `confusable`.
    """

    def __init__(self, generalist: nn.Module, reads: str, groups: Groups, features: int, width: int) -> None:
        super().__init__()
        self.generalist, self.reads, self.groups = generalist, reads, groups
        self.hidden = nn.ModuleList(nn.Linear(features, width) for _ in groups)
        self.out = nn.ModuleList(nn.Linear(width, len(group), bias=False) for group in groups)
        for layer in self.out:
            nn.init.zeros_(layer.get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        logits, seen = inputs_of(self.generalist, (self.reads,), x)
        for group, hidden, out in zip(self.groups, self.hidden, self.out, strict=True):
            classes = torch.tensor(group, device=logits.device)
            logits = logits.index_add(1, classes, out(torch.relu(hidden(seen[self.reads]))))
        return logits

    def train(self, mode: bool = True) -> "Specialists":
        """The generalist keeps its mode of evaluation."""
        super().train(mode)
        self.generalist.eval()
        return self


def specialise(
    model: nn.Module, reads: str, groups: Sequence[Sequence[int]], x: Tensor, width: int = 16, seed: int = 0
) -> Specialists:
    """A copy of a classifier with `width` hidden units for each group of classes, which gives what `model` gives.

    `reads` names a layer of the model; the new units read what it reads. `x` is any batch.

    Returns a new module. Cost: width (features + classes of the group + 1) weights a group.
    Raises: ValueError for groups that are empty or hold what is no class, for a layer that is not called once, and
    where it does not read (samples, features).
    """
    known = copy.deepcopy(model).eval()
    with torch.no_grad():
        logits, seen = inputs_of(known, (reads,), x)
    if not groups or any(not group or not set(group) <= set(range(logits.shape[1])) for group in groups):
        raise ValueError(f"groups must hold some of the classes 0 to {logits.shape[1] - 1}, got {groups}")
    if (h := seen[reads]).dim() != 2:
        raise ValueError(f"{reads!r} must read (samples, features), got {tuple(h.shape)}; name another layer")
    with forked(model):
        torch.manual_seed(seed)
        new = Specialists(known, reads, tuple(map(tuple, groups)), h.shape[1], width).to(h.device, h.dtype)
    return new.train(model.training)


@dataclass(frozen=True)
class _Part:
    """Data for `fit`."""

    train: Batch
    validation: Batch


def fit_specialists(
    model: Specialists, split: TrainingData, config: TrainConfig, head: str, tuning: TrainConfig | None = None
) -> tuple[Specialists, tuple[Fit, ...]]:
    """Trains each group's units on the examples of its classes alone, then all that makes logits on all examples.

    The generalist stays as it is but for its layer `head`, which the second stage (`tuning`, by default `config` again)
    trains together with every u. The loss is the cross-entropy over all classes.

    Returns a new module, and the fits of the groups and of the tuning. Cost: an epoch of the first stage is a pass over
    the examples of all groups. Raises: ValueError for labels that are no class, for a group without examples, for a
    head that is not there, and as `fit` does.
    """
    if head not in dict(model.generalist.named_modules()):
        raise ValueError(f"there is no module {head!r} in the generalist to tune; name its last layer")
    parts = [_of_group(split, group) for group in model.groups]
    _check_labels(split.train.y, len(tensor_of(copy.deepcopy(model).eval()(split.train.x[:1]))[0]))
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    fits: list[Fit] = []
    for index, part in enumerate(parts):
        learner = _learning(fits[-1].model if fits else model, (f"hidden.{index}.", f"out.{index}."))
        fits.append(fit(learner, part, replace(config, seed=config.seed + index), cross_entropy))
    fits.append(fit(_learning(fits[-1].model, ("out.", f"generalist.{head}.")), split, tuning or config, cross_entropy))
    found = fits[-1].model
    assert isinstance(found, Specialists)
    for parameter, trainable in zip(found.parameters(), wanted, strict=True):
        parameter.requires_grad_(trainable)
    return found, tuple(fits)


def _of_group(split: TrainingData, group: Sequence[int]) -> _Part:
    parts = []
    for x, y in (split.train, split.validation):
        chosen = torch.isin(y, torch.tensor(group, device=y.device))
        parts.append(Batch(x[chosen], y[chosen]))
    if not len(parts[0].y):
        raise ValueError(f"there are no training examples of the classes {tuple(group)}; leave the group out")
    return _Part(*parts)


def _learning(model: nn.Module, prefixes: tuple[str, ...]) -> nn.Module:
    """A copy of which only parameters with these names learn."""
    copied = copy.deepcopy(model)
    for name, parameter in copied.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
    return copied


def _check_labels(y: Tensor, classes: int) -> None:
    if y.dim() != 1 or y.is_floating_point() or not len(y) or not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ValueError(f"labels must be whole numbers, one an example, of the classes 0 to {classes - 1}")
