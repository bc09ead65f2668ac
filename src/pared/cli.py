"""The command line: `pared run`, `pared data`, `pared predict`, `pared report`; others have modules of their own."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from rich.markup import escape
from rich.table import Table as Listing
from sqlalchemy import URL

import pared
from pared import criteria, report, run, run_table, store
from pared.comparing.command import compare_criteria_command
from pared.cutting import What
from pared.data import BUILTINS, TABLES, Series, Table, classic, load
from pared.data.examples import rows_to_predict
from pared.database.connection import located
from pared.database.registration import Work, of_job, parent_of, registered
from pared.diagnose.command import diagnose_command
from pared.distilling.command import distill_command
from pared.job import B, Job, histories, investigation, partial_record, shipped_key
from pared.job import record as complete_record
from pared.models.mlp import Activation
from pared.models.recurrent import Cell, Init
from pared.options import (
    Column,
    DataName,
    Features,
    Store,
    TaskName,
    is_given,
    is_table,
    refuse,
    refuse_others,
    refuse_senseless,
    table_of,
)
from pared.replicate.command import app as replicate
from pared.retune.command import retune_command
from pared.runs.command import app as runs
from pared.screen import summary, write_csv
from pared.search.command import search_command, search_worker_command
from pared.search.start import FOUND, Start, find_start
from pared.selection import Scope
from pared.settings import USUAL, Predict, Refitting, RunConfig, TableConfig
from pared.surgery import Plan
from pared.terminal import (
    INTERRUPTED,
    clear_errors,
    err,
    heed_interrupts,
    ignore_interrupts,
    numbers,
    option,
    out,
    processors,
    shown_progress,
    words,
)
from pared.types import DataError

QUICK = {"epochs": 40, "seeds": 1}
QUICK_HELP = "40 epochs and one seed: soon done, but supports no claim."

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Finds the smallest neural network that predicts as well as the large one, and proves it.",
)

C = TypeVar("C", RunConfig, TableConfig)


def _joined(values: tuple[Any, ...]) -> str:
    return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


DEFAULT = RunConfig()
DEFAULT_TABLE = TableConfig("classification")
EPOCHS_HELP = f"Epochs of the full network (default {DEFAULT.epochs}, of a table {DEFAULT_TABLE.epochs})."
FILE_HELP = "Settings that `pared search` found (its best.toml); options given beside it count more."
MARGIN_HELP = "How much more error counts as 'as good' (default 0.05; of classes 0.01, a point of accuracy)."
WHAT_HELP = "What is removed: hidden units, single weights, or whole hidden layers."
CRITERION_HELP = f"What scores them (auto: {', '.join(USUAL.values())}); one of {', '.join(criteria.__all__)}."
SEARCH_HELP = "First search the network to start from, with so many evaluations (a few dozen); 0: no search."
REFIT_HELP = "What a cut network learns from: the truth alone, or what the uncut one gives, too (distill)."
RATIOS_HELP = "Shares to remove, each tried; or `search`, which finds the largest that passes in few looks."


@app.command("run")
def run_command(  # noqa: PLR0913  (one parameter an option)
    context: typer.Context,
    data: DataName,
    column: Column = None,
    features: Features = "",
    task: TaskName = None,
    window: Annotated[int, option("Data", "Past values the network sees; 0: what suits the series.")] = DEFAULT.window,
    horizon: Annotated[int, option("Data", "How many steps ahead to forecast.")] = DEFAULT.horizon,
    predict: Annotated[Predict, option("Data", "What the network puts out; increments suit smooth flows.")] = "auto",
    cell: Annotated[Cell, option("Network", "Kind of the recurrent layers.")] = DEFAULT.cell,
    recurrent: Annotated[str, option("Network", "Units of the recurrent layers.")] = _joined(DEFAULT.recurrent),
    dense: Annotated[str, option("Network", "Units of the hidden dense layers; '' for none.")] = _joined(DEFAULT.dense),
    init: Annotated[Init, option("Network", "Law of the initial weights.")] = DEFAULT.init,
    hidden: Annotated[str, option("Network", "Table: units of the hidden layers.")] = _joined(DEFAULT_TABLE.hidden),
    activation: Annotated[Activation, option("Network", "Table: what follows them.")] = DEFAULT_TABLE.activation,
    file: Annotated[Path | None, option("Network", FILE_HELP, "--config")] = None,
    search: Annotated[int, option("Network", SEARCH_HELP, least=0)] = 0,
    epochs: Annotated[int | None, option("Training", EPOCHS_HELP)] = None,
    refit_epochs: Annotated[
        int, option("Training", "Epochs after a cut; 0: a fifth of --epochs, half of them for layers.")
    ] = 0,
    refit: Annotated[Refitting, option("Training", REFIT_HELP)] = DEFAULT.refit,
    lr: Annotated[float, option("Training", "Learning rate at the start.")] = DEFAULT.lr,
    batch_size: Annotated[int, option("Training", "Windows in one training step.")] = DEFAULT.batch_size,
    what: Annotated[What, option("Cutting", WHAT_HELP)] = "units",
    criterion: Annotated[str, option("Cutting", CRITERION_HELP)] = "auto",
    ratios: Annotated[str, option("Cutting", RATIOS_HELP)] = "search",
    thresholds: Annotated[str, option("Cutting", "Also remove what scores below these (junk: 0.09,0.1,0.11).")] = "",
    scope: Annotated[Scope, option("Cutting", "Rank within each layer, or over all layers.")] = DEFAULT.scope,
    keep: Annotated[str, option("Cutting", "Left whole, names or patterns: 'recurrent.1*,head*'.")] = "",
    margin: Annotated[float | None, option("Evidence", MARGIN_HELP)] = None,
    seeds: Annotated[int | None, option("Evidence", f"Networks on each block (default {DEFAULT.seeds}).")] = None,
    seed: Annotated[int, option("Evidence", "First seed; the same seed gives the same outcomes.")] = DEFAULT.seed,
    quick: Annotated[bool, option("Evidence", QUICK_HELP, "--quick")] = False,
    folder: Annotated[Path, option("Output", "Where the run's folder is made.", "--out")] = Path("runs"),
    jobs: Annotated[int, option("Output", "Networks trained at a time; 0: one a processor.", least=0)] = 0,
    database: Store = None,
) -> None:
    """Find the smallest network for DATA that predicts as well as the large one.

    Trains the full network on ten blocks (of a series: rolling; of a table: folds), removes hidden units (or weights,
    or layers: --what), repairs and refits, searches the leanest network that is not inferior on validation data, and
    tests that one once beside the full one, naive predictors and controls.

    Leaves report.html, outcomes.json, curves.json.gz, plan.json, model.safetensors, config.toml and provenance.json in
    a new folder under --out, and is entered into the list of runs (`pared runs`).
    """
    short: dict[str, Any] = QUICK if quick else {}
    with clear_errors():
        told = {
            "epochs": epochs if epochs is not None else short.get("epochs"),
            "refit_epochs": refit_epochs,
            "refit": refit,
            "lr": lr,
            "batch_size": batch_size,
            "seed": seed,
            "seeds": seeds if seeds is not None else short.get("seeds"),
            "what": what,
            "criterion": criterion,
            "ratios": ratios if ratios == "search" else numbers("--ratios, unless it is search,", ratios, float),
            "thresholds": numbers("--thresholds", thresholds, float),
            "scope": scope,
            "keep": words(keep),
            "margin": margin,
            "quick": quick,
        }
        shared: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
        place, jobs = located(database, folder), jobs or processors()
        found: Series | Table
        refuse_others(context, is_table(data, task))
        if search:
            refuse(context, FOUND, "cannot be given beside --search, which finds the network and its training")
            if file is not None:
                raise DataError("--config cannot be given beside --search: it holds what a search found before")
        if is_table(data, task):
            table = table_of(data, column, words(features), task)
            layers = numbers("--hidden", hidden, int)
            shared |= {"predicts": table.task, "hidden": layers, "activation": activation}
            found, table_config = table, _settled(context, TableConfig, file, shared, short)
            job, start = _job(table, table_config, search, folder, jobs, place)
        else:
            layers, heads = numbers("--recurrent", recurrent, int), numbers("--dense", dense, int)
            shared |= {"cell": cell, "recurrent": layers, "dense": heads, "init": init}
            shared |= {"window": window, "horizon": horizon, "predict": predict}
            config = _settled(context, RunConfig, file, shared, short)
            found = load(data, column, words(features))
            job, start = _job(found, config, search, folder, jobs, place)
        parent = parent_of(start.folder / store.CONFIG if start else file)
        _run(job, start, of_job("run", job, place, found, parent), folder, jobs)


def _settled(
    context: typer.Context, kind: type[C], file: Path | None, told: dict[str, Any], short: dict[str, Any]
) -> C:
    """Settings from options; with a file, its settings but for options that were given, `short` among them."""
    if file is None:
        return kind(**told)
    found = store.read_settings(file)
    if not isinstance(found, kind):
        raise DataError(f"{file} holds the settings of a network for other data than these")
    given = {name: value for name, value in told.items() if name in short or is_given(context, name)}
    return replace(found, **given)


def _job(
    data: Series | Table, told: C, trials: int, folder: Path, jobs: int, place: URL
) -> tuple[Job[Any], Start | None]:
    """The run of these data, from the network that a search finds where there are trials."""
    start = find_start(data, trials, told, folder, jobs, place) if trials else None
    config = start.settings(told) if start else told
    blocks: Any = start.blocks(config) if start else None
    if isinstance(data, Series):
        assert isinstance(config, RunConfig)
        return run.job(data, config, blocks), start
    assert isinstance(config, TableConfig)
    return run_table.job(data, config, blocks), start


def _run(job: Job[B], start: Start | None, work: Work, base: Path, jobs: int) -> None:
    started = time.perf_counter()
    torch.set_num_threads(1)
    with shown_progress() as show:
        study = investigation(job, jobs, show)
        with store.new_folder(base, job.name, job.config.seed) as folder, registered(work, folder):
            try:
                evidence = study.run()
            except KeyboardInterrupt:
                ignore_interrupts()
                record = partial_record(job, study.finished())
                _write_interrupted(folder, record | {"seconds": {"total": time.perf_counter() - started}})
                raise typer.Exit(INTERRUPTED) from None
            ignore_interrupts()
            record = complete_record(job, evidence)
            record |= {"seconds": {"total": time.perf_counter() - started}}
            record |= {"start": start.section(folder)} if start else {}
            key = shipped_key(job, evidence)
            shipped, own = evidence.networks[key], job.block(key)
            store.write_record(folder, record)
            store.write_curves(folder, histories(evidence.networks))
            store.write_model(folder, shipped.fit.model, shipped.plan or Plan({}), shipped.masks, job.saved(own))
            report.write(record, folder / store.REPORT)
    summary(record, folder)


def _write_interrupted(folder: Path, record: dict[str, Any]) -> None:
    count = len(record["outcomes"])
    if count == 0:
        err.print("[yellow]Interrupted[/] before the first network was trained; nothing is left behind.")
        return
    store.write_record(folder, record)
    report.write(record, folder / store.REPORT)
    kept = f"What {count} finished networks show is kept in {escape(str(folder))}"
    err.print(f"[yellow]Interrupted.[/] {kept}", soft_wrap=True)


@app.command("data")
def data_command(
    name: Annotated[str | None, typer.Argument(metavar="DATA", help="A built-in name or a CSV file.")] = None,
    file: Annotated[Path | None, typer.Option("--out", help="Write the data to this new CSV file.")] = None,
    column: Column = None,
    features: Features = "",
    task: TaskName = None,
) -> None:
    """List the built-in series and tables, describe one, or write it as CSV."""
    if name is None:
        for kind, known in (("series", BUILTINS), ("table", TABLES)):
            listing = Listing(kind, "what it is", box=None, pad_edge=False)
            for each, text in known.items():
                listing.add_row(each, text)
            out.print(listing)
        return
    with clear_errors():
        if is_table(name, task):
            _describe_table(table_of(name, column, words(features), task), file)
            return
        data = load(name, column, words(features))
        target = data.values[:, 0]
        out.print(f"[bold]{escape(data.name)}[/]: {escape(data.source)}")
        out.print(
            f"{len(target)} rows; columns: {escape(', '.join(data.columns))}; "
            f"`pared run` looks at {data.window} rows and forecasts {data.predict} unless told otherwise"
        )
        out.print(f"target: min {target.min():g}, mean {target.mean():g}, max {target.max():g}, sd {target.std():g}")
        if file is not None:
            write_csv(file, data.columns, data.values.tolist())


def _describe_table(table: Table, file: Path | None) -> None:
    encoding = table.encoding
    out.print(f"[bold]{escape(table.name)}[/]: {escape(table.source)}")
    out.print(
        f"{len(table.target)} rows; {len(encoding.names)} inputs from columns: {escape(', '.join(encoding.columns))}"
    )
    out.print(escape(run_table.described(table)))
    if file is not None:
        cells = zip(run_table.actual_cells(table), table.inputs.tolist(), strict=True)
        write_csv(file, (encoding.target, *encoding.names), [[target, *row] for target, row in cells])


@app.command("predict")
def predict_command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A folder made by `pared run`.")],
    data: Annotated[str, typer.Argument(metavar="CSV", help="A CSV file (or a built-in name): past values, or rows.")],
    column: Annotated[
        str | None, typer.Option(help="CSV of a series: the target (default: the column it was trained on).")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps to forecast beyond the end, each from the one before.")] = 1,
    file: Annotated[
        Path | None, typer.Option("--out", help="Write to this new CSV file instead of the screen.")
    ] = None,
) -> None:
    """Predict CSV with a saved network: every row of a table, or of a series one step ahead and beyond the end.

    Writes the columns row (counted from 1), actual and forecast (of a table: predicted); rows whose truth is not known
    have no actual value.
    """
    with clear_errors():
        if store.is_table(model):
            refuse_senseless(context, ("column", "steps"), "for a network of a table; it knows its columns")
            write_csv(file, ("row", "actual", "predicted"), _predicted(model, data))
            return
        network, window, scaler = store.read_model(model)
        names = scaler.columns
        learnt = names[0] if Path(data).is_file() else None  # a built-in series has but one column
        series = load(data, column or learnt, names[1:])
        write_csv(file, ("row", "actual", "forecast"), run.forecast_rows(network, window, scaler, series, steps))


def _predicted(model: Path, data: str) -> list[list[Any]]:
    network, encoding, scaler = store.read_table_model(model)
    if data not in TABLES:
        inputs, actual = rows_to_predict(data, encoding)
    elif classic(data).encoding == encoding:
        inputs, actual = classic(data).inputs, run_table.actual_cells(classic(data))
    else:
        raise DataError(f"{data} has other columns or classes than the table that {model} was trained on")
    return run_table.predicted_rows(network, encoding, scaler, inputs, actual)


@app.command("report")
def report_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by `pared run`.")],
    file: Annotated[
        Path | None, typer.Option("--out", help="Where the page goes (default: DIR/report.html, which is replaced).")
    ] = None,
) -> None:
    """Draw the report of a run anew from its outcomes.json."""
    with clear_errors():
        if file is not None and file.exists():
            raise DataError(f"{file} exists and is not overwritten; choose another --out")
        target = file or folder / store.REPORT
        record = store.read_record(folder)
        try:
            report.write(record, target)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise store.damaged(folder / store.RECORD, error) from error
        out.print(f"report: {escape(str(target))}", soft_wrap=True)


app.command("search")(search_command)
app.command("search-worker")(search_worker_command)
app.command("diagnose")(diagnose_command)
app.command("retune")(retune_command)
app.command("distill")(distill_command)
app.command("compare-criteria")(compare_criteria_command)
app.add_typer(replicate, name="replicate")
app.add_typer(runs, name="runs")


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if show:
        out.print(f"pared {pared.__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point of the `pared` command."""
    heed_interrupts()
    app()
