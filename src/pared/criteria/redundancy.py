"""Criteria that ask whether the other units of a group could stand in for a unit.

Each gives the place of a unit in the order in which units go, so that the lowest-scored ones of any number are those
that its algorithm takes out first.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pared.compensate import reading_moments
from pared.criteria.greedy import places
from pared.data.batches import example, suited_batch
from pared.merging import entries, merging
from pared.signals import plain_parameters, read_values
from pared.surgery import Group, StructureError, trace
from pared.types import Batch, Loss, Scores

Floats = NDArray[np.float64]
Reader = tuple[Tensor, Tensor, Tensor]
"""Q, P and the entries of each unit, for one weight that reads a group."""


def similarity(model: nn.Module, batch: Batch, loss: Loss) -> Scores:
    """Merging units that are made alike, without any data: s_ij = <a_j^2> ||w_i - w_j||^2.

    w_j are all the entries that make unit j (its bias and recurrent weights too), a_j those that read it, <.> their
    mean. Again and again the pair of lowest s_ij goes: j is deleted and i read with a_i + a_j, as `pared.merge` does
    it. For a layer whose nonlinearity is nowhere steeper than 1, s_ij times the mean square of its input bounds the
    mean square by which the layer behind it then errs.

    Scores: group -> (units,), place in the order of deletion from 0; not comparable between groups.
    Cost: O(u^2 d) a group. Source: Srinivas & Babu, Data-free Parameter Pruning for Deep Neural Networks (2015).
    """
    weights = plain_parameters(model)
    scores: Scores = {}
    for group in trace(model, example(suited_batch(batch, model).x)):
        pairs = merging(entries(group, weights, "in"), entries(group, weights, "out"))
        scores[group.name] = places(group.width, [j for j, _, _ in pairs])
    return scores


def least_squares(model: nn.Module, batch: Batch, loss: Loss, *, ridge: float = 1e-8) -> Scores:
    """Backward elimination by what no repair brings back, without evaluating the loss.

    With S the second moments of what a weight V reads (centred where there is a bias), P = (S + r I)^-1 and D the
    entries removed, the least mean squared error of V h after `pared.compensate` is tr(Q_DD (P_DD)^-1), Q = V^T V,
    summed over all that read the group. The unit that adds least to it goes next, with j its entries:

        tr(Q_jj (P_jj)^-1),   then   P <- P - P_.j (P_jj)^-1 P_j.,   Q <- E^T Q E,   E = I - e_j (P_jj)^-1 P_j.

    which is optimal brain surgery of whole units in the layers that read them. Weights that cannot be refitted (see
    `compensate`) take no part; a group that only such weights read is left out.

    Scores: group -> (units,), place in the order of deletion from 0; not comparable between groups.
    Cost: one forward pass, O(k^3) for each reading weight with k values. r = ridge * mean diag S.
    Raises: StructureError where no weight can be refitted.
    Source: Hassibi & Stork (1993) for the columns of a layer, as Dong, Chen & Pan (2017) use its rows.
    """
    batch = suited_batch(batch, model)
    structure = trace(model, example(batch.x))
    moments, weights = reading_moments(model, structure, batch), plain_parameters(model)
    scores: Scores = {}
    for group in structure:
        readers = []
        for s in group.slices:
            if s.role == "out" and (s.parameter, s.axis) in moments:
                v = weights[s.parameter].movedim(s.axis, -1).flatten(0, -2).double().cpu()
                precision = torch.linalg.inv(moments[s.parameter, s.axis].damped(ridge))
                index = torch.tensor([s.indices(group.width, [j]) for j in range(group.width)])
                readers.append((v.T @ v, precision, index))
        if readers:
            scores[group.name] = places(group.width, _eliminated(group.width, readers))
    if not scores:
        raise StructureError("no weight that reads units of this network can be refitted; use taylor or ablation")
    return scores


def _eliminated(width: int, readers: list[Reader]) -> list[int]:
    order: list[int] = []
    for _ in range(width - 1):
        costs = torch.stack([_costs(*reader) for reader in readers]).sum(dim=0)
        costs[order] = torch.inf
        order.append(int(costs.argmin()))
        readers = [_without(*reader, order[-1]) for reader in readers]
    return order


def _costs(q: Tensor, p: Tensor, index: Tensor) -> Tensor:
    """tr(Q_jj (P_jj)^-1) for every unit."""
    rows, columns = index[:, :, None], index[:, None, :]
    costs: Tensor = torch.linalg.solve(p[rows, columns], q[rows, columns]).diagonal(dim1=1, dim2=2).sum(dim=1)
    return costs


def _without(q: Tensor, p: Tensor, index: Tensor, unit: int) -> Reader:
    """Q and P once a unit is gone and the others have taken over; its own entries become those of a unit of no cost."""
    j = index[unit]
    shift = torch.linalg.solve(p[j][:, j], p[j])
    moved = shift.T @ q[j]
    q = q - moved - moved.T + shift.T @ q[j][:, j] @ shift
    p = p - p[:, j] @ shift
    q[j], q[:, j], p[j], p[:, j] = 0.0, 0.0, 0.0, 0.0
    p[j, j] = 1.0
    return q, p, index


def determinantal(
    model: nn.Module, batch: Batch, loss: Loss, *, beta: float | None = None, eps: float = 0.01
) -> Scores:
    """Diversity: the units whose values over the batch span most, chosen one by one.

    L = exp(-beta ||v_i - v_j||^2) + eps I over the units' values v, one entry a sample, step and place (beta: 10 over
    their number by default). Unit by unit the one joins that raises det(L_Y) most (greedy maximum a posteriori of a
    determinantal point process, by pivoted Cholesky); the last to join goes first. `sample_diverse` draws from the
    process itself, as the paper does.

    Scores: group -> (units,), place in the order of deletion from 0; not comparable between groups; a group whose
    values no weight reads one by one is left out. Cost: one forward pass, O(u^2 N + u^3).
    Source: Mariet & Sra, Diversity Networks (2016), with the deterministic choice of Chen, Zhang & Zhou (2018).
    """
    scores: Scores = {}
    for group, kernel in _kernels(model, batch, beta, eps):
        joined = _greedy_map(kernel)
        scores[group.name] = places(group.width, joined[::-1])
    return scores


def sample_diverse(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    *,
    keep: float = 0.5,
    seed: int = 0,
    beta: float | None = None,
    eps: float = 0.01,
) -> Scores:
    """A draw from the process of `determinantal` with round(keep * units) units: 1 for those drawn, 0 for the others.

    P(Y) = det(L_Y) / sum of det(L_Z) over all Z as large. Repair after the cut, by `pared.compensate`, is the paper's
    fusing with an intercept.

    Scores: group -> (units,), 1 or 0. Cost: one forward pass, O(u^2 N + u^3). Source: Mariet & Sra (2016); Kulesza &
    Taskar, k-DPPs (2011), for the exact sampler.
    """
    generator = np.random.default_rng(seed)
    scores: Scores = {}
    for group, kernel in _kernels(model, batch, beta, eps):
        chosen = draw_diverse(kernel.numpy(), max(1, round(keep * group.width)), generator)
        scores[group.name] = torch.zeros(group.width)
        scores[group.name][chosen] = 1.0
    return scores


def _kernels(model: nn.Module, batch: Batch, beta: float | None, eps: float) -> Iterator[tuple[Group, Tensor]]:
    batch = suited_batch(batch, model)
    structure = trace(model, example(batch.x))
    values = read_values(model, structure, batch.x)
    for group in structure:
        reader = next((s for s in group.slices if s.role == "out" and s.parameter in values), None)
        if reader is not None:
            read = values[reader.parameter].double().cpu()
            index = torch.tensor([reader.indices(group.width, [j]) for j in range(group.width)])
            of_units = read[:, index].movedim(1, 0).reshape(group.width, -1)
            rate = 10 / of_units.shape[1] if beta is None else beta
            kernel = torch.exp(-rate * torch.cdist(of_units, of_units).square())
            yield group, kernel + eps * torch.eye(group.width, dtype=torch.float64)


def _greedy_map(kernel: Tensor) -> list[int]:
    """Units in the order in which they raise the determinant most: a pivoted Cholesky decomposition.

    Alone all units are worth the same: the one least like all others begins.
    """
    gain, factor = kernel.diagonal().clone(), torch.zeros_like(kernel)
    order: list[int] = []
    for step in range(len(kernel)):
        j = int(gain.argmax()) if order else int(kernel.sum(dim=1).argmin())
        factor[step] = (kernel[j] - factor[:step, j] @ factor[:step]) / gain[j].sqrt()
        gain = gain - factor[step].square()
        order.append(j)
        gain[order] = -torch.inf
    return order


def draw_diverse(kernel: Floats, k: int, generator: np.random.Generator) -> list[int]:
    """k indices, with probability proportional to the determinant of their part of a positive semi-definite kernel.

    Which eigenvectors take part is drawn by elementary symmetric polynomials, scaled so that they stay in range; then
    index after index by how much of it the space they span still holds. Raises ValueError for k outside 1..n.
    """
    n = len(kernel)
    if not 1 <= k <= n:
        raise ValueError(f"a sample of {k} of {n} units cannot be drawn; ask for 1 to {n}")
    eigenvalues, vectors = np.linalg.eigh(kernel)
    eigenvalues = np.maximum(eigenvalues, 0.0) / eigenvalues.mean()
    log_sums = np.full((k + 1, n + 1), -np.inf)
    log_sums[0] = 0.0
    with np.errstate(divide="ignore"):
        logs = np.log(eigenvalues)
    for m in range(1, n + 1):
        log_sums[1:, m] = np.logaddexp(log_sums[1:, m - 1], logs[m - 1] + log_sums[:-1, m - 1])
    taken: list[int] = []
    for m in range(n, 0, -1):
        left = k - len(taken)
        if left and (
            m == left or np.log(generator.random()) < logs[m - 1] + log_sums[left - 1, m - 1] - log_sums[left, m]
        ):
            taken.append(m - 1)
    span, chosen = vectors[:, taken], []
    for _ in range(k):
        weight = np.square(span).sum(axis=1)
        chosen.append(int(generator.choice(n, p=weight / weight.sum())))
        column = int(np.abs(span[chosen[-1]]).argmax())
        rest = span - np.outer(span[:, column], span[chosen[-1]] / span[chosen[-1], column])
        span = np.linalg.qr(np.delete(rest, column, axis=1))[0]
    return sorted(chosen)
