"""What the record says, in sentences and verdicts made from its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pared.replicate.belsley.protocol import PROBLEMS
from pared.replicate.belsley.published import METHODS

Record = Mapping[str, Any]
FEWEST = 5  # seeds below which nothing is claimed

NAMES = {
    "random": "random",
    "obd": "optimal brain damage",
    "variational": "variational",
    "belsley": "Belsley (covariance)",
    "belsley correlation": "Belsley (correlation)",
    "belsley precision": "Belsley (precision)",
    "obd signed": "optimal brain damage, signed",
    "snr at the optimum": "signal to noise at the optimum",
    "magnitude": "magnitude",
    "surgeon": "pared: surgeon",
    "belsley-obs": "pared: Belsley-OBS",
}
TITLES = {
    "wine": "Wine",
    "boston": "Boston",
    "synthetic-printed": "Synthetic, as printed",
    "synthetic-fitting": "Synthetic, as the figures have it",
}


class Claim(NamedTuple):
    """A statement that a paired difference decides: it holds if the whole interval lies on its side of 0."""

    text: str
    problem: str
    measure: str
    pair: str
    sign: int


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A number with a proper minus; "?" where there is none."""
    if value is None:
        return "?"
    text = f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def significant(value: float | None) -> str:
    """Three digits and a proper minus."""
    return "?" if value is None else f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def spanned(found: Mapping[str, Any], digits: int = 1, sign: bool = False) -> str:
    """A value with its interval."""
    low, high = (number(found[key], digits, sign) for key in ("low", "high"))
    return f"{number(found['value'], digits, sign)} ({low} to {high})"


def verdict(found: Mapping[str, Any], sign: int) -> str:
    """ "holds", "the opposite holds" or "not shown", from the side of 0 on which the interval lies."""
    low, high = found["low"], found["high"]
    if low is None or high is None or found["seeds"] < FEWEST or not (low > 0 or high < 0):
        return "not shown"
    return "holds" if (low > 0) == (sign > 0) else "the opposite holds"


def notes(record: Record) -> list[str]:
    """What limits the page."""
    found = []
    if record["quick"]:
        found.append("A quick run: two seeds and few draws of noise show how things work and support no claim.")
    if record["done"] < record["of"]:
        found.append(f"Unfinished: {record['done']} of {record['of']} networks; the same command goes on.")
    return found


def claims(record: Record) -> list[Claim]:
    """The paper's claims, then pared's, for the problems there are."""
    found = []
    for name, problem in record["problems"].items():
        title = TITLES[name]
        for other in METHODS[:3]:
            if PROBLEMS[name].given:  # whose first error is so large that nothing leaves the margin
                text = f"{title}: Belsley’s order errs less on average over its path than {NAMES[other]}"
                found.append(Claim(text, name, "path", f"belsley - {other}", -1))
                continue
            text = f"{title}: Belsley’s order lets more go than {NAMES[other]}"
            found.append(Claim(text, name, "kept", f"belsley - {other}", 1))
        for other in METHODS[:3]:
            text = f"{title}: it leaves the measure steadier under noise than {NAMES[other]}"
            found.append(Claim(text, name, "spread", f"belsley - {other}", -1))
        if PROBLEMS[name].given:
            continue
        for ours in ("surgeon", "belsley-obs"):
            for other in problem["paper"]["kept"]:
                text = f"{title}: {NAMES[ours]} lets more go than {NAMES[other]}"
                found.append(Claim(text, name, "kept", f"{ours} - {other}", 1))
    return found


def decided(record: Record, claim: Claim) -> tuple[Mapping[str, Any], str]:
    """A claim's difference and verdict."""
    found = record["problems"][claim.problem]["pairs"][claim.measure][claim.pair]
    return found, verdict(found, claim.sign)


def sentences(record: Record) -> list[str]:
    """The findings."""
    return [_toy(record), *_shares(record), *_noise(record), *_signed(record), *_targets(record), *_choice(record)]


def _toy(record: Record) -> str:
    toy = record["toy"]
    indices = ", ".join(f"{value:.4g}" for value in toy["indices"][:3])
    hit = [str(place + 1) for place, count in enumerate(toy["victims"]) if count]
    steady = max(range(6), key=toy["inflation"].__getitem__) + 1
    return (
        f"Table 1 comes from the correlation matrix: its condition indices are {indices} here, 1.0, 1.5 and 3.3 in "
        f"print. Its other rows are rounding: over {sum(toy['victims'])} orders of the same six signals the least "
        f"relevant parameter was {', '.join(hit[:-1])} or {hit[-1]}, where the paper names 1 and 4. "
        f"With a ridge it is {steady}."
    )


def _shares(record: Record) -> Iterator[str]:
    for name, problem in record["problems"].items():
        if PROBLEMS[name].given:
            errors = {way: problem["ways"][way]["averaged"]["path"]["value"] for way in METHODS}
            yield (
                f"{TITLES[name]}: error averaged over the whole path, least first: {_ranked(errors)}. The paper’s: "
                f"{_ranked(problem['paper']['path'])}."
            )
            continue
        ours = ", ".join(f"{NAMES[way]} {spanned(problem['ways'][way]['kept'])}" for way in METHODS)
        paper = ", ".join(f"{NAMES[way]} {problem['paper']['kept'][way]}" for way in METHODS)
        yield (
            f"{TITLES[name]}: per cent of the weights that can go within the margin, {ours}, over {problem['seeds']} "
            f"seeds. The paper’s single run, read the same way: {paper}."
        )


def _noise(record: Record) -> Iterator[str]:
    for name, problem in record["problems"].items():
        ours = {way: problem["ways"][way]["averaged"]["spread"]["value"] for way in METHODS}
        paper = problem["paper"]["noise"]
        yield (
            f"{TITLES[name]}: spread of the measure under noise on the inputs, averaged up to 80 % removed, from "
            f"calmest to noisiest: {_ranked(ours)}. The paper’s own curves: {_ranked(paper)}. A network that answers "
            "always the same has none."
        )


def _ranked(values: Mapping[str, float]) -> str:
    return ", ".join(f"{NAMES[way]} {significant(values[way])}" for way in sorted(values, key=values.__getitem__))


def _signed(record: Record) -> Iterator[str]:
    for name, problem in record["problems"].items():
        if PROBLEMS[name].given:
            continue
        signed, plain = (problem["ways"][way]["kept"] for way in ("obd signed", "obd"))
        yield (
            f"{TITLES[name]}: optimal brain damage as printed, with the Hessian’s signs, lets {spanned(signed)} % go; "
            f"with the Gauss-Newton diagonal {spanned(plain)} %. The paper’s: {problem['paper']['kept']['obd']} %."
        )


def _targets(record: Record) -> Iterator[str]:
    for name, problem in record["problems"].items():
        if PROBLEMS[name].given:
            continue
        for ours in ("surgeon", "belsley-obs"):
            pairs = {other: problem["pairs"]["kept"][f"{ours} - {other}"] for other in METHODS}
            held = [other for other, found in pairs.items() if verdict(found, 1) == "holds"]
            closest = min(pairs, key=lambda other: pairs[other]["value"])
            single = max(problem["paper"]["kept"].values())
            yield (
                f"{TITLES[name]}: {NAMES[ours]} lets {spanned(problem['ways'][ours]['kept'])} % go, shown to be more "
                f"than {len(held)} of the paper’s {len(METHODS)} methods do on the same networks; over the best of "
                f"them, {NAMES[closest]}, by {spanned(pairs[closest], sign=True)} points "
                f"(p = {pairs[closest]['p']:.2g}). The paper’s best single run: {single} %."
            )


def _choice(record: Record) -> Iterator[str]:
    if record["choosing"]:
        means = averages(record)
        best = max(means, key=means.__getitem__)
        yield (
            f"Variants were chosen on {', '.join(record['choosing'])}, so that Wine and Boston stay a test. Taken: "
            f"{record['chosen']} ({number(means[record['chosen']])} % on average there); the best there: {best} "
            f"({number(means[best])} %)."
        )


def averages(record: Record) -> dict[str, float]:
    """Share that can go, averaged over the problems for choosing, by variant."""
    problems = list(record["choosing"].values())
    return {way: sum(each["kept"][way]["value"] for each in problems) / len(problems) for way in problems[0]["kept"]}
