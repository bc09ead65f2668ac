"""A run as data: what it studies, and its evidence as the record that is stored and drawn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

import pared
from pared import evaluation
from pared.cutting import Build
from pared.data import Block
from pared.findings import finding, notes
from pared.outcomes import Candidate, Evidence, Key, Networks, Outcome, Trained
from pared.selection import Ratio, Ratios, Threshold
from pared.settings import Settings
from pared.study import Investigation
from pared.types import DataError, Progress

B = TypeVar("B", bound=Block)


@dataclass(frozen=True)
class Job(Generic[B]):
    """One run: its blocks, its settings, how its networks are built, and what its record says of all that.

    `head` opens the record: data, settings, blocks; `shown` names the metrics of candidates that the report shows
    besides the error; `figures` draws on the evidence, the shipped network's key and its block; `saved` is what
    config.toml must hold to use a network of a block again; `remarks` on the data belong among the notes.
    """

    name: str
    blocks: Sequence[B]
    config: Settings
    build: Build
    head: Mapping[str, Any]
    shown: tuple[str, ...]
    figures: Callable[[Evidence, Key, B], dict[str, Any]]
    saved: Callable[[B], dict[str, Any]]
    remarks: tuple[str, ...] = ()

    def block(self, key: Key) -> B:
        """The block that a network was trained on."""
        return next(block for block in self.blocks if block.block == key[1])


def investigation(job: Job[B], jobs: int, progress: Progress) -> Investigation:
    """The study that a run makes. Raises DataError for rules that suit none of its layers."""
    config = job.config
    seeds = range(config.seed, config.seed + config.seeds)
    study = Investigation(job.build, job.blocks, seeds, config.study, job.name, jobs, progress)
    try:
        study.check()
    except ValueError as error:
        raise DataError(str(error)) from error
    return study


def shipped_key(job: Job[B], evidence: Evidence) -> Key:
    """The network that is saved: newest block, the seed with the (lower) median validation error."""
    arm = evidence.chosen.label if evidence.ships_cut and evidence.chosen else "full"
    metric = f"validation.{job.config.task.error}"
    errors = {
        (block, seed): metrics[metric]
        for (name, block, seed), metrics in evidence.measured.items()
        if name == arm and metric in metrics
    }
    newest = max(block for block, _ in errors)
    ranked = sorted((error, seed) for (block, seed), error in errors.items() if block == newest)
    return arm, newest, ranked[(len(ranked) - 1) // 2][1]


def record(job: Job[B], evidence: Evidence) -> dict[str, Any]:
    """What outcomes.json holds: plain data, from which the report is drawn. Times lie under "milliseconds" alone.

    "directions" holds McNemar's tests of what is right or wrong: of a series, directions; of classes, the classes.
    """
    arm, block, seed = key = shipped_key(job, evidence)
    own = job.block(key)
    full, shipped = evidence.networks["full", block, seed].fit.model, evidence.networks[key].fit.model
    example = own.train.x[:1]
    shipped_as = {"arm": "full" if arm == "full" else "cut", "block": block, "seed": seed}
    return partial_record(job, evidence.outcomes) | {
        "candidates": [_candidate(job, c, evidence) for c in evidence.candidates],
        "chosen": evidence.chosen.label if evidence.chosen else None,
        "shipped": shipped_as | _size(shipped, example),
        "full_size": _size(full, example),
        "comparisons": {name: asdict(c) for name, c in evidence.comparisons.items()},
        "directions": {name: asdict(d) for name, d in evidence.hits.items()},
        "notes": [*notes(job.blocks, job.config, evidence), *job.remarks],
        "finding": finding(evidence, job.config),
        "figures": job.figures(evidence, key, own),
    }


def _size(model: nn.Module, example: Tensor) -> dict[str, Any]:
    return asdict(evaluation.size(model, example)) | {"nonzeros": evaluation.nonzeros(model)}


def partial_record(job: Job[B], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The record of a run that was interrupted: settings and what is finished, no comparison."""
    return {
        "format": 1,
        "pared": pared.__version__,
        **job.head,
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "candidates": [],
        "chosen": None,
        "comparisons": {},
        "directions": {},
        "notes": ["The run was interrupted; only what was finished by then is shown."],
        "finding": "Interrupted: nothing may be concluded from this run.",
    }


def _candidate(job: Job[B], candidate: Candidate, evidence: Evidence) -> dict[str, Any]:
    arm = candidate.label
    found = {name: _mean_metric(evidence, arm, f"validation.{name}") for name in job.shown}
    return {
        "label": candidate.label,
        "ratio": candidate.rule.fraction if isinstance(candidate.rule, Ratio) else None,
        "ratios": dict(candidate.rule.fractions) if isinstance(candidate.rule, Ratios) else None,
        "threshold": candidate.rule.value if isinstance(candidate.rule, Threshold) else None,
        "removed": candidate.removed,
        "parameters": candidate.parameters,
        "comparison": asdict(candidate.comparison) if candidate.comparison else None,
        "diverged": candidate.diverged,
    } | found


def _mean_metric(evidence: Evidence, arm: str, metric: str) -> float | None:
    values = [m[metric] for (name, _, _), m in evidence.measured.items() if name == arm and metric in m]
    return sum(values) / len(values) if values else None


def drawn(evidence: Evidence, key: Key) -> dict[str, Trained]:
    """The networks that figures show, of the shipped block and seed: "full", and "cut" where a rule was chosen."""
    _, block, seed = key
    networks = {"full": evidence.networks["full", block, seed]}
    if evidence.chosen and (evidence.chosen.label, block, seed) in evidence.networks:
        networks["cut"] = evidence.networks[evidence.chosen.label, block, seed]
    return networks


def histories(networks: Networks) -> list[dict[str, Any]]:
    """Every network's losses per epoch, in the order of the outcomes."""
    return [
        {"arm": arm, "block": block, "seed": seed, "curves": {name: list(c) for name, c in each.fit.curves.items()}}
        for (arm, block, seed), each in networks.items()
    ]


def curves(evidence: Evidence, key: Key) -> dict[str, Any]:
    """Their training curves and those of the controls."""
    _, block, seed = key
    shown = drawn(evidence, key)
    for arm in ("scratch", "trained_on"):
        if (arm, block, seed) in evidence.networks:
            shown[arm] = evidence.networks[arm, block, seed]
    return {"curves": {arm: {name: list(line) for name, line in t.fit.curves.items()} for arm, t in shown.items()}}
