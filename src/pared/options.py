"""Options that several commands have: what the data are, and which options make sense for them."""

from typing import Annotated, Literal

import typer

from pared.data import BUILTINS, TABLES, Series, Table, classic, load, read_table
from pared.terminal import option
from pared.types import DataError

Kind = Literal["forecast", "classification", "regression", "auto"]
ForSeries = ("window", "horizon", "predict", "cell", "recurrent", "dense", "init")
ForTables = ("hidden", "activation")
DataName = Annotated[
    str, typer.Argument(metavar="DATA", help="A built-in series or table (see `pared data`) or a CSV file.")
]
Column = Annotated[str | None, option("Data", "CSV: the column to predict (of a series: the only numeric one).")]
Features = Annotated[str, option("Data", "CSV: further input columns, by comma (of a table: all others).")]
TASK_HELP = (
    "CSV: forecast a series (default), or predict a class or a number from rows of a table; auto: a class where the "
    "target is text or at most 10 different whole numbers, else a number."
)
TaskName = Annotated[Kind | None, option("Data", TASK_HELP)]
STORE_HELP = "Database of the runs: a SQLite file, or a URL such as postgresql://user@host/database."
Store = Annotated[
    str | None,
    typer.Option(
        "--store", envvar="PARED_STORE", help=f"{STORE_HELP} [default: pared.db under --out]", rich_help_panel="Output"
    ),
]


def read(data: str, column: str | None, features: tuple[str, ...], task: Kind | None) -> Series | Table:
    """The series or the table that is meant. Raises DataError where it cannot be read."""
    return table_of(data, column, features, task) if is_table(data, task) else load(data, column, features)


def is_table(data: str | None, task: Kind | None) -> bool:
    """Whether DATA is read as a table of examples rather than as a series."""
    return data in TABLES or task not in (None, "forecast")


def table_of(data: str, column: str | None, features: tuple[str, ...], task: Kind | None) -> Table:
    """A built-in table, or one from a CSV file."""
    if data in TABLES:
        table = classic(data)
        if column is not None or features:
            raise DataError(f"{data} is a built-in table; leave column and features away")
        if task not in (None, "auto", table.task):
            raise DataError(f"{data} is a built-in table for {table.task}; leave --task away")
        return table
    if data in BUILTINS:
        raise DataError(f"{data} is a built-in series; leave --task away")
    return read_table(data, column, features, task if task in ("classification", "regression") else None)


def is_given(context: typer.Context, name: str) -> bool:
    """Whether an option was given, or is none."""
    return getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"


def refuse(context: typer.Context, names: tuple[str, ...], why: str) -> None:
    """Raises DataError where one of these options was given."""
    if given := [name.replace("_", "-") for name in names if is_given(context, name)]:
        raise DataError(f"--{', --'.join(given)} {why}")


def refuse_senseless(context: typer.Context, names: tuple[str, ...], why: str) -> None:
    """Raises DataError where one of these options was given, which make no sense here."""
    count = sum(is_given(context, name) for name in names)
    refuse(context, names, f"{'makes' if count == 1 else 'make'} no sense {why}")


def refuse_others(context: typer.Context, table: bool) -> None:
    """Raises DataError for options of a series' network where the data are a table, and the other way round."""
    if table:
        refuse_senseless(context, ForSeries, f"for a table; its network is set by --{', --'.join(ForTables)}")
    else:
        refuse_senseless(context, ForTables, "for a series; a CSV file is read as a table with --task auto")
