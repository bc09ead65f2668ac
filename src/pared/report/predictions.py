"""Figures of what the networks of a table do: beside the controls, class by class, predicted against true."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from pared.report import captions
from pared.report.forecasts import draw_arm
from pared.report.summary import NETWORKS, Record, arms, by_block, floats, label, level
from pared.report.svg import BLUE, COLOURS, GREY, INK, VERMILION, Drawing, canvas, inline, percentage
from pared.report.words import words

_MAP = LinearSegmentedColormap.from_list("shares", ["#f7f9fb", "#9ecae1", "#2878b5"], N=64)
FEW = 12
"""Most classes whose names and counts find room in the figure."""


def tested(record: Record) -> Drawing:
    """Accuracy, or error, on test data of every arm, with intervals over folds, and one dot a fold."""
    title, metric = "Test results beside the controls", f"test.{words(record).metric}"
    shown = [arm for arm in arms(record) if by_block(record, arm, metric)]
    if not shown:
        return Drawing("tested", title, "Not drawn: no network has test results yet.")
    coverage = (record.get("settings") or {}).get("level", 0.95)
    figure, (axes,) = canvas(height=1.3 + 0.33 * len(shown))
    for place, arm in enumerate(shown):
        draw_arm(axes, place, by_block(record, arm, metric), coverage, COLOURS.get(arm, GREY))
    accuracy = metric == "test.accuracy"
    what = "Share of rows put into the right class" if accuracy else "Error over the spread of the target (NRMSE)"
    axes.set(xlabel=what, ylim=(len(shown) - 0.4, -0.6))
    axes.set_yticks(range(len(shown)), [label(arm) for arm in shown])
    if accuracy:
        axes.xaxis.set_major_formatter(percentage)
    else:
        axes.set_xlim(left=0)
    axes.grid(False, axis="y")
    networks = sum(arm in NETWORKS for arm in shown)
    if 0 < networks < len(shown):
        axes.axhline(networks - 0.5, color="#c9ced5", linewidth=0.8)
    side = "to the right" if accuracy else "to the left"
    text = captions.caption(captions.TESTED, what=what, side=side, level=level(record), control=label("trained_on"))
    return Drawing("tested", title, text, inline(figure, "tested"))


def predicted(record: Record) -> Drawing:
    """Classes: true against predicted ones, counted. Numbers: predicted against true ones."""
    return _confusion(record) if words(record).metric == "accuracy" else _scatter(record)


def _confusion(record: Record) -> Drawing:
    title = "Predicted against true classes"
    drawn = (record.get("figures") or {}).get("confusion") or {}
    counts = {arm: np.array([floats(row) for row in drawn[arm]]) for arm in ("full", "cut") if drawn.get(arm)}
    if not counts:
        return Drawing("predictions", title, "Not drawn: this run stored no predictions.")
    classes = [str(name) for name in drawn.get("classes") or ()]
    figure, panels = canvas(1, len(counts), height=4.2, sharey=True)
    for axes, (arm, matrix) in zip(panels, counts.items(), strict=True):
        _counts(axes, matrix, classes)
        axes.set(title=label(arm), xlabel="predicted")
    panels[0].set_ylabel("true")
    return Drawing("predictions", title, captions.caption(captions.CONFUSION), inline(figure, "predictions"))


def _counts(axes: Axes, matrix: np.ndarray, classes: list[str]) -> None:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    edges = np.arange(len(matrix) + 1) - 0.5
    axes.pcolormesh(edges, edges, shares, cmap=_MAP, vmin=0, vmax=1, edgecolors="white", linewidth=0.6)
    axes.set(aspect="equal", ylim=(len(matrix) - 0.5, -0.5))
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if len(classes) > FEW:
        return
    names = [name if len(name) <= 14 else name[:13] + "…" for name in classes]
    long = max(map(len, names), default=0) > 3
    axes.set_xticks(range(len(names)), names, rotation=30 if long else 0, ha="right" if long else "center")
    axes.set_yticks(range(len(names)), names)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if shares[row, column] > 0.6 else INK
            axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=colour, fontsize=8)


def _scatter(record: Record) -> Drawing:
    title = "Predicted against true values"
    drawn = (record.get("figures") or {}).get("predictions") or {}
    truth = floats(drawn.get("truth"))
    lines = {arm: floats(drawn[arm]) for arm in ("full", "cut") if drawn.get(arm)}
    if not truth.size or not lines:
        return Drawing("predictions", title, "Not drawn: this run stored no predictions.")
    figure, panels = canvas(1, len(lines), height=4.2, sharey=True)
    styles: dict[str, Any] = {"full": BLUE, "cut": VERMILION}
    ends = [float(np.min(truth)), float(np.max(truth))]
    room = 0.25 * (ends[1] - ends[0])
    for axes, (arm, line) in zip(panels, lines.items(), strict=True):
        axes.plot(ends, ends, color=INK, linewidth=0.9, zorder=1)
        axes.scatter(truth, line, s=14, color=styles[arm], alpha=0.5, linewidth=0)
        axes.set(title=label(arm), xlabel="true", ylim=(ends[0] - room, ends[1] + room))
    panels[0].set_ylabel("predicted")
    column = next(iter((record.get("data") or {}).get("columns") or ()), "the target")
    text = captions.caption(captions.PREDICTIONS, column=column)
    return Drawing("predictions", title, text, inline(figure, "predictions"))
