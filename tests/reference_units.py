"""Slow twins of the criteria that score units, written as the formulas read."""

import itertools
import math

import numpy as np
import torch
from torch.func import functional_call

from reference import scaled_readers
from reference_curvature import plain


def indices(group, s, unit):
    return [s.offset + b * group.width * s.inner + unit * s.inner + i for b in range(s.blocks) for i in range(s.inner)]


def norm(model, structure, side):
    """Mean |w| over the matrix entries that read ("out") or make ("in") a unit, one entry at a time."""
    parameters = dict(model.named_parameters())
    found = {}
    for group in structure:
        found[group.name] = []
        for j in range(group.width):
            sizes = []
            for s in group.slices:
                if s.role == side and parameters[s.parameter].dim() > 1:
                    for k in indices(group, s, j):
                        sizes += parameters[s.parameter].detach().select(s.axis, k).abs().flatten().tolist()
            found[group.name].append(sum(sizes) / len(sizes) if sizes else None)
    return found


def entropy(values, threshold):
    """-(p log2 p + q log2 q) of each column's share p of values above the threshold."""
    found = []
    for column in np.asarray(values).T:
        p = sum(value > threshold for value in column) / len(column)
        found.append(-sum(q * math.log2(q) for q in (p, 1 - p) if q > 0))
    return found


@torch.no_grad()
def derivatives(model, structure, batch, loss, step=1e-3):
    """(first, second) derivative of the loss with respect to the gate of each unit, by central differences."""
    found = {}
    for group in structure:
        found[group.name] = []
        for j in range(group.width):
            down, mid, up = (
                float(loss(scaled_readers(model, structure, group.name, j, 1 + d)(batch.x), batch.y))
                for d in (-step, 0.0, step)
            )
            found[group.name].append(((up - down) / (2 * step), (up - 2 * mid + down) / step**2))
    return found


def merged_order(made, read):
    """Deletions (j, i) of data-free pruning: the whole table of saliencies, made anew every time."""
    made, read = np.array(made), np.array(read)
    left, order = list(range(len(made))), []
    while len(left) > 1:
        table = {
            (i, j): np.mean(read[j] ** 2) * np.sum((made[i] - made[j]) ** 2) for i, j in itertools.permutations(left, 2)
        }
        i, j = min(table, key=table.get)
        read[i] = read[i] + read[j]
        left.remove(j)
        order.append((j, i))
    return order


def residual(weight, second, lost):
    """Least mean squared error of W h once the lost columns are refitted from the others, by the normal equations."""
    kept = [k for k in range(len(second)) if k not in lost]
    matrix = np.linalg.solve(second[np.ix_(kept, kept)], second[np.ix_(kept, lost)]).T
    left = second[np.ix_(lost, lost)] - matrix @ second[np.ix_(kept, lost)]
    return float(np.trace(weight[:, lost] @ left @ weight[:, lost].T))


def eliminated(weight, second):
    """Columns in the order in which backward elimination by `residual` takes them out."""
    gone = []
    while len(gone) < len(second) - 1:
        rest = [j for j in range(len(second)) if j not in gone]
        gone.append(min(rest, key=lambda j: residual(weight, second, [*gone, j])))
    return gone


def greedy_subset(kernel):
    """Indices in the order in which they raise the determinant most, every determinant computed; least alike first."""
    order = [int(np.argmin(kernel.sum(axis=1)))]
    while len(order) < len(kernel):
        rest = [j for j in range(len(kernel)) if j not in order]
        order.append(max(rest, key=lambda j: np.linalg.det(kernel[np.ix_([*order, j], [*order, j])])))
    return order


def k_dpp(kernel, k):
    """Subset -> probability, by all determinants."""
    sizes = {c: np.linalg.det(kernel[np.ix_(c, c)]) for c in itertools.combinations(range(len(kernel)), k)}
    return {c: size / sum(sizes.values()) for c, size in sizes.items()}


def along_gate(model, structure, group, unit, values):
    """(first, second) derivative of every entry of `values(network)` in the factor with which one unit is read, at 1.

    By autograd, one unit and one entry at a time; the network is written out, so that every step has two derivatives.
    """
    written, _, _ = plain(model)
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    tensors = dict(written.named_parameters())
    for s in structure[group].slices:
        if s.role == "out":
            rows = tensors[s.parameter]
            gates = torch.stack(
                [
                    factor if k in indices(structure[group], s, unit) else torch.ones((), dtype=torch.float64)
                    for k in range(rows.shape[s.axis])
                ]
            )
            tensors[s.parameter] = rows * gates.reshape([-1 if d == s.axis else 1 for d in range(rows.dim())])
    found = []
    for value in values(lambda x: functional_call(written, tensors, (x,))).flatten():
        (first,) = torch.autograd.grad(value, factor, create_graph=True, materialize_grads=True)
        second = torch.zeros(())
        if first.requires_grad:
            (second,) = torch.autograd.grad(first, factor, retain_graph=True, materialize_grads=True)
        found.append((float(first.detach()), float(second)))
    return found


def taylor(model, structure, batch, loss=None, power=2):
    """Mean over samples of the sum over outputs (or of the loss) of |derivative|^power."""
    scores = {}
    for group in structure:
        scores[group.name] = []
        for j in range(group.width):
            total = 0.0
            for n in range(len(batch.x)):
                x, y = batch.x[n : n + 1], batch.y[n : n + 1]

                def values(net, x=x, y=y):
                    return net(x) if loss is None else loss(net(x), y)

                total += sum(abs(first) ** power for first, _ in along_gate(model, structure, group.name, j, values))
            scores[group.name].append(total / len(batch.x))
    return scores


def foretold(model, structure, batch, loss, order, absolute=False):
    """-dL/dm + (1/2) d2L/dm2 of the batch, or the mean of its size over samples."""
    parts = [slice(n, n + 1) for n in range(len(batch.x))] if absolute else [slice(None)]
    scores = {}
    for group in structure:
        scores[group.name] = []
        for j in range(group.width):
            series = []
            for part in parts:
                ((first, second),) = along_gate(
                    model, structure, group.name, j, lambda net, p=part: loss(net(batch.x[p]), batch.y[p])
                )
                series.append(-first + (second / 2 if order == 2 else 0.0))
            scores[group.name].append(sum(map(abs, series)) / len(series) if absolute else series[0])
    return scores


def activation(values, statistic):
    """Mean size or standard deviation of every column."""
    columns = np.asarray(values).T
    if statistic == "mean":
        return [sum(abs(v) for v in column) / len(column) for column in columns]
    means = [sum(column) / len(column) for column in columns]
    return [
        math.sqrt(sum((v - m) ** 2 for v in column) / len(column)) for column, m in zip(columns, means, strict=True)
    ]
