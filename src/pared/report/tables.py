"""Tables of the page: every cell is text, made from the record alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pared.report.summary import (
    NETWORKS,
    Record,
    arms,
    by_block,
    comparison,
    finite,
    geometric_mean,
    label,
    level,
    mean,
    number,
    points,
    ratio,
    signed,
    subject,
    tested,
    values,
)
from pared.report.words import parts, words

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column names the row, `strong` are the rows to stress, `rules` have a line above them."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: tuple[int, ...] = ()
    rules: tuple[int, ...] = ()
    numeric: bool = True


def significant(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return NOTHING
    if 1000 <= abs(value) < 1e6:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}".rstrip(".") if 1e-4 <= abs(value) < 1000 or value == 0 else f"{value:.3g}"


def plural(number_of: int, noun: str) -> str:
    """Number and noun: 1 block, 2 blocks."""
    return f"{number_of:,} {noun}" + ("" if number_of == 1 else "s")


def count(value: Any) -> str:
    """Whole number with thousands separated."""
    return NOTHING if number(value) is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """Share as a percentage with one decimal."""
    return NOTHING if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def probability(value: Any) -> str:
    """p value with three decimals."""
    if number(value) is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def compared_text(found: Mapping[str, Any] | None) -> str:
    """Ratio of errors with its interval: 0.98 [0.95, 1.01]; of classes, points of accuracy: −0.3 [−0.9, +0.4]."""
    if found and found.get("scale") == "linear":
        shown = [signed(points(found, key)) for key in ("difference", "low", "high")]
        return f"{shown[0]} [{shown[1]}, {shown[2]}]"
    if not found or ratio(found, "difference") is None:
        return NOTHING
    low, high = ratio(found, "low"), ratio(found, "high")
    return f"{significant(ratio(found, 'difference'))} [{significant(low)}, {significant(high)}]"


def steps(record: Record, arm: str) -> str:
    """Mean valid prediction time in steps and, where the exponent is known, in Lyapunov times."""
    vpt, lyapunov = mean(values(record, arm, "test.vpt")), number((record.get("data") or {}).get("lyapunov"))
    if vpt is None:
        return NOTHING
    return f"{vpt:.1f}" + (f" ({vpt * lyapunov:.2g})" if lyapunov and lyapunov > 0 else "")


def _quotient(small: float | None, full: float | None) -> str:
    return f"{small / full:.2f}" if small is not None and full else NOTHING


def size(record: Record) -> Table:
    """Full and smaller network side by side, with the ratio of the two."""
    full, shipped = record.get("full_size") or {}, record.get("shipped") or {}
    small = subject(record)
    marks = [" (shipped)" if shipped.get("arm") == arm else "" for arm in ("full", "cut")]
    own = shipped if shipped.get("arm") == small == "cut" else {}
    rows: list[tuple[str, ...]] = []
    told, removed = words(record), parts(record)
    for name, key in dict.fromkeys(
        (
            ("Hidden units", "units"),
            ("Parameters", "parameters"),
            (removed.sizes.capitalize(), removed.size),
            (f"Multiply-adds a {told.prediction}", "macs"),
        )
    ):
        before = number(full.get(key)) or mean(values(record, "full", key))
        after = number(own.get(key)) or _shipped(record, key) or mean(values(record, small, key))
        rows.append((name, count(before), count(after), _quotient(after, before)))
    before, after = number(full.get("milliseconds")), number(own.get("milliseconds"))
    quotient = _quotient(after, before)
    rows.append((f"Latency of one {told.prediction}, ms", significant(before), significant(after), quotient))
    rows += _quality(record, small)
    if small == "full":
        return Table(("", "Full network" + marks[0]), tuple(row[:2] for row in rows))
    return Table(("", "Full network" + marks[0], "Smaller network" + marks[1], "Ratio"), tuple(rows))


def _quality(record: Record, small: str) -> list[tuple[str, ...]]:
    """Test errors of the full and the smaller network, and what else there is to say of their predictions."""
    rows: list[tuple[str, ...]] = []
    task = words(record)
    if task.metric == "accuracy":
        before, after = (mean(values(record, arm, "test.accuracy")) for arm in ("full", small))
        return [("Test accuracy", percent(before), percent(after), _quotient(after, before))]
    before, after = (geometric_mean(values(record, arm, "test.nrmse")) for arm in ("full", small))
    rows.append(("Test error (NRMSE)", significant(before), significant(after), _quotient(after, before)))
    if task.data == "table":
        before, after = (mean(values(record, arm, "test.r2")) for arm in ("full", small))
        return [*rows, ("R²", significant(before), significant(after), NOTHING)]
    before, after = (mean(values(record, arm, "test.free_direction")) for arm in ("full", small))
    return [*rows, ("Free-running direction", percent(before), percent(after), _quotient(after, before))]


def _shipped(record: Record, key: str) -> float | None:
    """Metric of the shipped network itself, where the smaller network is shipped."""
    shipped = record.get("shipped") or {}
    rows = [
        row
        for row in tested(record, "cut")
        if (row["block"], row["seed"]) == (shipped.get("block"), shipped.get("seed"))
    ]
    return number(rows[0]["metrics"].get(key)) if rows and shipped.get("arm") == "cut" else None


def controls(record: Record) -> Table:
    """Every arm with its averages over the test data of all pairs, and the subject's error relative to it."""
    shown = arms(record)
    rows = []
    for arm in shown:
        found = comparison(record, arm)
        runs = tested(record, arm)
        diverged = sum(bool(row["metrics"].get("diverged")) for row in runs)
        rows.append(
            (
                label(arm),
                *_averages(record, arm),
                count(mean(values(record, arm, parts(record).size))),
                f"{len(runs) - diverged} of {len(runs)}",
                compared_text(found),
                probability((found or {}).get("p_value")),
                (found or {}).get("verdict") or NOTHING,
            )
        )
    return Table(
        (
            "Arm", *_heads(record), parts(record).sizes.capitalize(), "Runs",
            f"{_against(record)} this{_unit(record)} [{level(record)} interval]", "p", "Verdict",
        ),
        tuple(rows),
        strong=tuple(place for place, arm in enumerate(shown) if arm == subject(record)),
        rules=tuple(place for place, arm in enumerate(shown) if arm not in NETWORKS)[:1],
    )  # fmt: skip


def _heads(record: Record) -> tuple[str, ...]:
    """What the table of controls shows of every arm."""
    task = words(record)
    if task.metric == "accuracy":
        return ("Accuracy",)
    if task.data == "table":
        return ("NRMSE", "R²")
    lyapunov = number((record.get("data") or {}).get("lyapunov"))
    times = "Valid prediction time, steps" + (" (Lyapunov times)" if lyapunov and lyapunov > 0 else "")
    return ("NRMSE", "Direction, one step", "Direction, free running", times)


def _averages(record: Record, arm: str) -> tuple[str, ...]:
    """The same of one arm."""
    task = words(record)
    if task.metric == "accuracy":
        return (percent(mean(values(record, arm, "test.accuracy"))),)
    error = significant(geometric_mean(values(record, arm, "test.nrmse")))
    if task.data == "table":
        return (error, significant(mean(values(record, arm, "test.r2"))))
    shares = [percent(mean(values(record, arm, f"test.{key}"))) for key in ("direction", "free_direction")]
    return (error, *shares, steps(record, arm))


def _against(record: Record) -> str:
    name = "smaller" if subject(record) == "cut" else "full"
    return f"Accuracy of {name} network −" if words(record).metric == "accuracy" else f"Error of {name} network ÷"


def _unit(record: Record) -> str:
    return ", points" if words(record).metric == "accuracy" else ""


def right_and_wrong(record: Record) -> Table:
    """Test rows that only one of two networks puts into the right class, with the exact McNemar test."""
    pairs = (record.get("directions") or {}).items()
    name = label(subject(record)).lower()
    return Table(
        ("Arm", f"Only {name} right", "Only this arm right", "McNemar p"),
        tuple(
            (
                label(arm),
                count(pair.get("only_first")),
                count(pair.get("only_second")),
                probability(pair.get("p_value")),
            )
            for arm, pair in pairs
        ),
    )


def directions(record: Record) -> Table:
    """Directions counted: the paper's k of n of every arm, and the exact McNemar test of single one-step directions."""
    rows = []
    for arm in arms(record):
        pair = (record.get("directions") or {}).get(arm) or {}
        rows.append(
            (
                label(arm),
                _hits(record, arm, "direction"),
                _hits(record, arm, "free"),
                count(pair.get("only_first")),
                count(pair.get("only_second")),
                probability(pair.get("p_value")),
            )
        )
    name = label(subject(record)).lower()
    head = ("Arm", "One step, k of n", "Free running, k of n", f"Only {name} right", "Only this arm right", "McNemar p")
    return Table(head, tuple(row for row in rows if set(row[1:]) != {NOTHING}))


def _hits(record: Record, arm: str, kind: str) -> str:
    pairs = [[row["metrics"].get(f"test.{kind}_{part}") for part in ("hits", "total")] for row in tested(record, arm)]
    hits, total = (
        sum(column) for column in zip([0, 0], *(each for each in pairs if len(finite(each)) == 2), strict=True)
    )
    return f"{hits:,.0f} of {total:,.0f} ({percent(hits / total)})" if total else NOTHING


def candidates(record: Record) -> Table:
    """Validation results of every candidate size."""
    rows = []
    found = list(record.get("candidates") or ())
    for each in found:
        compared = each.get("comparison")
        rows.append(
            (
                each["label"],
                percent(number(each.get("removed"))),
                count(each.get("parameters")),
                compared_text(compared),
                *_validated(record, each),
                count(each.get("diverged")),
                (compared or {}).get("verdict") or NOTHING,
                "chosen" if each["label"] == record.get("chosen") else "",
            )
        )
    accuracy = words(record).metric == "accuracy"
    against = f"{'Accuracy − full, points' if accuracy else 'Error ÷ full'} [{level(record)} interval]"
    head = (
        "Candidate",
        f"{parts(record).name.capitalize()} removed",
        parts(record).sizes.capitalize(),
        against,
        *(name for _, name in words(record).beside),
        "Diverged",
        "Verdict",
        "",
    )
    return Table(
        head, tuple(rows), strong=tuple(i for i, each in enumerate(found) if each["label"] == record.get("chosen"))
    )


def _validated(record: Record, candidate: Mapping[str, Any]) -> tuple[str, ...]:
    """What validation data say of a candidate beside the comparison."""
    return tuple(
        (significant if key == "r2" else percent)(number(candidate.get(key))) for key, _ in words(record).beside
    )


def folds(record: Record) -> Table:
    """Number of rows of a table in every fold, and the test results there (mean over seeds)."""
    pair, metric = ("full", subject(record)), f"test.{words(record).metric}"
    found = [by_block(record, arm, metric) for arm in pair]
    shown, average = (percent, mean) if metric == "test.accuracy" else (significant, geometric_mean)
    rows = []
    for each in record.get("blocks") or ():
        sizes = tuple(count(each.get(part)) for part in ("train", "validation", "test"))
        rows.append((str(each["block"]), *sizes, *(shown(average(arm.get(each["block"], []))) for arm in found)))
    heading = words(record).heading
    head = ("Fold", "Training rows", "Validation rows", "Test rows", f"{heading}, full", f"{heading}, smaller")
    if pair[1] == "full":
        return Table(head[:5], tuple(row[:5] for row in rows))
    return Table(head, tuple(rows))


def blocks(record: Record) -> Table:
    """Rows of the series in every block, and the test errors there (geometric mean over seeds); see `folds`."""
    if words(record).data == "table":
        return folds(record)
    pair = ("full", subject(record))
    errors = [by_block(record, arm, "test.nrmse") for arm in pair]
    rows = []
    for each in record.get("blocks") or ():
        before, after = (geometric_mean(found.get(each["block"], [])) for found in errors)
        spans = tuple(_span(each.get(part)) for part in ("train", "validation", "test"))
        rows.append((str(each["block"]), *spans, significant(before), significant(after), _quotient(after, before)))
    head = ("Block", "Training rows", "Validation rows", "Test rows", "NRMSE, full", "NRMSE, smaller", "Ratio")
    if pair[1] == "full":
        return Table(head[:5], tuple(row[:5] for row in rows))
    return Table(head, tuple(rows))


def _span(rows: Any) -> str:
    return f"{rows[0]:,} to {rows[1] - 1:,}" if rows and rows[1] > rows[0] else "none"


def settings(record: Record) -> Table:
    """Everything that was set, the protocol, the versions and the time it took."""
    data = record.get("data") or {}
    parts: dict[str, Any] = {
        words(record).data: data.get("name"),
        f"{words(record).data} length": data.get("length"),
        "columns": data.get("columns"),
        "inputs": data.get("inputs"),
        "classes": data.get("classes") or None,
        "Lyapunov exponent a step": data.get("lyapunov"),
        **(record.get("settings") or {}),
        "pared version": record.get("pared"),
        "record format": record.get("format"),
        "versions": record.get("versions"),
        "seconds": {key: round(value, 1) for key, value in (record.get("seconds") or {}).items() if finite([value])},
    }
    return Table(("Setting", "Value"), tuple(_flat(parts)), numeric=False)


def _flat(parts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in parts.items():
        name = prefix + str(key).replace("_", " ")
        if isinstance(value, Mapping):
            rows += _flat(value, name + ": ")
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(map(str, value)) or "none"))
        elif value is not None:
            rows.append((name, {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)))
    return rows
