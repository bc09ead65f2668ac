"""Tables of the page: every cell is text, made from the record alone."""

from pared.replicate.belsley.findings import (
    NAMES,
    TITLES,
    Record,
    averages,
    claims,
    decided,
    number,
    significant,
    spanned,
)
from pared.replicate.belsley.protocol import LEVELS, PROBLEMS
from pared.replicate.belsley.published import CONDITION, METHODS, SHARES
from pared.report.tables import NOTHING, Table

SHOWN = tuple(range(0, len(LEVELS), 5))
"""Every tenth per cent."""


def toy(record: Record) -> Table:
    """Table 1, printed and ours."""
    found = record["toy"]
    head = ("index", *(f"q{place}" for place in range(1, 7)))
    rows = []
    for place, index in enumerate(CONDITION):
        rows.append((f"paper: {index:g}", *(significant(value) for value in SHARES[place])))
        rows.append((f"ours: {found['indices'][place]:.4g}", *(significant(v) for v in found["shares"][place])))
    rows.append(("inflation with a ridge", *(significant(value) for value in found["inflation"])))
    rows.append(("how often least relevant", *(str(count) for count in found["victims"])))
    return Table(head, tuple(rows), rules=(2, 4, 6, 8, 10, 12))


def said(record: Record) -> Table:
    """The claims and what decides them."""
    rows = []
    for claim in claims(record):
        found, words = decided(record, claim)
        text = spanned(found, sign=True) if claim.measure == "kept" else _noisy(found)
        rows.append((claim.text, text, f"{found['p']:.2g}", words))
    return Table(("statement", "difference", "p", "verdict"), tuple(rows))


def _noisy(found: Record) -> str:
    return f"{significant(found['value'])} ({significant(found['low'])} to {significant(found['high'])})"


def shares(record: Record, name: str) -> Table:
    """What can go within the margin, and noise, by way of removal."""
    problem = record["problems"][name]
    rows = []
    for way, found in problem["ways"].items():
        published = str(problem["paper"]["kept"][way]) if way in METHODS else NOTHING
        noise = significant(problem["paper"]["noise"][way]) if way in METHODS else NOTHING
        averaged = (significant(found["averaged"][kind]["value"]) for kind in ("spread", "distortion"))
        rows.append((NAMES[way], spanned(found["kept"]), published, *averaged, noise))
    head = ("way", "can go, %", "paper, %", "spread", "distortion", "paper’s spread")
    return Table(head, tuple(rows), strong=_strongest(record, name), rules=(len(METHODS),))


def _strongest(record: Record, name: str) -> tuple[int, ...]:
    kept = [found["kept"]["value"] for found in record["problems"][name]["ways"].values()]
    return (kept.index(max(kept)),)


def levels(record: Record, name: str) -> Table:
    """Mean accuracy or error at every tenth per cent removed, ours and the paper's."""
    digits = 1 if PROBLEMS[name].task == "classes" else 3
    rows = [
        (NAMES[way], *(number(found["quality"]["value"][place], digits) for place in SHOWN))
        for way, found in record["problems"][name]["ways"].items()
    ]
    return Table(("way", *(f"{LEVELS[place]} %" for place in SHOWN)), tuple(rows))


def choosing(record: Record) -> Table:
    """What each variant lets go on the problems for choosing."""
    problems, means = record["choosing"], averages(record)
    rows = [
        (way, *(spanned(each["kept"][way]) for each in problems.values()), number(mean)) for way, mean in means.items()
    ]
    place = next((place for place, way in enumerate(means) if way == record["chosen"]), None)
    return Table(("variant", *problems, "mean"), tuple(rows), strong=() if place is None else (place,))


def data(record: Record) -> Table:
    """The problems: network, weights, measure before and after."""
    rows = []
    for name, problem in record["problems"].items():
        found = PROBLEMS[name]
        digits = 1 if found.task == "classes" else 3
        measure = "accuracy, %" if found.task == "classes" else "RMSE"
        rows.append(
            (
                TITLES[name], str(problem["weights"]), str(problem["seeds"]), measure,
                spanned(problem["start"], digits), number(problem["paper"]["start"], digits),
                spanned(problem["end"], digits),
            )
        )  # fmt: skip
    return Table(("data", "weights", "seeds", "measure", "whole network", "paper", "nothing left"), tuple(rows))
