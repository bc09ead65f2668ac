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


def case_name(case: Row) -> str:
    return f"{case['series']}, L1 = {case['units']}"


def forecasters(found: Row) -> str:
    """Tables of ratios at half of the units, one for each length of training; then quarter and three quarters."""
    parts = []
    for epochs in sorted({case["epochs"] for case in found["cases"]}):
        cases = [case for case in found["cases"] if case["epochs"] == epochs]
        rows = [
            ["networks", *(str(case["networks"]) for case in cases)],
            ["NRMSE, uncut", *(number(case["NRMSE of the full network"]) for case in cases)],
        ]
        for line in cases[0]["rows"]:
            if line["share"] == 0.5:
                where = {name: line[name] for name in ("criterion", "share", "treatment")}
                name = f"{line['criterion'].removesuffix(', plain')}, {line['treatment']}"
                if line["criterion"] == "greedy, plain":
                    if line["treatment"] == "repaired":
                        continue
                    name = "greedy, plain"
                elif line["criterion"] == "greedy":
                    if line["treatment"] == "plain":
                        continue
                    name = "**greedy + least squares**"
                rows.append([name, *(times(pick(case["rows"], **where)) for case in cases)])
        parts.append(f"After {epochs} epochs:\n\n" + table(["half of L1 gone", *map(case_name, cases)], rows))
    shares = table(
        ["greedy + least squares", "a quarter gone", "half", "three quarters"],
        [
            [f"{case_name(case)}, {case['epochs']} epochs", *(
                times(pick(case["rows"], criterion="greedy", share=share, treatment="repaired"))
                for share in (0.25, 0.5, 0.75))]
            for case in found["cases"]
        ],
    )  # fmt: skip
    return "\n".join([*parts, shares])


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
    return "\n".join(parts)


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
    rows = [[row["cut"], shift(row), row["verdict"]] for row in found["over all"]]
    parts.append(table(["mean over both networks, shares and epochs", "pared minus it, points", "pared is"], rows))
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


def page() -> str:
    """The page as Markdown."""
    text = (DOCS / "units-and-layers.md.in").read_text(encoding="utf-8")
    parts = {
        "forecasters": forecasters(load("units_forecasters")),
        "shrinking": shrinking(load("units_digits")),
        "divnet": divnet(load("units_digits")["DivNet"]),
        "layers": layers(load("layers")),
        "peers": peers(load("units_peers")),
    }
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->\n", part)
    return text


def main() -> None:
    matplotlib.rcParams.update({"svg.hashsalt": "pared", "svg.fonttype": "none", "font.size": 9})
    (DOCS / "units-and-layers.md").write_text(page(), encoding="utf-8")
    curves(load("units_digits")).savefig(DOCS / "units-and-layers.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
