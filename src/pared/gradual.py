"""Weights removed step by step, with training in between."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared.masks import Sparse, WeightScope, adapt_dropout, mask_weights, select_weights
from pared.selection import Ratio, Threshold
from pared.signals import plain_parameters
from pared.training.fit import Fit, TrainConfig, TrainingData, fit
from pared.types import Criterion, Loss, Masks


@dataclass(frozen=True)
class Steps:
    """How weights go: `schedule(t / count)` is the share that is gone after step t = 1 ... count.

    Schedules are `OneShot`, `Linear`, `Exponential` and `Cubic` of `pared.schedules`. With `rule` `Threshold` a step
    removes what scores below the schedule's value, so that `criteria.deviation` makes it Han's: s standard deviations
    of each layer, again after every training. With `dropout` the rates of dropout follow the connections that are left.
    """

    schedule: Callable[[float], float]
    count: int = 10
    scope: WeightScope = "global"
    dropout: bool = False
    rule: Callable[[float], Ratio | Threshold] = Ratio

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"weights go in at least one step, got {self.count}")

    def rules(self) -> list[Ratio | Threshold | None]:
        """What every step removes by, None where it removes nothing. Raises ValueError where that leaves nothing."""
        values = [self.schedule(step / self.count) for step in range(1, self.count + 1)]
        return [self.rule(value) if value > 0 else None for value in values]


def gradual(
    model: nn.Module,
    split: TrainingData,
    criterion: Criterion,
    steps: Steps,
    config: TrainConfig | None = None,
    loss: Loss = mse_loss,
) -> Sparse:
    """Scores, removes and trains on, step after step; what is gone stays gone and exactly zero.

    Each step scores the network as it is now on `split.train`, removes the lowest up to the schedule's value, and
    trains for `config.epochs` with the optimiser's state of before, each time by the whole of its schedules; without a
    config nothing is trained. Gone weights are zero after every training step, and so are the optimiser's moments of
    them.

    Returns the last network (a copy), its masks and its trainings. Cost: `steps.count` scorings and trainings.
    Raises: ValueError for a schedule that leaves nothing, for scores of units, of other shapes than the weights', or of
    NaN; what the criterion and `fit` raise.
    Source: Han et al. (2015) for the loop, Zhu & Gupta (2017) for the cubic schedule.
    """
    masks: Masks = {}
    fits: list[Fit] = []
    current = mask_weights(model, {})
    for rule in steps.rules():
        if rule is not None:
            scores = criterion(current, split.train, loss)
            check_scores(scores, current)
            masks = select_weights(scores, rule, steps.scope, masks)
        current = mask_weights(current, masks)
        if config is not None:
            current = adapt_dropout(current, masks, model) if steps.dropout else current
            resume = replace(fits[-1], model=current) if fits else None
            fits.append(fit(current, split, config, loss, resume, masks))
            current = fits[-1].model
    return Sparse(current, masks, tuple(fits))


def check_scores(scores: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raises ValueError for scores of what is no weight, or of other shapes than the weights'."""
    weights = plain_parameters(model)
    if not scores:
        raise ValueError("the criterion scores nothing; it must return {parameter name: tensor}")
    for name, values in scores.items():
        if name not in weights:
            raise ValueError(
                f"the criterion scores {name!r}, which is no parameter; weights go by scores of weights, such as "
                "criteria.magnitude or obd (units go by select and cut)"
            )
        if values.shape != weights[name].shape:
            raise ValueError(
                f"the criterion's scores of {name!r} are shaped {tuple(values.shape)}, "
                f"the parameter is shaped {tuple(weights[name].shape)}"
            )
