"""The rules of the diagnosis: what was measured of a training -> what is wrong, and what to try, causes first.

Each rule reads `Seen` and `Thresholds` alone. docs/diagnosis.md has them as a table, with their sources.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pared.tuning import remedies
from pared.tuning.facts import Seen
from pared.tuning.losses import SURE
from pared.tuning.recipe import Change

Kind = Literal[
    "leaky split", "wrong scale", "exploding gradients", "vanishing gradients", "dead ReLUs", "unstable",
    "constant predictor", "label noise", "budget too small", "underfit", "overfit", "uneven split", "dropout artefact",
    "learning rate", "batch size",
]  # fmt: skip


@dataclass(frozen=True)
class Thresholds:
    """The limits of all rules. Differences must exceed two standard errors besides."""

    copies: float = 0.01
    large: float = 5.0
    small: float = 0.05
    vanished: float = 1e-3
    exploded: float = 1e3
    learnt: float = 0.1
    diverged: float = 3.0
    dead: float = 0.5
    rough: float = 0.1
    spread: float = 0.1
    wrong: float = 0.03
    gain: float = 0.1


@dataclass(frozen=True)
class Draft:
    """What a rule says: numbers, words, and what to try, in order; nothing where nothing should be changed."""

    kind: Kind
    evidence: dict[str, float]
    reason: str
    remedies: tuple[Change, ...] = ()


Rule = Callable[[Seen, Thresholds], Draft | None]


def leaky_split(seen: Seen, limit: Thresholds) -> Draft | None:
    """Validation rows that were trained on, or windows whose answer was read in training."""
    data = seen.data
    if max(data.copies_low, data.overlapping_low) <= limit.copies:
        return None
    evidence = {"copies": data.copies, "overlapping": data.overlapping}
    if data.copies_low > limit.copies:
        reason = f"{data.copies:.0%} of the validation rows, inputs and target, are training rows, too"
    else:
        reason = f"of {data.overlapping:.0%} of the validation windows, training reads the row that is to be forecast"
    reason += ": the validation loss says how well the network remembers"
    return Draft("leaky split", evidence, reason, (Change({"apart": True}),))


def wrong_scale(seen: Seen, limit: Thresholds) -> Draft | None:
    """Inputs or targets far from unit size."""
    data, found = seen.data, []
    if data.largest > limit.large:
        found.append(f"an input column has root mean square {data.largest:.3g}")
    if data.smallest < limit.small:
        found.append(f"an input column varies by {data.smallest:.2g} only")
    if data.target > limit.large:
        found.append(f"the targets have root mean square {data.target:.3g}")
    if data.deviation < limit.small:
        found.append(f"the targets vary by {data.deviation:.2g} only")
    if not found:
        return None
    evidence = {
        "largest input": data.largest,
        "smallest input": data.smallest,
        "target size": data.target,
        "target deviation": data.deviation,
    }
    reason = f"{' and '.join(found)}; weights and learning rates are made for values of size 1"
    return Draft("wrong scale", evidence, reason, (Change({"scale": True}),))


def exploding_gradients(seen: Seen, limit: Thresholds) -> Draft | None:
    """The gradient grows on its way back through the layers or the steps."""
    depth, time = seen.watch.exploding
    growth = max(depth, time)
    if not growth > limit.exploded:
        return None
    where = "the first step of a window" if time == growth else "the first hidden layer"
    evidence = {"growth": growth, "depth": depth, "time": time, "norm": remedies.usual_norm(seen)}
    reason = f"early in training the gradient at {where} is {growth:.2g} times that at the last"
    return Draft("exploding gradients", evidence, reason, remedies.for_explosion(seen))


def vanishing_gradients(seen: Seen, limit: Thresholds) -> Draft | None:
    """The gradient shrinks on its way back, and nothing was learnt. A small gradient alone says nothing."""
    depth, time = seen.watch.vanishing
    left = min(depth, time)
    learnt = min(seen.network.learnt, seen.network.generalised)
    if learnt >= limit.learnt or not left < limit.vanished:
        return None
    where = "the first step of a window" if time == left else "the first hidden layer"
    evidence = {"left": left, "depth": depth, "time": time, "learnt": learnt}
    what = f"only {learnt:.0%} of the loss is gone" if learnt > 0 else "nothing was learnt"
    reason = f"early in training the gradient at {where} is {left:.1g} of that at the last, and {what}"
    return Draft("vanishing gradients", evidence, reason, remedies.for_vanishing(seen))


def dead_relus(seen: Seen, limit: Thresholds) -> Draft | None:
    """Units that are zero whatever the input: they neither help nor learn."""
    network = seen.network
    if network.dead < limit.dead:
        return None
    born = network.born_dead >= limit.dead
    evidence = {"dead": network.dead, "dead at the start": network.born_dead}
    when = "and were so before training" if born else "and were killed by training"
    reason = f"{network.dead:.0%} of the ReLU units of a layer are zero on every training example, {when}"
    return Draft("dead ReLUs", evidence, reason, remedies.for_dead(seen, born))


def unstable(seen: Seen, limit: Thresholds) -> Draft | None:
    """The loss grows, or it jumps or the steps are beyond what a range test bears, and smaller ones help."""
    network = seen.network
    evidence = {"end over start": network.end / network.start, "rough": network.rough, "lr": seen.recipe.lr}
    if network.diverged or network.end > limit.diverged * network.start:
        reason = "the loss grew without bounds"
    elif network.rough > limit.rough and network.end > network.constant:
        reason = f"the loss jumps ({network.rough:.0%} up an epoch) and ends above that of a constant"
    elif _helps(seen, "slower", limit):
        gain = seen.effects["slower"][1]
        evidence |= {"lowest in the range test": seen.rates.lowest or 0.0, "gain of a lower rate": gain.share}
        signs = f"the loss jumps ({network.rough:.0%} up an epoch)"
        if network.rough <= limit.rough:
            signs = f"the rate, {seen.recipe.lr:.2g}, is above that of the lowest loss in a range test"
        reason = f"{signs}, and a lower one takes {gain.share:.0%} off the validation loss"
    else:
        return None
    return Draft("unstable", evidence, reason, remedies.for_instability(seen))


def constant_predictor(seen: Seen, limit: Thresholds) -> Draft | None:
    """Every example gets about the same output, and not for want of training."""
    network = seen.network
    if _helps(seen, "longer", limit) or (not seen.effects and remedies.steps(seen) < remedies.ENOUGH):
        return None
    behind = network.above is None or network.above.positive
    if network.spread >= limit.spread or (network.useful is not None and network.useful.positive and not behind):
        return None
    evidence = {"spread": network.spread, "learnt": network.learnt, "steps": float(remedies.steps(seen))}
    if network.useful is not None and not network.useful.positive:
        return Draft(
            "constant predictor",
            evidence | {"reference gains": network.useful.value},
            "the outputs hardly differ, and kernel regression does no better than a constant either: these inputs do "
            "not tell the target",
        )
    reason = f"the outputs vary by {network.spread:.1%} of what the targets do, though there is something to learn"
    return Draft("constant predictor", evidence, reason, remedies.for_constant(seen))


def label_noise(seen: Seen, limit: Thresholds) -> Draft | None:
    """Labels that contradict the rows around them, where these agree."""
    data, useful = seen.data, seen.network.useful
    if data.wrong_low <= limit.wrong or useful is None or not useful.positive:
        return None
    rows = ", ".join(str(row + 1) for row in data.suspects[:5])
    reason = (
        f"{data.wrong:.0%} of the classes contradict the rows around them where these agree (training rows {rows}, "
        "...): look at them; a network that is trained for long learns them by heart"
    )
    evidence = {"wrong": data.wrong, "at least": data.wrong_low}
    return Draft("label noise", evidence, reason, remedies.for_overfit(seen))


def budget_too_small(seen: Seen, limit: Thresholds) -> Draft | None:
    """Training longer lowers both losses; without the experiment, the validation loss still falls."""
    network = seen.network
    if "longer" in seen.effects:
        if not _helps(seen, "longer", limit):
            return None
        gain = seen.effects["longer"][1]
        evidence = {"gain": gain.share, "error": gain.error / abs(gain.loss), "slope": network.slope}
        reason = f"{remedies.factor(seen)} times the epochs take {gain.share:.0%} off the validation loss"
    else:
        gain_ahead = -network.slope * seen.recipe.epochs / 3
        if not (gain_ahead > limit.gain and network.slope < 0) or network.gap.value > SURE * network.gap.error:
            return None
        evidence = {"slope": network.slope, "gain ahead": gain_ahead}
        reason = f"the validation loss still falls, by {-network.slope:.1%} an epoch"
    return Draft("budget too small", evidence, reason, remedies.for_budget(seen))


def underfit(seen: Seen, limit: Thresholds) -> Draft | None:
    """More units lower both losses; or training loss above what another predictor has on data it never saw."""
    network = seen.network
    evidence = {"training loss": network.train.value, "validation loss": network.validation.value}
    if _helps(seen, "wider", limit):
        gain = seen.effects["wider"][1]
        evidence |= {"gain": gain.share, "error": gain.error / abs(gain.loss)}
        reason = f"twice the units take {gain.share:.0%} off the validation loss, and lower the training loss"
    elif network.above is not None and network.reference is not None:
        behind = network.above.value / abs(network.reference) if network.reference else 0.0
        ahead = network.train.value - SURE * network.train.error > network.reference
        if not (network.above.positive and behind >= limit.gain and ahead):
            return None
        evidence |= {"reference": network.reference}
        reason = (
            f"the loss on its own training data ({network.train.value:.3g}) is above what kernel regression has on "
            f"validation data ({network.reference:.3g})"
        )
    else:
        return None
    return Draft("underfit", evidence, reason, remedies.for_underfit(seen))


def overfit(seen: Seen, limit: Thresholds) -> Draft | None:
    """Less training or more restraint lowers the validation loss. A gap alone says nothing."""
    network = seen.network
    gains = {name: seen.effects[name][1] for name in ("best", "decayed", "dropout") if _helps(seen, name, limit)}
    more = {name: seen.effects[name][1] for name in ("longer", "wider") if _harms(seen, name, limit)}
    evidence = {"training loss": network.train.value, "validation loss": network.validation.value}
    losses = f"validation loss {network.validation.value:.3g}, training loss {network.train.value:.3g}"
    if gains and network.gap.positive:
        name = "best" if "best" in gains else max(gains, key=lambda name: gains[name].share)
        words = {"best": "the weights of the best epoch", "decayed": "weight decay", "dropout": "more dropout"}
        evidence |= {"gain": gains[name].share, "error": gains[name].error / abs(gains[name].loss)}
        reason = f"{losses}, and {words[name]} would take {gains[name].share:.0%} off the former"
        return Draft("overfit", evidence, reason, remedies.for_overfit(seen, name))
    if more and network.gap.positive:
        name = min(more, key=lambda name: more[name].share)
        words = {"longer": f"{remedies.factor(seen)} times the epochs", "wider": "twice the units"}
        evidence |= {f"harm of {name}": -more[name].share, "error": more[name].error / abs(more[name].loss)}
        reason = f"{losses}, and {words[name]} lower the latter but raise the former by {-more[name].share:.0%}"
        return Draft("overfit", evidence, reason, remedies.for_overfit(seen))
    harm = network.risen > max(SURE * network.validation.error, limit.gain * (network.validation.value - network.risen))
    if not seen.effects and harm and network.gap.positive:
        reason = f"the validation loss ends {network.risen:.3g} above its lowest, {network.validation.value:.3g}"
        return Draft("overfit", evidence | {"risen": network.risen}, reason, remedies.for_overfit(seen))
    return None


def learning_rate(seen: Seen, limit: Thresholds) -> Draft | None:
    """The range test suggests a much higher rate, and it lowers the validation loss."""
    if not _helps(seen, "faster", limit):
        return None
    gain, remedy = seen.effects["faster"][1], remedies.suggested_rate(seen)
    evidence = {"lr": seen.recipe.lr, "steepest": seen.rates.steepest or 0.0, "lowest": seen.rates.lowest or 0.0}
    reason = f"the rate that a range test suggests takes {gain.share:.0%} off the validation loss"
    return Draft("learning rate", evidence | {"gain": gain.share}, reason, remedy)


def uneven_split(seen: Seen, limit: Thresholds) -> Draft | None:
    """Validation examples that are easier than those trained on, in the same mode: no sign of underfit."""
    gap = seen.network.gap
    if not gap.value < -SURE * gap.error or -gap.value < limit.gain * seen.network.train.value:
        return None
    evidence = {"gap": gap.value, "error": gap.error}
    reason = (
        f"the network errs less on validation data ({seen.network.validation.value:.3g}) than on as many that it was "
        f"trained on ({seen.network.train.value:.3g}), and none are copies: an uneven split; judge by several"
    )
    return Draft("uneven split", evidence, reason)


def dropout_artefact(seen: Seen, limit: Thresholds) -> Draft | None:
    """The training loss stands above the validation loss because dropout is active while it is taken."""
    network = seen.network
    if not (network.reported > network.validation.value and network.noise.positive):
        return None
    if network.train.value - network.validation.value > SURE * network.gap.error:
        return None
    evidence = {"reported": network.reported, "training loss": network.train.value, "noise": network.noise.value}
    reason = (
        f"the reported training loss ({network.reported:.3g}) is above the validation loss "
        f"({network.validation.value:.3g}) as dropout is active in it; without, it is {network.train.value:.3g}: "
        "no sign of underfit, nothing to change"
    )
    return Draft("dropout artefact", evidence, reason)


RULES: tuple[Rule, ...] = (
    leaky_split,
    wrong_scale,
    exploding_gradients,
    dead_relus,
    vanishing_gradients,
    unstable,
    constant_predictor,
    label_noise,
    budget_too_small,
    underfit,
    overfit,
    learning_rate,
    uneven_split,
    dropout_artefact,
)
"""In the order of causes: what makes others appear comes first."""
GROUND = RULES[: RULES.index(label_noise) + 1]
"""Those on data and optimisation, which need no experiment."""


def _helps(seen: Seen, experiment: str, limit: Thresholds) -> bool:
    """Whether an experiment lowered the validation loss by enough; more units or epochs the training loss, too."""
    if experiment not in seen.effects:
        return False
    train, validation = seen.effects[experiment]
    return validation.helps(limit.gain) and (experiment not in ("longer", "wider") or train.gain > 0)


def _harms(seen: Seen, experiment: str, limit: Thresholds) -> bool:
    """Whether more of something lowered the training loss and raised the validation loss by as much as counts."""
    if experiment not in seen.effects:
        return False
    train, validation = seen.effects[experiment]
    return train.gain > 0 and validation.harms and -validation.share >= limit.gain
