"""Criteria that score whole hidden layers and residual blocks: name -> one number, higher = keep.

They score what `pared.surgery.droppable` names. X (rows, d) is what the readers of a layer would read without it, Y
(rows, d') what they read, Z what they make of it before their bias; a row is a sample, or one of its steps. Of a
residual block X enters and Y leaves; of one with convolutions a row is a place, its channels the values. Convolutions
themselves cannot be dropped, as their readers could not be refitted to look at other channels. The network takes one
tensor.
"""

import copy
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pared.data.batches import even_places, suited_batch
from pared.distill import Lessons
from pared.moments import ridge_regression
from pared.signals import forked, module_calls, module_inputs, plain_parameters, private, tensor_of
from pared.surgery import StructureError, drop_layer
from pared.surgery.drop import droppable, dropped, is_layer, without
from pared.training import TrainConfig, fit_many
from pared.types import Batch, Loss, Scores

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ROWS = 2048
"""How many rows, evenly spread, the measures that compare rows with each other look at."""


class _Seen(NamedTuple):
    x: Tensor
    y: Tensor
    weight: Tensor | None = None


def replaceability(model: nn.Module, batch: Batch, loss: Loss, *, ridge: float = 1e-6) -> Scores:
    """What no linear map of the layer's input gives of what its readers make: the error that `drop_layer` leaves.

    r = sum ||Z - V X - c||^2 / sum ||Z - mean Z||^2 with the best V and c, over all readers; 0: dropping the layer
    changes nothing. Of a residual block, which goes without a refit, sum ||Y - X||^2 / sum ||Y - mean Y||^2.

    Scores: layer -> (), no unit, from 0, to 1 for a layer (a block may exceed it); comparable.
    Cost: two forward passes and O(rows d^2 + d^3) a layer. Raises StructureError where no layer can be dropped.
    Source: the residual of the least-squares operator, of which linear CKA (Kornblith et al. 2019) is a bound.
    """

    def residual(seen: list[_Seen]) -> Tensor:
        left = total = torch.zeros((), dtype=torch.float64)
        for x, y, weight in seen:
            z = y if weight is None else y @ weight.T
            if weight is None:
                fit = x
            else:
                matrix, shift = ridge_regression(x, z, ridge)
                fit = x @ matrix.T + shift
            left, total = left + (z - fit).square().sum(), total + (z - z.mean(dim=0)).square().sum()
        return left / total if total > 0 else left

    return _of_rows(model, batch, residual)


def block_influence(model: nn.Module, batch: Batch, loss: Loss) -> Scores:
    """1 - mean cosine of what enters and what leaves, row by row; layers that change the width are left out.

    Scores: layer -> (), no unit, in [0, 2]; comparable. Cost: two forward passes a layer.
    Raises StructureError where no layer keeps the width. Source: Men et al., ShortGPT (2024).
    """
    scores = _of_rows(
        model,
        batch,
        lambda seen: 1 - torch.cosine_similarity(seen[0].x, seen[0].y, dim=1, eps=1e-300).mean(),
        wanted=lambda seen: seen.x.shape == seen.y.shape,
    )
    if not scores:
        raise StructureError("no layer that can be dropped gives as many values as it takes; use replaceability or cka")
    return scores


def cka(model: nn.Module, batch: Batch, loss: Loss) -> Scores:
    """1 - linear centred kernel alignment of X and Y by the unbiased estimator; no rotation or factor matters.

    CKA = h(K, L) / sqrt(h(K, K) h(L, L)), K = X X^T and L = Y Y^T without their diagonals, n rows,
    h(K, L) = (tr(K L) + sum K sum L / ((n-1)(n-2)) - 2 sum(K L) / (n-2)) / (n (n-3)).

    Scores: layer -> (), no unit, about [0, 1] (the estimator may leave it a little); comparable. Needs 4 rows.
    Cost: two forward passes a layer, O(rows^2 d) over at most 2,048 rows.
    Source: Kornblith et al. (2019); Nguyen, Raghu & Kornblith (2021) for the estimator of Song et al. (2012).
    """
    return _of_rows(model, batch, lambda seen: 1 - unbiased_cka(*_at_most_rows(seen[0].x, seen[0].y)))


def unbiased_cka(x: Tensor, y: Tensor) -> Tensor:
    """Linear CKA of two sets of rows by the unbiased estimator. Raises ValueError for fewer than 4 rows."""
    n = len(x)
    if n < 4:
        raise ValueError(f"the unbiased estimator needs at least 4 rows, got {n}")
    kernels = [(part @ part.T).fill_diagonal_(0.0) for part in (x, y)]

    def independence(k: Tensor, m: Tensor) -> Tensor:
        both = k.sum() * m.sum() / ((n - 1) * (n - 2))
        return ((k * m).sum() + both - 2 * (k.sum(dim=0) @ m.sum(dim=0)) / (n - 2)) / (n * (n - 3))

    one, two = kernels
    size = (independence(one, one) * independence(two, two)).clamp_min(0).sqrt()
    return independence(one, two) / size if size > 0 else torch.zeros(())


def layer_ablation(model: nn.Module, batch: Batch, loss: Loss, *, ridge: float = 1e-6) -> Scores:
    """The loss that dropping a layer adds, its readers refitted by least squares as `drop_layer` does.

    Scores: layer -> (), unit of the loss, any sign; comparable. Cost: four forward passes a layer.
    Raises StructureError where no layer can be dropped. Source: ablation with the operator that is then used.
    """
    batch = suited_batch(batch, model)
    whole = _loss(model, batch, loss)
    return {
        name: _loss(drop_layer(model, name, batch.x, ridge=ridge)[0], batch, loss) - whole
        for name in _layers(model, batch)
    }


def recovery(
    model: nn.Module, batch: Batch, loss: Loss, *, epochs: int = 30, lr: float = 1e-2, ridge: float = 1e-6
) -> Scores:
    """The loss that dropping a layer adds once what is left was trained on for a while: what training cannot make up.

    Readers are refitted by least squares as `drop_layer` does, then Adam trains all weights on the batch, `epochs`
    times 64 of its examples at a step. In deep recurrent networks the layer that is easiest to replace at once is
    seldom the one that training does best without.

    Scores: layer -> (), unit of the loss, any sign; comparable. Cost: `epochs` trainings on the batch a layer.
    Raises StructureError where no layer can be dropped. Source: `layer_ablation` with the training that follows a cut.
    """
    batch = suited_batch(batch, model)
    whole, names = _loss(model, batch, loss), _layers(model, batch)
    smaller = [drop_layer(model, name, batch.x, ridge=ridge)[0] for name in names]
    lessons, config = Lessons(batch, Batch(batch.x[:0], batch.y[:0])), TrainConfig(epochs=epochs, lr=lr, batch_size=64)
    fits = fit_many(smaller, [lessons] * len(names), [config] * len(names), loss)
    return {name: _loss(each.model, batch, loss) - whole for name, each in zip(names, fits, strict=True)}


def probe_gain(model: nn.Module, batch: Batch, loss: Loss) -> Scores:
    """How much better a linear probe predicts the targets from Y than from X, on rows it was not fitted to.

    Targets of whole numbers: accuracy of a logistic regression; others: R^2 of a ridge regression; both on
    standardised values of the last step (of images: means over places), fitted to every other sample and measured on
    the rest. `loss` is not used.

    Scores: layer -> (), share right or of variance, any sign; comparable. Cost: two forward passes and two probes a
    layer. Source: Alain & Bengio, Understanding intermediate layers using linear classifier probes (2016).
    """
    batch = suited_batch(batch, model)
    target = batch.y.detach().cpu()

    def gain(seen: list[_Seen]) -> Tensor:
        return torch.tensor(_probe(seen[0].y, target) - _probe(seen[0].x, target), dtype=torch.float64)

    return _of_rows(model, batch, gain, flat=False)


def _probe(values: Tensor, target: Tensor) -> float:
    values = values.flatten(1, -2).mean(dim=1) if values.dim() > 3 else values
    values = (values[:, -1] if values.dim() > 2 else values).cpu()
    linear, preprocessing, pipeline = (  # here, since they take a second to import
        import_module(f"sklearn.{name}") for name in ("linear_model", "preprocessing", "pipeline")
    )
    probe = linear.Ridge() if target.is_floating_point() else linear.LogisticRegression(max_iter=1000)
    fitted = pipeline.make_pipeline(preprocessing.StandardScaler(), probe).fit(values[::2].numpy(), target[::2].numpy())
    return float(fitted.score(values[1::2].numpy(), target[1::2].numpy()))


def reinitialisation(model: nn.Module, batch: Batch, loss: Loss, *, draws: int = 5, seed: int = 0) -> Scores:
    """The loss that fresh weights in one layer add, mean over the draws; where the drawn weights do as well, it idles.

    Scores: layer -> (), unit of the loss, any sign; comparable. Cost: `draws` forward passes a layer.
    Raises StructureError where no layer can be dropped. Source: Tang et al., SR-init (2023).
    """
    batch = suited_batch(batch, model)
    whole = _loss(model, batch, loss)
    scores: Scores = {}
    for name in _layers(model, batch):
        losses = []
        for draw in range(draws):
            fresh = private(model)
            with forked(model):
                torch.manual_seed(seed + draw)
                for module in fresh.get_submodule(name).modules():
                    if callable(reset := getattr(module, "reset_parameters", None)):
                        reset()
            losses.append(_loss(fresh, batch, loss))
        scores[name] = torch.stack(losses).mean() - whole
    return scores


def _layers(model: nn.Module, batch: Batch) -> tuple[str, ...]:
    names = droppable(model, batch.x)
    if not names:
        raise StructureError(f"{type(model).__name__} has no hidden layer or residual block that could be dropped")
    return names


@torch.no_grad()
def _loss(model: nn.Module, batch: Batch, loss: Loss) -> Tensor:
    with forked(model):
        return loss(tensor_of(private(model)(batch.x)), batch.y).detach()


def _of_rows(
    model: nn.Module,
    batch: Batch,
    measure: Callable[[list[_Seen]], Tensor],
    wanted: Callable[[_Seen], bool] = lambda seen: True,
    flat: bool = True,
) -> Scores:
    """A measure of what each layer's readers would see and see; in float64, one entry a reader."""
    batch = suited_batch(batch, model)
    like = next(model.parameters())
    scores: Scores = {}
    for name in _layers(model, batch):
        seen = _seen(model, name, batch.x)
        if flat:
            seen = [_Seen(x.flatten(0, -2), y.flatten(0, -2), weight) for x, y, weight in seen]
        if wanted(seen[0]):
            scores[name] = measure(seen).to(like).detach()
    return scores


def _seen(model: nn.Module, name: str, x: Tensor) -> list[_Seen]:
    if not is_layer(model, name):
        ((enters, leaves),) = module_calls(model, [name], x)[name]
        if any(isinstance(module, CONVOLUTIONS) for module in model.get_submodule(name).modules()):
            enters, leaves = enters.movedim(1, -1), leaves.movedim(1, -1)
        return [_Seen(enters.double(), leaves.double())]
    edit, weights = without(model, name, x), plain_parameters(model)
    paths = {reader.parameter: reader.parameter.rpartition(".")[0] for reader in edit.readers}
    old = module_inputs(model, paths.values(), x)
    new = module_inputs(dropped(copy.deepcopy(model), edit), paths.values(), x)
    return [_Seen(new[path].double(), old[path].double(), weights[weight].double()) for weight, path in paths.items()]


def _at_most_rows(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    places = even_places(len(x), ROWS).to(x.device)
    return x[places], y[places]
