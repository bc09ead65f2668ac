"""Criteria beside each other on the same trained networks: what is left of their quality where each says what goes."""

import inspect
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pared import criteria as known
from pared.data import Block, Scaler, first_batch
from pared.data.batches import Data
from pared.evaluation import Task
from pared.evaluation.forecast import Predictor, decoded
from pared.kept import RANDOM, REPAIRS, CriteriaComparison, Kept, Repair, Scored, What
from pared.outcomes import Metrics, Yardstick, evaluated, predictor
from pared.removing import Removal, Removed, Units, Weights
from pared.selection import Ratio
from pared.study import member_seed, scoring_batch
from pared.training import TrainConfig
from pared.training.fleet import fit_each
from pared.types import Batch, Criterion, Loss, Progress, Scores

DEFAULTS: dict[What, tuple[str, ...]] = {
    "units": (
        "magnitude", "norm", "activation", "similarity", "taylor", "ablation", "obd", "layer_obs", "least_squares",
    ),
    "weights": ("magnitude", "deviation", "snip", "wanda", "layer_obs", "obd"),
}  # fmt: skip
"""Criteria that are soon done on small networks."""


@dataclass(frozen=True)
class CriteriaSettings:
    """How criteria are compared: pure data.

    The same share of every layer goes, so that all criteria leave networks of one size. `refit` trains what is left on,
    None leaves that out; `keep` protects groups of units; `draws` random orders a network are the yardstick; `margin`
    None is the task's own.
    """

    what: What = "units"
    ratios: tuple[float, ...] = (0.25, 0.5, 0.75, 0.9)
    refit: TrainConfig | None = TrainConfig(epochs=30, lr=3e-3)
    keep: tuple[str, ...] = ()
    draws: int = 3
    margin: float | None = None
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for ratio in self.ratios:
            Ratio(ratio)
        if not self.ratios or len(set(self.ratios)) < len(self.ratios):
            raise ValueError(f"there must be ratios, and they must differ, got {self.ratios}")
        if self.what not in ("units", "weights"):
            raise ValueError(f"what goes is 'units' or 'weights', got {self.what!r}")
        if self.draws < 1:
            raise ValueError(f"the yardstick needs at least 1 random order, got draws={self.draws}")
        if self.keep and self.what == "weights":
            raise ValueError("keep names groups of units; weights go from every weight matrix")
        if self.refit is not None and self.refit.optimiser == "sgd" and self.what == "weights":
            raise ValueError("gone weights are held at zero by Adam's moments; refit with 'adam' or 'adamw'")


@dataclass(frozen=True)
class Contest:
    """What is compared: trained networks, the block of each, criteria by name, and how."""

    models: Sequence[nn.Module]
    blocks: Sequence[Block]
    criteria: Mapping[str, Criterion]
    task: Task
    settings: CriteriaSettings

    def __post_init__(self) -> None:
        if not self.models or len(self.models) != len(self.blocks):
            raise ValueError(f"give each network its data, got {len(self.models)} networks, {len(self.blocks)} data")
        if RANDOM in self.criteria:
            raise ValueError(f"{RANDOM!r} is always compared; leave it away, or give your own another name")

    def removal(self, network: int) -> Removal:
        """One network, ready for removals; criteria and repair see 512 training examples."""
        model, batch = self.models[network], scoring_batch(self.blocks[network])
        if self.settings.what == "weights":
            return Weights(model, batch, self.task.loss)
        return Units(model, batch, self.task.loss, self.settings.keep)

    def seed(self, network: int, draw: int = 0) -> int:
        """Of random orders and of refits: all refits of one network read the samples in the same order."""
        return member_seed(self.settings.seed + network, draw)


def compare_criteria(
    models: Sequence[nn.Module],
    data: Sequence[Block | tuple[Data, Data]],
    criteria: Mapping[str, Criterion],
    task: Task | Loss = mse_loss,
    settings: CriteriaSettings = CriteriaSettings(),
    jobs: int = 1,
    progress: Progress = lambda stage, done, total: None,
) -> CriteriaComparison:
    """Removes what each criterion scores lowest from each trained network, and compares what is left on test data.

    `data` holds a block for each network, or (training, test) examples of it: batches, pairs or DataLoaders. `task` is
    a pared task, or a loss: then networks are compared by their loss on test examples, on the log scale. Criteria and
    repair look at 512 training examples. The same share of every layer goes: what a criterion does not score goes at
    random. Each removal is measured plain, compensated by least squares (`compensate`; of weights `refit_layers`) and
    refitted: compensated and then trained on by `settings.refit`, all at once as a fleet.

    Random orders are always there as the yardstick. A criterion that raises, or gives NaN or scores of other things, is
    listed with its reason, and the others go on. Networks of one block are one cluster; the verdicts ask for 5.

    Returns: CriteriaComparison. Cost: each criterion once a network, and ratios x networks x (criteria + draws) cuts,
    repairs and refits. No model is changed.
    Raises: ValueError for a network without data, a ratio that removes nothing, and as the surgery and the repair do.
    """
    judged = task if isinstance(task, Task) else by_loss(task)
    blocks = [examples_block(each, place) for place, each in enumerate(data)]
    contest = Contest(models, blocks, criteria, judged, settings)
    return gathered(contest, findings(contest, jobs, progress))


def gathered(contest: Contest, found: Iterable[Scored | Kept]) -> CriteriaComparison:
    """The comparison that these findings make, be they all or those until an interruption."""
    settings, task, blocks = contest.settings, contest.task, contest.blocks
    parts = list(found)
    order = {name: place for place, name in enumerate((RANDOM, *contest.criteria))}
    kept = [each for each in parts if isinstance(each, Kept)]  # fleets finish in any order
    kept.sort(key=lambda k: (order[k.criterion], k.network, k.draw, k.ratio, REPAIRS.index(k.repair)))
    margin = task.margin if settings.margin is None else settings.margin
    return CriteriaComparison(
        what=settings.what,
        criteria=tuple(contest.criteria),
        ratios=settings.ratios,
        yardstick=Yardstick(task.error, task.scale, margin, settings.level),
        blocks=tuple(block.block for block in blocks),
        full=tuple(_measured(task, model, block) for model, block in zip(contest.models, blocks, strict=True)),
        needs={name: needs(criterion) for name, criterion in {RANDOM: known.random, **contest.criteria}.items()},
        scored=tuple(each for each in parts if isinstance(each, Scored)),
        kept=tuple(kept),
    )


class _Waiting(NamedTuple):
    """A repaired network that is to be trained on, and what it will be once it is."""

    removed: Removed
    kept: Callable[[Metrics], Kept]
    network: int


def findings(contest: Contest, jobs: int, progress: Progress) -> Iterator[Scored | Kept]:
    """Everything there is to find, as it is found; whoever is interrupted still has what came before."""
    waiting: list[_Waiting] = []
    settings = contest.settings
    total = len(contest.models) * (settings.draws + len(contest.criteria))
    done = 0
    for network in range(len(contest.models)):
        removal = contest.removal(network)
        for name, draw, criterion in _arms(contest, removal, network):
            scored, scores = _scored(removal, name, network, criterion, removal.at_random(contest.seed(network)))
            yield scored
            for ratio in settings.ratios if scores else ():
                removed = removal.remove(scores, ratio)
                kept = partial(_kept, name, network, draw, ratio)
                for repair, model in _unrefitted(removed):
                    yield kept(repair, _measured(contest.task, model, contest.blocks[network]))
                waiting.append(_Waiting(removed, partial(kept, "refitted"), network))
            done += 1
            progress("scoring, cutting and repairing", done, total)
    if settings.refit is not None:
        yield from _refitted(contest, settings.refit, waiting, jobs, progress)


def _kept(name: str, network: int, draw: int, ratio: float, repair: Repair, metrics: Metrics) -> Kept:
    return Kept(name, network, ratio, repair, metrics, draw)


def _unrefitted(removed: Removed) -> tuple[tuple[Literal["plain", "compensated"], nn.Module], ...]:
    return ("plain", removed.plain), ("compensated", removed.repaired)


def _arms(contest: Contest, removal: Removal, network: int) -> Iterator[tuple[str, int, Criterion]]:
    """(name, draw, criterion): the random orders, then the criteria."""
    for draw in range(contest.settings.draws):
        of = contest.settings.what
        yield RANDOM, draw, partial(known.random, seed=contest.seed(network, draw), of=of)
    for name, criterion in contest.criteria.items():
        yield name, 0, criterion


def _refitted(
    contest: Contest, config: TrainConfig, waiting: Sequence[_Waiting], jobs: int, progress: Progress
) -> Iterator[Kept]:
    """All refits in one fleet."""
    models = [each.removed.repaired for each in waiting]
    blocks = [contest.blocks[each.network] for each in waiting]
    configs = [replace(config, seed=contest.seed(each.network)) for each in waiting]
    starts = [each.removed.resume for each in waiting if each.removed.resume is not None]
    progress("refitting", 0, len(waiting))
    fits = fit_each(models, blocks, configs, contest.task.loss, starts or None, jobs)
    for done, (index, fit) in enumerate(fits, 1):
        metrics = {"diverged": 1.0} if fit.diverged else _measured(contest.task, fit.model, blocks[index])
        yield waiting[index].kept(metrics)
        progress("refitting", done, len(waiting))


def _scored(
    removal: Removal, name: str, network: int, criterion: Criterion, otherwise: Scores
) -> tuple[Scored, Scores]:
    """What a criterion says of a network, `otherwise` filled in where it says nothing; empty where it is of no use."""
    started = time.process_time()  # of the processor: other programs change it little
    try:
        found = dict(removal.scores(criterion))
        _check(found, removal.shapes)
    except Exception as error:  # anybody's criterion: whatever it raises is why it has no scores
        return Scored(name, network, time.process_time() - started, _reason(error)), {}
    seconds = time.process_time() - started
    unscored = tuple(each for each in removal.shapes if each not in found)
    alike = tuple(each for each, values in found.items() if values.numel() > 1 and bool((values == values.max()).all()))
    return Scored(name, network, seconds, None, unscored, alike), {**otherwise, **found}


def _check(scores: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, values in scores.items():
        if tuple(values.shape) != shapes[name]:
            raise ValueError(f"its scores of {name!r} are shaped {tuple(values.shape)}, there are {shapes[name]}")
        if gone := int(values.isnan().sum()):
            raise ValueError(f"{gone} of its {values.numel()} scores of {name!r} are NaN")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def _measured(task: Task, model: nn.Module, block: Block) -> Metrics:
    return evaluated(task, predictor(task, model, block), block, "test", thorough=False)


def needs(criterion: Criterion) -> str:
    """What a criterion costs, as its docstring says under "Cost:"; empty where it does not."""
    function: Any = criterion
    while isinstance(function, partial):
        function = function.func
    text = " ".join((inspect.getdoc(function) or "").replace("`", "").split())
    found = re.search(r"Cost: (.*?)\.?(?= (?:Scores|Returns|Raises|Source)\b|$)", text)
    return found.group(1) if found else ""


@dataclass(frozen=True)
class _Examples:
    """A block made of batches, whose outputs are compared as they are."""

    train: Batch
    validation: Batch
    test: Batch
    block: int
    scaler: Scaler = Scaler(("output",), (0.0,), (1.0,))


def examples_block(data: Block | tuple[Data, Data], place: int) -> Block:
    """A block as it is, or one made of (training, test) examples. Raises ValueError for other tuples."""
    if not isinstance(data, tuple):
        return data
    if len(data) != 2:
        raise ValueError(f"the data of a network are a block, or its (training, test) examples, got {len(data)} parts")
    train, test = (first_batch(part, sys.maxsize) for part in data)
    return _Examples(train, Batch(train.x[:0], train.y[:0]), test, place)


def by_loss(loss: Loss) -> Task:
    """A task in which networks are compared by a loss on test examples."""

    def measure(predict: Predictor, _block: Block, batch: Batch, _thorough: bool) -> dict[str, float]:
        value = float(loss(predict(batch.x), batch.y))
        return {"loss": value if math.isfinite(value) else math.nan}

    return Task(
        name="loss",
        loss=loss,
        error="loss",
        scale="log",
        margin=0.05,
        predictor=lambda network, _scaler: decoded(network, lambda output, _x: output),
        measure=measure,
        naive=lambda _block: {},
        trivial=(),
        hits=None,
    )
