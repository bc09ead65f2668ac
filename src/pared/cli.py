"""The command line: `pared run`, `pared data`, `pared predict`, `pared report`."""

import csv
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import pared
from pared import report, run, store
from pared.data import BUILTINS, Series, load
from pared.models.recurrent import Cell, Init
from pared.run import Predict, RunConfig
from pared.selection import Scope
from pared.surgery import Plan, StructureError
from pared.types import DataError, DivergedError

WRONG_INPUT, DIVERGED, INTERRUPTED = 2, 1, 130
QUICK = {"epochs": 40, "seeds": 1}
Number = TypeVar("Number", int, float)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Finds the smallest neural network that predicts as well as the large one, and proves it.",
)
out, err = Console(highlight=False), Console(stderr=True, highlight=False)

SeriesName = Annotated[
    str, typer.Argument(metavar="SERIES", help="A built-in series (see `pared data`) or a CSV file.")
]
Column = Annotated[str | None, typer.Option(help="CSV: the column to forecast (default: the only numeric one).")]
Features = Annotated[str, typer.Option(help="CSV: further input columns, separated by commas.")]


@app.command("run")
def run_command(  # noqa: PLR0913  (one parameter an option)
    series: SeriesName,
    column: Column = None,
    features: Features = "",
    cell: Annotated[Cell, typer.Option(help="Recurrent cell: lstm, gru or rnn.")] = "lstm",
    recurrent: Annotated[str, typer.Option(help="Units of the recurrent layers.")] = "16,4",
    dense: Annotated[str, typer.Option(help="Units of the hidden dense layers; '' for none.")] = "4",
    init: Annotated[Init, typer.Option(help="Initial weights: keras or torch.")] = "keras",
    window: Annotated[int, typer.Option(help="Past values the network sees; 0: what suits the series.")] = 0,
    horizon: Annotated[int, typer.Option(help="How many steps ahead to forecast.")] = 1,
    predict: Annotated[Predict, typer.Option(help="What the network puts out: values, increments or auto.")] = "auto",
    epochs: Annotated[int | None, typer.Option(help="Training epochs of the full network (default 300).")] = None,
    refit_epochs: Annotated[int, typer.Option(help="Epochs after a cut; 0: a fifth of --epochs.")] = 0,
    lr: Annotated[float, typer.Option(help="Learning rate at the start of training.")] = 1e-2,
    batch_size: Annotated[int, typer.Option(help="Windows in one training step.")] = 64,
    criterion: Annotated[
        str, typer.Option(help="What scores units: taylor, ablation, activation, junk, magnitude, random.")
    ] = "taylor",
    ratios: Annotated[
        str, typer.Option(help="Fractions of the units to remove, each tried.")
    ] = "0.25,0.4,0.5,0.6,0.75",
    thresholds: Annotated[
        str, typer.Option(help="Also remove units that score below these (as the junk-neuron paper).")
    ] = "",
    scope: Annotated[
        Scope, typer.Option(help="Compare units within each layer (group) or over all layers (global).")
    ] = "global",
    keep: Annotated[str, typer.Option(help="Layers that are not cut, as names or patterns (recurrent.1*,head*).")] = "",
    margin: Annotated[float, typer.Option(help="How much more error counts as 'as good': 0.05 is 5 %.")] = 0.05,
    seeds: Annotated[int | None, typer.Option(help="Networks trained on each block (default 2).")] = None,
    seed: Annotated[int, typer.Option(help="First seed; the same seed gives the same outcomes.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="40 epochs, one seed: soon done, but no claims.")] = False,
    folder: Annotated[Path, typer.Option("--out", help="Where the run's folder is made.")] = Path("runs"),
    jobs: Annotated[int, typer.Option(help="Networks trained at a time; 0: one a processor.")] = 0,
) -> None:
    """Find the smallest recurrent forecaster of SERIES that predicts as well as the large one.

    Trains the full network on ten rolling blocks, removes hidden units at several ratios, repairs and refits, chooses
    the leanest ratio on validation data, and tests that one network once beside the full one, naive forecasters and
    controls.

    Leaves report.html, outcomes.json, plan.json, model.safetensors and config.toml in a new folder under --out.
    """
    short: dict[str, Any] = QUICK if quick else {}
    with _clear_errors():
        config = RunConfig(
            cell=cell,
            recurrent=_numbers("--recurrent", recurrent, int),
            dense=_numbers("--dense", dense, int),
            init=init,
            window=window,
            horizon=horizon,
            predict=predict,
            epochs=epochs if epochs is not None else short.get("epochs", 300),
            refit_epochs=refit_epochs,
            lr=lr,
            batch_size=batch_size,
            seed=seed,
            seeds=seeds if seeds is not None else short.get("seeds", 2),
            criterion=criterion,
            ratios=_numbers("--ratios", ratios, float),
            thresholds=_numbers("--thresholds", thresholds, float),
            scope=scope,
            keep=_words(keep),
            margin=margin,
            quick=quick,
        )
        data = load(series, column, _words(features))
        _run(data, config, folder, jobs or _processors())


def _run(series: Series, config: RunConfig, base: Path, jobs: int) -> None:
    started = time.perf_counter()
    torch.set_num_threads(1)
    splits = run.prepare(series, config)
    with _progress() as progress:
        work = run.investigation(series, splits, config, jobs, progress)
        work.check()
        folder = store.new_folder(base, series.name, config.seed)
        try:
            evidence = work.run()
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not lose what the first one keeps
            record = run.partial_record(series, splits, config, work.finished())
            _write_interrupted(folder, record | {"seconds": {"total": time.perf_counter() - started}})
            raise typer.Exit(INTERRUPTED) from None
        except BaseException:
            folder.rmdir()
            raise
    record = run.record(series, splits, config, evidence)
    record |= {"seconds": {"total": time.perf_counter() - started}}
    key = run.shipped_key(evidence)
    shipped, split = evidence.networks[key], work.blocks[key[1]]
    store.write_record(folder, record)
    store.write_model(folder, shipped.fit.model, shipped.plan or Plan({}), config, split)
    report.write(record, folder / store.REPORT)
    _summary(record, folder)


def _write_interrupted(folder: Path, record: dict[str, Any]) -> None:
    count = len(record["outcomes"])
    if count == 0:
        folder.rmdir()
        err.print("[yellow]Interrupted[/] before the first network was trained; nothing is left behind.")
        return
    store.write_record(folder, record)
    report.write(record, folder / store.REPORT)
    err.print(f"[yellow]Interrupted.[/] What {count} finished networks show is kept in {escape(str(folder))}")


@app.command("data")
def data_command(
    series: Annotated[str | None, typer.Argument(metavar="[SERIES]", help="A built-in series or a CSV file.")] = None,
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
    with _clear_errors():
        data = load(series, column, _words(features))
        target = data.values[:, 0]
        out.print(f"[bold]{escape(data.name)}[/]: {escape(data.source)}")
        out.print(
            f"{len(target)} rows; columns: {escape(', '.join(data.columns))}; window {data.window}, {data.predict}"
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
    column: Column = None,
    steps: Annotated[int, typer.Option(help="Steps to forecast beyond the end, each from the one before.")] = 1,
    file: Annotated[
        Path | None, typer.Option("--out", help="Write to this new CSV file instead of the screen.")
    ] = None,
) -> None:
    """Forecast CSV with a saved network: one step ahead for every row, and beyond the end.

    Writes the columns row (counted from 1), actual and forecast; rows beyond the end have no actual value.
    """
    with _clear_errors():
        network, window, scaler = store.read_model(model)
        names = scaler.columns
        data = load(series, column or (names[0] if len(names) > 1 else None), names[1:])
        rows = run.forecast_rows(network, window, scaler, data, steps)
        _write_csv(file, ("row", "actual", "forecast"), rows)


@app.command("report")
def report_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder made by `pared run`.")],
    file: Annotated[Path | None, typer.Option("--out", help="Where the page goes (default: DIR/report.html).")] = None,
) -> None:
    """Draw the report of a run anew from its outcomes.json."""
    with _clear_errors():
        target = file or folder / store.REPORT
        report.write(store.read_record(folder), target)
        out.print(f"report: {escape(str(target))}")


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if show:
        out.print(f"pared {pared.__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point of the `pared` command."""
    app()


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What a user can mend ends in one message and exit code 2, not in a traceback."""
    try:
        yield
    except DivergedError as error:
        err.print(f"[red]Diverged:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(DIVERGED) from error
    except (DataError, StructureError, OSError) as error:
        err.print(f"[red]Error:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(WRONG_INPUT) from error


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar a stage with the time left; a line a stage where the output is not a terminal."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=err, disable=not err.is_terminal) as bars:

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
                if not err.is_terminal:
                    err.print(f"{stage} ({total})")
            bars.update(tasks[stage], completed=done)

        yield show


def _summary(record: dict[str, Any], folder: Path) -> None:
    """Size, error, verdict and controls on the screen."""
    out.print()
    out.print(f"[bold]{escape(record['finding'])}[/]", soft_wrap=True)
    for note in record["notes"]:
        out.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    first = "cut" if record["chosen"] else "full"
    table = Table(
        "network", "NRMSE", "1-step", "free", "param.", "error ratio", "verdict", box=None, padding=(0, 1, 0, 0)
    )
    for name in dict.fromkeys(("full", "cut", *record["comparisons"])):
        cells = [
            run.mean_test_metric(record, name, key) for key in ("nrmse", "direction", "free_direction", "parameters")
        ]
        if cells[0] is None:
            continue
        nrmse, direction, free, size = cells
        found = record["comparisons"].get(name)
        table.add_row(
            name + ("*" if name == record["shipped"]["arm"] else ""),
            f"{nrmse:.3g}",
            *("" if share is None else f"{100 * share:.1f}%" for share in (direction, free)),
            "" if size is None else f"{size:.0f}",
            run.ratio_text(found) if found else "",
            found["verdict"] if found else "",
        )
    out.print(table)
    out.print(
        f"* shipped. Ratio and verdict: the errors of '{first}' over those of each other network. 1-step, free: directions "
        "that are right, one step ahead and free-running.",
        style="dim",
    )
    small, full = record["shipped"], record["full_size"]
    out.print(
        f"shipped: {small['parameters']} of {full['parameters']} parameters, "
        f"{small['macs']} of {full['macs']} multiply-adds, {small['milliseconds']:.2f} of {full['milliseconds']:.2f} ms a forecast"
    )
    out.print(f"report: {escape(str(folder / store.REPORT))}", soft_wrap=True)


def _write_csv(file: Path | None, header: tuple[str, ...], rows: list[list[Any]]) -> None:
    if file is None:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([header, *rows])
        return
    with file.open("x", newline="", encoding="utf-8") as stream:  # "x": never overwrites
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    err.print(f"written: {escape(str(file))}", soft_wrap=True)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(option: str, text: str, kind: type[Number]) -> tuple[Number, ...]:
    try:
        return tuple(kind(word) for word in _words(text))
    except ValueError as error:
        raise DataError(f"{option} takes numbers separated by commas, got {text!r}") from error


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
