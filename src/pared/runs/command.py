"""The commands of `pared runs`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from sqlalchemy import URL

from pared.database import keeping
from pared.database.connection import located, shown
from pared.database.entries import Run
from pared.database.folders import entry_of, found_below
from pared.options import STORE_HELP
from pared.runs.conditions import FIELDS, HELP, chosen, flat, plain, value_of
from pared.runs.listing import WIDE, listing, side_by_side, whole
from pared.runs.sinks import to_mlflow, to_tensorboard
from pared.screen import write_csv
from pared.terminal import clear_errors, err, option, out
from pared.types import DataError

BASE = Path("runs")
MOST = 50

Where = Annotated[list[str] | None, option("Runs", f"Only these: {HELP}. 'data=santa-fe', 'settings.lr<0.01'.")]
Store = Annotated[
    str | None, typer.Option("--store", envvar="PARED_STORE", help=f"{STORE_HELP} [default: runs/pared.db]")
]
Id = Annotated[str, typer.Argument(metavar="ID", help="The id of a run, or how it begins.")]

app = typer.Typer(invoke_without_command=True, help="List what was run; show, compare, export and add runs.")


@app.callback()
def list_command(
    context: typer.Context,
    where: Where = None,
    most: Annotated[int, option("Runs", "How many at most, newest first; 0: all.", least=0)] = MOST,
    store: Store = None,
) -> None:
    """List runs, searches, comparisons, replications and diagnoses, newest first; or show, compare, export, add them.

    Fields for --where: the columns of `pared runs export`, among them data, kind, task, status, seed, before, after,
    parameters_before, parameters_after, begun, seconds, git, and settings.NAME.
    """
    if context.invoked_subcommand is not None:
        context.obj = store
        return
    with clear_errors():
        runs = chosen(keeping.runs(_database(context, store)), where or ())
        seen = runs[: most or None]
        screen = _screen()
        screen.print(listing(seen, screen.width))
        if len(seen) < len(runs):
            out.print(f"{len(runs) - len(seen)} older ones are not shown; --most 0 shows all")


@app.command("show")
def show_command(context: typer.Context, run: Id, store: Store = None) -> None:
    """Show all that is known of a run: settings, versions, networks, cuts, comparisons, trials, notes, traceback."""
    with clear_errors():
        database = _database(context, store)
        runs = keeping.runs(database)
        found, screen = keeping.find(runs, run), _screen()
        for line in whole(keeping.entry(database, found), keeping.notes(database, found), runs):
            screen.print(line)


@app.command("compare")
def compare_command(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(metavar="ID...", help="Two runs or more.")],
    store: Store = None,
) -> None:
    """Set runs side by side; what differs is marked."""
    with clear_errors():
        if len(runs) < 2:
            raise DataError("give two runs or more to compare")
        known = keeping.runs(_database(context, store))
        _screen().print(side_by_side([keeping.find(known, each) for each in runs]))


@app.command("note")
def note_command(
    context: typer.Context,
    run: Id,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to remember.")],
    store: Store = None,
) -> None:
    """Write a note about a run; `pared runs show` shows it."""
    with clear_errors():
        database = _database(context, store)
        keeping.write_note(database, keeping.find(keeping.runs(database), run), text)


@app.command("export")
def export_command(
    context: typer.Context,
    file: Annotated[Path | None, option("Where to", "Write this new CSV file, a row a run.", "--to")] = None,
    mlflow: Annotated[str | None, option("Where to", "Add to an MLflow tracking server or its database.")] = None,
    tensorboard: Annotated[Path | None, option("Where to", "Add below this folder, for TensorBoard.")] = None,
    where: Where = None,
    store: Store = None,
) -> None:
    """Write runs for other programs: as CSV, to MLflow, to TensorBoard; what these have already is left as it is."""
    with clear_errors():
        if not (file or mlflow or tensorboard):
            raise DataError("say where to: --to FILE.csv, --mlflow URI or --tensorboard DIR")
        database = _database(context, store)
        runs = chosen(keeping.runs(database), where or ())
        if file:
            _write_csv(file, runs)
        entries = (keeping.entry(database, run) for run in reversed(runs))
        if mlflow:
            out.print(f"{to_mlflow(entries, mlflow)} runs were added to MLflow")
        if tensorboard:
            entries = (keeping.entry(database, run) for run in reversed(runs))
            out.print(f"{to_tensorboard(entries, tensorboard)} runs were added for TensorBoard")


@app.command("add")
def add_command(
    context: typer.Context,
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders that pared's commands left.")],
    store: Store = None,
) -> None:
    """Enter folders into the list of runs; one that is there is brought up to date."""
    with clear_errors():
        bad = _add(_database(context, store), folders)
        if bad:
            raise typer.Exit(2)


@app.command("sync")
def sync_command(
    context: typer.Context,
    base: Annotated[Path, typer.Argument(metavar="[BASE]", help="Where the folders of runs are.")] = BASE,
    store: Store = None,
) -> None:
    """Enter all folders below BASE into the list of runs, as after its loss; notes and runs that are there stay."""
    with clear_errors():
        if not base.is_dir():
            raise DataError(f"{base} is not a folder; give the one that `pared run --out` was told")
        _add(located(store or context.obj, base), list(found_below(base)))


def _screen() -> Console:
    """The screen; a wide one where it is none, so that nothing is cut off."""
    return Console(highlight=False, width=out.width if out.is_terminal else max(2 * WIDE, out.width))


def _database(context: typer.Context, store: str | None) -> URL:
    """The database that is meant, said before or after the name of the command."""
    return located(store or context.obj, BASE)


def _add(database: URL, folders: Sequence[Path]) -> int:
    """Enters folders, says how many, and what is wrong with the others; the number of those."""
    new, known, bad = 0, 0, 0
    for folder in folders:
        try:
            entry = entry_of(folder)
        except DataError as error:
            bad += 1
            err.print(f"[red]Error:[/] {escape(str(error))}", soft_wrap=True)
            continue
        if keeping.add(database, entry):
            new += 1
        else:
            known += 1
    out.print(f"{escape(shown(database))}: {new} added, {known} brought up to date", soft_wrap=True)
    return bad


def _write_csv(file: Path, runs: Sequence[Run]) -> None:
    """A row a run, a column a field and a setting."""
    names = [*FIELDS, "remarks", *dict.fromkeys(name for run in runs for name in flat(run))]
    rows = []
    for run in runs:
        own = flat(run) | {"remarks": run.remarks}
        rows.append([_cell(own[name] if name in own else value_of(run, name)) for name in names])
    write_csv(file, tuple(names), rows)


def _cell(value: Any) -> Any:
    """Numbers in full."""
    return value if isinstance(value, float) else plain(value)
