"""The main job for a series: its blocks, its forecasters, the figures of its report, its forecasts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

import pared
from pared import evaluation
from pared.criteria.weight import gate_block
from pared.data import Protocol, Scaler, Series, Split, protocol_for, rolling_origin
from pared.data.splits import check_range
from pared.evaluation import FORECASTING
from pared.job import Job, curves, drawn
from pared.outcomes import Evidence, Key, predictor
from pared.settings import RunConfig
from pared.surgery import Plan
from pared.types import DataError

FORECAST_STEPS, CONTEXT_STEPS = 60, 30


def prepare(series: Series, config: RunConfig, protocol: Protocol = Protocol()) -> list[Split]:
    """The blocks of a series; a short one shrinks the protocol. Raises DataError where it is too short."""
    framing = config.framing(series)
    splits = rolling_origin(series, protocol_for(len(series.values), framing, protocol), framing)
    for split in splits:
        check_range(series, split)
    return splits


def job(series: Series, config: RunConfig, blocks: Sequence[Split] | None = None) -> Job[Split]:
    """The run of a series, on all its blocks or on those given. Raises DataError as `prepare` does."""
    splits = prepare(series, config) if blocks is None else blocks
    return Job(
        name=series.name,
        blocks=splits,
        config=config,
        build=lambda seed, widths: config.network(len(series.columns), widths, seed),
        head=_head(series, splits, config),
        shown=("direction", "free_direction"),
        figures=_figures,
        saved=lambda split: {
            "run": asdict(config) | {"window": split.train.x.shape[1]},
            "scaler": asdict(split.scaler),
        },
        remarks=_remarks(splits),
    )


def _remarks(splits: Sequence[Split]) -> tuple[str, ...]:
    """Says so where blocks lie so close that the choice of the size looks at rows that are tested on."""
    seen = {row for split in splits for row in range(*split.spans["validation"])}
    if seen.isdisjoint(row for split in splits for row in range(*split.spans["test"])):
        return ()
    return (
        "The series is short: a block's test rows are validation rows of the next block, on which the size was chosen, "
        "too; the comparisons may flatter the smaller network a little.",
    )


def _head(series: Series, splits: Sequence[Split], config: RunConfig) -> dict[str, Any]:
    framing = config.framing(series)
    first = splits[0]
    protocol = {name: end - start for name, (start, end) in first.spans.items()}
    protocol["stride"] = splits[1].spans["train"][0] - first.spans["train"][0] if len(splits) > 1 else 0
    settings = asdict(config) | {"window": framing.window, "predict": framing.predict} | config.resolved
    return {
        "data": {
            "name": series.name,
            "length": len(series.values),
            "columns": list(series.columns),
            "lyapunov": series.lyapunov,
            "source": series.source,
        },
        "settings": settings | {"protocol": protocol | {"blocks": len(splits)}},
        "blocks": [{"block": s.block} | {name: list(span) for name, span in s.spans.items()} for s in splits],
    }


def _figures(evidence: Evidence, key: Key, split: Split) -> dict[str, Any]:
    networks = drawn(evidence, key)
    figures = curves(evidence, key) | {"forecast": _forecasts({arm: t.fit.model for arm, t in networks.items()}, split)}
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
        predict = predictor(FORECASTING, model, split)
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
