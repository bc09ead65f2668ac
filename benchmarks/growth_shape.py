"""`pared.shape` beside a fixed size, pruning alone and a search of sizes alone, for as many multiply-adds each.

Forecasters of the logistic map at 3.99, of the Santa Fe laser and of the sunspots: ten blocks, two seeds, a usual size
of 16, 4 and 4 units. Every arm may take what E epochs of the usual network take. Fixed: it trains for E. Pruned: it
trains for E/2, then `Bisection` of the ratio, refits of E/10. Searched: sizes between the usual and nothing by the same
bisection, each from scratch with what E/6 epochs of the usual take. Shaped: begins with E/6, stints of E/30, finishes
with E/6; from the usual size and from 2, 2 and 2 units. All choose on validation data, with one margin (5 %), and are
tested once. The protocol was fixed after pilots with other numbers of epochs on logistic-3.99 alone.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from growth_rows import Row, Verdict, write_rows

from pared import Bisection, Forecaster, ShapeSettings, Split, TrainConfig, evaluation, fit_many, shape
from pared.cutting import Subject, Units
from pared.data import Framing, Protocol, builtin, protocol_for, rolling_origin
from pared.evaluation import FORECASTING, Comparison, compare
from pared.outcomes import Trained, accepted, network_metrics
from pared.selection import Ratio
from pared.sizes import Pool, proposed
from pared.study import member_seed, scoring_batch
from pared.surgery import trace
from pared.training import Fit

EPOCHS = {"logistic-3.99": 600, "sunspots": 600, "santa-fe": 150}
"""E: what an arm may take, in epochs of the usual network."""
USUAL = {"recurrent.0.l0": 16, "recurrent.1.l0": 4, "head.0": 4}
SMALL = dict.fromkeys(USUAL, 2)
SEEDS = 2


@dataclass(frozen=True)
class Found:
    """What an arm came to: its networks, in the order of the members, and the seconds that it took."""

    fits: Sequence[Fit]
    seconds: float


def build(seed: int, widths: Mapping[str, int]) -> Forecaster:
    first, second, head = (widths.get(name, width) for name, width in USUAL.items())
    return Forecaster(1, (first, second), (head,), seed=seed)


@dataclass(frozen=True)
class Series:
    """A series' blocks and members, and E."""

    blocks: Sequence[Split]
    epochs: int

    @property
    def members(self) -> list[tuple[Split, int]]:
        return [(block, member_seed(block.block, seed)) for block in self.blocks for seed in range(SEEDS)]

    def trained(self, models: Sequence[torch.nn.Module], config: TrainConfig, alike: bool = True) -> list[Fit]:
        """Each for `config.epochs`, or for as many multiply-adds as the usual network takes for them."""
        usual, x = evaluation.macs(build(0, {}), self.blocks[0].train.x[:1]), self.blocks[0].train.x[:1]
        configs = [
            replace(
                config,
                seed=seed,
                epochs=config.epochs if alike else max(1, round(config.epochs * usual / evaluation.macs(model, x))),
            )
            for model, (_, seed) in zip(models, self.members, strict=True)
        ]
        return fit_many(models, [block for block, _ in self.members], configs)

    def errors(self, fits: Sequence[Fit], part: str) -> list[float]:
        measured = [
            network_metrics(FORECASTING, Trained(fit), block, part, False)
            for fit, (block, _) in zip(fits, self.members, strict=True)
        ]
        return [metrics.get(f"{part}.nrmse", math.nan) for metrics in measured]

    def compared(self, first: Sequence[Fit], second: Sequence[Fit], part: str) -> Comparison:
        one, two = self.errors(first, part), self.errors(second, part)
        return compare(one, two, FORECASTING.margin, [block.block for block, _ in self.members])


def config(epochs: float, lr: float = 1e-2) -> TrainConfig:
    return TrainConfig(epochs=max(1, round(epochs)), lr=lr, patience=math.inf)


def fixed(series: Series) -> list[Fit]:
    return series.trained([build(seed, {}) for _, seed in series.members], config(series.epochs))


def bisected(series: Series, full: list[Fit], attempt: Callable[[float], list[Fit]]) -> list[Fit]:
    """The leanest of what a bisection of the ratio tries and the paired test on validation data lets pass."""
    pools, tried, passed = {"all layers": Pool(sum(USUAL.values()), len(USUAL))}, [], [full]
    while isinstance(rule := proposed([Bisection()], pools, tried), Ratio):
        fits = attempt(rule.fraction)
        good = not any(fit.diverged for fit in fits) and accepted(series.compared(fits, full, "validation"))
        tried.append((rule, good))
        passed += [fits] if good else []
    return min(passed, key=parameters)


def pruned(series: Series) -> list[Fit]:
    full = series.trained([build(seed, {}) for _, seed in series.members], config(series.epochs / 2))
    structure, cutting = trace(build(0, {}), series.blocks[0].train.x[:1]), Units()

    def attempt(ratio: float) -> list[Fit]:
        models = []
        for fit, (block, _) in zip(full, series.members, strict=True):
            subject = Subject(fit.model, structure, scoring_batch(block), FORECASTING.loss)
            ((small, _),) = cutting.ways(subject, cutting.scores(subject), Ratio(ratio))
            models.append(small)
        return series.trained(models, config(series.epochs / 10, 3e-3), alike=False)

    return bisected(series, full, attempt)


def searched(series: Series) -> list[Fit]:
    def attempt(ratio: float) -> list[Fit]:
        widths = {name: max(1, round((1 - ratio) * width)) for name, width in USUAL.items()}
        models = [build(seed, widths) for _, seed in series.members]
        return series.trained(models, config(series.epochs / 6), alike=False)

    return bisected(series, attempt(0.0), attempt)


def shaped(series: Series, small: bool) -> list[Fit]:
    x = series.blocks[0].train
    limit = 3.0 * evaluation.macs(build(0, {}), x.x[:1]) * len(x.x) * series.epochs
    how = ShapeSettings(
        config(series.epochs / 6), config(series.epochs / 30, 5e-3), config(series.epochs / 6, 5e-3),
        first="grow" if small else "cut", growth=1.0 if small else 0.5, limit=limit,
    )  # fmt: skip
    found = shape(build, series.blocks, range(SEEDS), how, SMALL if small else None)
    for change in found.changes:
        print("   ", change.kind, change.units, change.layer, [round(size) for size in change.parameters],
              change.comparison and f"{change.comparison.ratio:.3f}", change.taken, flush=True)  # fmt: skip
    return [found.fits[block.block, seed] for block in series.blocks for seed in range(SEEDS)]


ARMS: dict[str, Callable[[Series], list[Fit]]] = {
    "fixed": fixed,
    "pruned": pruned,
    "searched": searched,
    "shaped": lambda series: shaped(series, small=False),
    "shaped from small": lambda series: shaped(series, small=True),
}


def parameters(fits: Sequence[Fit]) -> float:
    return float(np.mean([evaluation.parameters(fit.model) for fit in fits]))


def rows(name: str) -> list[Row]:
    data = builtin(name)
    framing = Framing(data.window, predict=data.predict)
    series = Series(rolling_origin(data, protocol_for(len(data.values), framing, Protocol()), framing), EPOCHS[name])
    found = {}
    for arm, run in ARMS.items():
        started = time.process_time()
        fits = run(series)
        found[arm] = Found(fits, (time.process_time() - started) / len(fits))
        beside = series.compared(fits, found["fixed"].fits, "test")
        print(name, arm, f"{parameters(fits):.0f} parameters, {beside.ratio:.3f} ({beside.ratio_low:.3f}-"
              f"{beside.ratio_high:.3f}) of fixed, {found[arm].seconds:.1f} s", flush=True)  # fmt: skip
    pairs = [("shaped", "fixed"), ("shaped", "pruned"), ("shaped", "searched"), ("shaped from small", "searched")]
    return [row(name, series, found, *pair) for pair in pairs]


def row(name: str, series: Series, found: Mapping[str, Found], arm: str, control: str) -> Row:
    comparison = series.compared(found[arm].fits, found[control].fits, "test")
    sizes = [f"{parameters(found[each].fits):.0f}" for each in (arm, control)]
    to_fixed = series.compared(found[arm].fits, found["fixed"].fits, "test")
    verdict: Verdict = comparison.verdict
    return Row(
        method=f"{arm.replace('shaped', 'shape')} (grow and cut in one loop)", source="pared",
        data=name, seeds=len(series.members), measure="log of the test NRMSE, lower is better",
        effect=comparison.difference, low=comparison.low, high=comparison.high,
        control=f"{control}, as many multiply-adds",
        cost_seconds=found[arm].seconds, control_cost_seconds=found[control].seconds, verdict=verdict,
        note=f"{sizes[0]} against {sizes[1]} parameters; {to_fixed.ratio:.2f} of the fixed network's error "
             f"({to_fixed.ratio_low:.2f} to {to_fixed.ratio_high:.2f}), {to_fixed.verdict}",
    )  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    write_rows([each for name in EPOCHS for each in rows(name)], "shape", "numba")


if __name__ == "__main__":
    main()
