"""Slow twins of curvature and of the criteria made of it: one weight, one sample, one output at a time."""

import itertools

import numpy as np
import torch
from torch.func import functional_call

from pared.signals import prunable, unrolled


def plain(model):
    """The network written out and in evaluation mode, its prunable weights as one vector."""
    model = unrolled(model).eval()
    layout = prunable(model)
    return model, layout, layout.flat(dict(model.named_parameters())).detach()


def called(model, layout, weights, x):
    return functional_call(model, layout.named(weights), (x,))


def hessian(model, batch, loss):
    model, layout, weights = plain(model)
    return torch.autograd.functional.hessian(lambda w: loss(called(model, layout, w, batch.x), batch.y), weights)


def jacobian(model, x):
    """(outputs, size) of one sample, output by output."""
    model, layout, weights = plain(model)
    rows = []
    for k in range(called(model, layout, weights, x[None]).numel()):
        at = weights.clone().requires_grad_()
        rows.append(torch.autograd.grad(called(model, layout, at, x[None]).flatten()[k], at)[0])
    return torch.stack(rows)


def output_curvature(kind, output):
    """d2 loss / d output2 of one sample: of the mean squared error over outputs, or of cross entropy."""
    if kind == "mse":
        return 2 / output.numel() * torch.eye(output.numel(), dtype=output.dtype)
    p = torch.softmax(output.flatten(), dim=0)
    return torch.diag(p) - torch.outer(p, p)


def ggn(model, batch, kind):
    """(1/N) sum_i J_i' Lam_i J_i."""
    total = 0.0
    for n in range(len(batch.x)):
        j = jacobian(model, batch.x[n])
        total = total + j.T @ output_curvature(kind, model(batch.x[n : n + 1]).detach()) @ j
    return total / len(batch.x)


def fisher(model, batch, loss):
    """(1/N) sum_i g_i g_i'."""
    model, layout, weights = plain(model)
    total = 0.0
    for n in range(len(batch.x)):
        at = weights.clone().requires_grad_()
        g = torch.autograd.grad(loss(called(model, layout, at, batch.x[n : n + 1]), batch.y[n : n + 1]), at)[0]
        total = total + torch.outer(g, g)
    return total / len(batch.x)


def patches(x, kernel, padding=0):
    """(samples x places, channels x kernel) of a 2-d convolution of stride 1, place by place."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    rows = []
    for n in range(len(x)):
        for i in range(x.shape[2] - kernel + 1):
            for j in range(x.shape[3] - kernel + 1):
                rows.append(x[n, :, i : i + kernel, j : j + kernel].flatten())
    return np.array(rows)


def woodbury(rows, alpha):
    """Inverse of (1/N) sum_m x_m x_m' + alpha I by one row after the other: P <- P - P x x' P / (N + x' P x)."""
    inverse = np.eye(rows.shape[1]) / alpha
    for x in rows:
        t = inverse @ x
        inverse = inverse - np.outer(t, t) / (len(rows) + x @ t)
    return inverse


def removal(hessian, weights, gone, gradient=None):
    """The least of g'd + d'Hd / 2 over shifts d that set the weights `gone` to 0, and the shift: by elimination."""
    g = np.zeros(len(weights)) if gradient is None else gradient
    rest = [i for i in range(len(weights)) if i not in gone]
    shift = np.zeros(len(weights))
    for i in gone:
        shift[i] = -weights[i]
    if rest:
        right = -(g[rest] + hessian[np.ix_(rest, gone)] @ shift[list(gone)])
        shift[rest] = np.linalg.solve(hessian[np.ix_(rest, rest)], right)
    return float(g @ shift + shift @ hessian @ shift / 2), shift


def best_subset(hessian, weights, count):
    """The `count` weights whose removal adds least, by trying all subsets."""
    return min(itertools.combinations(range(len(weights)), count), key=lambda s: removal(hessian, weights, s)[0])


def lecun(layers, x, second, first, levenberg=False):
    """Optimal brain damage's recursion for one sample, entry by entry.

    `layers`: weights (out, in) with biases, or (f, f', f'') of an activation; `second`, `first`: derivatives of the
    sample's loss with respect to each output. Returns the h of every weight, the last layer first.
    """
    values = [np.asarray(x)]
    for layer in layers:
        if len(layer) == 2:
            values.append(layer[0] @ values[-1] + layer[1])
        else:
            values.append(np.array([layer[0](a) for a in values[-1]]))
    found, second, first = [], list(second), list(first)
    for layer, entered in zip(reversed(layers), reversed(values[:-1]), strict=True):
        if len(layer) == 2:
            w = layer[0]
            found.append(
                np.array([[second[i] * entered[j] ** 2 for j in range(w.shape[1])] for i in range(w.shape[0])])
            )
            second = [sum(w[i, j] ** 2 * second[i] for i in range(w.shape[0])) for j in range(w.shape[1])]
            first = [sum(w[i, j] * first[i] for i in range(w.shape[0])) for j in range(w.shape[1])]
        else:
            bend = [0.0 if levenberg else layer[2](a) * e for a, e in zip(entered, first, strict=True)]
            second = [layer[1](a) ** 2 * s + b for a, s, b in zip(entered, second, bend, strict=True)]
            first = [layer[1](a) * e for a, e in zip(entered, first, strict=True)]
    return found


def obc_row(w, hessian):
    """One row's removals, each by elimination anew: order, and what each adds to (w - w') H (w - w')' / 2."""
    left, order, losses, before = list(range(len(w))), [], [], 0.0
    while left:
        totals = {j: removal(hessian, w, [*order, j])[0] for j in left}
        order.append(min(totals, key=totals.get))
        losses.append(totals[order[-1]] - before)
        before = totals[order[-1]]
        left.remove(order[-1])
    return order, losses


def sparsegpt(w, hessian, ratio, block):
    """Column by column with the inverse of what is left to the right, inverted anew each time."""
    w, keep = w.copy(), np.ones(w.shape, dtype=bool)
    d = w.shape[1]
    for start in range(0, d, block):
        stop = min(start + block, d)
        first = [np.linalg.inv(hessian[i:, i:])[0, 0] for i in range(start, stop)]
        cost = [(w[o, start + k] ** 2 / first[k], o, start + k) for o in range(len(w)) for k in range(stop - start)]
        for _, o, i in sorted(cost)[: round(ratio * len(cost))]:
            keep[o, i] = False
        for i in range(start, stop):
            inverse = np.linalg.inv(hessian[i:, i:])
            for o in range(len(w)):
                if not keep[o, i]:
                    w[o, i:] -= w[o, i] / inverse[0, 0] * inverse[0]
                    w[o, i] = 0.0
    return keep, w


def synflow(weights):
    """w dR/dw of a chain of linear layers without biases and ReLU: the sum over all paths through each weight."""
    sizes = [np.abs(w) for w in weights]
    scores = []
    for k, w in enumerate(sizes):
        into = np.ones(sizes[0].shape[1])
        for before in sizes[:k]:
            into = before @ into
        out = np.ones(sizes[-1].shape[0])
        for after in reversed(sizes[k + 1 :]):
            out = out @ after
        scores.append(out[:, None] * w * into[None, :])
    return scores


def gradients(model, batch, loss):
    """(samples, size): the gradient of each sample's loss."""
    model, layout, weights = plain(model)
    rows = []
    for n in range(len(batch.x)):
        at = weights.clone().requires_grad_()
        value = loss(called(model, layout, at, batch.x[n : n + 1]), batch.y[n : n + 1])
        rows.append(torch.autograd.grad(value, at)[0])
    return torch.stack(rows)


def gradient_covariance(model, batch, loss, picks, lr):
    """C_t = (1 - 1/t) C_(t-1) + (1/t) d d', d the first sample's gradient less the minibatch's, over minibatches."""
    model, layout, weights = plain(model)
    covariance = torch.full((len(weights), len(weights)), 0.5, dtype=torch.float64)  # forgotten at t = 1
    for t, pick in enumerate(picks, 1):
        rows = []
        for n in pick:
            at = weights.clone().requires_grad_()
            value = loss(called(model, layout, at, batch.x[n : n + 1]), batch.y[n : n + 1])
            rows.append(torch.autograd.grad(value, at)[0])
        mean = sum(rows) / len(rows)
        apart = rows[0] - mean
        covariance = (1 - 1 / t) * covariance + torch.outer(apart, apart) / t
        weights = weights - lr * mean
    return covariance


def unit_weights(model, group, role=None):
    """For every unit the places of the weights that make or read it, found by marking entries one by one."""
    _, layout, _ = plain(model)
    places = []
    for j in range(group.width):
        marks = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in layout.shapes.items()}
        for s in group.slices:
            if s.parameter in marks and role in (None, s.role):
                for b in range(s.blocks):
                    for i in range(s.inner):
                        marks[s.parameter].movedim(s.axis, 0)[
                            s.offset + b * group.width * s.inner + j * s.inner + i
                        ] = True
        places.append(layout.flat(marks).nonzero().flatten().tolist())
    return places


def hard_thresholding(hessian, weights, count, steps=100):
    """Projected gradient steps of 17 lengths, doubled each time, an exact solve on every support; dense."""
    n = len(weights)

    def largest(values):
        return set(np.argsort(-np.abs(values), kind="stable")[:count].tolist())

    def solved(support):
        gone = [i for i in range(n) if i not in support]
        return removal(hessian, weights, gone)

    bound = np.linalg.eigvalsh(hessian)[-1]
    support = largest(weights)
    best, shift = solved(support)
    for _ in range(steps):
        slope = hessian @ shift
        trials = [largest(weights + shift - 2.0**power / bound * slope) for power in range(17)]
        value, _, trial = min((solved(trial)[0], k, trial) for k, trial in enumerate(trials))
        if value >= best * (1 - 1e-12):
            break
        support, (best, shift) = trial, solved(trial)
    return np.array([weights[i] + shift[i] if i in support else 0.0 for i in range(n)])
