"""Writes docs/units-and-layers.md and its figures from benchmarks/results: `python docs/units_and_layers.py`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
Row = Mapping[str, Any]
INKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a7f87")


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def number(value: float) -> str:
    """Three digits, as people write them."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def times(row: Row) -> str:
    """A ratio of errors and its interval."""
    return f"{number(row['ratio'])} ({number(row['low'])} to {number(row['high'])})"


def shift(row: Row) -> str:
    """A difference in points and its interval."""
    return f"{row['difference']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})"


def pick(rows: Iterable[Row], **wanted: Any) -> Row:
    return next(row for row in rows if all(row[name] == value for name, value in wanted.items()))


ARMS = {
    ("random", "plain"): "random, plain",
    ("junk", "plain"): "junk index, plain",
    ("magnitude", "plain"): "magnitude, plain",
    ("taylor", "plain"): "Taylor, plain",
    ("greedy, plain", "plain"): "greedy, plain",
    ("random", "repaired"): "random, repaired",
    ("junk", "repaired"): "junk index, repaired",
    ("magnitude", "repaired"): "magnitude, repaired",
    ("taylor", "repaired"): "Taylor, repaired",
    ("least squares", "repaired"): "least squares, repaired",
    ("greedy", "repaired"): "**greedy + least squares**",
    ("random", "matched"): "random, matched",
    ("greedy", "matched"): "**greedy + least squares, matched**",
}


def forecasters(found: Row) -> str:
    """Ratios at half of the units, a table for each series; then a quarter and three quarters of them."""
    parts = []
    for series, scale in dict.fromkeys((case["series"], case["scale"]) for case in found["cases"]):
        cases = [case for case in found["cases"] if (case["series"], case["scale"]) == (series, scale)]
        heads = [f"L1 = {case['units']}, {case['epochs']} epochs" for case in cases]
        rows = [
            ["networks", *(str(case["networks"]) for case in cases)],
            ["NRMSE of the uncut network", *(number(case["NRMSE of the full network"]) for case in cases)],
        ]
        for (criterion, treatment), name in ARMS.items():
            own = [pick(case["rows"], criterion=criterion, treatment=treatment, share=0.5) for case in cases]
            rows.append([name, *map(times, own)])
        parts.append(table([f"{series} in {scale}, half of L1 gone", *heads], rows))
    rows = []
    for case in found["cases"]:
        line = [f"{case['series']} in {case['scale']}, L1 = {case['units']}, {case['epochs']} epochs"]
        for share, treatment in ((0.25, "repaired"), (0.75, "repaired"), (0.75, "matched")):
            line.append(times(pick(case["rows"], criterion="greedy", share=share, treatment=treatment)))
        rows.append(line)
    head = ["greedy + least squares", "a quarter gone", "three quarters", "three quarters, matched"]
    return "\n".join([*parts, table(head, rows)])


def curves(found: Row) -> Figure:
    """Error against the share of units removed, a panel for each loss."""
    figure = Figure(figsize=(8.2, 3.6), layout="constrained")
    panels = figure.subplots(1, len(found["shrinking"]), sharey=True)
    shown = [
        "brute force, once", "brute force, anew", "1st order, anew", "2nd order, once", "2nd order, anew", "random",
        "least squares, repaired",
    ]  # fmt: skip
    for panel, (name, each) in zip(panels, found["shrinking"].items(), strict=True):
        start = each["error of the full network"]["test"]
        for ink, ranking in zip(INKS, shown, strict=True):
            row = pick(each["rows"], ranking=ranking)
            style = "--" if "once" in ranking else ":" if ranking == "random" else "-"
            panel.plot(
                [0, *(100 * s for s in found["removed"])], [start, *row["curve"]], style, color=ink, label=ranking
            )
        panel.axvline(100 * found["claim"], color="#7a7f87", linewidth=1)
        panel.axhline(start + found["margin"], color="#7a7f87", linewidth=1)
        panel.set(title=name, xlabel="units removed, %", xlim=(0, 95))
    panels[0].set(ylabel="test error, %", ylim=(0, 60))
    panels[0].legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def shrinking(found: Row) -> str:
    rows = []
    for row in next(iter(found["shrinking"].values()))["rows"]:
        line = [row["ranking"]]
        for each in found["shrinking"].values():
            own = pick(each["rows"], ranking=row["ranking"])
            line += [f"{100 * own['goes without loss']:.0f} %", shift(own["at the claim"])]
        rows.append([*line, f"{row['seconds']:.2g}"])
    head = ["ranking"]
    for name in found["shrinking"]:
        head += [f"{name}: goes", "at 60 %, points"]
    return table([*head, "s"], rows)


def divnet(found: Row) -> str:
    parts = []
    for layer, name in (("layers.0", "First hidden layer"), ("layers.2", "Second hidden layer")):
        rows = []
        kept = sorted({row["kept"] for row in found["rows"]})
        for way in dict.fromkeys(row["way"] for row in found["rows"]):
            for treatment in ("plain", "fused"):
                own = [pick(found["rows"], layer=layer, way=way, treatment=treatment, kept=k) for k in kept]
                rows.append([f"{way}, {treatment}", *map(shift, own)])
        parts.append(table([f"{name}, units kept", *(f"{100 * k:.0f} %" for k in kept)], rows))
        beside = [row for row in found["DPP, drawn, beside"] if (row["layer"], row["treatment"]) == (layer, "fused")]
        rows = [
            [way, *(shift(pick(beside, way=way, kept=k)) for k in kept)]
            for way in dict.fromkeys(row["way"] for row in beside)
        ]
        parts.append(table([f"{name}, fused: DPP, drawn, minus", *(f"{100 * k:.0f} %" for k in kept)], rows))
    return "\n".join(parts)


def digits(found: Row) -> str:
    figure = "![Test error by units removed](units-and-layers.svg)\n"
    return "\n".join([figure, shrinking(found), divnet(found["DivNet"])])


def layers(found: Row) -> str:
    parts = []
    for name in ("MLP", "residual MLP"):
        each = found[name]
        rows = [
            [row["criterion"], spread(row["layers left"]), shift(row), row["verdict"], f"{row['seconds']:.1f}"]
            for row in each["rows"]
        ]
        rows += [[f"{row['control']} (control)", "", shift(row), row["verdict"], ""] for row in each["controls"]]
        head = [f"{name}, error {each['error of the full network']:.1f} %", f"layers left of {each['hidden layers']}"]
        head += ["test error, points", "verdict", "s"]
        parts.append(table(head, rows))
        rows = [[row["network"], shift(row), row["verdict"]] for row in each["half"]["rows"]]
        rows += [[f"half gone, minus {row['than']}", shift(row), row["verdict"]] for row in each["half"]["half gone"]]
        head = [f"{name}, others: error {each['half']['error of the full network']:.1f} %, layers left "
                f"{spread(each['half']['layers left'])}", "test error, points", "verdict"]  # fmt: skip
        parts.append(table(head, rows))
    each = found["LSTM"]
    rows = [[row["network"], times(row), row["verdict"]] for row in each["rows"]]
    rows.append(["one layer less, over the whole trained on", times(each["less, over the whole trained on"]),
                 each["less, over the whole trained on"]["verdict"]])  # fmt: skip
    head = [f"LSTM 16-16-16, NRMSE {number(each['NRMSE of the full network'])}", "ratio", "verdict"]
    return "\n".join([*parts, table(head, rows)])


def spread(counts: Sequence[int]) -> str:
    few, many = min(counts), max(counts)
    return f"{sum(counts) / len(counts):.1f} ({few} to {many})" if few < many else str(few)


def peers(found: Row) -> str:
    parts = []
    for name, each in found["digits"].items():
        rows = []
        for row in each["pared beside"]:
            if row["cut"] != "random":
                where = {"share": row["share"], "epochs": row["epochs"]}
                errors = [pick(each["errors"], cut=cut, **where)["error"] for cut in ("pared", row["cut"])]
                line = [f"{100 * row['share']:.0f} %", str(row["epochs"]), row["cut"]]
                rows.append([*line, *(f"{error:.1f}" for error in errors), shift(row), row["verdict"]])
        head = [f"{name}, error {each['error of the full network']:.1f} %: gone", "epochs after", "beside", "pared, %",
                "it, %", "pared minus it, points", "pared is"]  # fmt: skip
        parts.append(table(head, rows))
    rows = [[str(row["epochs"]), row["cut"], shift(row), row["verdict"]] for row in found["over all"]]
    head = ["mean over both networks and shares: epochs after", "beside", "pared minus it, points", "pared is"]
    parts.append(table(head, rows))
    for each in found["forecasters"]:
        rows = []
        for row in each["pared over"]:
            own = pick(each["over the full network"], cut=row["cut"], epochs=row["epochs"])
            rows.append([str(row["epochs"]), row["cut"], times(own), times(row), row["verdict"]])
        for epochs in (0, 3):
            own = pick(each["over the full network"], cut="pared", epochs=epochs)
            rows.insert(0, [str(epochs), "**pared**", times(own), "", ""])
        rows.sort(key=lambda line: int(line[0]))
        head = [f"{each['series']}: epochs after", "cut", "over the uncut network", "pared over it", "pared is"]
        parts.append(table(head, rows))
    return "\n".join(parts)


SECTIONS = {
    "units_forecasters": (
        "Forecasters: half of the first layer gone, no training after it",
        "forecasters",
        forecasters,
    ),
    "units_digits": ("Digits: how many units go without loss", "digits", digits),
    "layers": ("Whole hidden layers", "layers", layers),
    "units_peers": ("Beside Torch-Pruning", "peers", peers),
}
"""Results by name -> heading, name of the text, tables; a study that was not run yet has no section."""

TEXTS = {
    "forecasters": """Test NRMSE over that of the uncut network, geometric means over networks with 95 % intervals
in which blocks count once. "Plain": units are cut, nothing else. "Repaired": what read them is refitted by least
squares (`pared.compensate`; greedy: after every single removal). "Matched": repaired, then refitted at the output
(`pared.match_outputs`, which reads no target). The junk index is the published one.

With half of the units gone the index alone multiplies the error; greedy removal with least squares keeps it near that
of the uncut network on logistic-3.99 and Henon in [0, 1], after 30 epochs and after 1,000, and matched at the output
it is that of the uncut network. On the laser it is not: with 16 units repaired well above, matched a tenth above after
30 epochs and nearly twice after 1,000; with 32 units less so. Chosen at random, the same repairs do not get there:
which units go does matter. Scaling matters, too: of values in [0, 1], as in the published study, half of the units go
more easily than in [-1, 1].

Logistic-3.99 in [0, 1] was run with 30 networks first: greedy + least squares 1.11 (1.02 to 1.21) after 30 epochs,
1.44 (1 to 2.05) after 1,000, too wide to tell from the goals of 1.1 and 1.5. The table has 100, the first 30 among
them.""",
    "digits": """Units of an MLP on 5,000 digits, removed without training after it; differences over 10 seeds.
That 60 % of the units go without significant loss does not hold for the methods it was said of: ranked anew
after every removal, brute force and its Taylor series lose about a point, an interval that leaves 0 out; ranked
once they lose 5 points and more. It holds for elimination by least squares with its repair, which takes a
fiftieth of a second and loses nothing measurable. Of DivNet the fusing does the work: fused, determinantal
draws are not measurably better than random ones, better than the largest by importance only with a tenth of the
first layer kept, and worse than least squares with a tenth of either layer kept or a quarter of the first.""",
    "layers": """Layers are chosen on validation data, what is left is tested once; differences over 10 seeds, margin 1
point. Of the plain network one or two of eight hidden layers are left, and it is better for it; as small a one from
scratch is better yet: it was too deep to train well, which is what such a loop finds out. The residual one, stopped by
500 validation digits alone with short refits, loses too many layers from some seeds and too few from others.

"Others" was added after that had been seen: other networks, on the same digits but from new seeds, lose half of their
hidden layers whatever the validation digits say and are trained as long again, a recipe chosen on validation digits of
a third set of seeds. The residual network then loses four of eight layers within the margin, and so it does when they
are dropped at random: in a residual network which layers go matters little, training afterwards does the work. The
plain network does not when trained on so long. Of a recurrent forecaster one layer of three goes; two layers from
scratch, or three trained on as long, are as good or better.

`pared run santa-fe --what layers --recurrent 16,16,16 --dense '' --epochs 60` does it with its own statistics: of 20
networks 8 lose the first layer, 8 the second, 4 the third, whichever validation data say; 3,409 of 5,585 parameters are
left, and the test error is 0.87 (0.75 to 1.02) of the full network's, and 0.85 (0.75 to 0.97) of that of networks which
lose a layer by lot. Two layers from scratch, trained for as many multiply-adds, do better still: the cut networks err
1.38 times as much (1.21 to 1.56).""",
    "peers": """At equal parameters and equal training after the cut; differences over 10 seeds. The settings of the
training after it are the same for all.""",
}


def page() -> str:
    """The page as Markdown."""
    parts = ["# Units and layers: what was measured\n"]
    for name, (heading, text, tables) in SECTIONS.items():
        if (RESULTS / f"{name}.json").exists():
            how = f"To get them again: `python benchmarks/{name}.py`."
            parts.append(f"## {heading}\n\n{TEXTS[text]}\n\n{how}\n\n{tables(load(name))}")
    return "\n".join(parts)


def main() -> None:
    matplotlib.rcParams.update({"svg.hashsalt": "pared", "svg.fonttype": "none", "font.size": 9})
    (DOCS / "units-and-layers.md").write_text(page(), encoding="utf-8")
    if (RESULTS / "units_digits.json").exists():
        curves(load("units_digits")).savefig(DOCS / "units-and-layers.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
