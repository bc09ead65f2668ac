"""What the record says, in sentences made from its numbers, budget by budget."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pared.replicate.junk_neuron.published import PAPER, SYSTEMS

Record = Mapping[str, Any]
FEWEST = 10  # blocks of systems below which nothing is claimed

REGIMES = {
    "paper": "about one epoch, as long as the paper’s weights suggest",
    "ten": "ten epochs",
    "converged": "trained to convergence",
}
GOALS = {
    "logistic-3.6": 99.0, "logistic-3.7": 99.0, "logistic-3.8": 97.0, "logistic-3.9": 97.0, "logistic-3.99": 93.0,
    "henon": 97.0, "rossler": 99.0,
}  # fmt: skip
"""Free-running direction accuracy (per cent) that converged full networks should reach; set beforehand."""


class Claim(NamedTuple):
    """A statement that a contrast decides: it holds if the whole interval lies on its side of 0."""

    text: str
    contrast: str
    sign: int = 1


CLAIMS = (
    Claim("A network with one unit fewer, trained from scratch, forecasts better", "one: scratch - full"),
    Claim("A network with half of the units, trained from scratch, forecasts worse", "half: scratch - full", -1),
    Claim("Cutting the unit of lowest index out of a trained network improves it", "one: surgery by out - full"),
    Claim("The quarter of lowest index matters less than a quarter at random", "quarter: surgery by out - by random"),
    Claim("Read the other way, too", "quarter: surgery by in - by random"),
    Claim("It still matters less once both are trained on", "quarter: refit by out - by random"),
    Claim(
        "A network cut by a quarter and trained on beats the full one trained on as long",
        "quarter: refit by out - trained on",
    ),
    Claim("It beats a network of its size from scratch with equal compute", "quarter: refit by out - equal compute"),
)


def signed(value: float | None) -> str:
    """Points with their sign."""
    return "?" if value is None else f"{round(value, 1) + 0.0:+.1f}".replace("-", "\N{MINUS SIGN}")


def interval(found: Mapping[str, Any]) -> str:
    """A difference in points with its interval."""
    return f"{signed(found['value'])} ({signed(found['low'])} to {signed(found['high'])})"


def verdict(found: Mapping[str, Any], sign: int = 1) -> str:
    """ "holds", "the opposite holds" or "not shown", from the side of 0 on which the interval lies."""
    low, high = found["low"], found["high"]
    if low is None or high is None:
        return "not shown"
    if low > 0 or high < 0:
        return "holds" if (low > 0) == (sign > 0) else "the opposite holds"
    return "not shown"


def regime(budget: Mapping[str, Any]) -> list[str]:
    """The findings of one budget."""
    return [_retraining(budget), _rule(budget), _levels(budget), _thresholds(budget), _index(budget), _training(budget)]


def _retraining(budget: Mapping[str, Any]) -> str:
    one, half = (budget["pooled"][f"{amount}: scratch - full"]["free"] for amount in ("one", "half"))
    return (
        f"Retrained with one unit fewer, which is what the paper does, networks {_effect(one)}; with half of the units "
        f"they {_effect(half)}. ({one['pairs']:,} pairs in {one['clusters']} blocks of {_systems(budget)}.)"
    )


def _effect(found: Mapping[str, Any]) -> str:
    """What happens to accuracy, in words and points."""
    low, high = found["low"], found["high"]
    if low is not None and low > 0:
        words = "gain accuracy"
    elif high is not None and high < 0:
        words = "lose accuracy"
    else:
        words = "show no change"
    return f"{words}: {interval(found)} points"


def _systems(budget: Mapping[str, Any]) -> str:
    count = len(budget["systems"])
    return f"{count} system" + ("" if count == 1 else "s")


def _rule(budget: Mapping[str, Any]) -> str:
    parts = []
    for measure, words in (("hits", "one step ahead"), ("free_hits", "free-running")):
        found = budget["rule"][measure]
        parts.append(
            f"{words} it gains {signed(found['gain'])} points ({100 * found['positive']:.0f} % of trials gain), and "
            f"{signed(found['twin'])} ({100 * found['twin_positive']:.0f} %) where only the seed differs"
        )
    excess = budget["rule"]["free_hits"]
    return (
        "The paper’s rule, the best of its thresholds against the full network, in its own count of "
        f"{PAPER.directions} directions a block: {'; '.join(parts)}. The paper’s gains average {signed(paper_gain())}. "
        f"What the rule gains beyond its twin, free-running: {signed(excess['excess'])} ({signed(excess['low'])} to "
        f"{signed(excess['high'])}) over {excess['trials']} trials."
    )


def paper_gain() -> float:
    """Mean gain of the paper's best threshold over its full network, in points."""
    gains = [max(system.accuracy[1:]) - system.accuracy[0] for system in PAPER.systems]
    return sum(gains) / len(gains)


def _levels(budget: Mapping[str, Any]) -> str:
    systems = budget["systems"].values()
    errors = [each["full"]["nrmse"] for each in systems if each["full"]["nrmse"] is not None]
    frees = [each["full"]["free"] for each in systems]
    known = [each for each in systems if each["naive"]]
    beaten = {
        key: sum(max(n[key] for n in each["naive"].values()) >= each["full"][key] for each in known)
        for key in ("hits", "free")
    }
    steps = sorted({each["steps"] for each in systems})
    size = f"{min(errors):.2g} to {max(errors):.2g}" if errors else "unknown"
    return (
        f"After {' or '.join(f'{step:,}' for step in steps)} Adam steps the full networks have a one-step error "
        f"(NRMSE) of {size} and a free-running accuracy of {min(frees):.1f} to {max(frees):.1f} %. A naive forecaster "
        f"is as good or better in {beaten['hits']} of {len(known)} systems one step ahead (the paper’s count), in "
        f"{beaten['free']} free-running."
    )


def _thresholds(budget: Mapping[str, Any]) -> str:
    ours = {"out": 0.0, "in": 0.0}
    theirs = 0
    for name, each in budget["systems"].items():
        theirs += sum(SYSTEMS[name].deleted)
        for reading in ours:
            ours[reading] += sum(row["below"][reading]["units"] for row in each["sweep"])
    return (
        f"Units under the paper’s thresholds, added up over thresholds and systems: {theirs} in the paper; here "
        f"{ours['out']:.0f} by outgoing and {ours['in']:.0f} by incoming weights."
    )


def _index(budget: Mapping[str, Any]) -> str:
    pooled = budget["pooled"]
    parts = [
        f"{interval(pooled[f'quarter: surgery by {reading} - by random']['free'])} by {words} weights"
        for reading, words in (("out", "outgoing"), ("in", "incoming"))
    ]
    after = interval(pooled["quarter: refit by out - by random"]["free"])
    against = interval(pooled["quarter: refit by out - by largest"]["free"])
    return (
        "Does the index know which units matter? Cutting the quarter of lowest index instead of a random quarter "
        f"changes accuracy by {' and '.join(parts)}; after training on {after} (instead of the quarter of highest "
        f"index: {against})."
    )


def _training(budget: Mapping[str, Any]) -> str:
    pooled = budget["pooled"]
    own = {
        key: interval(pooled[f"quarter: refit by out - {key}"]["free"])
        for key in ("full", "trained on", "equal compute")
    }
    return (
        f"Cut by a quarter and trained on, networks differ from the full ones by {own['full']} points, but from full "
        f"ones trained on as long by {own['trained on']}, and from small ones from scratch with equal compute by "
        f"{own['equal compute']}."
    )


def notes(record: Record) -> list[str]:
    """What keeps the findings from being claimed."""
    found = []
    if record["quick"]:
        found.append(
            "A quick run: one seed, and nothing trained to convergence. It shows that everything works and supports no "
            "claim."
        )
    for name, budget in record["budgets"].items():
        if budget["done"] < budget["of"]:
            found.append(
                f"Unfinished: {budget['done']} of {budget['of']} tasks of the budget “{name}” are done; the same "
                "command goes on."
            )
        blocks = next(iter(budget["pooled"].values()))["free"]["clusters"] if budget["pooled"] else 0
        if 0 < blocks < FEWEST:
            found.append(f"Budget “{name}”: {blocks} blocks cannot carry an interval.")
    return found


def goals(record: Record) -> Sequence[tuple[str, float, Mapping[str, Any]]]:
    """(system, goal, its results) of the converged budget."""
    systems = record["budgets"].get("converged", {"systems": {}})["systems"]
    return [(name, GOALS[name], each) for name, each in systems.items()]
