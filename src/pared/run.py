"""The main job as data: how a series becomes a study, and its evidence the record that is stored and drawn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

import pared
from pared import criteria, evaluation
from pared.criteria.weight import gate_block
from pared.data import Framing, Protocol, Scaler, Series, Split, protocol_for, resolve_predict, rolling_origin
from pared.models import Forecaster
from pared.models.recurrent import Cell, Init
from pared.outcomes import CONTROLS, Candidate, Evidence, Key, Outcome, label, predictor
from pared.schedules import Cosine
from pared.selection import Ratio, Rule, Scope, Threshold
from pared.study import Build, Investigation, StudySettings
from pared.surgery import Plan
from pared.training import TrainConfig
from pared.types import DataError, Progress

FORECAST_STEPS, CONTEXT_STEPS = 60, 30
Predict = Literal["values", "increments", "auto"]


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's result but the data: pure data, written to config.toml.

    `window` 0 and `predict` "auto" take what suits the series; `refit_epochs` 0 is a fifth of `epochs`.
    """

    cell: Cell = "lstm"
    recurrent: tuple[int, ...] = (16, 4)
    dense: tuple[int, ...] = (4,)
    init: Init = "keras"
    window: int = 0
    horizon: int = 1
    predict: Predict = "auto"
    epochs: int = 300
    refit_epochs: int = 0
    lr: float = 1e-2
    refit_lr: float = 3e-3
    batch_size: int = 64
    seed: int = 0
    seeds: int = 2
    criterion: str = "taylor"
    ratios: tuple[float, ...] = (0.1, 0.25, 0.4, 0.5, 0.6, 0.75)
    thresholds: tuple[float, ...] = ()
    scope: Scope = "global"
    keep: tuple[str, ...] = ()
    margin: float = 0.05
    level: float = 0.95
    quick: bool = False

    def __post_init__(self) -> None:
        if self.criterion not in criteria.__all__:
            raise DataError(f"unknown criterion {self.criterion!r}; choose one of {', '.join(criteria.__all__)}")
        if self.seeds < 1 or self.seed < 0:
            raise DataError(f"there must be at least 1 seed, from 0 on; got seeds={self.seeds}, seed={self.seed}")
        if not 0 < self.margin < math.inf:
            raise DataError(f"the margin must be positive and finite (0.05 allows 5 % more error), got {self.margin}")
        if not all(map(math.isfinite, (self.lr, self.refit_lr, *self.thresholds))):
            raise DataError(f"learning rate and thresholds must be finite, got {self.lr} and {self.thresholds}")
        try:
            self._check_rules()
            Framing(self.window or 1, self.horizon)
            self.network(1, {}, seed=0)
            self.refitting  # noqa: B018  (checks its numbers)
        except ValueError as error:
            raise DataError(str(error)) from error

    def _check_rules(self) -> None:
        labels = [label(rule) for rule in self.rules]
        if not labels:
            raise DataError("there is nothing to try; give at least one ratio or threshold")
        if len(set(labels)) < len(labels):
            raise DataError(f"ratios and thresholds must differ, got {', '.join(labels)}")

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What is tried, in order."""
        return (*map(Ratio, self.ratios), *map(Threshold, self.thresholds))

    @property
    def training(self) -> TrainConfig:
        """How the full network is trained; without the warm-up some networks of smooth flows never learn anything."""
        return TrainConfig(
            epochs=self.epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            schedule=Cosine(warm=0.1),
            patience=math.inf,
        )

    @property
    def refitting(self) -> TrainConfig:
        """How a network is trained on after a cut."""
        epochs = self.refit_epochs or max(1, round(0.2 * self.epochs))
        return replace(self.training, epochs=epochs, lr=self.refit_lr, schedule=Cosine())

    def framing(self, series: Series) -> Framing:
        """Window, horizon and target, with what suits the series filled in."""
        return Framing(self.window or series.window, self.horizon, resolve_predict(series, self.predict))

    def network(self, inputs: int, widths: Mapping[str, int], seed: int | None = None) -> Forecaster:
        """A fresh network, or a smaller one with `widths` (group name -> units)."""
        recurrent = [widths.get(f"recurrent.{i}.l0", width) for i, width in enumerate(self.recurrent)]
        dense = [widths.get(f"head.{i}", width) for i, width in enumerate(self.dense)]
        return Forecaster(inputs, recurrent, dense, cell=self.cell, init=self.init, seed=seed)


def prepare(series: Series, config: RunConfig, protocol: Protocol = Protocol()) -> list[Split]:
    """The blocks of a series; a short one shrinks the protocol. Raises DataError where it is too short."""
    framing = config.framing(series)
    splits = rolling_origin(series, protocol_for(len(series.values), framing, protocol), framing)
    for split in splits:
        _check_range(series, split)
    return splits


def _check_range(series: Series, split: Split) -> None:
    """Raises DataError for an outlier so far out that float32 holds it not, or not the other values beside it."""
    for start, end in split.spans.values():
        raw = series.values[start:end]
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = split.scaler.scaled(raw).astype(np.float32)
            spread = np.ptp(scaled, axis=0)
        lost = ~np.isfinite(scaled).all(axis=0) | ((spread == 0) & (raw != raw[0]).any(axis=0))
        for column in np.flatnonzero(lost):
            values = series.values[:end, column]
            row = int(np.abs(values).argmax())
            raise DataError(
                f"{series.name}: row {row + 1}, column {series.columns[column]!r}: {values[row]:g} lies so far from "
                "the other values that they cannot be told apart beside it; correct it or cut it out"
            )


def investigation(
    series: Series, splits: Sequence[Split], config: RunConfig, jobs: int, progress: Progress
) -> Investigation:
    """The study that a run makes of a series. Raises DataError for rules that suit none of its layers."""
    build: Build = lambda seed, widths: config.network(len(series.columns), widths, seed)  # noqa: E731
    settings = StudySettings(
        train=config.training,
        refit=config.refitting,
        rules=config.rules,
        criterion=getattr(criteria, config.criterion),
        scope=config.scope,
        keep=config.keep,
        margin=config.margin,
        level=config.level,
    )
    seeds = range(config.seed, config.seed + config.seeds)
    study = Investigation(build, splits, seeds, settings, series.name, jobs, progress)
    try:
        study.check()
    except ValueError as error:
        raise DataError(str(error)) from error
    return study


def shipped_key(evidence: Evidence) -> Key:
    """The network that is saved: newest block, the seed with the (lower) median validation error."""
    arm = evidence.chosen.label if evidence.ships_cut and evidence.chosen else "full"
    errors = {
        (block, seed): metrics["validation.nrmse"]
        for (name, block, seed), metrics in evidence.measured.items()
        if name == arm and "validation.nrmse" in metrics
    }
    newest = max(block for block, _ in errors)
    ranked = sorted((error, seed) for (block, seed), error in errors.items() if block == newest)
    return arm, newest, ranked[(len(ranked) - 1) // 2][1]


def record(series: Series, splits: Sequence[Split], config: RunConfig, evidence: Evidence) -> dict[str, Any]:
    """What outcomes.json holds: plain data, from which the report is drawn. Times lie under "milliseconds" alone."""
    arm, block, seed = key = shipped_key(evidence)
    split = next(s for s in splits if s.block == block)
    full, shipped = evidence.networks["full", block, seed].fit.model, evidence.networks[key].fit.model
    example = split.train.x[:1]
    shipped_as = {"arm": "full" if arm == "full" else "cut", "block": block, "seed": seed}
    return partial_record(series, splits, config, evidence.outcomes) | {
        "candidates": [_candidate(c, evidence) for c in evidence.candidates],
        "chosen": evidence.chosen.label if evidence.chosen else None,
        "shipped": shipped_as | asdict(evaluation.size(shipped, example)),
        "full_size": asdict(evaluation.size(full, example)),
        "comparisons": {name: asdict(c) for name, c in evidence.comparisons.items()},
        "directions": {name: asdict(d) for name, d in evidence.directions.items()},
        "notes": notes(splits, config, evidence),
        "finding": finding(evidence, config),
        "figures": _figures(config, evidence, key, split),
    }


def partial_record(
    series: Series, splits: Sequence[Split], config: RunConfig, outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    """The record of a run that was interrupted: settings and what is finished, no comparison."""
    framing = config.framing(series)
    first = splits[0]
    protocol = {name: end - start for name, (start, end) in first.spans.items()}
    protocol["stride"] = splits[1].spans["train"][0] - first.spans["train"][0] if len(splits) > 1 else 0
    settings = asdict(config) | {
        "window": framing.window,
        "predict": framing.predict,
        "refit_epochs": config.refitting.epochs,
        "seeds": list(range(config.seed, config.seed + config.seeds)),
        "candidates": [label(rule) for rule in config.rules],
        "protocol": protocol | {"blocks": len(splits)},
    }
    return {
        "format": 1,
        "pared": pared.__version__,
        "data": {
            "name": series.name,
            "length": len(series.values),
            "columns": list(series.columns),
            "lyapunov": series.lyapunov,
            "source": series.source,
        },
        "settings": settings,
        "blocks": [{"block": s.block} | {name: list(span) for name, span in s.spans.items()} for s in splits],
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "candidates": [],
        "chosen": None,
        "comparisons": {},
        "directions": {},
        "notes": ["The run was interrupted; only what was finished by then is shown."],
        "finding": "Interrupted: nothing may be concluded from this run.",
    }


def notes(splits: Sequence[Split], config: RunConfig, evidence: Evidence) -> list[str]:
    """Remarks that limit what the run may be quoted for."""
    found = []
    if config.quick:
        found.append(
            f"Quick run: {config.epochs} epochs and {config.seeds} seed a block, so the networks are under-trained. It "
            "shows how pared works; a claim about this series needs the full run."
        )
    if len(splits) < 5:
        found.append(f"The series gives only {len(splits)} blocks; fewer than 5 carry no claim.")
    elif len(splits) < 10:
        found.append(f"The series is short: {len(splits)} blocks instead of 10.")
    trained = list(evidence.networks.values())
    if found_nothing := _no_better_than_trivial(evidence.outcomes):
        found.append(
            f"{found_nothing} of the full networks tested err no less than repeating the last value or the training "
            "mean: they learnt nothing of use. Train longer (--epochs) before you trust any comparison."
        )
    naive = [name for name, c in evidence.comparisons.items() if name not in ("full", *CONTROLS) and c.ratio > 1]
    if naive:
        found.append(
            f"Naive forecasters with a smaller error than the network: {', '.join(naive)}. They need no training."
        )
    scratch = evidence.comparisons.get("scratch")
    if scratch is not None and scratch.verdict == "inferior":
        found.append(
            "The small network trained from scratch with equal compute predicts better than the cut one "
            f"(error ratio {scratch.ratio:.2f}); where training anew is cheap, train it at this size."
        )
    if diverged := sum(t.fit.diverged for t in trained):
        found.append(
            f"{diverged} of {len(trained)} trainings diverged; their pairs are left out, their rules not eligible."
        )
    return found


def _no_better_than_trivial(outcomes: Sequence[Outcome]) -> int:
    """Number of full networks whose test error is at least 0.99 of that of persistence or the mean on their block."""
    errors = {(o.arm, o.block, o.seed): o.metrics["test.nrmse"] for o in outcomes if "test.nrmse" in o.metrics}
    trivial = {
        block: min(errors.get((arm, block, 0), math.inf) for arm in ("persistence", "mean")) for _, block, _ in errors
    }
    return sum(arm == "full" and error >= 0.99 * trivial[block] > 0 for (arm, block, _), error in errors.items())


def finding(evidence: Evidence, config: RunConfig) -> str:
    """The one sentence of the report."""
    margin = f"{100 * config.margin:g} %"
    if evidence.chosen is None:
        return (
            f"No smaller network predicted as well as the full one within {margin} on validation data; "
            "the full network is shipped."
        )
    against = evidence.comparisons.get("full")
    if against is None:
        return "The smaller network diverged wherever it was to be tested; the full network is shipped."
    full = next(o.metrics["parameters"] for o in evidence.outcomes if o.arm == "full")
    less = 1 - evidence.chosen.parameters / full
    interval = f"{100 * config.level:g} % interval {_percent(against.ratio_low)} to {_percent(against.ratio_high)}"
    change = f"{_percent(against.ratio)} error ({interval})"
    if not evidence.ships_cut:
        return (
            f"The network with on average {100 * less:.0f} % fewer parameters failed its test: {change} against the "
            f"full one, {against.verdict} at a margin of {margin}; the full network is shipped."
        )
    beats = against.verdict == "better"
    trained_on = evidence.comparisons.get("trained_on")
    if beats and trained_on is not None and trained_on.verdict == "better":
        verdict = "predicts better than the full one"
    elif beats:
        verdict = "predicts as well as the full one (and is not shown to beat it given the same extra training)"
    else:
        verdict = "predicts as well as the full one"
    return (
        f"With {100 * less:.0f} % fewer parameters on average, the network {verdict}: {change} at a margin of {margin}."
    )


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %".replace("-", "−") if math.isfinite(ratio) else "unknown"


def _candidate(candidate: Candidate, evidence: Evidence) -> dict[str, Any]:
    arm = candidate.label
    found = {name: _mean_metric(evidence, arm, f"validation.{name}") for name in ("direction", "free_direction")}
    return {
        "label": candidate.label,
        "ratio": candidate.rule.fraction if isinstance(candidate.rule, Ratio) else None,
        "threshold": candidate.rule.value if isinstance(candidate.rule, Threshold) else None,
        "removed": candidate.removed,
        "parameters": candidate.parameters,
        "comparison": asdict(candidate.comparison) if candidate.comparison else None,
        "diverged": candidate.diverged,
    } | found


def _mean_metric(evidence: Evidence, arm: str, metric: str) -> float | None:
    values = [m[metric] for (name, _, _), m in evidence.measured.items() if name == arm and metric in m]
    return sum(values) / len(values) if values else None


def _figures(config: RunConfig, evidence: Evidence, key: Key, split: Split) -> dict[str, Any]:
    _, block, seed = key
    networks = {"full": evidence.networks["full", block, seed]}
    if evidence.chosen and (evidence.chosen.label, block, seed) in evidence.networks:
        networks["cut"] = evidence.networks[evidence.chosen.label, block, seed]
    curves = dict(networks)
    for arm in ("scratch", "trained_on"):
        if (arm, block, seed) in evidence.networks:
            curves[arm] = evidence.networks[arm, block, seed]
    figures: dict[str, Any] = {
        "curves": {arm: {name: list(values) for name, values in t.fit.curves.items()} for arm, t in curves.items()},
        "forecast": _forecasts({arm: t.fit.model for arm, t in networks.items()}, split),
    }
    return figures | _weights(networks["full"].fit.model, networks.get("cut", networks["full"]).plan, split)


def _weights(model: torch.nn.Module, plan: Plan | None, split: Split) -> dict[str, Any]:
    first = pared.trace(model, split.train.x[:1]).groups[0]
    block = gate_block(model, first)
    if block is None:
        return {"weights": None}
    size = block.detach().abs()
    gate = {4: "output gate", 3: "candidate gate", 1: "recurrent weights"}[
        next(s.blocks for s in first.slices if s.role == "in")
    ]
    return {
        "weights": size.tolist(),
        "weights_label": f"|w| of {first.name}, {gate}",
        "column_means": size.mean(dim=0).tolist(),
        "kept": list(plan.keep.get(first.name, range(first.width)) if plan else range(first.width)),
    }


def _forecasts(models: Mapping[str, torch.nn.Module], split: Split) -> dict[str, list[float]]:
    """Truth and forecasts of the first test points, in the units of the data."""
    x, y = (part[:FORECAST_STEPS] for part in split.test)
    scaler: Scaler = split.scaler
    before = scaler.value(split.validation.y, split.validation.x)[-CONTEXT_STEPS:]
    found = {"truth": scaler.raw(scaler.value(y, x)).tolist(), "context": scaler.raw(before).tolist()}
    for arm, model in models.items():
        predict = predictor(model, split)
        found[f"one_step_{arm}"] = scaler.raw(predict(x)).tolist()
        if split.recursive:
            found[arm] = scaler.raw(evaluation.free_run(predict, x[:1], len(x))[0]).tolist()
    return found


def forecast_rows(
    model: torch.nn.Module, window: int, scaler: Scaler, series: Series, steps: int
) -> list[list[int | float | str]]:
    """[row, actual, forecast] for every row that has a full window before it, then for rows beyond the end.

    Rows count from 1. A network with further inputs, or a horizon over 1, reaches `horizon` rows beyond the end; only a
    one-step forecast of a single column can be fed back for more `steps`. Raises DataError for too few rows and for
    steps that cannot be reached.
    """
    if len(series.values) < window:
        raise DataError(f"{series.name} has {len(series.values)} rows, the network needs at least {window}")
    recursive = scaler.horizon == 1 and len(scaler.columns) == 1
    if steps < 1 or (steps > 1 and not recursive):
        raise DataError(f"{steps} steps cannot be forecast: this network reaches {scaler.horizon} beyond the end")
    scaled = torch.tensor(scaler.scaled(series.values), dtype=torch.float32)
    x = scaled.unfold(0, window, 1).transpose(1, 2)
    predict = evaluation.predictor(model, scaler)
    values = predict(x)
    if steps > 1:
        values = torch.cat([values, evaluation.free_run(predict, x[-1:], steps)[0, 1:]])
    target = series.values[:, 0]
    first = window + scaler.horizon - 1
    return [
        [row + 1, float(target[row]) if row < len(target) else "", float(value)]
        for row, value in enumerate(scaler.raw(values.double()).tolist(), first)
    ]


def mean_test_metric(record: Mapping[str, Any], arm: str, metric: str) -> float | None:
    """Mean of a metric over the tested networks of an arm (geometric for the error), None where it was not measured."""
    tested = [o["metrics"] for o in record["outcomes"] if o["arm"] == arm and "test.nrmse" in o["metrics"]]
    values: list[float] = [m[key] for m in tested for key in (f"test.{metric}", metric) if key in m]
    if not values:
        return None
    if metric == "nrmse":
        return math.exp(sum(map(math.log, values)) / len(values)) if min(values) > 0 else 0.0
    return sum(values) / len(values)


def ratio_text(comparison: Mapping[str, Any]) -> str:
    """A stored comparison as "0.98 [0.95, 1.02]"."""
    ratio, low, high = (math.exp(comparison[name]) for name in ("difference", "low", "high"))
    if high < 0.01 or low >= 100:
        return "< 0.01" if high < 0.01 else f"{ratio:,.0f} [{low:,.0f}, {high:,.0f}]"
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
