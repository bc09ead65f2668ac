"""The paper's tables beside ours, as text."""

from collections.abc import Mapping
from typing import Any

from pared.replicate.junk_neuron.findings import CLAIMS, Record, goals, interval, paper_gain, signed, verdict
from pared.replicate.junk_neuron.published import SYSTEMS, System
from pared.report.summary import label
from pared.report.tables import NOTHING, Table, significant

ORDERS = {
    "out": "lowest index, outgoing",
    "in": "lowest index, incoming",
    "random": "at random",
    "largest": "highest index, outgoing",
}
AMOUNTS = {"one": "one unit", "quarter": "a quarter", "half": "half"}


def _shown(value: float | None, digits: int = 1) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def _spread(level: Mapping[str, Any], key: str, spread: str) -> str:
    """Mean and standard deviation over seeds."""
    return _shown(level[key]) + ("" if level[spread] is None else f" \N{PLUS-MINUS SIGN} {level[spread]:.1f}")


def _best(each: Mapping[str, Any], key: str) -> str:
    """The best naive forecaster and what it reaches."""
    if not each["naive"]:
        return NOTHING
    name, found = max(each["naive"].items(), key=lambda item: float(item[1][key]))
    return f"{found[key]:.1f} ({label(name).lower()})"


def networks(record: Record) -> Table:
    """Table 1: networks and accuracies of the full ones, per cent, in the paper's count."""
    head = ("System", "Units", "Accuracy, paper", "Budget", "Window", "Adam steps", "One step", "Free-running",
            "Best naive, one step", "Best naive, free-running")  # fmt: skip
    rows: list[tuple[str, ...]] = []
    rules: list[int] = []
    for system in SYSTEMS.values():
        for name, budget in record["budgets"].items():
            if each := budget["systems"].get(system.name):
                if not rows or rows[-1][0] != system.name:
                    rules.append(len(rows))
                units = ", ".join(map(str, (*system.recurrent, *system.dense, 1)))
                rows.append((
                    system.name, units, _shown(system.accuracy[0]), name, str(each["window"]), f"{each['steps']:,}",
                    _spread(each["full"], "hits", "spread"), _spread(each["full"], "free_hits", "free_spread"),
                    _best(each, "hits"), _best(each, "free_hits"),
                ))  # fmt: skip
    return Table(head, tuple(rows), rules=tuple(rules[1:]))


def best(record: Record) -> Table:
    """Table 5: the size that the paper found best, and what retraining at that size changes here."""
    head = ("System", "Units", "Change, paper", "Budget", "One step", "Free-running, first start",
            "Free-running, all starts", "NRMSE, ratio")  # fmt: skip
    rows: list[tuple[str, ...]] = []
    rules: list[int] = []
    for system in SYSTEMS.values():
        place = system.sizes.index(system.best) - 1
        change = signed(system.accuracy[place + 1] - system.accuracy[0])
        for name, budget in record["budgets"].items():
            if each := budget["systems"].get(system.name):
                if not rows or rows[-1][0] != system.name:
                    rules.append(len(rows))
                row = each["sweep"][place]
                rows.append((
                    system.name, f"{system.units} \N{RIGHTWARDS ARROW} {system.best}", change, name,
                    interval(row["hits"]), interval(row["free_hits"]), interval(row["difference"]["free"]),
                    ratio(row["difference"]["nrmse"]),
                ))  # fmt: skip
    return Table(head, tuple(rows), rules=tuple(rules[1:]))


def ratio(found: Mapping[str, Any]) -> str:
    """A ratio of errors with its interval."""
    return f"{significant(found['value'])} ({significant(found['low'])} to {significant(found['high'])})"


def sweep(record: Record, system: System) -> Table:
    """Tables 4 and 6 to 11: the paper's sizes, trained from scratch here."""
    head = ("Budget, threshold", "Units", "Accuracy, paper", "Change", "One step, ours", "Change", "Free-running, ours",
            "Change")  # fmt: skip
    rows: list[tuple[str, ...]] = []
    rules: list[int] = []
    for name, budget in record["budgets"].items():
        if each := budget["systems"].get(system.name):
            rules.append(len(rows))
            full = each["full"]
            rows.append((
                f"{name}, none", str(system.units), _shown(system.accuracy[0]), "", _shown(full["hits"]), "",
                _shown(full["free"]), "",
            ))  # fmt: skip
            for row, accuracy in zip(each["sweep"], system.accuracy[1:], strict=True):
                rows.append((
                    f"{name}, {row['threshold']:g}", str(row["size"]), _shown(accuracy),
                    signed(accuracy - system.accuracy[0]),
                    _shown(row["published"]["hits"]), interval(row["hits"]),
                    _shown(row["published"]["free"]), interval(row["difference"]["free"]),
                ))  # fmt: skip
    return Table(head, tuple(rows), rules=tuple(rules[1:]))


def below(record: Record, system: System) -> Table:
    """What the paper's thresholds find in our networks, by both readings, and what deleting that changes."""
    head = ("Budget, threshold", "Units below, paper", *(
        f"{words}: {column}" for words in ("Outgoing", "Incoming")
        for column in ("units below", "cut", "cut and trained on", "retrained")
    ))  # fmt: skip
    rows: list[tuple[str, ...]] = []
    rules: list[int] = []
    for name, budget in record["budgets"].items():
        if each := budget["systems"].get(system.name):
            rules.append(len(rows))
            for row in each["sweep"]:
                cells = [f"{name}, {row['threshold']:g}", str(system.units - row["size"])]
                for found in row["below"].values():
                    kinds = (interval(found[kind]["free"]) for kind in ("surgery", "refit", "scratch"))
                    cells += [f"{found['units']:.1f}", *(kinds if found["units"] else [NOTHING] * 3)]
                rows.append(tuple(cells))
    return Table(head, tuple(rows), rules=tuple(rules[1:]))


def rule(record: Record) -> Table:
    """What the best of the thresholds gains, and what it gains where nothing differs but the seed."""
    head = ("Budget", "Count", "Trials", "Gain", "Trials that gain", "Gain of re-seeded twins", "Twins that gain",
            "Gain beyond the twins")  # fmt: skip
    gained = sum(max(system.accuracy[1:]) > system.accuracy[0] for system in SYSTEMS.values())
    rows: list[tuple[str, ...]] = [
        (
            "paper’s own",
            "unknown",
            str(len(SYSTEMS)),
            signed(paper_gain()),
            f"{gained} of {len(SYSTEMS)}",
            NOTHING,
            NOTHING,
            NOTHING,
        )
    ]
    for name, budget in record["budgets"].items():
        for measure, words in (("hits", "one step"), ("free_hits", "free-running")) if budget["rule"] else ():
            found = budget["rule"][measure]
            rows.append((
                name, words, str(found["trials"]), signed(found["gain"]), f"{100 * found['positive']:.0f} %",
                signed(found["twin"]), f"{100 * found['twin_positive']:.0f} %",
                interval(found | {"value": found["excess"]}),
            ))  # fmt: skip
    return Table(head, tuple(rows), rules=(1,))


def claims(record: Record) -> Table:
    """Which statements hold in which regime, with the contrast that decides."""
    budgets = {name: budget for name, budget in record["budgets"].items() if budget["pooled"]}
    head = ("Statement", *(column for name in budgets for column in (name, "points")))
    rows = []
    for claim in CLAIMS:
        found = [budget["pooled"][claim.contrast]["free"] for budget in budgets.values()]
        rows.append((claim.text, *(cell for each in found for cell in (verdict(each, claim.sign), interval(each)))))
    excess = [budget["rule"]["free_hits"] for budget in budgets.values()]
    found = [each | {"value": each["excess"]} for each in excess]
    text = "The best of the paper’s thresholds gains more than re-seeding does"
    rows.append((text, *(cell for each in found for cell in (verdict(each), interval(each)))))
    return Table(head, tuple(rows))


def effects(record: Record, name: str) -> Table:
    """Every treatment of a budget, pooled over systems: changes of free-running accuracy and ratios of NRMSE."""
    head = ("Networks", "Against", "Change of free-running accuracy", "Verdict", "NRMSE, ratio", "Verdict on NRMSE",
            "Pairs", "Blocks")  # fmt: skip
    pooled = record["budgets"][name]["pooled"]
    listed = [("Re-seeded full networks (nothing else differs)", "full", "reseeded - full"),
              ("Full networks, trained on", "full", "trained on - full")]  # fmt: skip
    rules = []
    for amount, words in AMOUNTS.items():
        rules.append(len(listed))
        listed += [
            (f"Without {words}, from scratch", "full", f"{amount}: scratch - full"),
            (f"Without {words}, from scratch, equal compute", "trained on", f"{amount}: equal compute - trained on"),
        ]
        listed += [
            (f"Cut by {words}, {text}", "full", f"{amount}: surgery by {o} - full") for o, text in ORDERS.items()
        ]
        listed += [
            (f"Cut by {words}, {text}, trained on", "trained on", f"{amount}: refit by {order} - trained on")
            for order, text in ORDERS.items()
        ]
        listed += [
            (f"Cut by {words}, {ORDERS['out']}, trained on", against, f"{amount}: refit by out - {against}")
            for against in ("full", "equal compute")
        ]
    rows = tuple(_effect(words, against, pooled[key]) for words, against, key in listed)
    return Table(head, rows, rules=tuple(rules))


def _effect(words: str, against: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    free, nrmse = found["free"], found["nrmse"]
    sizes = f"{free['pairs']:,}", str(free["clusters"])
    return words, against, interval(free), free["verdict"], ratio(nrmse), nrmse["verdict"], *sizes


def reached(record: Record) -> Table:
    """What converged full networks reach free-running, beside the goal and the naive forecasters."""
    names = dict.fromkeys(name for _, _, each in goals(record) for name in each["naive"])
    head = ("System", "Goal", "Full network", "Reached", "Worst block", "One step", "NRMSE", "Valid steps",
            "Adam steps", "Parameters", *(label(name) for name in names))  # fmt: skip
    rows = []
    for name, goal, each in goals(record):
        full = each["full"]
        rows.append((
            name, f"{goal:.0f}", _shown(full["free"], 2), "yes" if full["free"] >= goal else "no",
            _shown(full["worst"]), _shown(full["direction"], 2), significant(full["nrmse"]),
            _shown(full["vpt"]), f"{each['steps']:,}",
            f"{each['parameters']:,}", *(_shown(each["naive"].get(naive, {}).get("free")) for naive in names),
        ))  # fmt: skip
    return Table(head, tuple(rows))


def budgets(record: Record) -> Table:
    """The budgets, as fixed beforehand, and what they cost."""
    head = ("Budget", "Epochs", "Longer", "Learning rate", "Batch", "Schedule", "After a cut", "View of the data",
            "Seeds", "Networks", "Processor minutes", "Tasks")  # fmt: skip
    rows = []
    for own in record["settings"]["budgets"]:
        found = record["budgets"][own["name"]]
        rows.append((
            own["name"], f"{own['epochs']:,}", ", ".join(f"{k}: {v}" for k, v in own["longer"].items()) or NOTHING,
            f"{own['lr']:g}", str(own["batch_size"]), "cosine" if own["cosine"] else "constant",
            f"{own['refit_epochs']} epochs at {own['refit_lr']:g}", own["view"], str(own["seeds"]),
            f"{found['networks']:,}", _shown(found["processor"] / 60), f"{found['done']} of {found['of']}",
        ))  # fmt: skip
    return Table(head, tuple(rows))
