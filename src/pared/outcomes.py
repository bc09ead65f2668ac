"""What a study holds and finds out: trained networks, their figures, the candidates, the paired comparisons."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pared import evaluation
from pared.data import Split
from pared.evaluation import Comparison, McNemar, Predictor
from pared.evaluation.baselines import baselines
from pared.evaluation.forecast import floats
from pared.selection import Ratio, Rule, Threshold
from pared.surgery import Plan, Structure
from pared.training import Fit
from pared.training.fleet import inference

CONTROLS = ("trained_on", "scratch", "random")


Metrics = dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """One network's figures: pure data, what the store holds.

    `metrics` are flat: "validation.nrmse", "test.free_direction", "parameters", ...; a diverged network has
    {"diverged": 1.0} and no errors.
    """

    data: str
    block: int
    seed: int
    arm: str
    ratio: float | None
    metrics: dict[str, float]
    plan: dict[str, Any] | None = None


@dataclass(frozen=True)
class Trained:
    """A network of one arm, and how it was cut."""

    fit: Fit
    plan: Plan | None = None


Key = tuple[str, int, int]
Networks = dict[Key, Trained]
"""(arm, block, seed) -> network. Arms: "full", each rule's label, and the controls."""


@dataclass(frozen=True)
class Candidate:
    """A rule tried on validation data beside the full network; `comparison` is None where every pair diverged."""

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

    `comparisons` and `directions` set the chosen network (the full one where none was chosen) against each other arm on
    test data: paired errors, and McNemar's test on one-step directions pooled over blocks and seeds.
    """

    networks: Networks
    measured: dict[Key, Metrics]
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    outcomes: tuple[Outcome, ...]
    comparisons: dict[str, Comparison]
    directions: dict[str, McNemar]

    @property
    def ships_cut(self) -> bool:
        """Whether the small network passed its one test against the full one."""
        return self.chosen is not None and "full" in self.comparisons and accepted(self.comparisons["full"])


def accepted(comparison: Comparison) -> bool:
    """Whether the first of two compared networks may replace the second."""
    return comparison.verdict in ("better", "not inferior")


def label(rule: Rule) -> str:
    """A rule's name in tables: "ratio 0.5", "threshold 0.09"."""
    if isinstance(rule, Ratio):
        return f"ratio {rule.fraction:g}"
    if isinstance(rule, Threshold):
        return f"threshold {rule.value:g}" + (" of the mean" if rule.relative else "")
    return str(rule)


def evaluated(predict: Predictor, split: Split, part: str, free_running: bool = True) -> Metrics:
    """The metrics of a forecaster on a part of a block ("validation" or "test"), prefixed with its name."""
    batch = split.validation if part == "validation" else split.test
    sd = float(floats(split.scaler.value(split.train.y, split.train.x)).std())
    found = evaluation.evaluate(predict, batch, split.scaler, sd, recursive=split.recursive and free_running)
    if math.isnan(found["nrmse"]):
        return {"diverged": 1.0}
    return {f"{part}.{name}": value for name, value in found.items() if math.isfinite(value)}


def network_metrics(trained: Trained, split: Split, part: str, free_running: bool = True) -> Metrics:
    """`evaluated` for a trained network."""
    if trained.fit.diverged:
        return {"diverged": 1.0}
    return evaluated(predictor(trained.fit.model, split), split, part, free_running)


def predictor(model: nn.Module, split: Split) -> Predictor:
    """A network of a study as a Predictor of a block."""
    return evaluation.predictor(inference(model, split.test.x), split.scaler)


def costs(trained: Trained, split: Split, structure: Structure) -> Metrics:
    """Parameters, multiply-adds of one window, and units left."""
    kept = trained.plan.keep if trained.plan else {}
    return {
        "parameters": evaluation.parameters(trained.fit.model),
        "macs": evaluation.macs(trained.fit.model, split.train.x[:1]),
        "units": sum(len(kept.get(group.name, range(group.width))) for group in structure),
    }


def candidate(
    rule: Rule, networks: Networks, validated: Mapping[Key, Metrics], structure: Structure, margin: float, level: float
) -> Candidate:
    """Sets a rule's networks beside the full ones on validation data."""
    name = label(rule)
    keys = [key for key in networks if key[0] == name]
    pairs = [(validated[key], validated["full", *key[1:]], key[1]) for key in keys]
    plans = [plan for key in keys if (plan := networks[key].plan)]
    return Candidate(
        label=name,
        rule=rule,
        removed=float(np.mean([_ratio(plan, structure) for plan in plans])),
        parameters=float(np.mean([evaluation.parameters(networks[key].fit.model) for key in keys])),
        comparison=compared(pairs, "validation.nrmse", margin, level),
        diverged=sum("diverged" in validated[key] for key in keys),
    )


def compared(
    pairs: Iterable[tuple[Metrics, Metrics, int]], metric: str, margin: float, level: float
) -> Comparison | None:
    """`compare` over the pairs (first, second, block) in which both errors are known; None where there is none."""
    sound = [(a[metric], b[metric], block) for a, b, block in pairs if metric in a and metric in b]
    if not sound:
        return None
    first, second, blocks = zip(*sound, strict=True)
    return evaluation.compare(first, second, margin=margin, blocks=blocks, level=level)


def network_outcomes(
    data: str,
    networks: Networks,
    measured: Mapping[Key, Metrics],
    splits: Mapping[int, Split],
    structure: Structure,
) -> Iterator[Outcome]:
    """One outcome a trained network with what was measured of it; networks cut by a rule are the arm "cut"."""
    for key, trained in networks.items():
        arm, block, seed = key
        by_rule = arm not in ("full", *CONTROLS)
        metrics = costs(trained, splits[block], structure) | measured.get(key, {})
        plan = trained.plan.as_dict() if trained.plan else None
        ratio = _ratio(trained.plan, structure) if trained.plan else None
        yield Outcome(data, block, seed, "cut" if by_rule else arm, ratio, metrics, plan)


def _ratio(plan: Plan, structure: Structure) -> float:
    """Share of the scored groups' units that the plan removes."""
    return 1 - sum(map(len, plan.keep.values())) / sum(structure[name].width for name in plan.keep)


def baseline_outcomes(data: str, splits: Iterable[Split]) -> Iterator[Outcome]:
    """The naive forecasters on the test part of every block, under seed 0."""
    for split in splits:
        for arm, predict in baselines(split).items():
            yield Outcome(data, split.block, 0, arm, None, evaluated(predict, split, "test"))


def test_comparisons(outcomes: Sequence[Outcome], first: str, margin: float, level: float) -> dict[str, Comparison]:
    """The arm `first` against every other arm on test errors; an arm without seeds (naive) meets every seed."""
    errors = {(o.arm, o.block, o.seed): o.metrics for o in outcomes if "test.nrmse" in o.metrics}
    arms = dict.fromkeys(o.arm for o in outcomes if o.arm != first and "test.nrmse" in o.metrics)
    found = {}
    for arm in arms:
        pairs = [
            (own, errors.get((arm, block, seed)) or errors.get((arm, block, 0), {}), block)
            for (name, block, seed), own in errors.items()
            if name == first
        ]
        if (comparison := compared(pairs, "test.nrmse", margin, level)) is not None:
            found[arm] = comparison
    return found


def direction_tests(networks: Networks, first: str, splits: Mapping[int, Split]) -> dict[str, McNemar]:
    """McNemar's test of one-step directions on test data, pooled: the arm `first` against the other tested ones."""
    own = {key[1:]: trained for key, trained in networks.items() if key[0] == first and not trained.fit.diverged}
    found: dict[str, McNemar] = {}
    for arm in ("full", *CONTROLS):
        others = {key[1:]: trained for key, trained in networks.items() if key[0] == arm and not trained.fit.diverged}
        met = [member for member in own if member in others]
        if arm != first and met:
            a = np.concatenate([_direction_hits(own[member], splits[member[0]]) for member in met])
            b = np.concatenate([_direction_hits(others[member], splits[member[0]]) for member in met])
            found[arm] = evaluation.mcnemar(a, b)
    return found


def _direction_hits(trained: Trained, split: Split) -> NDArray[np.bool_]:
    x, y = split.test
    forecast = floats(predictor(trained.fit.model, split)(x))
    return evaluation.against_last(floats(split.scaler.value(y, x)), forecast, floats(x[:, -1, 0]))
