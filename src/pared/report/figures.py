"""Figures of the network and of the choice of its size: recurrent weights, error and direction against size."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from pared.report import captions
from pared.report.summary import Record, finite, floats, level, limit, mean, number, points, ratio, values
from pared.report.svg import BLUE, GREY, INK, VERMILION, Drawing, canvas, inline, percentage, power
from pared.report.words import parts, words

MAP = LinearSegmentedColormap.from_list("paper", ["#f7f9fb", "#9ecae1", "#2878b5", "#08306b"], N=64)
_TICKS = tuple(step * 10.0**power_of_ten for power_of_ten in range(-3, 3) for step in (1, 2, 5))


def weights(record: Record) -> Drawing:
    """Heat map of the absolute recurrent weights of the output gate, and below it the mean of every column.

    Source: the paper's figures 3 to 5.
    """
    title = "Recurrent weights of the first layer"
    drawn = record.get("figures") or {}
    if not drawn.get("weights"):
        return Drawing("weights", title, "Not drawn: this run stored no recurrent weights.")
    matrix = np.abs(np.array([floats(row) for row in drawn["weights"]]))
    units = matrix.shape[1]
    means = floats(drawn.get("column_means")) if drawn.get("column_means") else matrix.mean(axis=0)
    kept = sorted({unit for unit in drawn.get("kept") or () if unit < units} or range(units))
    settings = record.get("settings") or {}
    scale = _untrained(units, settings.get("cell", "lstm"), settings.get("init", "keras"))
    figure, (top, bottom) = canvas(2, 1, height=6.0, sharex=True, height_ratios=[3, 2])
    _heat_map(top, matrix)
    _columns(bottom, means, kept, scale)
    text = captions.caption(
        captions.WEIGHTS,
        what=drawn.get("weights_label") or "absolute values",
        removed=units - len(kept),
        units=units,
        criterion=settings.get("criterion", "unknown"),
        scale=scale,
    )
    return Drawing("weights", title, text, inline(figure, "weights"))


def _untrained(units: int, cell: str, init: str) -> float:
    """Mean absolute recurrent weight at the start.

    keras: orthonormal columns over the stacked gates, nearly normal: sqrt(2 / (pi gates units));
    torch: uniform up to 1 / sqrt(units): half of that.
    """
    if init == "torch":
        return 0.5 / math.sqrt(units)
    return math.sqrt(2 / (math.pi * {"gru": 3, "rnn": 1}.get(cell, 4) * units))


def _heat_map(axes: Axes, matrix: np.ndarray) -> None:
    rows, columns = matrix.shape
    tiles = {"edgecolors": "white", "linewidth": 0.6} if columns <= 32 else {"rasterized": columns > 64}
    mesh = axes.pcolormesh(np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, matrix, cmap=MAP, vmin=0, **tiles)
    axes.invert_yaxis()
    axes.grid(False)
    axes.set(ylabel="to unit", title="|weight|")
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    assert axes.figure is not None
    bar = axes.figure.colorbar(mesh, ax=axes, location="right", pad=0.015, aspect=18)
    bar.outline.set_visible(False)
    bar.solids.set(rasterized=False, edgecolor="face")  # type: ignore[union-attr]  # no embedded image, no seams


def _columns(axes: Axes, means: np.ndarray, kept: list[int], scale: float) -> None:
    units = np.arange(len(means))
    removed = [unit for unit in units if unit not in set(kept)]
    axes.plot(units, means, color="#b9bfc7", linewidth=1.3, zorder=1)
    axes.axhline(scale, color=GREY, linestyle="--", linewidth=1.1, label="untrained weights")
    axes.scatter(kept, means[kept], s=42, color=BLUE, zorder=3, label="kept")
    if removed:
        hollow: Any = {"facecolor": "white", "edgecolor": VERMILION, "linewidth": 1.6}
        axes.scatter(removed, means[removed], s=42, zorder=3, label="removed", **hollow)
    axes.set(xlabel="from unit", ylabel="column mean")
    axes.set_ylim(0, 1.25 * float(np.nanmax(np.append(means, scale))))
    axes.xaxis.set_major_locator(MaxNLocator(16, integer=True))
    axes.legend(loc="upper right", ncols=3, handletextpad=0.4, columnspacing=1.4)


def sizes(record: Record) -> Drawing:
    """Validation error of every candidate relative to the full network, with interval, against its parameters."""
    if words(record).metric == "accuracy":
        return accuracies(record)
    title = "Error against size"
    found = [
        (each, comparison)
        for each in sorted(record.get("candidates") or (), key=lambda each: number(each.get("parameters")) or 0)
        if (comparison := each.get("comparison")) and number(each.get("parameters")) and ratio(comparison, "difference")
    ]
    if not found:
        return Drawing("sizes", title, "Not drawn: no candidate has been compared with the full network.")
    figure, (axes,) = canvas(height=3.7)
    margin = limit(found[0][1])
    full = number((record.get("full_size") or {}).get(parts(record).size))
    room = 0.15 * max(full or 0, found[-1][0]["parameters"])
    crowded = _crowded([each["parameters"] for each, _ in found], room)
    previous, above = -room, False
    for x, same in groupby(found, key=lambda point: point[0]["parameters"]):
        above = crowded or not above or x - previous > room  # labels of close neighbours take turns
        previous = x
        _candidates(axes, x, list(same), record.get("chosen"), above, crowded)
    if full:
        axes.plot([full], [1], marker="s", color=BLUE, markersize=8)
        axes.annotate("full", (full, 1), (0, 8), textcoords="offset points", ha="center", color=BLUE)
    axes.axhline(1, color=INK, linewidth=1, zorder=1)
    axes.axhspan(1, margin, color="#009e73", alpha=0.14, linewidth=0)
    axes.annotate(
        f"margin\n{margin:.4g}", (1, margin), (5, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="left", va="center", color="#00664a", fontsize=9,
    )  # fmt: skip
    ends = [end for _, each in found for key in ("low", "difference", "high") if (end := ratio(each, key))]
    ratio_axis(axes, [*ends, 1, margin])
    if crowded:
        _headroom(axes)
    axes.set_xlim(0, 1.12 * max(full or 0, found[-1][0]["parameters"]))
    axes.set(xlabel=parts(record).sizes, ylabel="error relative to full network")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    left_out = len(record.get("candidates") or ()) - len(found)
    extra = [captions.SIZES_LEFT_OUT] if left_out else []
    text = captions.caption(captions.SIZES, *extra, level=level(record), count=left_out)
    return Drawing("sizes", title, text, inline(figure, "sizes"))


def accuracies(record: Record) -> Drawing:
    """Validation accuracy of every candidate above the full network's, in points, with interval, against its size."""
    title = "Accuracy against size"
    found = list(record.get("candidates") or ())
    shown = sorted(
        (each for each in found if each.get("comparison") and number(each.get("parameters"))),
        key=lambda each: float(each["parameters"]),
    )
    if not shown:
        return Drawing("sizes", title, "Not drawn: no candidate has been compared with the full network.")
    figure, (axes,) = canvas(height=3.7)
    margin = 100 * (limit(shown[0]["comparison"]) - 1)
    full = number((record.get("full_size") or {}).get(parts(record).size))
    largest = max(full or 0, shown[-1]["parameters"])
    crowded = _crowded([each["parameters"] for each in shown], 0.15 * largest)
    previous, above = -largest, False
    for x, same in groupby(shown, key=lambda each: float(each["parameters"])):
        above = crowded or not above or x - previous > 0.15 * largest  # labels of close neighbours take turns
        previous = x
        _candidates(axes, x, [(each, each["comparison"]) for each in same], record.get("chosen"), above, crowded)
    if full:
        axes.plot([full], [0], marker="s", color=BLUE, markersize=8)
        axes.annotate("full", (full, 0), (0, 8), textcoords="offset points", ha="center", color=BLUE)
    axes.axhline(0, color=INK, linewidth=1, zorder=1)
    axes.axhspan(-margin, 0, color="#009e73", alpha=0.14, linewidth=0)
    axes.set_xlim(0, 1.12 * largest)
    axes.margins(y=0.25)
    ends = [end for each in shown for key in ("low", "high") if (end := points(each["comparison"], key)) is not None]
    if max(map(abs, [*ends, margin])) > 20 * margin:  # far points must not squeeze those near the margin
        axes.set_yscale("symlog", linthresh=2 * margin)
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.set_yticks([sign * tick for tick in (margin, *_TICKS) for sign in (-1, 1) if margin <= tick <= 100] + [0])
        axes.set_ylim(min(ends) * 1.8, max(*ends, 2 * margin) * 1.8)
    if crowded:
        _headroom(axes)
    axes.set(xlabel=parts(record).sizes, ylabel="accuracy − full network’s, points")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    left_out = len(found) - len(shown)
    extra = [captions.SIZES_LEFT_OUT] if left_out else []
    text = captions.caption(captions.ACCURACIES, *extra, level=level(record), count=left_out)
    return Drawing("sizes", title, text, inline(figure, "sizes"))


def _height(comparison: Mapping[str, Any], key: str) -> float | None:
    return points(comparison, key) if comparison.get("scale") == "linear" else ratio(comparison, key)


def _crowded(sizes: Sequence[float], room: float) -> bool:
    """Whether three sizes lie so close that their labels need to stand upright: a search ends among close sizes."""
    apart = sorted(set(sizes))
    return any(third - first < room for first, third in zip(apart, apart[2:], strict=False))


def _headroom(axes: Axes) -> None:
    """Room for upright labels, whatever the scale."""
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(np.array(axes.get_ylim()))
    axes.set_ylim(top=float(scale.inverted().transform(np.array([high + 0.35 * (high - low)]))[0]))


def _candidates(
    axes: Axes, x: float, points: Sequence[tuple[Any, Any]], chosen: str | None, above: bool, upright: bool
) -> None:
    """The candidates of one size, with one label for all of them."""
    ends: list[float] = []
    for each, comparison in points:
        heights = [_height(comparison, key) for key in ("difference", "low", "high")]
        y = heights[0] if heights[0] is not None else 1.0
        ends += (y if end is None else end for end in heights[1:])
        fill = VERMILION if each["label"] == chosen else "white"
        axes.plot([x, x], ends[-2:], color=VERMILION, linewidth=2, solid_capstyle="round")
        axes.plot([x], [y], marker="o", color=VERMILION, markerfacecolor=fill, markersize=8)
    names = [each["label"] + (" (chosen)" if each["label"] == chosen else "") for each, _ in points]
    axes.annotate(
        "\n".join(names), (x, max(ends) if above else min(ends)), (0, 7 if above else -7),
        textcoords="offset points", ha="center", va="bottom" if above else "top", rotation=90 if upright else 0,
        fontweight="bold" if chosen in [each["label"] for each, _ in points] else "normal",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}, zorder=1.5,  # hides lines, no marker
    )  # fmt: skip


def ratio_axis(axes: Axes, shown: Sequence[float]) -> None:
    """Limits and ticks for these ratios of errors; logarithmic where they differ much."""
    low, high = min(shown), max(shown)
    pad = (high / low) ** 0.18
    axes.set_ylim(low / pad, high * pad)
    if high / low > 4:
        axes.set_yscale("log")
        axes.set_ylim(low / pad, high * pad)
        if high / low < 100:
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.set_yticks([tick for tick in _TICKS if low / pad <= tick <= high * pad])
        else:
            axes.yaxis.set_major_formatter(power)
        axes.minorticks_off()


def directions(record: Record) -> Drawing:
    """Direction accuracy of the candidates on validation data against the share removed and the threshold.

    Source: the paper's figure 6.
    """
    title = "Direction accuracy against deletion"
    candidates = [
        each for each in record.get("candidates") or () if finite([each.get("direction"), each.get("free_direction")])
    ]
    if not candidates:
        return Drawing("directions", title, "Not drawn: no candidate has a direction accuracy.")
    by_threshold = [each for each in candidates if each.get("threshold") is not None]
    figure, panels = canvas(1, 2 if by_threshold else 1, height=3.4, sharey=True)
    zero = {
        "removed": 0.0,
        "direction": mean(values(record, "full", "validation.direction")),
        "free_direction": mean(values(record, "full", "validation.free_direction")),
    }
    _against(panels[0], [zero, *candidates], "removed")
    panels[0].set(xlabel=f"share of {parts(record).name} removed", ylabel="right directions")
    panels[0].xaxis.set_major_formatter(percentage)
    panels[0].yaxis.set_major_formatter(percentage)
    if by_threshold:
        _against(panels[1], by_threshold, "threshold")
        panels[1].set(xlabel="threshold of mean |weight|")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2)
    free = any(finite([each.get("free_direction")]) for each in candidates)
    text = captions.caption(captions.DIRECTIONS, captions.FREE if free else captions.NO_FREE)
    return Drawing("directions", title, text, inline(figure, "directions"))


def _against(axes: Axes, points: Sequence[Mapping[str, Any]], key: str) -> None:
    kinds = (("direction", "one step ahead", BLUE, "o"), ("free_direction", "free running", VERMILION, "D"))
    for metric, name, colour, marker in kinds:
        found = sorted((p[key], p[metric]) for p in points if finite([p.get(key)]) and finite([p.get(metric)]))
        if found:
            x, y = zip(*found, strict=True)
            axes.plot(x, y, color=colour, marker=marker, markersize=6, label=name, clip_on=False)
