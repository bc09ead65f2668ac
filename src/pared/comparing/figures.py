"""The figure of the page: what is left of quality against the share removed, a panel a repair, a line a criterion."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from pared.comparing.record import above, cells
from pared.report.figures import ratio_axis
from pared.report.summary import Record, finite, level
from pared.report.svg import BLUE, GREEN, GREY, INK, PURPLE, SKY, VERMILION, Drawing, canvas, inline, percentage

STYLES = (
    (BLUE, "o", "-"), (VERMILION, "s", "-"), (GREEN, "D", "-"), (SKY, "^", "-"),
    (INK, "v", "--"), (BLUE, "P", ":"), (VERMILION, "X", ":"), (GREEN, "*", ":"),
)  # fmt: skip
"""Of the criteria that are told apart; further ones are thin and grey."""


def kept(record: Record) -> Drawing:
    """Quality against the share removed; call it within `report.svg.style()`."""
    title = "What is left of the networks’ quality"
    repairs = record["repairs"]
    figure, panels = canvas(1, len(repairs), height=4.6, sharey=True)
    coloured = _coloured(record)
    for axes, repair in zip(panels, repairs, strict=True):
        for name in reversed(record["compared"]):  # the first lie above the others
            style = {"color": PURPLE, "linewidth": 2.4} if name == "random" else coloured.get(name)
            _line(axes, cells(record, name, repair), name, style)
        _band(axes, cells(record, "random", repair))
        axes.axhline(0 if record["task"] == "classification" else 1, color=INK, linewidth=1, zorder=1)
        axes.set(title=repair, xlabel=f"{record['settings']['what']} removed")
        axes.xaxis.set_major_formatter(percentage)
        axes.set_xticks(record["ratios"])
    _scaled(record, panels)
    handles, labels = panels[0].get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    names = [name for name in ("random", *coloured) if name in found]
    figure.legend([found[n] for n in names], names, loc="outside upper left", ncols=5, fontsize=9)
    return Drawing("kept", title, _caption(record, coloured), inline(figure, "kept"))


def _coloured(record: Record) -> dict[str, dict[str, Any]]:
    """Criteria with a colour: all where there are few, else those that keep most without training, on average."""
    names = list(record["compared"][1:])
    if len(names) > len(STYLES):
        repair = record["repairs"][min(1, len(record["repairs"]) - 1)]
        names.sort(key=lambda name: _mean_error(cells(record, name, repair)))
    styles = zip(names, STYLES, strict=False)
    return {name: {"color": c, "marker": m, "linestyle": s, "markersize": 5} for name, (c, m, s) in styles}


def _mean_error(rows: Sequence[Mapping[str, Any]]) -> float:
    errors = [row["full"]["difference"] for row in rows if row["full"]]
    return sum(errors) / len(errors) if errors else float("inf")


def _line(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, style: Mapping[str, Any] | None) -> None:
    """Markers are filled where the criterion is better than random."""
    points = [(row["ratio"], height, row["standing"]) for row in rows if (height := above(row)) is not None]
    if points:
        x, heights, standings = zip(*points, strict=True)
        style = {"color": GREY, "linewidth": 0.7, "alpha": 0.6} if style is None else dict(style)
        filled = [place for place, standing in enumerate(standings) if standing == "better"]
        axes.plot(x, heights, label=name, markerfacecolor="white", **style)
        axes.plot(x, heights, **style | {"linestyle": "none"}, markevery=filled)


def _band(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    points = [(row["ratio"], above(row, "low"), above(row, "high")) for row in rows]
    sound = [point for point in points if len(finite(point)) == 3]
    if sound:
        x, low, high = zip(*sound, strict=True)
        axes.fill_between(x, low, high, color=PURPLE, alpha=0.13, linewidth=0)


def _scaled(record: Record, panels: Sequence[Axes]) -> None:
    if record["task"] == "classification":
        panels[0].set(ylabel="accuracy − full network’s, points")
        return
    panels[0].set(ylabel="error ÷ full network’s")
    ratio_axis(panels[0], [*finite(above(row) for row in record["table"]), 1.0])


def _caption(record: Record, coloured: Mapping[str, Any]) -> str:
    others = len(record["compared"]) - 1 - len(coloured)
    unit = "accuracy on test data less" if record["task"] == "classification" else "test error over"
    text = (
        f"Mean {unit} that of the same network before anything was removed, against the share of every layer’s "
        f"{record['settings']['what']} that went. Purple: removal at random, with its {level(record)} interval. Filled "
        "markers: the criterion is better than random on the same networks; hollow: not shown to be. That is tested by "
        "pairs, so a filled one may lie within the band."
    )
    return text + (f" Grey: {others} further criteria, which keep less." if others > 0 else "")
