"""The infinite Boltzmann machine: one hidden unit more whenever it would be at work."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pared.models.rbm import OrderedRBM
from pared.seeds import seed_of
from pared.training.contrastive import ContrastiveConfig, ContrastiveFit, check_rows, fit_contrastive


@dataclass(frozen=True)
class UnitByUnit:
    """When a machine gains a unit: every `every` updates, while the mean of P(z > units | v) exceeds `probable`.

    It never grows beyond `up_to` units.
    """

    every: int = 10
    probable: float = 0.1
    up_to: int = 500

    def __post_init__(self) -> None:
        if self.every < 1 or self.up_to < 1 or not 0 <= self.probable < 1:
            raise ValueError(
                "every and up_to must be at least 1, probable a share below 1; got "
                f"{self.every}, {self.up_to}, {self.probable}"
            )


@dataclass(frozen=True)
class EndlessFit:
    """A machine that grew while it was trained, and how many units it had in each part of the training."""

    model: OrderedRBM
    units: tuple[int, ...]
    particles: Tensor


def fit_endless(
    model: OrderedRBM, x: Tensor, config: ContrastiveConfig = ContrastiveConfig(), how: UnitByUnit = UnitByUnit()
) -> EndlessFit:
    """Trains a copy of an endless machine on rows x of zeros and ones, (samples, visible), and lets it grow.

    New units have no weights, as those beyond the last had all along, so that growing changes no probability; from then
    on they learn. The paper adds a unit whenever a sampled z lies beyond the last, which for machines of few units is
    at nearly every update; here the mean of the probability itself decides.

    Cost: as `fit_contrastive`, more with every unit. Raises ValueError for machines that are not endless, DataError as
    `fit_contrastive` does. Source: Cote & Larochelle, An infinite restricted Boltzmann machine (2016).
    """
    if not model.endless:
        raise ValueError("only an endless machine grows without a change of its probabilities; build it with endless")
    check_rows(model, x)
    fit: ContrastiveFit | None = None
    grown, units = model, list[int]()
    for start in range(0, config.updates, how.every):
        seed = seed_of(config.seed, start)
        part = replace(config, updates=min(how.every, config.updates - start), seed=seed)
        fit = fit_contrastive(grown, x, part, fit)
        assert isinstance(fit.model, OrderedRBM)
        grown = fit.model
        units.append(len(grown.bias))
        if units[-1] < how.up_to and start + how.every < config.updates and beyond(grown, x) > how.probable:
            grown = with_unit(grown)
            fit = replace(fit, model=grown, optimiser_state=_with_room(fit.optimiser_state))
    assert fit is not None
    return EndlessFit(grown, tuple(units), fit.particles)


@torch.no_grad()
def beyond(model: OrderedRBM, v: Tensor) -> float:
    """The mean over rows of P(z > units | v): how much a unit more would be at work."""
    last = model.logits(v.to(model.weight)).softmax(-1)[:, -1]
    return float(last.mean()) * 2 ** (1 - model.beta)


def with_unit(model: OrderedRBM) -> OrderedRBM:
    """A copy with one hidden unit more, without weights; an endless machine gives what it gave."""
    visible = len(model.visible_bias)
    new = OrderedRBM(visible, len(model.bias) + 1, model.beta, model.endless).to(model.weight)
    new.weight = nn.Parameter(torch.cat([model.weight.detach(), model.weight.new_zeros(1, visible)]))
    new.bias = nn.Parameter(torch.cat([model.bias.detach(), model.bias.new_zeros(1)]))
    new.visible_bias = nn.Parameter(model.visible_bias.detach().clone())
    return new


def _with_room(state: dict[str, Any]) -> dict[str, Any]:
    """Adagrad's sums of squares with zeros for one hidden unit more, as if it had never had a gradient."""
    held = dict(state["state"])
    for number in (0, 1):  # weight and bias, the first two parameters
        sums = held[number]["sum"]
        held[number] = held[number] | {"sum": torch.cat([sums, torch.zeros_like(sums[:1])])}
    return {**state, "state": held}
