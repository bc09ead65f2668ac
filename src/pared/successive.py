"""Successive regularisation: while a network learns one task, what it shares with others stays near where it was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared.training.fit import Fit, TrainConfig, TrainingData, fit
from pared.training.parts import part_of
from pared.types import Loss


class Anchored(nn.Module):
    """A network that also tells, in training, how far its shared parameters are from where they were.

        d = sum over shared parameters of ||theta - theta'||^2

    theta' are the values when this module was made, `shared` names or patterns of parameters ("0.*"; "*" is all of
    them). x -> (output, d) in training, the output alone in evaluation. Raises ValueError where a pattern names none.
    """

    def __init__(self, network: nn.Module, shared: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        owned = dict(network.named_parameters())
        for pattern in shared:
            if not any(fnmatchcase(name, pattern) for name in owned):
                raise ValueError(f"no parameter is named {pattern!r}; there are {', '.join(owned)}")
        self.shared = [name for name in owned if any(fnmatchcase(name, pattern) for pattern in shared)]
        for index, name in enumerate(self.shared):
            self.register_buffer(f"anchor{index}", owned[name].detach().clone())

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        out: Tensor = self.network(x)
        return (out, self.distance()) if self.training else out

    def distance(self) -> Tensor:
        """d, a scalar."""
        anchors = (self.get_buffer(f"anchor{index}") for index in range(len(self.shared)))
        pairs = zip(self.shared, anchors, strict=True)
        squares = [(self.network.get_parameter(name) - anchor).square().sum() for name, anchor in pairs]
        return torch.stack(squares).sum() if squares else torch.zeros(())


@dataclass
class AnchoredLoss:
    """L = loss(output, target) + delta d, of what `Anchored` gives in training; in evaluation the loss alone.

    Its gradient of a shared parameter is that of the loss plus 2 delta (theta - theta'). `delta` may follow a schedule:
    `Bound("loss.delta", ...)`. Raises ValueError for a delta below 0.
    Source: Hashimoto et al., A Joint Many-Task Model (2017), successive regularisation.
    """

    loss: Loss = mse_loss
    delta: float = 1e-2

    def __post_init__(self) -> None:
        if not self.delta >= 0:
            raise ValueError(f"delta weighs a distance and must not be negative, got {self.delta}")

    def __call__(self, out: Tensor | tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        if isinstance(out, Tensor):
            return self.loss(out, target)
        output, distance = out
        return self.loss(output, target) + self.delta * distance


def fit_anchored(
    model: nn.Module, split: TrainingData, config: TrainConfig, shared: Sequence[str], loss: AnchoredLoss
) -> Fit:
    """Trains a copy of `model` by `fit` while `shared` parameters are held near the values they have now.

    The training curve holds the penalty, the validation curve does not. Bound attributes of modules are those of
    `Anchored`: a module's name has "network." in front. With delta 0 this is plain training.

    Returns a `Fit` of a network like `model`. Cost: as `fit`, and a pass over the shared parameters in each step.
    Raises: ValueError for patterns that name no parameter, and as `fit` does. Source: as `AnchoredLoss`.
    """
    found = fit(Anchored(model, shared), split, config, loss)
    assert isinstance(found.model, Anchored)
    return replace(found, model=found.model.network)


@dataclass(frozen=True)
class Successive:
    """A trunk that all tasks share, a head for each, and the trainings in order (of trunk and head in a Sequential)."""

    trunk: nn.Module
    heads: Mapping[str, nn.Module]
    fits: tuple[tuple[str, Fit], ...]

    def network(self, task: str) -> nn.Module:
        """Trunk and head of a task, one after the other."""
        return nn.Sequential(self.trunk, self.heads[task])


def successive(
    trunk: nn.Module,
    heads: Mapping[str, nn.Module],
    splits: Mapping[str, TrainingData],
    config: TrainConfig,
    loss: Loss = mse_loss,
    delta: float = 1e-2,
    rounds: int = 1,
) -> Successive:
    """Learns tasks in turn, in the order of `heads`, the trunk held near what the task before left behind.

        L_task = loss(head(trunk(x)), y) + delta ||theta - theta'||^2,  theta: the trunk's parameters

    The first task of all learns without a penalty. With several `rounds` each of them gives every task that share of
    the epochs; the learning rate goes on along one schedule, the optimiser starts afresh with each task.

    Returns a `Successive`; trunk and heads passed in stay as they are. Cost: as `fit` for each task.
    Raises: ValueError for tasks without data, for epochs that cannot be shared out evenly, and as `fit` does.
    Source: as `AnchoredLoss`; there one round is one epoch, and simpler tasks read lower layers.
    """
    if missing := [task for task in heads if task not in splits]:
        raise ValueError(f"there are no data of {', '.join(missing)}; give a split for each head")
    if rounds < 1 or config.epochs % rounds:
        raise ValueError(f"{config.epochs} epochs cannot be shared out evenly over {rounds} rounds")
    length, learnt = config.epochs // rounds, dict(heads)
    fits: list[tuple[str, Fit]] = []
    for start in range(0, config.epochs, length):
        for task in heads:
            pull = AnchoredLoss(loss, delta if fits else 0.0)
            both, part = nn.Sequential(trunk, learnt[task]), part_of(config, start, start + length)
            fits.append((task, fit_anchored(both, splits[task], part, ["0.*"], pull)))
            trunk, learnt[task] = fits[-1][1].model.children()
    return Successive(trunk, learnt, tuple(fits))
