"""The paper's figures 2 to 7 beside ours, and the pooled effects in one view."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pared.replicate.junk_neuron.findings import Record
from pared.replicate.junk_neuron.protocol import network, series_of
from pared.replicate.junk_neuron.published import PAPER, SYSTEMS
from pared.report.figures import MAP
from pared.report.svg import BLUE, GREEN, GREY, INK, PURPLE, VERMILION, Drawing, canvas, inline

COLOURS = {"paper": VERMILION, "ten": BLUE, "converged": GREEN}
EXAMPLE = "logistic-3.99"  # the system of the paper's table 3
MU = tuple(name for name in SYSTEMS if name.startswith("logistic-"))


def drawings(record: Record) -> list[Drawing]:
    """All figures of the page; call it within `report.svg.style()`."""
    found = [series(), weights(record), means(record), thresholds(record), accuracies(record)]
    return [*found, *(effects(record, name) for name, budget in record["budgets"].items() if budget["pooled"])]


def series() -> Drawing:
    """Figure 2: the beginnings of three series."""
    figure, axes = canvas(1, 3, height=2.4)
    for each, (name, count) in zip(axes, (("logistic-3.9", 100), ("henon", 100), ("rossler", 10_000)), strict=True):
        values = series_of(SYSTEMS[name]).values[:count, 0]
        each.plot(values, color=BLUE, linewidth=0.8)
        each.set(title=name, xlabel="row")
    caption = (
        "The paper’s figure 2: the first 100 values of the maps, the first 10,000 of the Rossler flow (by its right "
        "equations: with the printed ones x and y stay at 0). The paper draws the Henon map and the flow in their "
        "planes."
    )
    return Drawing("series", "Chaotic series (figure 2)", caption, inline(figure, "series"))


def _examples(record: Record) -> dict[str, Mapping[str, Any]]:
    return {
        name: budget["systems"][EXAMPLE] for name, budget in record["budgets"].items() if EXAMPLE in budget["systems"]
    }


def _normalised(matrix: Any) -> Any:
    """|w| with every row divided by its sum, as in the paper's table 3."""
    size = np.abs(np.array(matrix))
    return size / size.sum(axis=1, keepdims=True)


def weights(record: Record) -> Drawing:
    """Figure 3: the output gate's recurrent weights, the paper's and ours."""
    matrices = {"paper’s table 3": np.array(PAPER.weights)}
    matrices |= {f"ours, {name}": _normalised(each["gate"]) for name, each in _examples(record).items()}
    figure, axes = canvas(1, len(matrices), height=2.9)
    top = max(float(matrix.max()) for matrix in matrices.values())
    for each, (name, matrix) in zip(axes, matrices.items(), strict=True):
        each.pcolormesh(matrix, cmap=MAP, vmin=0, vmax=top)
        each.invert_yaxis()
        each.grid(False)
        each.set_aspect("equal")
        each.set(title=name, xlabel="from unit", xticks=[], yticks=[])
    axes[0].set(ylabel="to unit")
    caption = (
        "The paper’s figure 3: |w| of the first layer’s output gate at mu = 3.99, every row divided by its sum, dark = "
        "large. Ours: first block, first seed. One common scale."
    )
    return Drawing("weights", "Recurrent weights of the output gate (figure 3)", caption, inline(figure, "weights"))


def means(record: Record) -> Drawing:
    """Figures 4 and 5: means of the columns, as colours and as lines."""
    lines = {"paper’s table 3": np.array(PAPER.weight_means)}
    lines |= {name: _normalised(each["gate"]).mean(axis=0) for name, each in _examples(record).items()}
    figure, (strips, axes) = canvas(2, 1, height=4.6, height_ratios=(1, 2))
    strips.pcolormesh(np.array(list(lines.values())), cmap=MAP, edgecolors="white", linewidth=0.6)
    strips.invert_yaxis()
    strips.grid(False)
    strips.set_yticks(np.arange(len(lines)) + 0.5, list(lines))
    strips.set(xticks=[])
    for name, values in lines.items():
        axes.plot(np.arange(1, len(values) + 1), np.sort(values), marker="o", markersize=4, label=name,
                  color=COLOURS.get(name, INK))  # fmt: skip
    axes.set(xlabel="unit, in order of its mean", ylabel="mean of the column")
    axes.xaxis.set_major_locator(MaxNLocator(16, integer=True))
    axes.legend(loc="upper left", ncols=4)
    caption = (
        "The paper’s figures 4 and 5: column means of the matrices above, which are its index of importance. Above in "
        "the order of the units, dark = large; below sorted, because units of different networks have nothing to do "
        f"with each other. All means average {1 / len(PAPER.weight_means):.4f} by construction. Their standard "
        f"deviation is {np.std(PAPER.weight_means):.4f} in the paper and {_untrained_spread():.4f} on average in "
        "networks that were never trained."
    )
    return Drawing("means", "Mean weight of every unit (figures 4 and 5)", caption, inline(figure, "means"))


def _untrained_spread() -> float:
    """Standard deviation of the column means of fresh networks, averaged over 20 of them."""
    system, spreads = SYSTEMS[EXAMPLE], []
    for seed in range(20):
        gate = network(system, system.units, seed).recurrent[0].get_parameter("weight_hh_l0").chunk(4)[3]
        spreads.append(float(_normalised(gate.tolist()).mean(axis=0).std()))
    return float(np.mean(spreads))


def thresholds(record: Record) -> Drawing:
    """Figure 6: the best threshold against mu."""
    figure, (axes,) = canvas(height=3.2)
    mu = [float(name.removeprefix("logistic-")) for name in MU]
    published = [SYSTEMS[name].thresholds[SYSTEMS[name].sizes.index(SYSTEMS[name].best) - 1] for name in MU]
    axes.plot(mu, published, color=INK, marker="s", label="paper")
    for name, budget in record["budgets"].items():
        ours = [budget["systems"].get(each, {}).get("best_threshold", {}) for each in MU]
        values = [each.get("mean", np.nan) for each in ours]
        axes.plot(mu, values, color=COLOURS[name], marker="o", label=f"ours, {name}")
        lows, highs = ([each.get(key, np.nan) for each in ours] for key in ("low", "high"))
        axes.fill_between(mu, lows, highs, color=COLOURS[name], alpha=0.12, linewidth=0)
    axes.set(xlabel="mu of the logistic map", ylabel="best threshold", xticks=mu)
    axes.legend(loc="upper left", ncols=4)
    caption = (
        "The paper’s figure 6: the threshold whose size forecasts best. Ours: by the same rule, one step ahead, for "
        "every seed; line: mean over seeds, band: lowest to highest seed. Where the band fills the range of thresholds "
        "that were tried, the rule picks by chance; ties go to the first threshold."
    )
    return Drawing("thresholds", "Best threshold against chaos (figure 6)", caption, inline(figure, "thresholds"))


def accuracies(record: Record) -> Drawing:
    """Figure 7: accuracy before and after against mu."""
    known = [name for name, budget in record["budgets"].items() if budget["systems"]]
    figure, panels = canvas(1, max(1, len(known)), height=3.4, sharey=True)
    mu = [float(name.removeprefix("logistic-")) for name in MU]
    before = [SYSTEMS[name].accuracy[0] for name in MU]
    after = [max(SYSTEMS[name].accuracy[1:]) for name in MU]
    for axes, name in zip(panels, known, strict=False):
        systems = record["budgets"][name]["systems"]
        axes.plot(mu, before, color=INK, marker="s", linestyle="--", label="paper, before")
        axes.plot(mu, after, color=INK, marker="s", label="paper, after")
        for key, colour, words in (("hits", BLUE, "one step"), ("free_hits", PURPLE, "free-running")):
            full = [systems[each]["full"][key] if each in systems else np.nan for each in MU]
            gain = [systems[each]["rule"][key]["gain"] if each in systems else np.nan for each in MU]
            axes.plot(mu, full, color=colour, marker="o", linestyle="--", label=f"{words}, before")
            axes.plot(mu, np.add(full, gain), color=colour, marker="o", label=f"{words}, after")
        axes.set(title=name, xlabel="mu", xticks=mu, xticklabels=["3.6", "3.7", "3.8", "3.9", "    3.99"])
    panels[0].set(ylabel="directions right, %")
    panels[-1].legend(loc="lower left", fontsize=8)
    caption = (
        "The paper’s figure 7: accuracy of the full network (before) and of the best of the thresholds (after), in its "
        "own count. The best of several is better than one by chance alone: see the table of re-seeded twins."
    )
    return Drawing("accuracies", "Accuracy against chaos (figure 7)", caption, inline(figure, "accuracies"))


def effects(record: Record, name: str) -> Drawing:
    """Pooled differences of free-running accuracy with their intervals."""
    pooled = record["budgets"][name]["pooled"]
    rows = [key for key in pooled if key.startswith(("reseeded", "quarter"))]
    figure, (axes,) = canvas(height=0.26 * len(rows) + 0.9)
    _forest(axes, [pooled[key]["free"] for key in rows], COLOURS[name])
    axes.set_yticks(range(len(rows)), [key.replace("quarter: ", "") for key in rows])
    axes.set(xlabel="change of free-running accuracy, points")
    caption = (
        f"Budget “{name}”, a quarter of the units deleted: first minus second in points, pooled over systems and "
        "blocks, with 95 % intervals. Right of the line the first is better. Orders: by outgoing or incoming weights "
        "(the two readings of the index), at random, largest first."
    )
    return Drawing(f"effects-{name}", f"Differences, budget “{name}”", caption, inline(figure, f"effects-{name}"))


def _forest(axes: Axes, rows: list[Mapping[str, Any]], colour: str) -> None:
    axes.axvline(0, color=GREY, linewidth=1)
    for place, row in enumerate(rows):
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
        axes.plot([row["value"]], [place], marker="o", color=colour, markersize=6)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
