"""The command `pared compare-criteria`: trains networks, lets criteria say what goes, leaves a page."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from rich.markup import escape
from torch import nn

from pared import criteria as known
from pared import run, run_table, store
from pared.compare_criteria import DEFAULTS, Contest, CriteriaSettings, findings, gathered
from pared.comparing.page import write_page
from pared.comparing.record import build, notes, sentences, write
from pared.data import Block, load
from pared.database.connection import located
from pared.database.registration import Work, of_job, registered
from pared.job import Job
from pared.kept import RANDOM, Kept, Scored, What
from pared.models.mlp import Activation
from pared.models.recurrent import Cell, Init
from pared.options import Column, DataName, Features, Store, TaskName, is_table, refuse_others, table_of
from pared.settings import Predict, RunConfig, TableConfig
from pared.study import member_seed
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
from pared.training.fleet import fit_each
from pared.types import Criterion, DataError, DivergedError, Progress

B = TypeVar("B", bound=Block)
SERIES, TABLE, SETTINGS = RunConfig(), TableConfig("classification"), CriteriaSettings()
QUICK_EPOCHS = 40
CRITERIA_HELP = (
    "What scores, by comma, beside random, which is always there; all: every criterion (some take minutes). Default: "
    f"{', '.join(DEFAULTS['units'])}; of weights {', '.join(DEFAULTS['weights'])}."
)
WHAT_HELP = "What goes: units (scores of weights are averaged over a unit's weights), or single weights."
KEEP_HELP = "Layers left whole, names or patterns: 'recurrent.1*,head*' (units only)."


def _joined(values: tuple[Any, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def compare_criteria_command(  # noqa: PLR0913  (one parameter an option)
    context: typer.Context,
    data: DataName,
    column: Column = None,
    features: Features = "",
    task: TaskName = None,
    window: Annotated[int, option("Data", "Past values the network sees; 0: what suits the series.")] = SERIES.window,
    horizon: Annotated[int, option("Data", "How many steps ahead to forecast.")] = SERIES.horizon,
    predict: Annotated[Predict, option("Data", "What the network puts out; increments suit smooth flows.")] = "auto",
    cell: Annotated[Cell, option("Network", "Kind of the recurrent layers.")] = SERIES.cell,
    recurrent: Annotated[str, option("Network", "Units of the recurrent layers.")] = _joined(SERIES.recurrent),
    dense: Annotated[str, option("Network", "Units of the hidden dense layers; '' for none.")] = _joined(SERIES.dense),
    init: Annotated[Init, option("Network", "Law of the initial weights.")] = SERIES.init,
    hidden: Annotated[str, option("Network", "Table: units of the hidden layers.")] = _joined(TABLE.hidden),
    activation: Annotated[Activation, option("Network", "Table: what follows them.")] = TABLE.activation,
    epochs: Annotated[
        int | None, option("Training", f"Epochs of a network (default {SERIES.epochs}, of a table {TABLE.epochs}).")
    ] = None,
    refit_epochs: Annotated[int, option("Training", "Epochs after a removal; 0: a fifth of --epochs.")] = 0,
    lr: Annotated[float, option("Training", "Learning rate at the start.")] = SERIES.lr,
    batch_size: Annotated[int, option("Training", "Windows in one training step.")] = SERIES.batch_size,
    criteria: Annotated[str, option("Comparison", CRITERIA_HELP)] = "",
    what: Annotated[What, option("Comparison", WHAT_HELP)] = "units",
    ratios: Annotated[str, option("Comparison", "Shares of every layer that go, each tried.")] = _joined(
        SETTINGS.ratios
    ),
    keep: Annotated[str, option("Comparison", KEEP_HELP)] = "",
    seeds: Annotated[int, option("Evidence", "Networks on each of (at most) ten blocks or folds.")] = 1,
    seed: Annotated[int, option("Evidence", "First seed; the same seed gives the same results.")] = SERIES.seed,
    quick: Annotated[bool, option("Evidence", f"{QUICK_EPOCHS} epochs: soon done, no claim.", "--quick")] = False,
    folder: Annotated[Path, option("Output", "Where the comparison's folder is made.", "--out")] = Path("runs"),
    jobs: Annotated[int, option("Output", "Networks trained at a time; 0: one a processor.", least=0)] = 0,
    database: Store = None,
) -> None:
    """Compare criteria on trained networks of DATA: what is left of their quality where each says what goes.

    Trains a network on each of ten blocks (of a series: rolling; of a table: folds), removes the same shares of every
    layer by every criterion and at random, and measures what is left on test data: as it is, compensated by least
    squares, and refitted by a short training. Every difference has an interval over the blocks.

    Leaves report.html and results.json in a new folder under --out.
    """
    with clear_errors():
        chosen = _criteria(criteria, what)
        told = {
            "epochs": QUICK_EPOCHS if epochs is None and quick else epochs,
            "refit_epochs": refit_epochs,
            "lr": lr,
            "batch_size": batch_size,
            "seed": seed,
            "seeds": seeds,
            "ratios": numbers("--ratios", ratios, float),
            "keep": words(keep),
            "quick": quick,
        }
        shared: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
        place = located(database, folder)
        refuse_others(context, is_table(data, task))
        if is_table(data, task):
            table = table_of(data, column, words(features), task)
            layers = numbers("--hidden", hidden, int)
            table_job = run_table.job(table, TableConfig(table.task, hidden=layers, activation=activation, **shared))
            work = of_job("comparison", table_job, place, table)
            _compare(table_job, work, chosen, what, folder, jobs or processors())
        else:
            layers, heads = numbers("--recurrent", recurrent, int), numbers("--dense", dense, int)
            config = RunConfig(cell, layers, heads, init, window, horizon, predict, **shared)
            series = load(data, column, words(features))
            series_job = run.job(series, config)
            work = of_job("comparison", series_job, place, series)
            _compare(series_job, work, chosen, what, folder, jobs or processors())


def _criteria(text: str, what: What) -> dict[str, Criterion]:
    """The criteria by name. Raises DataError for unknown names and for one that is named twice."""
    names = words(text) or DEFAULTS[what]
    if names == ("all",):
        names = tuple(known.__all__)
    unknown = [name for name in names if name not in known.__all__]
    if unknown:
        raise DataError(f"unknown criterion {unknown[0]!r}; choose among {', '.join(known.__all__)}, or all")
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise DataError(f"criterion {twice[0]!r} is named twice; name each once")
    return {name: getattr(known, name) for name in names if name != RANDOM}


def _compare(job: Job[B], work: Work, chosen: Mapping[str, Criterion], what: What, base: Path, jobs: int) -> None:
    started = time.perf_counter()
    torch.set_num_threads(1)
    settings = _settings(job, what)
    _check(job, settings)
    name = f"compare-criteria-{job.name}"
    with (
        shown_progress() as show,
        store.new_folder(base, name, job.config.seed) as target,
        registered(work, target),
    ):
        found: list[Scored | Kept] = []
        contest, stopped = None, False
        try:
            contest = _contest(job, chosen, settings, jobs, show)
            for each in findings(contest, jobs, show):
                found.append(each)
        except KeyboardInterrupt:
            stopped = True
        ignore_interrupts()
        if contest is None or not any(isinstance(each, Kept) for each in found):
            err.print("[yellow]Interrupted[/] before anything was compared; nothing is left behind.")
            raise typer.Exit(INTERRUPTED)
        result = gathered(contest, found)
        record = build(job, result, time.perf_counter() - started, stopped)
        write(record, target)
        write_page(record, target)
    out.print(escape(str(result)), soft_wrap=True)
    out.print()
    for line in [*sentences(record), *(f"Note: {note}" for note in notes(record)), f"report: {target / store.REPORT}"]:
        out.print(escape(line), soft_wrap=True)
    if stopped:
        err.print("[yellow]Interrupted.[/] What was finished is kept.")
        raise typer.Exit(INTERRUPTED)


def _settings(job: Job[B], what: What) -> CriteriaSettings:
    config = job.config
    assert isinstance(config.ratios, tuple)  # `numbers` made them
    try:
        return CriteriaSettings(
            what=what,
            ratios=config.ratios,
            refit=config.refitting,
            keep=config.keep,
            level=config.level,
            seed=config.seed,
        )
    except ValueError as error:
        raise DataError(str(error)) from error


def _check(job: Job[B], settings: CriteriaSettings) -> None:
    """Raises DataError before the training for what would be raised after it: ratios and patterns that do not fit."""
    contest = Contest([job.build(0, {})], job.blocks[:1], {}, job.config.task, settings)
    removal = contest.removal(0)
    try:
        for ratio in settings.ratios:
            removal.remove(removal.at_random(0), ratio)
    except ValueError as error:
        raise DataError(str(error)) from error


def _contest(
    job: Job[B], chosen: Mapping[str, Criterion], settings: CriteriaSettings, jobs: int, progress: Progress
) -> Contest:
    """Trains the networks. Raises DivergedError where none came through."""
    seeds = range(job.config.seed, job.config.seed + job.config.seeds)
    members = [(block, member_seed(block.block, seed)) for block in job.blocks for seed in seeds]
    networks = dict(_trained(job, members, jobs, progress))
    if not networks:
        raise DivergedError(
            f"all {len(members)} trainings ended in a loss that is not finite; lower the learning rate, or look for "
            "outliers in the data"
        )
    sound = sorted(networks)
    return Contest(
        [networks[place] for place in sound], [members[place][0] for place in sound], chosen, job.config.task, settings
    )


def _trained(
    job: Job[B], members: list[tuple[B, int]], jobs: int, progress: Progress
) -> Iterator[tuple[int, nn.Module]]:
    """(place among the members, network) of those that did not diverge."""
    stage = "training the networks"
    models = [job.build(seed, {}) for _, seed in members]
    configs = [replace(job.config.training, seed=seed) for _, seed in members]
    progress(stage, 0, len(members))
    fits = fit_each(models, [block for block, _ in members], configs, job.config.task.loss, jobs=jobs)
    for done, (place, fit) in enumerate(fits, 1):
        if not fit.diverged:
            yield place, fit.model
        progress(stage, done, len(members))
