"""`pared diagnose`: findings, the one proposal and, with --auto, the tuning that follows from them."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.markup import escape
from sqlalchemy import URL

from pared import store
from pared.database.connection import located
from pared.database.registration import Work, parent_of, registered
from pared.diagnose.subject import Subject, of_data, of_folder
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
from pared.models.recurrent import Cell, Init
from pared.options import (
    Column,
    Features,
    ForSeries,
    ForTables,
    Store,
    TaskName,
    is_given,
    is_table,
    refuse,
    refuse_others,
    refuse_senseless,
)
from pared.settings import Predict, RunConfig, TableConfig
from pared.source import Source
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
TRAINING = ("epochs", "lr", "batch_size", "seed")
OF_DATA = ("column", "features", "task", "block", "file", *ForSeries, *ForTables, *TRAINING)
"""Options that make no sense for a run, which has its settings."""
LAYERS = ("recurrent", "dense", "hidden")
DEFAULT, DEFAULT_TABLE = RunConfig(), TableConfig("classification")
RULES_HELP = "literal: rules of thumb as they are often written down, to see where they lead."
FILE_HELP = "DATA: settings of a search or a run; options given beside it count more."
OUT_HELP = "Write findings and configurations to this new JSON file."
SETTINGS_HELP = "Write the settings that are proposed to this new file, for `pared run DATA --config`."


def diagnose_command(  # noqa: PLR0913  (one parameter an option)
    context: typer.Context,
    subject: Annotated[
        str, typer.Argument(metavar="RUN|DATA", help="A folder made by `pared run`, or a series, a table, a CSV file.")
    ],
    auto: Annotated[
        bool, option("Diagnosis", "Make the changes, keep what helps, until nothing does.", "--auto")
    ] = False,
    rules: Annotated[Literal["measured", "literal"], option("Diagnosis", RULES_HELP)] = "measured",
    most: Annotated[int, option("Diagnosis", "Changes tried at most, with --auto.", least=1)] = 12,
    data: Annotated[str | None, option("Data", "RUN: where its CSV file is, if not here.")] = None,
    column: Column = None,
    features: Features = "",
    task: TaskName = None,
    window: Annotated[int, option("Data", "Past values the network sees; 0: what suits the series.")] = DEFAULT.window,
    horizon: Annotated[int, option("Data", "How many steps ahead to forecast.")] = DEFAULT.horizon,
    predict: Annotated[Predict, option("Data", "What the network puts out.")] = DEFAULT.predict,
    block: Annotated[int | None, option("Data", "Which block or fold (default: the newest).")] = None,
    cell: Annotated[Cell, option("Network", "Series: kind of the recurrent layers.")] = DEFAULT.cell,
    recurrent: Annotated[str, option("Network", "Series: units of the recurrent layers.")] = "16,4",
    dense: Annotated[str, option("Network", "Series: units of the hidden dense layers; '' for none.")] = "4",
    init: Annotated[Init, option("Network", "Series: law of the initial weights.")] = DEFAULT.init,
    hidden: Annotated[str, option("Network", "Table: units of the hidden layers.")] = "64,32",
    activation: Annotated[Activation, option("Network", "Table: what follows them.")] = DEFAULT_TABLE.activation,
    file: Annotated[Path | None, option("Network", FILE_HELP, "--config")] = None,
    epochs: Annotated[int | None, option("Training", "Epochs (default 300, of a table 200).")] = None,
    lr: Annotated[float, option("Training", "Learning rate.")] = DEFAULT.lr,
    batch_size: Annotated[int | None, option("Training", "Examples in one step (default 64, of a table 32).")] = None,
    seed: Annotated[int, option("Training", "First seed.")] = DEFAULT.seed,
    found: Annotated[Path | None, option("Output", OUT_HELP, "--out")] = None,
    settings: Annotated[Path | None, option("Output", SETTINGS_HELP)] = None,
    jobs: Annotated[int, option("Output", "Networks trained at a time; 0: one a processor.", least=0)] = 0,
    database: Store = None,
) -> None:
    """Say what is wrong with a network, by measurement, and the one thing to change.

    Trains the network three times (with --auto five), looks at data, curves and gradients, tries longer training, more
    units and more restraint, and reports findings with their evidence, causes first. With --auto it makes the proposed
    change, keeps it where the validation error is lower beyond chance over five seeds, and goes on until nothing helps.
    Test data are never looked at.
    """
    with clear_errors():
        for path in (found, settings):
            if path is not None and path.exists():
                raise DataError(f"{path} exists and is not overwritten; choose another name")
        seeds = SEEDS_AUTO if auto else SEEDS
        run = Path(subject) if Path(subject).is_dir() else None
        place = located(database, run.resolve().parent if run else Path("runs"))
        own = _of_run(context, seeds) if run else _of_data(context, seeds)
        torch.set_num_threads(1)
        _say(f"{own.source.name}, block {own.block}: {described(own.recipe)}")
        with registered(_work(own, place, run), None) as told:
            record = _follow(own) if rules == "literal" else _diagnose(own, auto, most, jobs or processors())
            told |= _entered(record)
        if found is not None:
            store.write_record(found.parent, record, found.name)
        if settings is not None:
            store.write_settings(settings, type(own.settings)(**record["proposed"]))


def _work(subject: Subject, database: URL, run: Path | None) -> Work:
    return Work(
        kind="diagnosis",
        data=subject.source.name,
        database=database,
        task=subject.settings.task.name,
        seed=subject.seeds[0],
        settings=subject.configuration(subject.recipe) | {"block": subject.block},
        parent=parent_of(run / store.RECORD if run else None),
    )


def _entered(record: dict[str, Any]) -> dict[str, Any]:
    """What the list of runs keeps of a diagnosis, which leaves no folder: what it found, decided and proposes."""
    remarks = [f"{finding['kind']}: {finding['reason']}" for finding in record.get("findings", ())]
    proposed = f"proposed: {json.dumps(record['proposed'])}"
    decisions = record.get("decisions", ())
    return {"finding": record.get("verdict") or record["ended"], "remarks": [*remarks, *decisions, proposed]}


def _of_run(context: typer.Context, seeds: int) -> Subject:
    refuse_senseless(context, OF_DATA, "for a run, which has its settings")
    return of_folder(Path(context.params["subject"]), context.params["data"], seeds)


def _of_data(context: typer.Context, seeds: int) -> Subject:
    told = context.params
    refuse(context, ("data",), "is for a run, to say where its CSV file is")
    source = Source(told["subject"], told["column"], words(told["features"]), told["task"])
    table = is_table(source.data, source.task)
    refuse_others(context, table)
    own = (*(ForTables if table else ForSeries), *TRAINING)
    given = {name: told[name] for name in own if is_given(context, name)}
    given |= {name: numbers(f"--{name}", given[name], int) for name in LAYERS if name in given}
    base = store.read_settings(told["file"]) if told["file"] else None
    return of_data(source, base, given, seeds, told["block"])


def _follow(subject: Subject) -> dict[str, Any]:
    """Follows the literal rules, says where they lead, and returns it as plain data."""
    with _interruptible([]):
        path = follow(subject.problem, subject.recipe, subject.seeds[0])
    _say(*literal_lines(path))
    configurations = [subject.configuration(recipe) for recipe in path.recipes]
    return {"ended": path.ended, "proposed": configurations[-1], "configurations": configurations}


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
    proposal = diagnosis.proposal.change if diagnosis.proposal and not tuning else None
    proposed = proposal.of(diagnosis.recipe) if proposal else diagnosis.recipe
    return {
        "verdict": diagnosis.verdict,
        "proposed": subject.configuration(proposed),
        "losses": diagnosis.losses,
        "findings": [asdict(finding) for finding in (*diagnosis.findings, *advice)],
        "steps": [asdict(step) for step in steps],
        "decisions": [step_line(step) for step in steps],
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
