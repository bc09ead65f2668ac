"""`pared diagnose`: findings, the one proposal and, with --auto, the tuning that follows from them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.markup import escape

from pared import store
from pared.diagnose.subject import Source, Subject, of_folder, of_series, of_table
from pared.diagnose.words import (
    advice_lines,
    finding_lines,
    literal_lines,
    next_lines,
    repeated_lines,
    step_line,
    tuning_lines,
)
from pared.models.mlp import Activation
from pared.models.recurrent import Cell
from pared.options import Kind, is_table
from pared.settings import RunConfig
from pared.terminal import (
    INTERRUPTED,
    clear_errors,
    err,
    ignore_interrupts,
    numbers,
    option,
    out,
    processors,
    shown_progress,
    words,
)
from pared.tuning import Examination, Step, Tuning, follow
from pared.tuning.recipe import described
from pared.tuning.tuning import tune
from pared.types import DataError

SEEDS, SEEDS_AUTO = 3, 5
OF_DATA = (
    "column", "features", "task", "window", "horizon", "cell", "recurrent", "hidden", "activation", "epochs", "lr",
    "batch_size", "seed", "block",
)  # fmt: skip
"""Options that make no sense for a run, which has its settings."""


def diagnose_command(  # noqa: PLR0913  (one parameter an option)
    context: typer.Context,
    subject: Annotated[
        str, typer.Argument(metavar="RUN|DATA", help="A folder made by `pared run`, or a series, a table, a CSV file.")
    ],
    auto: Annotated[
        bool, option("Diagnosis", "Make the changes, keep what helps, until nothing does.", "--auto")
    ] = False,
    rules: Annotated[
        Literal["measured", "literal"], option("Diagnosis", "literal: rules of thumb as they are often written down.")
    ] = "measured",
    most: Annotated[int, option("Diagnosis", "Changes tried at most, with --auto.", least=1)] = 12,
    data: Annotated[str | None, option("Data", "RUN: where its CSV file is, if not here.")] = None,
    column: Annotated[str | None, option("Data", "CSV: the column to predict.")] = None,
    features: Annotated[str, option("Data", "CSV: further input columns, by comma.")] = "",
    task: Annotated[Kind | None, option("Data", "CSV: forecast a series (default), or read a table.")] = None,
    window: Annotated[int, option("Data", "Past values the network sees; 0: what suits the series.")] = 0,
    horizon: Annotated[int, option("Data", "How many steps ahead to forecast.")] = 1,
    block: Annotated[int | None, option("Data", "Which block or fold (default: the newest).")] = None,
    cell: Annotated[Cell, option("Network", "Series: kind of the recurrent layers.")] = RunConfig().cell,
    recurrent: Annotated[str, option("Network", "Series: units of the recurrent layers.")] = "16,4",
    hidden: Annotated[str, option("Network", "Table: units of the hidden layers.")] = "64,32",
    activation: Annotated[Activation, option("Network", "Table: what follows them.")] = "relu",
    epochs: Annotated[int | None, option("Training", "Epochs (default 300, of a table 200).")] = None,
    lr: Annotated[float, option("Training", "Learning rate.")] = RunConfig().lr,
    batch_size: Annotated[int | None, option("Training", "Examples in one step (default 64, of a table 32).")] = None,
    seed: Annotated[int, option("Training", "First seed.")] = 0,
    file: Annotated[
        Path | None, option("Output", "Write findings and configurations to this new JSON file.", "--out")
    ] = None,
    jobs: Annotated[int, option("Output", "Networks trained at a time; 0: one a processor.", least=0)] = 0,
) -> None:
    """Say what is wrong with a network, by measurement, and the one thing to change.

    Trains the network three times (with --auto five), looks at data, curves and gradients, tries longer training, more
    units and more restraint, and reports findings with their evidence, causes first. With --auto it makes the proposed
    change, keeps it where the validation error is lower beyond chance over five seeds, and goes on until nothing helps.
    Test data are never looked at.
    """
    with clear_errors():
        if file is not None and file.exists():
            raise DataError(f"{file} exists and is not overwritten; choose another --out")
        seeds = SEEDS_AUTO if auto else SEEDS
        if Path(subject).is_dir():
            given = [name for name in OF_DATA if getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"]
            if given:
                told = ", --".join(name.replace("_", "-") for name in given)
                raise DataError(f"--{told} make no sense for a run, which has its settings")
            found = of_folder(Path(subject), data, seeds)
        else:
            if data is not None:
                raise DataError("--data is for a run, to say where its CSV file is")
            training = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "seed": seed}
            shared: dict[str, Any] = {name: value for name, value in training.items() if value is not None}
            source = Source(subject, column, words(features), task)
            if is_table(subject, task):
                layers = numbers("--hidden", hidden, int)
                found = of_table(source, {"hidden": layers, "activation": activation, **shared}, seeds, block)
            else:
                layers = numbers("--recurrent", recurrent, int)
                config = RunConfig(cell, layers, window=window, horizon=horizon, **shared)
                found = of_series(source, config, seeds, block)
        torch.set_num_threads(1)
        _say(f"{found.source.name}, block {found.block}: {described(found.recipe)}")
        record = _follow(found) if rules == "literal" else _diagnose(found, auto, most, jobs or processors())
        if file is not None:
            store.write_record(file.parent, record, file.name)


def _follow(subject: Subject) -> dict[str, Any]:
    """Follows the literal rules, says where they lead, and returns it as plain data."""
    with _interruptible([]):
        path = follow(subject.problem, subject.recipe, subject.seeds[0])
    _say(*literal_lines(path))
    return {"ended": path.ended, "configurations": [subject.configuration(recipe) for recipe in path.recipes]}


def _diagnose(subject: Subject, auto: bool, most: int, jobs: int) -> dict[str, Any]:
    """Diagnoses or tunes, says what it finds, and returns it as plain data."""
    steps: list[Step] = []
    tuning: Tuning | None = None
    with _interruptible(steps), shown_progress() as progress:
        examination = Examination(subject.problem, subject.seeds[:SEEDS], jobs=jobs, progress=progress)
        if auto:
            tuning = tune(examination, subject.recipe, subject.seeds, most, lambda step: _see(step, steps))
        diagnosis = tuning.diagnosis if tuning else examination.diagnosis(subject.recipe)
        advice = () if diagnosis.proposal else examination.advice(diagnosis.recipe)
    _say(*repeated_lines(subject, examination), *finding_lines(diagnosis, SEEDS))
    _say(*advice_lines(advice, diagnosis.recipe))
    _say(*(tuning_lines(subject, tuning) if tuning else next_lines(subject, diagnosis)))
    return {
        "verdict": diagnosis.verdict,
        "losses": diagnosis.losses,
        "findings": [asdict(finding) for finding in (*diagnosis.findings, *advice)],
        "steps": [asdict(step) for step in steps],
        "configurations": [subject.configuration(each) for each in (tuning or diagnosis).recipes],
    }


@contextmanager
def _interruptible(steps: Sequence[Step]) -> Iterator[None]:
    """Ctrl-C ends the command with what the steps had kept by then."""
    try:
        yield
    except KeyboardInterrupt:
        ignore_interrupts()
        kept = [step.changed for step in steps if step.kept]
        found = f"Kept so far: {described(kept[-1])}" if kept else "Nothing was found yet."
        err.print(f"[yellow]Interrupted.[/] {escape(found)}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None


def _see(step: Step, steps: list[Step]) -> None:
    steps.append(step)
    _say(step_line(step))


def _say(*lines: str) -> None:
    for line in lines:
        out.print(escape(line), soft_wrap=True)
