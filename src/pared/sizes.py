"""How far to cut: what is tried next, given what passed so far."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pared.selection import Count, Ratio, Ratios, Rule


class Pool(NamedTuple):
    """What is ranked together: how many parts, and how few of them may be left."""

    parts: int
    fewest: int = 1

    def removed(self, ratio: float) -> int:
        """How many parts a ratio takes."""
        return min(round(ratio * self.parts), self.parts - self.fewest)


Pools = Mapping[str, Pool]
"""What rules count in: one pool where all layers are ranked together, else one a layer, by its name."""

Tried = Sequence[tuple[Rule, bool]]
"""Rules in the order in which they were tried, and whether what they left passed."""

Search = Callable[[Pools, Tried], Rule | None]
"""What to try next, None where it is over: a pure function of what was tried."""


@dataclass(frozen=True)
class Bisection:
    """Halves the gap between the largest ratio that passed and the smallest above it that failed.

        r = (low + high) / 2,   low = 0 where none passed, high = 1 where none failed

    until the gap is at most `tolerance`, no number of parts between the two is left, or `most` ratios were tried. A
    ratio that removes as much as one that was tried stands for it. It supposes that less removed is not worse. Where
    noise makes it otherwise nothing breaks: whoever chooses looks at all that was tried.
    """

    tolerance: float = 1 / 16
    most: int = 5

    def __call__(self, pools: Pools, tried: Tried) -> Ratio | None:
        ratios = {rule.fraction: passed for rule, passed in tried if isinstance(rule, Ratio)}
        low = _largest_passing(tried)
        high = min((ratio for ratio, passed in ratios.items() if not passed and ratio > low), default=1.0)
        if ratios and (len(ratios) >= self.most or high - low <= self.tolerance):
            return None
        middle = _between(pools, low, high)
        return Ratio(middle) if middle is not None else None if ratios else Ratio(0.5)

    def __str__(self) -> str:
        return f"bisection of the ratio to {self.tolerance:g}, at most {self.most} ratios"


@dataclass(frozen=True)
class LayerByLayer:
    """A ratio common to all layers by a coarse bisection, then more of each layer in turn, the widest first.

    r_l = (r + 1) / 2 for one layer l at a time, r the largest common ratio that passed: half of what is left of it. It
    stays where that passed, and the next layer is tried on top of it, until `most` were tried in all.
    """

    common: Bisection = Bisection(tolerance=1 / 8, most=3)
    most: int = 6

    def __call__(self, pools: Pools, tried: Tried) -> Rule | None:
        if (rule := self.common(pools, tried)) is not None:
            return rule
        base = _largest_passing(tried)
        more = (base + 1) / 2
        widest_first = sorted(pools, key=lambda name: -pools[name].parts)
        layers = [name for name in widest_first if pools[name].removed(more) > pools[name].removed(base)]
        single = [(rule, passed) for rule, passed in tried if isinstance(rule, Ratios)]
        if len(single) >= min(len(layers), self.most - sum(isinstance(rule, Ratio) for rule, _ in tried)):
            return None
        passing = [rule.fractions for rule, passed in single if passed]
        return Ratios({**(passing[-1] if passing else dict.fromkeys(pools, base)), layers[len(single)]: more})

    def __str__(self) -> str:
        return f"{self.common}, then layer by layer, at most {self.most} in all"


@dataclass(frozen=True)
class OneByOne:
    """One part more at a time, until `misses` in a row did not pass or no other may go: for few parts, as layers."""

    misses: int = 2

    def __call__(self, pools: Pools, tried: Tried) -> Count | None:
        passed = [passed for rule, passed in tried if isinstance(rule, Count)]
        most = sum(pool.parts - pool.fewest for pool in pools.values())
        over = len(passed) >= max(most, 1) or (len(passed) >= self.misses and not any(passed[-self.misses :]))
        return None if over else Count(len(passed) + 1)

    def __str__(self) -> str:
        return f"one more at a time, until {self.misses} in a row do not pass"


def proposed(rules: Sequence[Rule | Search], pools: Pools, tried: Tried) -> Rule | None:
    """The first of the rules, and of what the searches among them propose, that was not tried yet."""
    done = [rule for rule, _ in tried]
    found = (each(pools, tried) if callable(each) else each for each in rules)
    return next((rule for rule in found if rule is not None and rule not in done), None)


def _between(pools: Pools, low: float, high: float) -> float | None:
    """A ratio, by halving, that removes more than `low` and less than `high` (tried unless it is 1), if any."""
    below, above = _removed(pools, low), _removed(pools, high)
    tried = high < 1
    while any(most - least > tried for least, most in zip(below, above, strict=True)):
        middle = (low + high) / 2
        if (found := _removed(pools, middle)) == below:
            low = middle
        elif tried and found == above:
            high = middle
        else:
            return middle
    return None


def _removed(pools: Pools, ratio: float) -> list[int]:
    return [pool.removed(ratio) for pool in pools.values()]


def _largest_passing(tried: Tried) -> float:
    return max((rule.fraction for rule, passed in tried if isinstance(rule, Ratio) and passed), default=0.0)
