"""Figures of what the networks do: before and after, forecast against truth, training curves."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pared.report import captions
from pared.report.summary import NETWORKS, Record, arms, by_block, floats, interval, label, level
from pared.report.svg import BLUE, COLOURS, GREY, INK, VERMILION, Drawing, canvas, inline, percentage, power
from pared.report.words import words

_KINDS = (("test.direction", "One step ahead"), ("test.free_direction", "Free running"))


def before_after(record: Record) -> Drawing:
    """Direction accuracy on test data of every arm, with intervals over blocks, and one dot a block.

    Source: the paper's figure 7, with the controls that it lacks.
    """
    title = "Direction accuracy before and after, beside the controls"
    coverage = (record.get("settings") or {}).get("level", 0.95)
    kinds = [(metric, name) for metric, name in _KINDS if any(by_block(record, arm, metric) for arm in arms(record))]
    if not kinds:
        return Drawing("before-after", title, "Not drawn: no network has test results yet.")
    shown = [arm for arm in arms(record) if any(by_block(record, arm, metric) for metric, _ in kinds)]
    figure, panels = canvas(1, len(kinds), height=1.3 + 0.33 * len(shown), sharey=True)
    for axes, (metric, name) in zip(panels, kinds, strict=True):
        for place, arm in enumerate(shown):
            blocks = by_block(record, arm, metric)
            if blocks:
                draw_arm(axes, place, blocks, coverage, COLOURS.get(arm, GREY))
        axes.axvline(0.5, color=INK, linewidth=0.9, linestyle=":")
        axes.set(title=name, xlabel="right directions", xlim=(-0.03, 1.03), ylim=(len(shown) - 0.4, -0.6))
        axes.set_xticks(np.linspace(0, 1, 5))
        axes.xaxis.set_major_formatter(percentage)
        axes.grid(False, axis="y")
    panels[0].set_yticks(range(len(shown)), [label(arm) for arm in shown])
    networks = sum(arm in NETWORKS for arm in shown)
    if 0 < networks < len(shown):
        for axes in panels:
            axes.axhline(networks - 0.5, color="#c9ced5", linewidth=0.8)
    free = captions.FREE if len(kinds) == 2 else captions.NO_FREE
    text = captions.caption(captions.BEFORE_AFTER, free, level=level(record), control=label("trained_on"))
    return Drawing("before-after", title, text, inline(figure, "before-after"))


def draw_arm(axes: Axes, place: int, blocks: Mapping[int, list[float]], coverage: float, colour: str) -> None:
    """Mean over blocks with its interval, and below it one dot a block."""
    single = [float(np.mean(each)) for each in blocks.values()]
    middle, low, high = interval(blocks, coverage)
    axes.scatter(single, np.full(len(single), place + 0.22), s=9, color=colour, alpha=0.45, linewidth=0)
    axes.plot([low, high], [place - 0.06] * 2, color=colour, linewidth=2.4, solid_capstyle="round")
    axes.plot([middle], [place - 0.06], marker="o", markersize=5.5, color=colour)


def forecast(record: Record) -> Drawing:
    """Free-running and one-step forecasts of the full and the smaller network, with the truth."""
    title = "Forecast against truth"
    drawn = (record.get("figures") or {}).get("forecast") or {}
    truth = floats(drawn.get("truth"))
    panels = [
        (name, lines)
        for prefix, name in (("", "Free running: each forecast is the next input"), ("one_step_", "One step ahead"))
        if (lines := {arm: floats(drawn[prefix + arm]) for arm in ("full", "cut") if drawn.get(prefix + arm)})
    ]
    if not truth.size or not panels:
        return Drawing("forecast", title, "Not drawn: this run stored no forecast.")
    context = floats(drawn.get("context"))
    context = context[-max(len(truth), 15) :]
    figure, axes = canvas(len(panels), 1, height=0.9 + 2.3 * len(panels), sharex=True)
    for each, (name, lines) in zip(axes, panels, strict=True):
        _forecast(each, context, truth, lines)
        each.set_title(name)
    axes[-1].set(xlabel="steps after the last known value")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    free = any(drawn.get(arm) for arm in ("full", "cut"))
    column = next(iter((record.get("data") or {}).get("columns") or ()), "the series")
    text = captions.caption(captions.FORECAST, captions.FREE if free else captions.NO_FREE, column=column)
    return Drawing("forecast", title, text, inline(figure, "forecast"))


def _forecast(axes: Axes, context: np.ndarray, truth: np.ndarray, lines: Mapping[str, np.ndarray]) -> None:
    past, steps = np.arange(1 - len(context), 1), np.arange(1, len(truth) + 1)
    known = np.append(context, truth)
    axes.plot(np.append(past, steps), known, color=INK, linewidth=1.2, marker=".", markersize=4, label="truth")
    styles: dict[str, dict[str, Any]] = {
        "full": {"color": BLUE, "marker": "o", "markersize": 6.5, "markerfacecolor": "none", "linestyle": "-"},
        "cut": {"color": VERMILION, "marker": "x", "markersize": 6, "linestyle": "--"},
    }
    for arm, line in lines.items():
        drawn = styles[arm] if len(truth) <= 30 else styles[arm] | {"marker": None, "linewidth": 1.3}
        axes.plot(np.arange(1, len(line) + 1), line, label=label(arm).lower(), **drawn)
    axes.axvline(0.5, color=GREY, linewidth=0.9)
    spread = 0.3 * float(np.nanmax(known) - np.nanmin(known)) or 1.0
    axes.set(ylabel="value", ylim=(np.nanmin(known) - spread, np.nanmax(known) + spread))


def curves(record: Record) -> Drawing:
    """Loss of the shipped network and its controls by epoch, on a logarithmic scale."""
    title = "Training curves"
    drawn: dict[str, dict[str, Any]] = (record.get("figures") or {}).get("curves") or {}
    parts = [part for part in ("train", "validation") if any(_positive(each.get(part)) for each in drawn.values())]
    if not parts:
        return Drawing("curves", title, "Not drawn: this run stored no training curves.")
    figure, panels = canvas(1, len(parts), height=3.6, sharey=True)
    for axes, part in zip(panels, parts, strict=True):
        for arm in sorted(drawn, key=lambda arm: (NETWORKS.index(arm) if arm in NETWORKS else len(NETWORKS), arm)):
            if _positive(drawn[arm].get(part)):
                line = floats(drawn[arm][part])
                marker = "o" if len(line) == 1 else None
                axes.plot(
                    np.arange(1, len(line) + 1), np.where(line > 0, line, np.nan), color=COLOURS.get(arm, GREY),
                    linewidth=1.4, marker=marker, label=label(arm),
                )  # fmt: skip
        axes.set(yscale="log", xlabel="epoch", title=f"{part.capitalize()} data".replace("Train ", "Training "))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_formatter(power)
        axes.minorticks_off()
    panels[0].set_ylabel(words(record).loss + ("" if words(record).metric == "accuracy" else " (scaled)"))
    found = {name: line for axes in panels for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(found.values()), list(found), loc="outside upper left", ncols=4)
    text = captions.caption(captions.CURVES, loss=words(record).loss.capitalize(), block=words(record).blocks)
    return Drawing("curves", title, text, inline(figure, "curves"))


def _positive(line: Any) -> bool:
    return bool(np.any(floats(line) > 0))
