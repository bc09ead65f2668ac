"""Criteria of first order, and those that are meant for networks before training."""

from typing import Literal

import torch
from torch import Tensor, nn

from pared.data.batches import example
from pared.signals import curvature as signals
from pared.signals import plain_parameters, prunable
from pared.signals.gates import each
from pared.signals.layout import OfWeights, gradient_of
from pared.types import Batch, Loss, Scores


def snip(model: nn.Module, batch: Batch, loss: Loss) -> Scores:
    """|g_i w_i| / sum_j |g_j w_j|: how much the loss moves, to first order, when a connection is scaled.

    Scores: weight parameter -> its shape, a share of 1, >= 0; comparable between layers. Near a minimum the gradient of
    the batch vanishes and the order is noise: for networks before training, or with per-sample gradients (`obd` with
    diagonal="fisher"). Cost: one forward and backward pass.
    Source: Lee, Ajanthan & Torr, SNIP (2019).
    """
    g = signals.gradient(model, batch, loss)
    size = (g * prunable(model).flat(plain_parameters(model)).to(g)).abs()
    return prunable(model).named(size / size.sum().clamp_min(torch.finfo(size.dtype).tiny))


def grasp(model: nn.Module, batch: Batch, loss: Loss, *, temperature: float = 1.0) -> Scores:
    """w_i [H g]_i: what removing a weight does to the gradient's length, the weights that lengthen it least kept last.

    Removing i changes g'g by about -2 w_i [H g]_i, so that a low (most negative) score is a weight whose removal makes
    the gradient longer. The paper scores -w_i [H g]_i and removes the highest; here the sign is turned, the set that
    goes is the same. `temperature` divides the output (the authors' code takes 200 for classification).

    Scores: weight parameter -> its shape, any sign; comparable between layers; for networks before training.
    Cost: a gradient and one Hessian-vector product. Raises: CurvatureError for a loss without second derivative.
    Source: Wang, Zhang & Grosse, Picking winning tickets before training by preserving gradient flow (2020).
    """

    def cooled(output: Tensor, target: Tensor) -> Tensor:
        return loss(output / temperature, target)

    g = signals.gradient(model, batch, cooled)
    (hg,) = signals.hessian_products(model, batch, cooled, g[None])
    return prunable(model).named(hg * prunable(model).flat(plain_parameters(model)).to(g))


def synflow(model: nn.Module, batch: Batch, loss: Loss) -> Scores:
    """w dR/dw with R = the sum of outputs for an input of ones, every weight made positive, without biases.

    It looks at no data. In networks of ReLU and linear layers the scores of every layer sum to the same, so that a
    global choice cannot empty one. One round is not the published method: that prunes in 100 rounds on an exponential
    schedule (`pared.gradual` with this criterion and no training). In float64, as R overflows in deep networks.

    Scores: weight parameter -> its shape, >= 0; comparable between layers. Cost: one forward and backward pass.
    Source: Tanaka, Kunin, Yamins & Ganguli, SynFlow (2020).
    """
    of = OfWeights(model, batch, loss)
    with torch.no_grad():
        for name, parameter in of.model.named_parameters():
            biased = name.rpartition(".")[2].startswith(("bias", "in_proj_bias"))
            parameter.copy_(torch.zeros_like(parameter) if biased else parameter.abs())
    ones = each(example(of.x), lambda part: torch.ones_like(part) if part.is_floating_point() else part)
    with of.looking():
        weights = of.weights.abs().requires_grad_()
        return of.layout.named((gradient_of(of.output(weights, ones).sum(), weights) * weights).detach())


def movement(
    model: nn.Module, batch: Batch, loss: Loss, *, steps: int = 50, lr: float = 1e-2, density: float = 1.0
) -> Scores:
    """-sum_t g_t w_t over a short fine-tuning: weights that move away from zero are kept, wherever they are.

    A private copy takes `steps` steps of gradient descent on the whole batch; g_t is the gradient at the weights as the
    network sees them, of which only the best `density` (by the score so far) are open, while all are moved (straight
    through).

    Scores: weight parameter -> its shape, unit of the loss, any sign; comparable between layers.
    Cost: `steps` forward and backward passes.
    Source: Sanh, Wolf & Rush, Movement pruning (2020).
    """
    of = OfWeights(model, batch, loss)
    weights, scores = of.weights.clone(), torch.zeros_like(of.weights)
    for _ in range(steps):
        seen = weights
        if density < 1:
            lowest = scores.topk(max(1, round(density * len(scores)))).values[-1]
            seen = torch.where(scores < lowest, 0.0, weights)
        with of.looking():
            at = seen.clone().requires_grad_()
            g = gradient_of(of.loss(at), at)
        scores -= g * weights
        weights = weights - lr * g
    return of.layout.named(scores)


def gradient_covariance(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    *,
    reading: Literal["saliency", "variance", "ranks"] = "saliency",
    steps: int = 0,
    lr: float = 1e-2,
    seed: int = 0,
) -> Scores:
    """C_ii w_i^2 / 2, C the covariance of the samples' gradients: weights on which the samples do not pull apart go.

    C = (1/N) sum_n (g_n - g)(g_n - g)' at the network's weights. With `steps` it is found as published, while a private
    copy goes down on minibatches of a quarter of the batch (drawn from the seed, at rate `lr`), g_1 the gradient of a
    minibatch's first sample and g_S that of all of it; S / (S - 1) of it is C on average where the weights stay:

        C_t = (1 - 1/t) C_(t-1) + (1/t) (g_1 - g_S)(g_1 - g_S)'

    The paper freezes the weights of least C_ii, the reading "variance"; it does not delete them, for which C_ii alone
    says too little, as a large weight may have it small. At a minimum C is the empirical Fisher matrix, and
    C_ii w_i^2 / 2 what optimal brain damage foretells that deletion adds. "ranks" takes the ranks of C_ii, which the
    thesis of the method prints as its vector of indices, for a list of the numbers of weights, in the order in which
    they go: an order without meaning, kept to show what became of it.

    Scores: weight parameter -> its shape, unit of the loss squared ("variance": over that of the weight), or a place in
    the order ("ranks"), >= 0; comparable between layers.
    Cost: a vectorised backward pass, or 2 `steps` backward passes.
    Source: Grabovoy, Bakhteev & Strijov, Informatics and Applications 14(2) (2020).
    """
    of = OfWeights(model, batch, loss)
    if reading not in ("saliency", "variance", "ranks"):
        raise ValueError(f"unknown reading {reading!r}; choose saliency, variance or ranks")
    own = of.weights
    scores = _on_the_way(of, steps, lr, seed) if steps else signals.gradient_variances(model, batch, loss)
    if reading == "saliency":
        scores = scores * own.square() / 2
    elif reading == "ranks":  # number r_k goes as number k: the score of r_k is k
        scores = scores.argsort(stable=True).to(own)
    return of.layout.named(scores)


def _on_the_way(of: OfWeights, steps: int, lr: float, seed: int) -> Tensor:
    """The diagonal of C after so many steps of descent; moves the weights that `of` holds."""
    generator, variances = torch.Generator().manual_seed(seed), torch.zeros_like(of.weights)
    for step in range(1, steps + 1):
        pick = torch.randperm(of.samples, generator=generator)[: max(2, of.samples // 4)].to(of.y.device)
        whole = signals.gradient_at(of, pick)
        apart = signals.gradient_at(of, pick[:1]) - whole
        variances = variances + (apart.square() - variances) / step
        of.weights = of.weights - lr * whole
    return variances
