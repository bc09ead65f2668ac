"""The paper's figures 1 to 7 beside ours."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pared.replicate.belsley.findings import NAMES, TITLES, Record
from pared.replicate.belsley.measures import NOISE
from pared.replicate.belsley.protocol import LEVELS, PROBLEMS
from pared.replicate.belsley.published import CONDITION, METHODS, PAPER, SHARES
from pared.replicate.belsley.toy import signals
from pared.report.figures import MAP
from pared.report.svg import BLUE, GREEN, INK, PURPLE, SKY, VERMILION, Drawing, canvas, inline

COLOURS = {
    "random": PURPLE, "obd": SKY, "variational": GREEN, "belsley": VERMILION, "belsley-obs": BLUE, "surgeon": INK,
}  # fmt: skip
FIGURES = {"wine": (2, 3), "boston": (4, 5), "synthetic-printed": (6, 7), "synthetic-fitting": (6, 7)}


def drawings(record: Record) -> list[Drawing]:
    """All figures of the page; call it within `report.svg.style()`."""
    found = [toy(record)]
    for name, problem in record["problems"].items():
        found += [quality(name, problem), noise(name, problem)]
        found += [surfaces(name, problem, kind) for kind in ("spread", "distortion")]
    return found


def toy(record: Record) -> Drawing:
    """Figure 1: the correlation matrix of the six signals, and their variance shares, printed and ours."""
    figure, axes = canvas(1, 3, height=2.9)
    printed = np.array(SHARES)
    panels = {
        "correlation": np.abs(np.corrcoef(signals(), rowvar=False)),
        "shares, as printed": np.where(printed > 1, 0.0, printed),
        "shares, ours": np.array(record["toy"]["shares"]),
    }
    for each, (title, matrix) in zip(axes, panels.items(), strict=True):
        each.pcolormesh(matrix, cmap=MAP, vmin=0, vmax=1)
        each.invert_yaxis()
        each.grid(False)
        each.set_aspect("equal")
        each.set(title=title, xlabel="parameter", xticks=np.arange(6) + 0.5, xticklabels=range(1, 7), yticks=[])
    axes[1].set_yticks(np.arange(6) + 0.5, [f"{index:g}" for index in CONDITION])
    caption = (
        "The paper’s figure 1 and table 1: |correlation| of six signals and how each one’s variance divides among the "
        "components, dark = 1; rows are condition indices. The last three rows are rounding in both. Two printed "
        "shares above 1 are left out."
    )
    return Drawing("toy", "Belsley’s method on six signals (figure 1)", caption, inline(figure, "toy"))


def _unit(name: str) -> str:
    return "accuracy, %" if PROBLEMS[name].task == "classes" else "RMSE"


def quality(name: str, problem: Mapping[str, Any]) -> Drawing:
    """Figures 2, 4, 6: the measure against what is removed."""
    figure, (ours, paper) = canvas(1, 2, height=4.0, sharey=not name.endswith("printed"))
    for way, colour in COLOURS.items():
        found = problem["ways"][way]["quality"]
        ours.plot(LEVELS, found["value"], color=colour, label=NAMES[way])
        _band(ours, found, colour)
    for method in METHODS:
        curve = PAPER.quality[PROBLEMS[name].figure][method]
        paper.plot(LEVELS, curve, color=COLOURS[method], label=NAMES[method])
    _limit(ours, name, problem["start"]["value"])
    _limit(paper, name, problem["paper"]["start"])
    _bounded(ours, [problem["ways"][way]["quality"]["value"] for way in COLOURS], name)
    ours.set(title=f"ours, {problem['seeds']} seeds", xlabel="weights removed, %", ylabel=_unit(name))
    paper.set(title="paper, one run", xlabel="weights removed, %")
    figure.legend(*ours.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
    caption = (
        f"The paper’s figure {FIGURES[name][0]}, digitised, beside ours: mean over seeds with a 95 % interval. Dotted: "
        "the margin." + ("" if PROBLEMS[name].task == "classes" else " Errors far beyond the whole network’s are cut.")
    )
    label = f"quality-{name}"
    return Drawing(label, f"{TITLES[name]}: quality (figure {FIGURES[name][0]})", caption, inline(figure, label))


def _band(axes: Axes, found: Mapping[str, Any], colour: str) -> None:
    low, high = (np.array(found[key], dtype=float) for key in ("low", "high"))
    axes.fill_between(LEVELS, low, high, color=colour, alpha=0.12, linewidth=0)


def _limit(axes: Axes, name: str, start: float) -> None:
    margin = PROBLEMS[name].margin
    at = start - margin if PROBLEMS[name].task == "classes" else start * (1 + margin)
    axes.axhline(at, color=INK, linewidth=0.9, linestyle=":")


def _bounded(axes: Axes, curves: list[list[float]], name: str) -> None:
    """Of errors, not much more than those of a network that answers nothing."""
    if PROBLEMS[name].task == "numbers":
        top = 1.6 * max(curve[-1] for curve in curves)
        axes.set_ylim(0, min(top, 1.05 * max(map(max, curves))) if not name.endswith("printed") else None)


def noise(name: str, problem: Mapping[str, Any]) -> Drawing:
    """Figures 3, 5, 7 as lines: spread of the measure at one noise level."""
    figure, (ours, paper) = canvas(1, 2, height=3.6)
    for way, colour in COLOURS.items():
        ours.plot(LEVELS, problem["ways"][way]["noise"]["value"], color=colour, label=NAMES[way])
    for method in METHODS:
        paper.plot(LEVELS, PAPER.noise[PROBLEMS[name].figure][method], color=COLOURS[method])
    level = NOISE[problem["noise level"]]
    ours.set(title=f"ours, noise {level:.2f}", xlabel="weights removed, %", ylabel=f"sd of the {_unit(name)}")
    paper.set(title="paper", xlabel="weights removed, %")
    figure.legend(*ours.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
    caption = (
        "Standard deviation of the measure over draws of noise on the inputs. The paper does not say at which level "
        f"its lines are drawn; ours are at {level:.2f} of an input’s deviation, where the whole network comes closest "
        "to the paper’s."
    )
    label = f"noise-{name}"
    return Drawing(label, f"{TITLES[name]}: noise (figure {FIGURES[name][1]})", caption, inline(figure, label))


def surfaces(name: str, problem: Mapping[str, Any], kind: str) -> Drawing:
    """Figures 3, 5, 7 as surfaces: removed x noise level."""
    ways = list(COLOURS)
    values = {way: np.array(problem["ways"][way][kind], dtype=float) for way in ways}
    if kind == "distortion":
        values = {way: np.log10(np.maximum(found, 1e-3)) for way, found in values.items()}
    top = float(np.nanpercentile(np.stack(list(values.values())), 99))
    low = -2.0 if kind == "distortion" else 0.0
    figure, axes = canvas(2, 3, height=4.4, sharex=True, sharey=True)
    for each, way in zip(axes, ways, strict=True):
        shown = each.imshow(
            values[way].T, origin="lower", aspect="auto", cmap=MAP, vmin=low, vmax=max(top, low + 1e-9),
            extent=(-1, 101, -0.05, 1.05), interpolation="nearest",
        )  # fmt: skip
        each.grid(False)
        each.set(title=NAMES[way])
    for each in axes[3:]:
        each.set(xlabel="weights removed, %")
    for each in (axes[0], axes[3]):
        each.set(ylabel="noise level")
    figure.colorbar(shown, ax=axes, shrink=0.8)
    what = {
        "spread": f"standard deviation of the {_unit(name)} over draws, as the paper plots it",
        "distortion": "log10 of the outputs’ mean squared change under noise over their variance; white: constant",
    }[kind]
    label = f"{kind}-{name}"
    title = f"{TITLES[name]}: {kind} of noise as a surface (figure {FIGURES[name][1]})"
    return Drawing(label, title, f"{what[0].upper()}{what[1:]}. One common scale, dark = high.", inline(figure, label))
