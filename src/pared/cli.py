"""The command line: `pared run`, `pared data`, `pared predict`, `pared report`; `pared.replicate` adds its own."""

import csv
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.markup import escape
from rich.table import Table

import pared
from pared import criteria, report, run, store
from pared.data import BUILTINS, Series, load
from pared.findings import mean_test_metric, ratio_text
from pared.job import investigation, partial_record, shipped_key
from pared.job import record as complete_record
from pared.models.recurrent import Cell, Init
from pared.replicate.command import app as replicate
from pared.selection import Scope
from pared.settings import Predict, RunConfig
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
app.add_typer(replicate, name="replicate")


def _joined(values: tuple[Any, ...]) -> str:
    return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


DEFAULT = RunConfig()
SeriesName = Annotated[
    str, typer.Argument(metavar="SERIES", help="A built-in series (see `pared data`) or a CSV file.")
]
Column = Annotated[str | None, option("Data", "CSV: the column to forecast (default: the only numeric one).")]
Features = Annotated[str, option("Data", "CSV: further input columns, separated by commas.")]


@app.command("run")
def run_command(  # noqa: PLR0913  (one parameter an option)
    series: SeriesName,
    column: Column = None,
    features: Features = "",
    window: Annotated[int, option("Data", "Past values the network sees; 0: what suits the series.")] = DEFAULT.window,
    horizon: Annotated[int, option("Data", "How many steps ahead to forecast.")] = DEFAULT.horizon,
    predict: Annotated[Predict, option("Data", "What the network puts out; increments suit smooth flows.")] = "auto",
    cell: Annotated[Cell, option("Network", "Kind of the recurrent layers.")] = DEFAULT.cell,
    recurrent: Annotated[str, option("Network", "Units of the recurrent layers.")] = _joined(DEFAULT.recurrent),
    dense: Annotated[str, option("Network", "Units of the hidden dense layers; '' for none.")] = _joined(DEFAULT.dense),
    init: Annotated[Init, option("Network", "Law of the initial weights.")] = DEFAULT.init,
    epochs: Annotated[int | None, option("Training", f"Epochs of the full network (default {DEFAULT.epochs}).")] = None,
    refit_epochs: Annotated[int, option("Training", "Epochs after a cut; 0: a fifth of --epochs.")] = 0,
    lr: Annotated[float, option("Training", "Learning rate at the start.")] = DEFAULT.lr,
    batch_size: Annotated[int, option("Training", "Windows in one training step.")] = DEFAULT.batch_size,
    criterion: Annotated[str, option("Cutting", f"What scores units: {', '.join(criteria.__all__)}.")] = "taylor",
    ratios: Annotated[str, option("Cutting", "Fractions of the units to remove, each tried.")] = _joined(
        DEFAULT.ratios
    ),
    thresholds: Annotated[str, option("Cutting", "Also remove units scoring below these (junk: 0.09,0.1,0.11).")] = "",
    scope: Annotated[Scope, option("Cutting", "Rank units within each layer, or over all layers.")] = DEFAULT.scope,
    keep: Annotated[str, option("Cutting", "Layers left whole, names or patterns: 'recurrent.1*,head*'.")] = "",
    margin: Annotated[float, option("Evidence", "How much more error counts as 'as good'.")] = DEFAULT.margin,
    seeds: Annotated[int | None, option("Evidence", f"Networks on each block (default {DEFAULT.seeds}).")] = None,
    seed: Annotated[int, option("Evidence", "First seed; the same seed gives the same outcomes.")] = DEFAULT.seed,
    quick: Annotated[bool, option("Evidence", QUICK_HELP, "--quick")] = False,
    folder: Annotated[Path, option("Output", "Where the run's folder is made.", "--out")] = Path("runs"),
    jobs: Annotated[int, option("Output", "Networks trained at a time; 0: one a processor.", least=0)] = 0,
) -> None:
    """Find the smallest recurrent forecaster of SERIES that predicts as well as the large one.

    Trains the full network on ten rolling blocks, removes hidden units at several ratios, repairs and refits, chooses
    the leanest ratio on validation data, and tests that one network once beside the full one, naive forecasters and
    controls.

    Leaves report.html, outcomes.json, plan.json, model.safetensors and config.toml in a new folder under --out.
    """
    short: dict[str, Any] = QUICK if quick else {}
    with clear_errors():
        config = RunConfig(
            cell=cell,
            recurrent=numbers("--recurrent", recurrent, int),
            dense=numbers("--dense", dense, int),
            init=init,
            window=window,
            horizon=horizon,
            predict=predict,
            epochs=epochs if epochs is not None else short.get("epochs", DEFAULT.epochs),
            refit_epochs=refit_epochs,
            lr=lr,
            batch_size=batch_size,
            seed=seed,
            seeds=seeds if seeds is not None else short.get("seeds", DEFAULT.seeds),
            criterion=criterion,
            ratios=numbers("--ratios", ratios, float),
            thresholds=numbers("--thresholds", thresholds, float),
            scope=scope,
            keep=words(keep),
            margin=margin,
            quick=quick,
        )
        data = load(series, column, words(features))
        _run(data, config, folder, jobs or processors())


def _run(series: Series, config: RunConfig, base: Path, jobs: int) -> None:
    started = time.perf_counter()
    torch.set_num_threads(1)
    job = run.job(series, config)
    with shown_progress() as progress:
        work = investigation(job, jobs, progress)
        with store.new_folder(base, series.name, config.seed) as folder:
            try:
                evidence = work.run()
            except KeyboardInterrupt:
                ignore_interrupts()
                record = partial_record(job, work.finished())
                _write_interrupted(folder, record | {"seconds": {"total": time.perf_counter() - started}})
                raise typer.Exit(INTERRUPTED) from None
            ignore_interrupts()
            record = complete_record(job, evidence)
            record |= {"seconds": {"total": time.perf_counter() - started}}
            key = shipped_key(job, evidence)
            shipped, split = evidence.networks[key], job.block(key)
            store.write_record(folder, record)
            store.write_model(folder, shipped.fit.model, shipped.plan or Plan({}), config, split)
            report.write(record, folder / store.REPORT)
    _summary(record, folder)


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
    series: Annotated[str | None, typer.Argument(metavar="SERIES", help="A built-in series or a CSV file.")] = None,
    file: Annotated[Path | None, typer.Option("--out", help="Write the series to this new CSV file.")] = None,
    column: Column = None,
    features: Features = "",
) -> None:
    """List the built-in series, describe one, or write it as CSV."""
    if series is None:
        table = Table("series", "what it is", box=None, pad_edge=False)
        for name, text in BUILTINS.items():
            table.add_row(name, text)
        out.print(table)
        return
    with clear_errors():
        data = load(series, column, words(features))
        target = data.values[:, 0]
        out.print(f"[bold]{escape(data.name)}[/]: {escape(data.source)}")
        out.print(
            f"{len(target)} rows; columns: {escape(', '.join(data.columns))}; "
            f"`pared run` looks at {data.window} rows and forecasts {data.predict} unless told otherwise"
        )
        out.print(f"target: min {target.min():g}, mean {target.mean():g}, max {target.max():g}, sd {target.std():g}")
        if file is not None:
            _write_csv(file, data.columns, data.values.tolist())


@app.command("predict")
def predict_command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A folder made by `pared run`.")],
    series: Annotated[
        str, typer.Argument(metavar="CSV", help="A CSV file (or a built-in series) with the past values.")
    ],
    column: Annotated[str | None, typer.Option(help="CSV: the target (default: the column it was trained on).")] = None,
    steps: Annotated[int, typer.Option(help="Steps to forecast beyond the end, each from the one before.")] = 1,
    file: Annotated[
        Path | None, typer.Option("--out", help="Write to this new CSV file instead of the screen.")
    ] = None,
) -> None:
    """Forecast CSV with a saved network: one step ahead for every row, and beyond the end.

    Writes the columns row (counted from 1), actual and forecast; rows beyond the end have no actual value.
    """
    with clear_errors():
        network, window, scaler = store.read_model(model)
        names = scaler.columns
        learnt = names[0] if Path(series).is_file() else None  # a built-in series has but one column
        data = load(series, column or learnt, names[1:])
        rows = run.forecast_rows(network, window, scaler, data, steps)
        _write_csv(file, ("row", "actual", "forecast"), rows)


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


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if show:
        out.print(f"pared {pared.__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point of the `pared` command."""
    heed_interrupts()
    app()


def _summary(record: dict[str, Any], folder: Path) -> None:
    """Size, error, verdict and controls on the screen."""
    out.print()
    out.print(f"[bold]{escape(record['finding'])}[/]", soft_wrap=True)
    for note in record["notes"]:
        out.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    out.print(_controls_table(record))
    first = "cut" if record["chosen"] else "full"
    out.print(
        f"* shipped. Ratio: error of '{first}' over that of the row; verdict: on '{first}' against the row.",
        style="dim",
    )
    out.print("1-step, free: shares of right directions, one step ahead and free-running.", style="dim")
    small, full = record["shipped"], record["full_size"]
    sizes = [f"{small[key]} of {full[key]} {name}" for key, name in (("parameters",) * 2, ("macs", "multiply-adds"))]
    out.print(f"shipped: {', '.join(sizes)}, {small['milliseconds']:.2f} of {full['milliseconds']:.2f} ms a forecast")
    out.print(f"report: {escape(str(folder / store.REPORT))}", soft_wrap=True)


def _controls_table(record: dict[str, Any]) -> Table:
    columns = ("network", "NRMSE", "1-step", "free", "param.", "error ratio", "verdict")
    table = Table(*columns, box=None, padding=(0, 1, 0, 0))
    for name in dict.fromkeys(("full", "cut", *record["comparisons"])):
        nrmse, direction, free, size = (
            mean_test_metric(record, name, key) for key in ("nrmse", "direction", "free_direction", "parameters")
        )
        if nrmse is None:
            continue
        found = record["comparisons"].get(name)
        table.add_row(
            name + ("*" if name == record["shipped"]["arm"] else ""),
            f"{nrmse:.3g}",
            *("" if share is None else f"{100 * share:.1f}%" for share in (direction, free)),
            "" if size is None else f"{size:.0f}",
            ratio_text(found) if found else "",
            found["verdict"] if found else "",
        )
    return table


def _write_csv(file: Path | None, header: tuple[str, ...], rows: list[list[Any]]) -> None:
    if file is None:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([header, *rows])
        return
    with file.open("x", newline="", encoding="utf-8") as stream:  # "x": never overwrites
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    err.print(f"written: {escape(str(file))}", soft_wrap=True)
