"""Autoencoders trained level by level: all of a level, or what is new fast and the rest slowly or not at all."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pared.models import Autoencoder
from pared.seeds import seed_of
from pared.training.fit import TrainConfig, fit
from pared.types import Batch, DivergedError

Network = TypeVar("Network", bound=nn.Module)


class Level(nn.Module):
    """Level l of an autoencoder, alone in learning: h_(l-1) -> what its decoder makes of h_l."""

    def __init__(self, model: Autoencoder, level: int) -> None:
        super().__init__()
        self.whole, self.level = copy.deepcopy(model).requires_grad_(False), level
        for name in names_of(level):
            self.whole.get_parameter(name).requires_grad_(True)

    def forward(self, below: Tensor) -> Tensor:
        return self.whole.decode_level(self.whole.encode_level(below, self.level), self.level)


class Plastic(nn.Module):
    """A level whose last `new` units learn; old rows of its encoder are no parameters, and cannot move.

        decoder: W = W_0 + r V, b = b_0 + r v, from V = v = 0;  r = 1 in the last `fresh` rows, `rate` in the others

    A step of V by Adam is as long as one of any weight, whatever r is, so that the decoder makes r times that.
    """

    def __init__(self, model: Autoencoder, level: int, new: int, fresh: int, rate: float) -> None:
        super().__init__()
        self.net = Level(model, level).requires_grad_(False)
        self.names = names_of(level)
        weight, bias, out_weight, out_bias = (model.get_parameter(name).detach() for name in self.names)
        self.old = len(weight) - new
        self.weight, self.bias = (nn.Parameter(each[self.old :].clone()) for each in (weight, bias))
        self.move, self.shift = (nn.Parameter(torch.zeros_like(each)) for each in (out_weight, out_bias))
        rates = torch.full_like(out_bias, rate)
        rates[len(rates) - fresh :] = 1.0
        self.register_buffer("rates", rates)

    def tensors(self) -> dict[str, Tensor]:
        """The level's weights and biases as they are now, by their names in the autoencoder."""
        weight, bias, out_weight, out_bias = (self.net.whole.get_parameter(name) for name in self.names)
        rates = self.get_buffer("rates")
        now = (
            torch.cat([weight[: self.old], self.weight]),
            torch.cat([bias[: self.old], self.bias]),
            out_weight + rates[:, None] * self.move,
            out_bias + rates * self.shift,
        )
        return dict(zip(self.names, now, strict=True))

    def forward(self, below: Tensor) -> Tensor:
        named = {f"whole.{name}": tensor for name, tensor in self.tensors().items()}
        out: Tensor = functional_call(self.net, named, (below,))
        return out


@dataclass(frozen=True)
class Rows:
    """Data for `fit`: rows as inputs and as targets."""

    train: Batch
    validation: Batch


def fit_stacked(model: Autoencoder, x: Tensor, config: TrainConfig) -> Autoencoder:
    """A copy trained greedily on x (rows, inputs): level after level, each rebuilds what the one below gives.

    So every level's decoder can be used after its own encoder, and not only after deeper ones as where `fit` trains all
    levels at once. Cost: a training of one level for each. Raises ValueError for tied autoencoders, DivergedError where
    a loss ceases to be finite. Source: Bengio et al., Greedy layer-wise training of deep networks (2007).
    """
    check_untied(model)
    for level in range(1, model.levels + 1):
        model = stability(model, level, x, replace(config, seed=seed_of(config.seed, level)), 1.0)
    return model


def plasticity(
    model: Autoencoder, level: int, x: Tensor, config: TrainConfig, slower: float, new: int, fresh: int
) -> Autoencoder:
    """The level trained on x (rows, inputs) as `Plastic` says, `slower` being its rate in Adam's steps.

    Returns a copy of `model`. Raises DivergedError where the loss ceases to be finite.
    """
    rate = slower**0.5 if config.optimiser == "sgd" else slower  # a step of SGD along V is r V's gradient, itself r W's
    network = trained(Plastic(model, level, new, fresh, rate), _below(model, level, x), config)
    return _with(model, network.tensors())


def stability(model: Autoencoder, level: int, x: Tensor, config: TrainConfig, slower: float) -> Autoencoder:
    """All of the level trained on x at `slower` times the configured rate. Returns and raises as `plasticity`."""
    network = trained(Level(model, level), _below(model, level, x), replace(config, lr=config.lr * slower))
    return _with(model, {name: network.whole.get_parameter(name) for name in names_of(level)})


def trained(network: Network, x: Tensor, config: TrainConfig) -> Network:
    """A copy of a network trained to give back its inputs; DivergedError where the loss ceases to be finite."""
    found = fit(network, Rows(Batch(x, x), Batch(x[:0], x[:0])), config)
    if found.diverged:
        raise DivergedError(f"the loss is {found.curves['train'][-1]}; take a lower learning rate than {config.lr}")
    assert isinstance(found.model, type(network))
    return found.model


def check_untied(model: Autoencoder) -> None:
    """ValueError for a tied autoencoder."""
    if len(model.offsets):
        raise ValueError("a tied autoencoder cannot keep an encoder and learn its decoder; build it with tied=False")


def names_of(level: int) -> tuple[str, str, str, str]:
    """A level's weight and bias upwards, and downwards."""
    up, down = f"encoder.{level - 1}", f"decoder.{level - 1}"
    return f"{up}.weight", f"{up}.bias", f"{down}.weight", f"{down}.bias"


@torch.no_grad()
def _below(model: Autoencoder, level: int, x: Tensor) -> Tensor:
    return model.encode(x, level - 1)


def _with(model: Autoencoder, tensors: Mapping[str, Tensor]) -> Autoencoder:
    new = copy.deepcopy(model)
    new.load_state_dict(model.state_dict() | {name: tensor.detach() for name, tensor in tensors.items()})
    return new
