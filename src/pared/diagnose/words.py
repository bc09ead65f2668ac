"""What `pared diagnose` says, as lines of plain text."""

from collections.abc import Iterator
from typing import Any

from pared.diagnose.subject import Subject
from pared.options import ForSeries, ForTables
from pared.tuning import Diagnosis, Examination, Finding, LiteralTuning, Step, Tuning
from pared.tuning.literal import Observed
from pared.tuning.recipe import Recipe, described, difference

OPTIONS = (*ForSeries, *ForTables, "epochs", "lr", "batch_size", "seed")
"""Settings that are options of `pared run` of the same name."""
NO_OPTIONS = ("weight_decay", "clip", "dropout", "schedule", "optimiser")
"""Settings that it takes from a file alone."""


def finding_lines(diagnosis: Diagnosis, trainings: int) -> Iterator[str]:
    """Every finding: what, why, on what evidence, what to change."""
    shown = ", ".join(f"{loss:.3g}" for loss in diagnosis.losses)
    yield f"{trainings} trainings, validation losses {shown}"
    if not diagnosis.findings:
        yield "fine: no rule found anything to mend"
    for place, finding in enumerate(diagnosis.findings, 1):
        where = "" if finding.seeds == trainings else f" (in {finding.seeds} of {trainings} trainings)"
        yield f"{place}. {finding.kind}{where}: {finding.reason}"
        yield f"   measured: {', '.join(f'{name} {value:.3g}' for name, value in finding.evidence.items())}"
        if finding.change:
            yield f"   to try: {finding.change.words(diagnosis.recipe)}"


def advice_lines(advice: tuple[Finding, ...], recipe: Recipe) -> Iterator[str]:
    """What may be better though nothing is wrong."""
    for finding in advice:
        assert finding.change is not None
        yield f"{finding.kind}: {finding.reason}; worth a try: {finding.change.words(recipe)}"


def step_line(step: Step) -> str:
    """One change that was tried."""
    change = difference(step.recipe, step.changed)
    verdict = "kept" if step.kept else "taken back"
    if step.comparison is None:
        return f"{step.finding.kind}: {change}: {verdict}"
    found = f"validation loss {-step.effect.share:+.1%}, {step.comparison.verdict} over {step.comparison.pairs} seeds"
    return f"{step.finding.kind}: {change}: {found}: {verdict}"


def literal_lines(tuning: LiteralTuning) -> Iterator[str]:
    """The path that the literal rules take."""
    for recipe, seen, new in zip(tuning.recipes, tuning.observed, tuning.recipes[1:], strict=False):
        yield f"{_observed(seen)}: {difference(recipe, new) or 'no change'}"
    yield {
        "settled": "the rules change nothing more",
        "circle": "the rules came back to a configuration they had left: they go in circles",
        "limit": "the rules had not settled yet",
    }[tuning.ended]


def _observed(seen: Observed) -> str:
    return (
        f"training loss {seen.training_loss:.3g}, validation loss {seen.validation_loss:.3g}, "
        f"gradient {seen.gradient_norm:.2g}"
    )


def next_lines(subject: Subject, diagnosis: Diagnosis) -> Iterator[str]:
    """How to make the proposed change in a run."""
    if diagnosis.proposal and diagnosis.proposal.change:
        yield f"next: {command_for(subject, diagnosis.proposal.change.of(diagnosis.recipe))}"


def tuning_lines(subject: Subject, tuning: Tuning) -> Iterator[str]:
    """Where a tuning ended, and how to go on from there."""
    yield f"ended: {tuning.ended}; configuration: {described(tuning.recipe)}"
    if tuning.recipe != subject.recipe:
        yield f"next: {command_for(subject, tuning.recipe)}"
        yield "its validation loss is that of a winner, so a little too good; the run measures the error on test data"


def repeated_lines(subject: Subject, examination: Examination) -> Iterator[str]:
    """Of a run: that its full network was trained again, and whether that gave the same curve."""
    if subject.stored is not None:
        same = subject.repeats(examination.known[subject.recipe, subject.seeds[0]].fit)
        found = "the same" if same else "another one: the data, or the version of pared, are not those of the run"
        yield f"A run keeps the curves of its full network, not its weights; trained again, its curve is {found}."


def command_for(subject: Subject, recipe: Recipe) -> str:
    """The `pared run` of a recipe: what differs from that command's defaults."""
    usual, settings = subject.usual, subject.configuration(recipe)
    changed = [name for name in OPTIONS if name in settings and settings[name] != usual[name]]
    if any(settings[name] != usual[name] for name in NO_OPTIONS):
        return f"pared run {subject.source.words} --config FILE, with the FILE that --settings FILE writes"
    told = [f"--{name.replace('_', '-')} {_option(settings[name])}" for name in changed]
    return " ".join(["pared run", subject.source.words, *told])


def _option(value: Any) -> str:
    return (",".join(map(str, value)) or "''") if isinstance(value, tuple) else str(value)
