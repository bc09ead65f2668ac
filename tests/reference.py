"""Slow twins: loops written as the formulas read, against which the fast code is tested."""

import copy
import math

import numpy as np
import torch
from torch import nn


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def recurrent_states(module: nn.RNNBase, x, clamped=(), layer: int = 0):
    """States (samples, time, units) of one layer, one sample and one step at a time; clamped units are read as 0.

    `x` (samples, time, inputs) is what enters the layer.
    """
    weights = {name: p.detach().numpy() for name, p in module.named_parameters()}
    w, u = weights[f"weight_ih_l{layer}"], weights[f"weight_hh_l{layer}"]
    b = weights.get(f"bias_ih_l{layer}", np.zeros(len(w)))
    d = weights.get(f"bias_hh_l{layer}", np.zeros(len(w)))
    width = u.shape[1]
    states = np.zeros((*x.shape[:2], width))
    for n in range(len(x)):
        h, c = np.zeros(width), np.zeros(width)
        for t in range(x.shape[1]):
            seen = h.copy()
            seen[list(clamped)] = 0.0
            h, c = _step(module, w @ x[n, t] + b, u @ seen + d, h, c)
            states[n, t] = h
    return states


def _step(module, entering, fed_back, h, c):
    width = len(h)
    blocks = [slice(k * width, (k + 1) * width) for k in range(len(entering) // width)]
    if isinstance(module, nn.LSTM):
        i, f, g, o = (entering[k] + fed_back[k] for k in blocks)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    if isinstance(module, nn.GRU):
        r = sigmoid(entering[blocks[0]] + fed_back[blocks[0]])
        z = sigmoid(entering[blocks[1]] + fed_back[blocks[1]])
        n = np.tanh(entering[blocks[2]] + r * fed_back[blocks[2]])
        return (1 - z) * n + z * h, c
    total = entering + fed_back
    return (np.maximum(total, 0) if module.nonlinearity == "relu" else np.tanh(total)), c


def forecast(model, x, clamped=None):
    """A `Forecaster`'s output and the states of its recurrent layers, with units clamped to 0 wherever they are read.

    `clamped`: group name -> units.
    """
    clamped = clamped or {}
    entering, states = x.detach().numpy(), []
    for k, layer in enumerate(model.recurrent):
        gone = list(clamped.get(f"recurrent.{k}.l0", ()))
        states.append(recurrent_states(layer, entering, gone))
        entering = states[-1].copy()
        entering[..., gone] = 0.0
    values = entering[:, -1]
    for k, layer in enumerate(model.head):
        values = values @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
        values[:, list(clamped.get(f"head.{k}", ()))] = 0.0
    return values, states


def junk(weight, gate: int, direction: str = "out", row_normalise: bool = False):
    """s_out[k] = (1/u) sum_j |W[j, k]|, s_in[j] = (1/u) sum_k |W[j, k]| of one gate's block of weight_hh."""
    u = weight.shape[1]
    w = [[abs(weight[gate * u + j, k].item()) for k in range(u)] for j in range(u)]
    if row_normalise:
        w = [[value / sum(row) for value in row] for row in w]
    if direction == "out":
        return [sum(w[j][k] for j in range(u)) / u for k in range(u)]
    return [sum(w[j][k] for k in range(u)) / u for j in range(u)]


def scaled_readers(model, structure, group: str, unit: int, factor: float):
    """A copy in which whatever reads one unit reads `factor` times its value, entry by entry."""
    changed = copy.deepcopy(model).eval()
    parameters = dict(changed.named_parameters())
    g = structure[group]
    with torch.no_grad():
        for s in g.slices:
            if s.role == "out":
                weight = parameters[s.parameter].movedim(s.axis, 0)
                for b in range(s.blocks):
                    for i in range(s.inner):
                        weight[s.offset + b * g.width * s.inner + unit * s.inner + i] *= factor
    return changed


@torch.no_grad()
def ablation(model, structure, batch, loss):
    """Loss with one unit's readers set to zero, minus the loss, unit by unit."""
    whole = loss(copy.deepcopy(model).eval()(batch.x), batch.y)
    return {
        group.name: [
            float(loss(scaled_readers(model, structure, group.name, j, 0.0)(batch.x), batch.y) - whole)
            for j in range(group.width)
        ]
        for group in structure
    }


@torch.no_grad()
def taylor(model, structure, batch, loss=None, power: int = 2, step: float = 1e-5):
    """mean over samples of sum over outputs of |dy/dm_j|^power by central differences, one sample at a time."""
    scores = {}
    for group in structure:
        scores[group.name] = []
        for j in range(group.width):
            up, down = (scaled_readers(model, structure, group.name, j, 1 + sign * step) for sign in (1, -1))
            total = 0.0
            for n in range(len(batch.x)):
                x, y = batch.x[n : n + 1], batch.y[n : n + 1]
                a, b = (up(x), down(x)) if loss is None else (loss(up(x), y), loss(down(x), y))
                total += float((((a - b) / (2 * step)).abs() ** power).sum())
            scores[group.name].append(total / len(batch.x))
    return scores


def ridge_fit(kept, lost, ridge: float, intercept: bool):
    """A (lost, kept) and a (lost,) that minimise ||lost - A kept - a||^2 / rows + r ||A||^2 by `np.linalg.lstsq`.

    r = ridge * the mean second moment of the kept columns (about their mean where there is an intercept).
    """
    rows, k = kept.shape
    mean_k = kept.mean(axis=0) if intercept else np.zeros(k)
    mean_l = lost.mean(axis=0) if intercept else np.zeros(lost.shape[1])
    centred = kept - mean_k
    r = ridge * float(np.mean(np.sum(centred**2, axis=0) / rows))
    design = np.vstack([centred / math.sqrt(rows), math.sqrt(r) * np.eye(k)])
    target = np.vstack([(lost - mean_l) / math.sqrt(rows), np.zeros((k, lost.shape[1]))])
    matrix = np.linalg.lstsq(design, target, rcond=None)[0].T
    return matrix, mean_l - matrix @ mean_k


def repaired(weight, bias, values, kept, lost, ridge: float, intercept: bool):
    """Weight (out, units) and bias (out,) after W_K += W_D A, b += W_D a; `values` (rows, units) is what W reads."""
    matrix, shift = ridge_fit(values[:, kept], values[:, lost], ridge, intercept)
    weight, bias = weight.copy(), bias.copy()
    weight[:, kept] += weight[:, lost] @ matrix
    if intercept:
        bias += weight[:, lost] @ shift
    return weight, bias


def lowest(scores: dict[str, list[float]], count: int) -> dict[str, set[int]]:
    """Removes `count` units, the lowest first, never a group's last one; equal scores: first group, lower index."""
    left = {name: dict(enumerate(values)) for name, values in scores.items()}
    for _ in range(count):
        best = None
        for name, values in left.items():
            for unit, score in values.items():
                if len(values) > 1 and (best is None or score < best[0]):
                    best = (score, name, unit)
        assert best is not None
        del left[best[1]][best[2]]
    return {name: set(values) for name, values in left.items()}


def above(scores: dict[str, list[float]], value: float, relative: bool) -> dict[str, set[int]]:
    """Keeps units that score at least the threshold, and in each group at least the best one."""
    kept = {}
    for name, values in scores.items():
        limit = value * sum(values) / len(values) if relative else value
        kept[name] = {j for j, v in enumerate(values) if v >= limit}
        if not kept[name]:
            kept[name] = {max(range(len(values)), key=lambda j: (values[j], j))}
    return kept


def by_unit(scores, structure, role=None):
    """Mean score of the weights that make or read each unit, weight by weight."""
    found = {}
    for group in structure:
        units = []
        for j in range(group.width):
            values = []
            for s in group.slices:
                if s.parameter in scores and role in (None, s.role):
                    tensor = scores[s.parameter]
                    for b in range(s.blocks):
                        for i in range(s.inner):
                            index = s.offset + b * group.width * s.inner + j * s.inner + i
                            values += tensor.select(s.axis, index).reshape(-1).tolist()
            units.append(values)
        if units[0]:
            found[group.name] = [sum(values) / len(values) for values in units]
    return found


def repaired_convolution(weight, bias, values, kept, lost, ridge: float):
    """As `repaired` for a convolution's weight (out, in, *kernel): one A for all its places, entry by entry.

    `values` (rows, channels); without a bias the fit has no intercept.
    """
    matrix, shift = ridge_fit(values[:, kept], values[:, lost], ridge, bias is not None)
    new, new_bias = weight.copy(), None if bias is None else bias.copy()
    for o in range(weight.shape[0]):
        for place in np.ndindex(weight.shape[2:]):
            for k, channel in enumerate(kept):
                for d, gone in enumerate(lost):
                    new[(o, channel, *place)] += weight[(o, gone, *place)] * matrix[d, k]
            if bias is not None:
                for d, gone in enumerate(lost):
                    new_bias[o] += weight[(o, gone, *place)] * shift[d]
    return new, new_bias


def surviving_units(layers):
    """Units that stay in a dense network of (weight, bias) pairs, a set for each hidden layer.

    A unit goes when no unit that stays, or output, reads it, or when it is a constant: all that it reads is.
    """
    constant = [set() for _ in layers]
    for k, (weight, _) in enumerate(layers[:-1]):
        for j in range(len(weight)):
            reads = [i for i in range(weight.shape[1]) if weight[j, i] != 0]
            if all(k > 0 and i in constant[k - 1] for i in reads):
                constant[k].add(j)
    alive = [set() for _ in layers]
    alive[-1] = set(range(len(layers[-1][0])))
    for k in range(len(layers) - 2, -1, -1):
        above = layers[k + 1][0]
        for j in range(above.shape[1]):
            if j not in constant[k] and any(above[i, j] != 0 for i in alive[k + 1]):
                alive[k].add(j)
    return alive[:-1]
