"""Trainings with one thing wrong, which is known since it was put there: what the diagnosis has to find."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from pared.models import MLP, Forecaster
from pared.tuning import Problem, Recipe
from pared.types import Batch


@dataclass(frozen=True)
class Case:
    """A problem, a recipe, and what is wrong with it."""

    problem: Problem
    recipe: Recipe
    verdict: str


def generator(seed):
    return torch.Generator().manual_seed(1000 + seed)


def surface(seed, noise=0.5, train=400, validation=200, inputs=4):
    """A smooth function of four inputs, with noise: numbers."""
    g = generator(seed)
    x = torch.randn(train + validation, inputs, generator=g)
    y = torch.sin(1.5 * x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + 0.5 * x[:, 3]
    y = (y + noise * torch.randn(len(x), generator=g))[:, None]
    return parted(x, y, train)


def clouds(seed, train=300, validation=200, apart=2.5, classes=3):
    """Three clouds of points in four dimensions, a tenth of them nearer to another: classes."""
    g = generator(seed)
    y = torch.randint(classes, (train + validation,), generator=g)
    centres = apart * torch.eye(classes, 4)
    return parted(centres[y] + torch.randn(len(y), 4, generator=g), y, train)


def parted(x, y, train):
    return SimpleNamespace(train=Batch(x[:train], y[:train]), validation=Batch(x[train:], y[train:]))


def dense(split, loss=mse_loss, adjust=lambda model: None):
    """A problem of numbers or classes for dense networks, with dropout where the recipe has some."""
    outputs = int(split.train.y.max()) + 1 if loss is cross_entropy else 1

    def build(recipe, seed):
        model = MLP(split.train.x.shape[1], recipe.hidden, outputs, recipe.activation, seed)
        with torch.no_grad():
            adjust(model)
        if recipe.dropout:
            parts = []
            for part in model.layers:
                parts += [part] if isinstance(part, nn.Linear) else [part, nn.Dropout(recipe.dropout)]
            model = nn.Sequential(*parts)
        return model

    return Problem(build, split, loss)


SOUND = Recipe(hidden=(32,), activation="tanh", epochs=150, lr=5e-3, batch_size=32, stop="best")


def fine(seed):
    return Case(dense(surface(seed)), SOUND, "fine")


def overfit(seed):
    split = surface(seed, noise=0.7, train=60, validation=400)
    return Case(dense(split), replace(SOUND, hidden=(64,), activation="relu", epochs=300, stop="last"), "overfit")


def underfit(seed):
    return Case(dense(surface(seed, noise=0.1)), replace(SOUND, hidden=(1,), epochs=150, lr=2e-2), "underfit")


def exploding(seed):
    """A recurrent network whose states multiply what they remember by three."""
    g = generator(seed)
    x = torch.randn(300, 30, 1, generator=g)
    y = x.mean(dim=1) * 5

    def build(recipe, seed):
        model = Forecaster(1, recipe.hidden, (), cell=recipe.cell, seed=seed)
        with torch.no_grad():
            model.recurrent[0].weight_hh_l0.mul_(3.0)
        return model

    recipe = Recipe(hidden=(16,), cell="rnn", epochs=20, lr=1e-2, optimiser="sgd")
    return Case(Problem(build, parted(x, y, 200)), recipe, "exploding gradients")


def vanishing(seed):
    recipe = replace(SOUND, hidden=(16,) * 12, activation="sigmoid", epochs=40)
    return Case(dense(surface(seed, noise=0.1)), recipe, "vanishing gradients")


def wrong_scale(seed):
    split = surface(seed, noise=0.1)
    scale = torch.tensor([1000.0, 1.0, 1.0, 0.01])
    train, validation = (Batch(part.x * scale, part.y) for part in (split.train, split.validation))
    return Case(dense(SimpleNamespace(train=train, validation=validation)), SOUND, "wrong scale")


def leaky_split(seed):
    """A third of the validation rows were trained on."""
    split = surface(seed)
    x, y = (torch.cat([a, b[:70]]) for a, b in zip(split.train, split.validation, strict=True))
    return Case(dense(SimpleNamespace(train=Batch(x, y), validation=split.validation)), SOUND, "leaky split")


def short_budget(seed):
    return Case(dense(surface(seed, noise=0.1)), replace(SOUND, epochs=4), "budget too small")


def dropout_artefact(seed):
    recipe = replace(SOUND, hidden=(16, 16), activation="relu", epochs=60, lr=1e-2, batch_size=64, dropout=0.5)
    return Case(dense(clouds(seed, apart=3.0), cross_entropy), recipe, "dropout artefact")


def dead_relus(seed):
    """Biases so low that most units are zero whatever the input."""

    def kill(model):
        model.layers[0].bias[: len(model.layers[0].bias) * 3 // 4] = -20.0

    return Case(dense(surface(seed, noise=0.1), adjust=kill), replace(SOUND, activation="relu"), "dead ReLUs")


def constant_predictor(seed):
    recipe = replace(SOUND, optimiser="adamw", weight_decay=100.0)
    return Case(dense(surface(seed, noise=0.1)), recipe, "constant predictor")


def label_noise(seed):
    """A quarter of the training labels are drawn anew."""
    split, g = clouds(seed), generator(seed + 50)
    drawn = torch.randint(3, split.train.y.shape, generator=g)
    y = torch.where(torch.rand(split.train.y.shape, generator=g) < 0.25, drawn, split.train.y)
    split = SimpleNamespace(train=Batch(split.train.x, y), validation=split.validation)
    return Case(dense(split, cross_entropy), replace(SOUND, activation="relu"), "label noise")


def unstable(seed):
    return Case(dense(surface(seed, noise=0.1)), replace(SOUND, lr=0.7, optimiser="sgd"), "unstable")


CASES: dict[str, Callable[[int], Case]] = {
    case.__name__: case
    for case in (
        overfit, underfit, exploding, vanishing, wrong_scale, leaky_split, short_budget, dropout_artefact, dead_relus,
        constant_predictor, label_noise, fine, unstable,
    )
}  # fmt: skip
