"""The first steps of a training, looked at closely: losses, gradients, layer by layer too, and how far weights go."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared.signals.profile import gradient_profile
from pared.training.fit import TrainConfig, optimiser_for, sample_orders
from pared.types import Batch, Loss

STEPS = 200
PROFILED = (0, 1, 2, 5, 10, 20, 50, 100, 150, 199)
"""Steps before which the gradient is followed back through the layers."""


@dataclass(frozen=True)
class Watch:
    """What was seen: one loss, and one size of the whole gradient before any clipping, a step.

    `depth`, `time`: one a profiled step, ||dL/dh|| at the first hidden layer over that at the last, and at the first
    step of a window over that at the last; 1 where there is but one. Far below 1 the gradient vanishes on its way back,
    far above 1 it explodes. `updates`: ||change of w|| / ||w|| of a step, median over the steps, for every weight with
    two axes or more.
    """

    losses: tuple[float, ...]
    norms: tuple[float, ...]
    depth: tuple[float, ...]
    time: tuple[float, ...]
    updates: dict[str, float]

    @property
    def vanishing(self) -> tuple[float, float]:
        """Medians of `depth` and `time`."""
        return float(np.median(self.depth)), float(np.median(self.time))

    @property
    def exploding(self) -> tuple[float, float]:
        """The larger of median and first: a network that blew up in its first step has no gradient in the others."""
        depth, time = self.vanishing
        return max(depth, self.depth[0]), max(time, self.time[0])


def watch(model: nn.Module, train: Batch, config: TrainConfig, loss: Loss = mse_loss, steps: int = STEPS) -> Watch:
    """Trains a copy for the first steps that `fit` would take, and watches; ends where the loss is no finite number.

    Cost: `steps` steps, and ten passes in which recurrent layers are written out.
    """
    model = copy.deepcopy(model).train()
    optimiser = optimiser_for(model, config, None)
    matrices = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    losses, norms, ratios = list[float](), list[float](), list[tuple[float, float]]()
    updates: dict[str, list[float]] = {name: [] for name in matrices}
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(config.seed)
        for step, (index, lr) in enumerate(islice(paced(len(train.x), config), steps)):
            batch = Batch(train.x[index], train.y[index])
            if step in PROFILED:
                profile = gradient_profile(model, batch, loss)
                ratios.append((_ratio(profile.depth), _ratio(profile.time)))
            before = {name: p.detach().clone() for name, p in matrices.items()}
            value, norm = take_step(model, batch, optimiser, lr, loss, config.clip)
            losses.append(value)
            norms.append(norm)
            for name, p in matrices.items():
                updates[name].append(float((p.detach() - before[name]).norm() / before[name].norm().clamp(min=1e-12)))
            if not math.isfinite(value):
                break
    depth, time = zip(*ratios, strict=True)
    return Watch(tuple(losses), tuple(norms), depth, time, {name: float(np.median(u)) for name, u in updates.items()})


def paced(count: int, config: TrainConfig) -> Iterator[tuple[Tensor, float]]:
    """The batches of a training as places of samples, each with the learning rate of its step, as `fit` has them."""
    for epoch, order in enumerate(sample_orders(count, config)):
        for index in torch.split(order, config.batch_size):
            yield index, config.lr * config.schedule(epoch / config.epochs)


def take_step(
    model: nn.Module, batch: Batch, optimiser: torch.optim.Optimizer, lr: float, loss: Loss, clip: float | None = None
) -> tuple[float, float]:
    """One step of training, in place. Returns: the loss before it, and the size of the gradient before clipping."""
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.zero_grad(set_to_none=True)
    value = loss(model(batch.x), batch.y)
    value.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if clip is None else clip)
    optimiser.step()
    return float(value.detach()), float(norm)


def _ratio(sizes: Sequence[float]) -> float:
    """First over last: infinite where the last is zero and the first is not, 1 where both are."""
    if not sizes or sizes[0] == sizes[-1]:
        return 1.0
    return sizes[0] / sizes[-1] if sizes[-1] else math.inf
