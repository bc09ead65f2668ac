"""Nonparametric networks: units come all the time, and those that do not earn their penalty shrink away and go."""

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils import parameters_to_vector

from pared.data.batches import evenly
from pared.growth.adarad import AdaRad, adarad, rearranged
from pared.growth.entries import answer, check_growth, makers, newest, readers, values_at, with_values
from pared.growth.fans import Fans, check_norm, fans, shrink
from pared.growth.initial import STIR
from pared.models.capnorm import CapNorm
from pared.surgery import Plan, Structure, StructureError, carry, cut, insert, trace
from pared.surgery.grow import NORMS
from pared.surgery.origins import Change, cut_structure, grown_structure
from pared.surgery.slices import Role, check_role
from pared.training.fit import (
    TrainConfig,
    TrainingData,
    check_data,
    evaluate_loss,
    finite,
    optimiser_for,
    sample_orders,
)
from pared.types import Batch, Loss


@dataclass(frozen=True)
class Nonparametric:
    """How a network finds its own size.

    The objective is loss + `penalty` (lambda) times the sum of ||w||_p over the fan-ins ("in") or fan-outs ("out") of
    all units and outputs or inputs. Each group gains `units` after every epoch, up to the share `until` of the
    training; a useless unit of length 1 is gone after `horizon` epochs, so that lengths learn at the rate
    1 / (horizon penalty). `angular` is the rate of directions, see `adarad`.
    """

    penalty: float = 1e-3
    side: Role = "in"
    p: float = 2.0
    units: int = 1
    until: float = 0.7
    horizon: float = 50.0
    angular: float = 30.0

    def __post_init__(self) -> None:
        check_role(self.side)
        check_norm(self.p)
        if min(self.penalty, self.horizon, self.angular) <= 0 or self.units < 0 or not 0 <= self.until <= 1:
            raise ValueError(
                "penalty, horizon and angular must be positive, units not negative and until a share from 0 to 1; got "
                f"{self.penalty}, {self.horizon}, {self.angular}, {self.units} and {self.until}"
            )


@dataclass(frozen=True)
class NonparametricFit:
    """A network of the size it found; losses (without the penalty) and widths of its groups after each epoch."""

    model: nn.Module
    structure: Structure
    curves: Mapping[str, tuple[float, ...]]
    widths: tuple[Mapping[str, int], ...]
    seed: int
    seconds: float


def fit_nonparametric(
    model: nn.Module,
    split: TrainingData,
    config: TrainConfig,
    how: Nonparametric = Nonparametric(),
    loss: Loss = mse_loss,
) -> NonparametricFit:
    """Trains a copy of `model` whose exact groups gain and lose units until only those are left that pay.

    In each step all fans move by `adarad` and shrink by `shrink`, the weights of none (an output's biases) by the
    configured optimiser. After each epoch units whose fans are zero are cut; then each group gains zero units
    (`with_zero_units`). Neither changes what the network gives. `config.schedule` multiplies the optimiser's and the
    angular rate; `config.clip` bounds the norm of the loss gradient. Works on any network whose units `trace` finds,
    LSTM and GRU included, if units without inputs are silent; normalise by `pared.models.CapNorm`, since batch
    normalisation would undo any shrinkage. The theorem that the optimal size is finite covers feed-forward networks
    without normalisation. The penalty also keeps errors up, small squared ones most of all: train the model found on by
    `fit`, which knows no penalty.

    Returns a `NonparametricFit`; nothing follows from the validation data. Cost: 1.5 to 3 times that of `fit` at the
    widths that the network has, which during growth are about horizon x units above those it ends with.
    Raises StructureError for networks without exact groups, of weights that parametrisations compute, of units that are
    heard without inputs; ValueError for `patience`, `plateau`, `bound`, frozen weights or fewer than two examples.
    Source: Philipp & Carbonell, Nonparametric neural networks (2017).
    """
    started = time.perf_counter()
    now = _begin(model, split, config, how, loss)
    curves: dict[str, list[float]] = {"train": [], "validation": []}
    widths = list[dict[str, int]]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        for epoch, order in enumerate(sample_orders(len(split.train.x), config)):
            now, mean = _epoch(now, split.train, order, config, how, loss, config.schedule(epoch / config.epochs))
            now = _without_zero_units(now, config, how)
            curves["train"].append(mean)
            if len(split.validation.x):
                curves["validation"].append(evaluate_loss(now.model, split.validation, loss))
            widths.append({group.name: group.width for group in now.structure})
            if not finite(curves):
                break
            if how.units and epoch + 1 < how.until * config.epochs:
                now = _with_more(now, config, how, config.seed + epoch)
    kept = {name: tuple(values) for name, values in curves.items()}
    return NonparametricFit(now.model, now.structure, kept, tuple(widths), config.seed, time.perf_counter() - started)


def with_zero_units(
    model: nn.Module, structure: Structure, counts: Mapping[str, int], side: Role = "in", seed: int = 0
) -> nn.Module:
    """A copy with new units of a random fan of expected length 1 on one side, and of zeros on the other.

    side = "in": each weight that makes a new unit is drawn from N(0, 1 / their number), what reads it is zero; "out"
    mirrored, for units that are silent without inputs ("zero" is 1e-20 then, so that a ReLU lets its gradient through).
    What new units would make or read of each other is zero. The model computes what it did. Cost: a copy. Raises as
    `insert` and `readers` do. Source: Philipp & Carbonell (2017), section 3.
    """
    new, grown = insert(model, structure, counts, seed), grown_structure(structure, counts)
    units, generator = newest(grown, counts), torch.Generator().manual_seed(seed)
    for name in counts:
        made, read = makers(new, grown, units, name), readers(new, grown, units, name)
        now = values_at(new, made if side == "in" else read)
        drawn = torch.randn(now.shape, generator=generator, dtype=torch.float64) / now.shape[1] ** 0.5
        silent = [] if side == "in" else [(made, torch.full_like(values_at(new, made), STIR))]
        new = with_values(new, [*silent, (made if side == "in" else read, drawn)])
    return new


@dataclass(frozen=True)
class _Now:
    """A network on its way, and all that goes along with its weights."""

    model: nn.Module
    structure: Structure
    optimiser: torch.optim.Optimizer
    fans: Fans
    state: AdaRad


def _begin(model: nn.Module, split: TrainingData, config: TrainConfig, how: Nonparametric, loss: Loss) -> _Now:
    """A copy to train, after refusing what cannot be trained so."""
    check_data(split, config)
    if config.patience is not None or config.plateau is not None or config.bound:
        raise ValueError(
            "the size is found over the whole training at known rates; leave patience, plateau and bound "
            "hyperparameters out"
        )
    if frozen := [name for name, parameter in model.named_parameters() if not parameter.requires_grad]:
        raise ValueError(
            f"units that come and go change all weights around them, so none may be frozen, got {', '.join(frozen)}; "
            "set their requires_grad to True"
        )
    batch = evenly(split.train, 64)
    structure = trace(model, batch.x[:2])
    counts = _counts(structure, 1)
    if not counts or structure.projecting:
        raise StructureError(
            "no group of units can come and go exactly, or an LSTM projects its cells, whose widths must stay apart; "
            f"take out what mixes units, and proj_size\n{structure.explain()}"
        )
    check_growth(structure, batch, counts)
    _refuse_heard(model, structure, batch, counts)
    model = copy.deepcopy(model)
    of = fans(model, structure, how.side)
    state = AdaRad.fresh(of, next(model.parameters()).dtype)
    return _Now(model, structure, optimiser_for(model, config, None), of, state)


def _counts(structure: Structure, each: int) -> dict[str, int]:
    return {group.name: each for group in structure if group.exact}


def _refuse_heard(model: nn.Module, structure: Structure, batch: Batch, counts: Mapping[str, int]) -> None:
    """Units whose fan-in is zero must give zero, or it would matter whether they are there."""
    for group in structure:
        for s in group.slices:
            owner = model.get_submodule(s.parameter.rpartition(".")[0])
            if isinstance(owner, NORMS) and not isinstance(owner, CapNorm):
                raise StructureError(
                    f"{s.parameter!r} normalises units of {group.name!r}, which undoes all shrinkage of their weights; "
                    "use pared.models.CapNorm"
                )
    new, grown = insert(model, structure, counts), grown_structure(structure, counts)
    units = newest(grown, counts)
    for name in counts:
        made, read = makers(new, grown, units, name), readers(new, grown, units, name)
        both = [(made, torch.zeros_like(values_at(new, made))), (read, torch.ones_like(values_at(new, read)))]
        if not torch.allclose(answer(with_values(new, both), batch.x), answer(model, batch.x), rtol=1e-4):
            raise StructureError(
                f"units of {name!r} are heard although they have no inputs, as those of a sigmoid are, so that they "
                "could not leave silently; use an activation that is 0 at 0, such as relu or tanh"
            )


def _epoch(
    now: _Now, batch: Batch, order: Tensor, config: TrainConfig, how: Nonparametric, loss: Loss, pace: float
) -> tuple[_Now, float]:
    """All examples once; and the mean loss."""
    model, state, of, total = now.model.train(), now.state, now.fans, 0.0
    for group in now.optimiser.param_groups:
        group["lr"] = config.lr * pace
    for index in torch.split(order, config.batch_size):
        before, share = parameters_to_vector(model.parameters()).detach(), len(index) / len(order)
        now.optimiser.zero_grad()
        value = loss(model(batch.x[index]), batch.y[index])
        value.backward()  # type: ignore[no-untyped-call]
        if config.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        now.optimiser.step()
        turned, state = adarad(
            state, before, parameters_to_vector(gradients), of, share / how.horizon / how.penalty,
            how.angular * share * pace,
        )  # fmt: skip
        fresh = torch.where(of.inside, turned, parameters_to_vector(model.parameters()).detach())
        _write(model, shrink(fresh, of, share / how.horizon, how.p))
        total += value.item() * share
    return replace(now, state=state), total


@torch.no_grad()
def _write(model: nn.Module, weights: Tensor) -> None:
    parameters = list(model.parameters())
    for parameter, part in zip(parameters, torch.split(weights, [p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))


def _without_zero_units(now: _Now, config: TrainConfig, how: Nonparametric) -> _Now:
    """Units whose fans are zero go; a group keeps one unit, and groups that must be equally wide stay so."""
    alive = now.fans.norms(parameters_to_vector(now.model.parameters()).detach()) > 0
    kept = {name: alive[list(own)].nonzero().flatten().tolist() or [0] for name, own in now.fans.units.items()}
    for names in now.structure.equal:
        most = max(len(kept[name]) for name in names)
        for name in names:
            rest = [unit for unit in range(now.structure[name].width) if unit not in kept[name]]
            kept[name] = sorted(kept[name] + rest[: most - len(kept[name])])
    plan = now.structure.bind(Plan({n: tuple(u) for n, u in kept.items() if len(u) < now.structure[n].width}))
    if not plan.keep:
        return now
    new, structure = cut(now.model, now.structure, plan), cut_structure(now.structure, plan)
    return _moved(now, new, structure, plan, config, how, rearranged(now.state, now.fans, plan.keep, {}))


def _with_more(now: _Now, config: TrainConfig, how: Nonparametric, seed: int) -> _Now:
    counts = _counts(now.structure, how.units)
    new = with_zero_units(now.model, now.structure, counts, how.side, seed)
    structure = grown_structure(now.structure, counts)
    return _moved(now, new, structure, counts, config, how, rearranged(now.state, now.fans, {}, counts))


def _moved(
    now: _Now, new: nn.Module, structure: Structure, change: Change, config: TrainConfig, how: Nonparametric,
    state: AdaRad,
) -> _Now:  # fmt: skip
    optimiser = optimiser_for(new, config, None)
    optimiser.load_state_dict(carry(now.optimiser.state_dict(), now.model, new, now.structure, change))
    return _Now(new, structure, optimiser, fans(new, structure, how.side), state)
