"""What `pared diagnose` says, as lines of plain text."""

from collections.abc import Iterator

from pared.settings import RunConfig, Settings
from pared.tuning import Diagnosis, Finding, LiteralTuning, Step, Tuning
from pared.tuning.literal import Observed
from pared.tuning.recipe import Recipe, described, difference

OPTIONS = ("epochs", "lr", "batch_size", "cell", "activation", "weight_decay", "clip", "dropout")
"""Fields of a recipe that are options of `pared run` of the same name, where its settings have them."""


def finding_lines(diagnosis: Diagnosis, trainings: int) -> Iterator[str]:
    """Every finding: what, why, on what evidence, what to change."""
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


def tuning_lines(tuning: Tuning, name: str, settings: Settings) -> Iterator[str]:
    """Where a tuning ended, and how to go on from there."""
    yield f"ended: {tuning.ended}; configuration: {described(tuning.recipe)}"
    first = tuning.steps[0].recipe if tuning.steps else tuning.recipe
    if command := command_for(name, settings, first, tuning.recipe):
        yield f"next: {command}"
        yield "its validation loss is that of a winner, so a little too good; the run measures the error on test data"


def command_for(name: str, settings: Settings, before: Recipe, recipe: Recipe) -> str:
    """The `pared run` of a changed recipe; empty where nothing changed."""
    told = []
    if recipe.hidden != before.hidden:
        layers = "recurrent" if isinstance(settings, RunConfig) else "hidden"
        told.append(f"--{layers} {','.join(map(str, recipe.hidden))}")
    for field in OPTIONS:
        if hasattr(settings, field) and getattr(recipe, field) != getattr(before, field):
            told.append(f"--{field.replace('_', '-')} {getattr(recipe, field)}")
    return f"pared run {name} {' '.join(told)}" if told else ""
