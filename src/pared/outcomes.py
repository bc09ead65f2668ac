"""What a study holds and finds out: trained networks, their figures, the candidates, the paired comparisons."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pared import evaluation
from pared.data import Block
from pared.evaluation import Comparison, McNemar, Predictor, Task
from pared.evaluation.paired import Scale, counting_error
from pared.selection import Count, Ratio, Ratios, Rule, Threshold
from pared.sizes import Search
from pared.surgery import Drop, Plan, Structure
from pared.training import Fit
from pared.training.fleet import inference
from pared.types import Masks

CONTROLS = ("trained_on", "scratch", "random")


Metrics = dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """One network's figures: pure data, what the store holds.

    `metrics` are flat: "validation.nrmse", "test.free_direction", "parameters", ...; a diverged network has
    {"diverged": 1.0} and no errors. `ratio` is the share of parts (units, weights, layers) that is gone.
    """

    data: str
    block: int
    seed: int
    arm: str
    ratio: float | None
    metrics: dict[str, float]
    plan: dict[str, Any] | None = None


@dataclass(frozen=True)
class Removal:
    """What a network lost: the plan, the share of its parts that is gone, the weights that stay (all where None)."""

    plan: Plan
    share: float
    masks: Masks | None = None


@dataclass(frozen=True)
class Trained:
    """A network of one arm, and what it lost."""

    fit: Fit
    removal: Removal | None = None

    @property
    def plan(self) -> Plan | None:
        """How it came from the full network."""
        return self.removal.plan if self.removal else None

    @property
    def masks(self) -> Masks | None:
        """The weights that are not silent, of the network as it is now; None where none was silenced."""
        if self.removal is None or self.removal.masks is None:
            return None
        silenced = self.removal.masks
        return {name: weight.detach() != 0 for name, weight in self.fit.model.named_parameters() if name in silenced}


Key = tuple[str, int, int]
Networks = dict[Key, Trained]
"""(arm, block, seed) -> network. Arms: "full", each rule's label, and the controls."""


@dataclass(frozen=True)
class Candidate:
    """A rule tried on validation data beside the full network; `comparison` is None where every pair diverged.

    `removed` is the share of parts (units, weights, layers) that is gone, `parameters` how many there are (of weights:
    how many are not zero), both on average.
    """

    label: str
    rule: Rule
    removed: float
    parameters: float
    comparison: Comparison | None
    diverged: int

    @property
    def eligible(self) -> bool:
        """Smaller, not inferior on validation data, and never diverged."""
        return self.removed > 0 and not self.diverged and self.comparison is not None and accepted(self.comparison)


@dataclass(frozen=True)
class Evidence:
    """Everything a study found out. `chosen` is the leanest eligible candidate, or None.

    `comparisons` and `hits` set the chosen network (the full one where none was chosen) against each other arm on
    test data: paired errors, and McNemar's test on single right predictions (of a series: one-step directions), pooled
    over blocks and seeds.
    """

    networks: Networks
    measured: dict[Key, Metrics]
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    outcomes: tuple[Outcome, ...]
    comparisons: dict[str, Comparison]
    hits: dict[str, McNemar]

    @property
    def ships_cut(self) -> bool:
        """Whether the small network passed its one test against the full one."""
        return self.chosen is not None and "full" in self.comparisons and accepted(self.comparisons["full"])


def accepted(comparison: Comparison) -> bool:
    """Whether the first of two compared networks may replace the second."""
    return comparison.verdict in ("better", "not inferior")


def label(rule: Rule | Search) -> str:
    """A rule's name in tables: "ratio 0.5", "ratios 0.75/0.5", "2 removed", "threshold 0.09"; what a search does."""
    if isinstance(rule, Ratio):
        return f"ratio {rule.fraction:g}"
    if isinstance(rule, Ratios):
        return f"ratios {'/'.join(f'{fraction:g}' for fraction in rule.fractions.values())}"
    if isinstance(rule, Count):
        return f"{rule.units} removed"
    if isinstance(rule, Threshold):
        return f"threshold {rule.value:g}" + (" of the mean" if rule.relative else "")
    return str(rule)


@dataclass(frozen=True)
class Yardstick:
    """What two networks are compared by: a metric on a scale, a margin and a level that were fixed beforehand.

    Where metrics hold the number of "rows" that an error was counted on, intervals are no narrower than these allow.
    """

    error: str
    scale: Scale
    margin: float
    level: float

    def compared(self, pairs: Sequence[tuple[Metrics, Metrics, int]], part: str) -> Comparison | None:
        """`compare` over the pairs (first, second, block) in which both errors are known; None where there is none."""
        metric = f"{part}.{self.error}"
        sound = [(a[metric], b[metric], block) for a, b, block in pairs if metric in a and metric in b]
        if not sound:
            return None
        first, second, blocks = zip(*sound, strict=True)
        rows = {block: a[f"{part}.rows"] for a, _, block in pairs if f"{part}.rows" in a}
        least = counting_error(sum(rows.values())) if rows else 0.0
        return evaluation.compare(first, second, self.margin, blocks, self.scale, self.level, least)


def evaluated(task: Task, predict: Predictor, block: Block, part: str, thorough: bool = True) -> Metrics:
    """The metrics of a predictor on a part of a block ("validation" or "test"), prefixed with its name."""
    found = task.measure(predict, block, block.validation if part == "validation" else block.test, thorough)
    if math.isnan(found[task.error]):
        return {"diverged": 1.0}
    return {f"{part}.{name}": value for name, value in found.items() if math.isfinite(value)}


def network_metrics(task: Task, trained: Trained, block: Block, part: str, thorough: bool = True) -> Metrics:
    """`evaluated` for a trained network."""
    if trained.fit.diverged:
        return {"diverged": 1.0}
    return evaluated(task, predictor(task, trained.fit.model, block), block, part, thorough)


def predictor(task: Task, model: nn.Module, block: Block) -> Predictor:
    """A network of a study as a Predictor of a block."""
    return task.predictor(inference(model, block.test.x), block.scaler)


def costs(trained: Trained, block: Block, structure: Structure) -> Metrics:
    """Parameters, how many of them are not zero, multiply-adds of one example, and units left."""
    return {
        "parameters": evaluation.parameters(trained.fit.model),
        "nonzeros": evaluation.nonzeros(trained.fit.model),
        "macs": evaluation.macs(trained.fit.model, block.train.x[:1]),
        "units": units_left(structure, trained.plan or Plan({})),
    }


def units_left(structure: Structure, plan: Plan) -> int:
    """How many of the groups' units a network has after a plan, whose dropped layers have none."""
    left = {group.name: group.width for group in structure}
    for edit in (*plan.before, plan):
        if isinstance(edit, Plan):
            left |= {name: len(units) for name, units in edit.keep.items()}
        elif isinstance(edit, Drop):
            gone = edit.modules[0]
            left |= {name: 0 for name in left if name == gone or name.startswith(f"{gone}.l")}
    return sum(left.values())


def candidate(
    rule: Rule,
    networks: Networks,
    validated: Mapping[Key, Metrics],
    size: Callable[[nn.Module], int],
    yardstick: Yardstick,
) -> Candidate:
    """Sets a rule's networks beside the full ones on validation data."""
    name = label(rule)
    keys = [key for key in networks if key[0] == name]
    pairs = [(validated[key], validated["full", *key[1:]], key[1]) for key in keys]
    shares = [removal.share for key in keys if (removal := networks[key].removal)]
    return Candidate(
        label=name,
        rule=rule,
        removed=float(np.mean(shares)),
        parameters=float(np.mean([size(networks[key].fit.model) for key in keys])),
        comparison=yardstick.compared(pairs, "validation"),
        diverged=sum("diverged" in validated[key] for key in keys),
    )


def network_outcomes(
    data: str,
    networks: Networks,
    measured: Mapping[Key, Metrics],
    blocks: Mapping[int, Block],
    structure: Structure,
) -> Iterator[Outcome]:
    """One outcome a trained network with what was measured of it; networks cut by a rule are the arm "cut"."""
    for key, trained in networks.items():
        arm, block, seed = key
        by_rule = arm not in ("full", *CONTROLS)
        metrics = costs(trained, blocks[block], structure) | measured.get(key, {})
        plan = trained.plan.as_dict() if trained.plan else None
        ratio = trained.removal.share if trained.removal else None
        yield Outcome(data, block, seed, "cut" if by_rule else arm, ratio, metrics, plan)


def baseline_outcomes(data: str, blocks: Iterable[Block], task: Task) -> Iterator[Outcome]:
    """The naive predictors on the test part of every block, under seed 0."""
    for block in blocks:
        for arm, predict in task.naive(block).items():
            yield Outcome(data, block.block, 0, arm, None, evaluated(task, predict, block, "test"))


def test_comparisons(outcomes: Sequence[Outcome], first: str, yardstick: Yardstick) -> dict[str, Comparison]:
    """The arm `first` against every other arm on test errors; an arm without seeds (naive) meets every seed."""
    metric = f"test.{yardstick.error}"
    errors = {(o.arm, o.block, o.seed): o.metrics for o in outcomes if metric in o.metrics}
    arms = dict.fromkeys(o.arm for o in outcomes if o.arm != first and metric in o.metrics)
    found = {}
    for arm in arms:
        pairs = [
            (own, errors.get((arm, block, seed)) or errors.get((arm, block, 0), {}), block)
            for (name, block, seed), own in errors.items()
            if name == first
        ]
        if (comparison := yardstick.compared(pairs, "test")) is not None:
            found[arm] = comparison
    return found


def hit_tests(task: Task, networks: Networks, first: str, blocks: Mapping[int, Block]) -> dict[str, McNemar]:
    """McNemar's test of single right predictions on test data, pooled: the arm `first` against the other tested ones.

    Empty for a task whose predictions are not right or wrong.
    """
    found: dict[str, McNemar] = {}
    if task.hits is None:
        return found
    hits = partial(_hits, task, task.hits)
    own = {key[1:]: trained for key, trained in networks.items() if key[0] == first and not trained.fit.diverged}
    for arm in ("full", *CONTROLS):
        others = {key[1:]: trained for key, trained in networks.items() if key[0] == arm and not trained.fit.diverged}
        met = [member for member in own if member in others]
        if arm != first and met:
            a = np.concatenate([hits(own[member], blocks[member[0]]) for member in met])
            b = np.concatenate([hits(others[member], blocks[member[0]]) for member in met])
            found[arm] = evaluation.mcnemar(a, b)
    return found


def _hits(task: Task, hits: Callable[..., NDArray[np.bool_]], trained: Trained, block: Block) -> NDArray[np.bool_]:
    return hits(predictor(task, trained.fit.model, block), block.test, block.scaler)
