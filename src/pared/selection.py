"""From scores to a plan: by ratio, threshold, count or budget; per group or over all groups at once."""

import fnmatch
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from pared import evaluation
from pared.surgery import Plan, Structure, cut
from pared.surgery.structure import check_scores

Scope = Literal["group", "global"]


@dataclass(frozen=True)
class Ratio:
    """Remove this fraction of the units, rounded to whole units."""

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"a ratio lies between 0 and 1 (0.5 removes half of the units), got {self.fraction}")


@dataclass(frozen=True)
class Ratios:
    """Remove its own fraction of the units of each group; groups that are not named lose nothing."""

    fractions: Mapping[str, float]

    def __post_init__(self) -> None:
        if not all(0 <= fraction < 1 for fraction in self.fractions.values()):
            raise ValueError(f"ratios lie between 0 and 1 (0.5 removes half of the units), got {dict(self.fractions)}")


@dataclass(frozen=True)
class Threshold:
    """Remove the units that score below `value`, or below `value` times their group's mean score when `relative`."""

    value: float
    relative: bool = False


@dataclass(frozen=True)
class Count:
    """Remove this many units."""

    units: int

    def __post_init__(self) -> None:
        if self.units < 1:
            raise ValueError(f"a count is at least 1, got {self.units}")


@dataclass(frozen=True)
class Budget:
    """Remove the lowest-scored units until `cost(plan) <= limit`: as few as that takes.

    `cost_of` makes costs of plans: parameters, multiply-adds, measured milliseconds. A cost must not rise as more units
    go; the count is found by bisection, in about log2(units) calls of `cost`.
    """

    cost: Callable[[Plan], float]
    limit: float


Single = Ratio | Threshold | Count
Rule = Single | Ratios | Budget


def select(
    scores: Mapping[str, Tensor],
    structure: Structure,
    rule: Rule | float,
    scope: Scope = "group",
    keep: Collection[str] = (),
    bounds: Mapping[str, tuple[int, int]] | None = None,
    multiple: int = 1,
) -> Plan:
    """Chooses the units to keep: the lowest scores go first.

    `scores` maps group names to one score a unit (higher = keep); groups without scores stay whole, and so do groups
    whose name matches a pattern in `keep`. Under scope "group" the rule holds in every group, under "global" over all
    of them together, so scores must be comparable between groups; `Ratios` gives each group its own. No group is ever
    emptied. Groups that must stay equally wide (`structure.equal`) all keep as many units as the widest of them; of an
    LSTM that would keep as many cells as its projection has units, which PyTorch cannot run, more cells stay. `bounds`
    maps patterns of group names to (fewest, most) units that stay, the last match counting; `multiple` rounds what
    stays up to multiples of it, as widths off multiples of 8 cost matrix products dearly.

    Returns a plan that carries its slices. Of equal scores the lower index goes first.
    Raises ValueError for names, shapes or values of scores that do not fit, for patterns that match no group, for a
    ratio or count that removes nothing or more than there is, and for a budget out of reach.
    """
    rule = Ratio(rule) if isinstance(rule, (int, float)) else rule
    scored = _checked(scores, structure, keep)
    limits = _limits(structure, bounds or {}, multiple)
    if isinstance(rule, Budget):
        return _within_budget(scored, structure, rule, limits)
    removed: set[tuple[str, int]] = set()
    for pool, own in _pools(scored, rule, scope):
        removed |= _lowest(pool, own)
    plan = _plan(removed, scored, structure, limits)
    if not structure.removed(plan) and not isinstance(rule, Threshold):
        raise ValueError(
            f"{rule} removes nothing from groups of {', '.join(f'{n}: {len(v)}' for n, v in scored.items())} units; "
            "ask for more, or protect fewer groups"
        )
    return plan


def _checked(scores: Mapping[str, Tensor], structure: Structure, keep: Collection[str]) -> dict[str, Tensor]:
    for pattern in keep:
        _check_pattern(pattern, structure, "keep")
    checked = {}
    check_scores(scores, structure)
    for name, values in scores.items():
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in keep):
            checked[name] = values.detach().cpu().double()
    if not checked:
        raise ValueError("there are no scores of groups that may be cut; protect fewer groups or score more of them")
    return checked


def _ranking(pool: Mapping[str, Tensor]) -> list[tuple[str, int]]:
    """Units in the order in which they go; each group's best unit never does."""
    units = []
    for place, values in enumerate(values.tolist() for values in pool.values()):
        best = max((score, j) for j, score in enumerate(values))[1]
        units += [(score, place, j) for j, score in enumerate(values) if j != best]
    names = list(pool)
    return [(names[place], j) for _, place, j in sorted(units)]


def _pools(
    scores: Mapping[str, Tensor], rule: Single | Ratios, scope: Scope
) -> Iterator[tuple[Mapping[str, Tensor], Single]]:
    """What is ranked together, and the rule for it."""
    if isinstance(rule, Ratios):
        if unknown := sorted(rule.fractions.keys() - scores.keys()):
            raise ValueError(f"ratios name {', '.join(unknown)}; the groups that may be cut are {', '.join(scores)}")
        yield from (({name: scores[name]}, Ratio(share)) for name, share in rule.fractions.items() if share > 0)
    elif scope == "global":
        yield scores, rule
    else:
        yield from (({name: values}, rule) for name, values in scores.items())


def _lowest(pool: Mapping[str, Tensor], rule: Single) -> set[tuple[str, int]]:
    ranking = _ranking(pool)
    if isinstance(rule, Threshold):
        limits = {name: rule.value * (float(v.mean()) if rule.relative else 1.0) for name, v in pool.items()}
        return {(name, j) for name, j in ranking if float(pool[name][j]) < limits[name]}
    total = sum(len(values) for values in pool.values())
    count = rule.units if isinstance(rule, Count) else min(round(rule.fraction * total), len(ranking))
    if count > len(ranking):
        raise ValueError(f"{count} units cannot go from groups of {total} units that must keep at least one each")
    return set(ranking[:count])


Limits = Callable[[str, int], int]
"""`limits(group, count)`: how many units stay where `count` would."""


def _limits(structure: Structure, bounds: Mapping[str, tuple[int, int]], multiple: int) -> Limits:
    if multiple < 1:
        raise ValueError(f"widths are rounded to multiples of at least 1, got {multiple}")
    for pattern, (fewest, most) in bounds.items():
        if not 1 <= fewest <= most:
            raise ValueError(f"bounds are (fewest, most) with 1 <= fewest <= most, got {pattern!r}: {(fewest, most)}")
        _check_pattern(pattern, structure, "bounds")

    def limited(name: str, count: int) -> int:
        width = structure[name].width
        matching = [pair for pattern, pair in bounds.items() if fnmatch.fnmatchcase(name, pattern)]
        fewest, most = matching[-1] if matching else (1, width)
        count = max(fewest, min(most, count))
        return min(width, -(-count // multiple) * multiple)

    return limited


def _check_pattern(pattern: str, structure: Structure, where: str) -> None:
    names = [group.name for group in structure]
    if not fnmatch.filter(names, pattern):
        raise ValueError(f"{pattern!r} in {where} matches no group; the groups are {', '.join(names)}")


def _plan(
    removed: Collection[tuple[str, int]], scores: Mapping[str, Tensor], structure: Structure, limits: Limits
) -> Plan:
    gone = Counter(name for name, _ in removed)
    counts = {name: limits(name, len(values) - gone[name]) for name, values in scores.items()}
    for names in structure.equal:
        widest = max(counts.get(name, structure[name].width) for name in names if name in structure)
        counts |= {name: widest for name in names if name in counts}
    counts |= _apart(counts, structure, limits)
    keep = {}
    for name, values in scores.items():
        lowest_last = sorted(((-score, -j) for j, score in enumerate(values.tolist())))
        keep[name] = tuple(-j for _, j in lowest_last[: counts[name]])
    return structure.bind(Plan(keep))


def _within_budget(scores: Mapping[str, Tensor], structure: Structure, budget: Budget, limits: Limits) -> Plan:
    ranking = _ranking(scores)

    def plan(count: int) -> Plan:
        return _plan(ranking[:count], scores, structure, limits)

    smallest = budget.cost(plan(len(ranking)))
    if smallest > budget.limit:
        raise ValueError(
            f"even with as few units as may stay the cost is {smallest:g}, above the limit {budget.limit:g}"
        )
    low, high = -1, len(ranking)  # the cost of `high` is within the limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if budget.cost(plan(middle)) <= budget.limit else (middle, high)
    return plan(high)


def _apart(counts: Mapping[str, int], structure: Structure, limits: Limits) -> dict[str, int]:
    """More of an LSTM's cells, or of what they are projected to, where both would be equally many.

    All layers of a module change together, as one width holds for them.
    """
    changed: dict[str, int] = {}
    for cells, projected in structure.projections():
        now = {group.name: group.width for group in structure} | dict(counts) | changed
        for name in (*cells.each, *projected.each) if cells.left(now) == projected.left(now) else ():
            more = limits(name, now[name] + 1)
            if name in counts and more > now[name]:
                changed |= {other: more for other in structure.alike(name) if other in counts}
                break
    return changed


Measure = Literal["parameters", "macs", "milliseconds"]


def cost_of(
    model: nn.Module, structure: Structure, example: Tensor, measure: Measure = "parameters"
) -> Callable[[Plan], float]:
    """`cost(plan)` for `Budget`: what the network costs once it is cut so.

    "parameters" are counted, "macs" are multiply-adds for one example, "milliseconds" the median time of a forward pass
    of the whole batch `example`, measured with the present number of threads: noisy, and not always lower for fewer
    units, so measure on the machine that counts and give `select` multiple=8.

    Cost: one cut, and one forward pass (macs) or 60 (milliseconds), a call.
    """
    if measure not in get_args(Measure):
        raise ValueError(f"unknown measure {measure!r}; choose one of {', '.join(get_args(Measure))}")

    def cost(plan: Plan) -> float:
        small = cut(model, structure, plan)
        if measure == "parameters":
            return evaluation.parameters(small)
        if measure == "macs":
            return evaluation.macs(small, example)
        return evaluation.latency(small, example, repeats=50, batch=len(example))

    return cost
