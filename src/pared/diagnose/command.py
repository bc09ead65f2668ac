"""`pared diagnose`: findings, the one proposal and, with --auto, the tuning that follows from them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.markup import escape

from pared.data import load
from pared.diagnose.subject import Subject, of_folder, of_series, of_table
from pared.diagnose.words import (
    advice_lines,
    command_for,
    finding_lines,
    literal_lines,
    step_line,
    tuning_lines,
)
from pared.models.mlp import Activation
from pared.models.recurrent import Cell
from pared.options import Kind, is_table, table_of
from pared.settings import RunConfig, TableConfig
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
from pared.tuning import Examination, Step, follow
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
                raise DataError(f"--{', --'.join(given)} make no sense for a run, which has its settings")
            found = of_folder(Path(subject), data, seeds)
        else:
            if data is not None:
                raise DataError("--data is for a run, to say where its CSV file is")
            told: dict[str, Any] = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "seed": seed}
            told = {name: value for name, value in told.items() if value is not None}
            if is_table(subject, task):
                table = table_of(subject, column, words(features), task)
                layers = numbers("--hidden", hidden, int)
                found = of_table(
                    table, TableConfig(table.task, hidden=layers, activation=activation, **told), seeds, block
                )
            else:
                layers = numbers("--recurrent", recurrent, int)
                config = RunConfig(cell, layers, window=window, horizon=horizon, **told)
                found = of_series(load(subject, column, words(features)), config, seeds, block)
        record = _work(found, rules, auto, most, jobs or processors())
        if file is not None:
            with file.open("x", encoding="utf-8") as stream:
                json.dump(record, stream, indent=1)


def _work(subject: Subject, rules: str, auto: bool, most: int, jobs: int) -> dict[str, Any]:
    """Diagnoses or tunes, says what it finds, and returns it as plain data."""
    torch.set_num_threads(1)
    _say(f"{subject.name}, block {subject.block}: {described(subject.recipe)}")
    if rules == "literal":
        path = follow(subject.problem, subject.recipe, subject.seeds[0])
        _say(*literal_lines(path))
        return {"ended": path.ended, "configurations": [recipe.as_dict() for recipe in path.recipes]}
    steps: list[Step] = []
    with shown_progress() as progress:
        examination = Examination(subject.problem, subject.seeds[:SEEDS], jobs=jobs, progress=progress)
        try:
            if auto:
                tuning = tune(examination, subject.recipe, subject.seeds, most, lambda step: _see(step, steps))
                diagnosis = tuning.diagnosis
            else:
                diagnosis = examination.diagnosis(subject.recipe)
            advice = () if diagnosis.proposal else examination.advice(diagnosis.recipe)
        except KeyboardInterrupt:
            ignore_interrupts()
            kept = [step.changed for step in steps if step.kept]
            err.print("[yellow]Interrupted.[/]" + (f" Kept so far: {escape(described(kept[-1]))}" if kept else ""))
            raise typer.Exit(INTERRUPTED) from None
    if subject.stored is not None:
        same = subject.repeats(examination.known[subject.recipe, subject.seeds[0]].fit)
        _say(
            "trained again, as a run keeps curves but not this network: "
            + (
                "its curve came out the same"
                if same
                else "its curve came out otherwise, so the data or the version of pared are not those of the run"
            )
        )
    _say(*finding_lines(diagnosis, SEEDS), *advice_lines(advice, diagnosis.recipe))
    if auto:
        _say(*tuning_lines(tuning, subject.name, subject.settings))
    elif diagnosis.proposal and diagnosis.proposal.change:
        changed = diagnosis.proposal.change.of(diagnosis.recipe)
        _say(f"next: {command_for(subject.name, subject.settings, subject.recipe, changed)}")
    configurations = tuning.recipes if auto else diagnosis.recipes
    return {
        "verdict": diagnosis.verdict,
        "findings": [asdict(finding) for finding in (*diagnosis.findings, *advice)],
        "steps": [asdict(step) for step in steps],
        "configurations": [subject.configuration(each) for each in configurations],
    }


def _see(step: Step, steps: list[Step]) -> None:
    steps.append(step)
    _say(step_line(step))


def _say(*lines: str) -> None:
    for line in lines:
        out.print(escape(line), soft_wrap=True)
