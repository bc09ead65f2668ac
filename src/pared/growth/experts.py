"""Mixtures of experts that grow: one expert becomes two where the mixture errs most, and nothing changes at first."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from pared.data.batches import evenly
from pared.models import Experts
from pared.training.fit import Fit, TrainConfig, TrainingData, fit
from pared.training.parts import part_of
from pared.types import Batch

LOOKED_AT = 1024
"""How many examples are looked at before a split, spread evenly over the training data."""


@dataclass
class MixtureLoss:
    """The mixture's likelihood under noise s, on the scale of a mean squared error.

        L = mean over samples of -(2 s^2 / d) ln sum over m of p_m exp(-d e_m / (2 s^2)),  e_m = |y - f_m|^2 / d

    of d outputs; that is 2 s^2 / d times - ln sum p_m N(y; f_m, s^2), but for a constant. With one expert it is the
    MSE, at s = infinity the expected error sum p_m e_m; the smaller s, the more each expert learns its own cases alone:
    dL/df_m = 2 r_m (f_m - y) / (n d), r_m the posterior share of m. `noise` may follow a schedule ("loss.noise"). Of
    the mixture's one answer, in evaluation, it is the MSE. Raises ValueError unless the noise is positive.
    Source: Jacobs et al. (1991), equation 1.3; Chazan et al., Deep recurrent mixture of experts (2017).
    """

    noise: float = 0.1

    def __post_init__(self) -> None:
        if not self.noise > 0:
            raise ValueError(f"the noise is a standard deviation and must be positive, got {self.noise}")

    def __call__(self, out: Tensor | tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        if isinstance(out, Tensor):
            return mse_loss(out, target)
        answers, log_shares = out
        errors = (answers - target[:, None]).square().mean(2)
        if math.isinf(self.noise):
            return (log_shares.exp() * errors).sum(1).mean()
        cold = target.shape[1] / (2 * self.noise**2)
        return -(log_shares - cold * errors).logsumexp(1).mean() / cold


@dataclass(frozen=True)
class GrownExperts:
    """A mixture that grew while it trained: the trainings in order; which expert was split after each but the last."""

    model: Experts
    fits: tuple[Fit, ...]
    split: tuple[int, ...]


def errors_of(model: Experts, batch: Batch, loss: MixtureLoss) -> Tensor:
    """What each expert adds to the error, (samples, experts): r_m e_m, r the posterior shares at the loss's noise."""
    with torch.no_grad():
        answers, log_shares = copy.deepcopy(model).eval().parts(batch.x)
    errors = (answers - batch.y[:, None]).square().mean(2)
    posterior = log_shares - errors * batch.y.shape[1] / (2 * loss.noise**2)
    return posterior.softmax(1) * errors


def split_expert(model: Experts, batch: Batch, loss: MixtureLoss, expert: int | None = None) -> Experts:
    """A mixture in which `expert`, by default the one that adds most to the error, is two copies of itself.

    Their shares of p_m are sigmoid(s) and sigmoid(-s), s the linear map of the gate's state that best predicts where
    the expert errs (least squares), scaled to a standard deviation of 1: hard cases go to the new one. The mixture
    gives what it gave, and the likelihood is the same, to rounding; as s differs between samples, the copies part ways
    in the first step.

    Returns a new module. Cost: a forward pass over the batch. Raises: ValueError for an expert that is not there, and
    where the gate's state does not vary over the batch, by which copies would stay alike for ever.
    """
    errors = errors_of(model, batch, loss).double()
    chosen = int(errors.mean(0).argmax()) if expert is None else expert
    if not 0 <= chosen < len(model.experts):
        raise ValueError(f"there are experts 0 to {len(model.experts) - 1}, got {chosen}")
    with torch.no_grad():
        state = copy.deepcopy(model.gate).eval()(batch.x)
    centre = state.double().mean(0)
    wrong = errors[:, chosen] - errors[:, chosen].mean()
    weight = torch.linalg.lstsq((state - centre).double(), wrong[:, None], driver="gelsd").solution[:, 0]
    spread = ((state - centre).double() @ weight).std(correction=0)
    if not spread > 1e-12 * errors.max():
        raise ValueError(
            "the gate's state says nothing of where the expert errs; train the gate, or give more examples"
        )
    weight = -weight / spread
    return model.split(chosen, weight.to(state.dtype), -(weight @ centre).to(state.dtype))


def grow_experts(
    model: Experts, split: TrainingData, config: TrainConfig, up_to: int, every: int, loss: MixtureLoss = MixtureLoss()
) -> GrownExperts:
    """Trains a copy of `model` for `config.epochs` and splits an expert after every `every` epochs, until `up_to`.

    One schedule of the learning rate for all of it; a new expert takes its parent's state of the optimiser along.

    Returns a `GrownExperts`. Cost: as `fit`, and a pass over at most 1,024 examples a split.
    Raises: ValueError for patience, for epochs that are over before the mixture is grown, and as `split_expert` does.
    """
    splits = up_to - len(model.experts)
    if every < 1 or splits < 0 or splits * every >= config.epochs:
        raise ValueError(
            f"{splits} splits, one every {every} epochs, do not fit into {config.epochs} epochs; train longer, or grow "
            "less or more often"
        )
    if config.patience is not None:
        raise ValueError("patience would end a part of the training; leave it out")
    starts = [*range(0, splits * every + 1, every), config.epochs]
    fits, chosen = [fit(model, split, part_of(config, 0, starts[1]), loss)], list[int]()
    for start, stop in pairwise(starts[1:]):
        old = fits[-1].model
        assert isinstance(old, Experts)
        new = split_expert(old, evenly(split.train, LOOKED_AT), loss)
        chosen.append(new.parents[-1])
        resume = replace(fits[-1], model=new, optimiser_state=_carried(fits[-1].optimiser_state, old, new))
        fits.append(fit(new, split, part_of(config, start, stop), loss, resume))
    grown = fits[-1].model
    assert isinstance(grown, Experts)
    return GrownExperts(grown, tuple(fits), tuple(chosen))


def _carried(state: Mapping[str, Any], old: Experts, new: Experts) -> dict[str, Any]:
    """An optimiser's state after a split: the new expert's is that of its parent, the new share's is none."""
    places = {name: place for place, (name, _) in enumerate(old.named_parameters())}
    newest, parent = f"experts.{len(old.experts)}.", f"experts.{new.parents[-1]}."
    carried: dict[int, Any] = {}
    for place, (name, _) in enumerate(new.named_parameters()):
        source = places.get(name.replace(newest, parent, 1) if name.startswith(newest) else name)
        if source in state["state"]:
            carried[place] = copy.deepcopy(state["state"][source])
    return {"state": carried, "param_groups": state["param_groups"]}
