"""CSV files of users. Every complaint names the file, the line as an editor shows it, and the column."""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from io import StringIO
from itertools import dropwhile
from pathlib import Path

import numpy as np

from pared.data.series import Series
from pared.types import DataError

MISSING = {"", "na", "n/a", "nan", "null", "none"}
Row = tuple[int, list[str]]
"""Line number (from 1) and cells."""


def read_csv(path: str | Path, column: str | None = None, features: Sequence[str] = ()) -> Series:
    """Read a series from a CSV file with one header line, in UTF-8, separated by comma, semicolon or tab.

    `column` is the target, by default the only number column of the file (dates and other text columns, and columns
    without a name, are passed over); `features` are further input columns. Rows must be in time order, at equal steps;
    decimals have a point.
    The csv module reads it rather than pandas, which hides line numbers and quietly renames, pads and truncates.

    Returns: a `Series`, target first, with window 16 and predict "auto".
    Cost: about 1 s for a million cells.
    Raises: DataError for a file that is missing, a folder, unreadable, not UTF-8 or empty; a column that is missing,
    named twice or ambiguous; text, blank, NaN or infinite cells in a column asked for; a constant target.
    """
    path = Path(path)
    header, rows = table_of(path)
    if column is None:
        column = _only_number_column(path, header, rows)
    names = (column, *features)
    for name, count in Counter(names).items():
        if name not in header:
            raise DataError(f"{path}: no column {name!r}; the file has {listed(header)}")
        if count > 1:
            kind = "is both the target and a feature" if name == column else "is given twice as a feature"
            raise DataError(f"{path}: column {name!r} {kind}; name every input column once")
    values = np.array([number_column(path, name, header.index(name), rows) for name in names]).T
    if np.ptp(values[:, 0]) == 0:
        raise DataError(
            f"{path}: column {column!r} is constant ({values[0, 0]:g} in all {len(rows)} rows); "
            "there is nothing to forecast"
        )
    source = f"column {column!r} of {path.name}, {len(rows)} rows"
    if features:
        source += f", with inputs {listed(features)}"
    return Series(path.name, values, names, 16, "auto", None, source)


def table_of(path: Path) -> tuple[list[str], list[Row]]:
    """Header and rows of equal length. Blank lines around the table are passed over; one within it is a missing row."""
    text = _text(path).rstrip("\n ")
    reader = csv.reader(StringIO(text), delimiter=max(",;\t", key=text.lstrip().partition("\n")[0].count))
    try:
        lines = [(reader.line_num - sum(cell.count("\n") for cell in cells), cells) for cells in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not a CSV file ({error})") from error
    lines = list(dropwhile(lambda row: not "".join(row[1]).strip(), lines))
    if not lines:
        raise DataError(f"{path}: the file is empty; it needs a header line and rows of numbers")
    (first, cells), *rows = lines
    header = [cell.strip() for cell in cells]
    if all(parsed(name) is not None for name in header):
        raise DataError(f"{path}, line {first}: numbers ({listed(header)}) where column names should be; add a header")
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise DataError(f"{path}, line {first}: column names must differ, but {listed(twice)} is there more than once")
    if not rows:
        raise DataError(f"{path}: a header ({listed(header)}) but no rows below it")
    rows = [(line, cells or [""] * len(header)) for line, cells in rows]
    for line, cells in rows:
        if len(cells) != len(header):
            raise DataError(f"{path}, line {line}: {len(cells)} cells, but the header names {len(header)} columns")
    return header, rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; give the CSV file in it") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 text (byte 0x{error.object[error.start]:02x}); "
            "save the file as CSV in UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _only_number_column(path: Path, header: list[str], rows: list[Row]) -> str:
    """The one named column whose filled cells are mostly numbers, so that a stray word in it is reported later."""
    found = []
    for index, name in enumerate(header):
        if name and mostly_numbers(rows, index):
            found.append(name)
    if len(found) != 1:
        what = f"{len(found)} number columns ({listed(found)})" if found else "no number column"
        raise DataError(
            f"{path}: {what}; say which to forecast (--column), or, if rows are examples in no order, --task auto; "
            f"the file has {listed(header)}"
        )
    return found[0]


def mostly_numbers(rows: list[Row], index: int) -> bool:
    """Whether at least half of a column's filled cells are numbers."""
    filled = [cells[index] for _, cells in rows if cells[index].strip().lower() not in MISSING]
    return bool(filled) and 2 * sum(parsed(cell) is not None for cell in filled) >= len(filled)


def number_column(path: Path, name: str, index: int, rows: list[Row]) -> list[float]:
    """One column as floats."""
    numbers, text, gaps = [], [], []
    for line, cells in rows:
        cell = cells[index].strip()
        number = math.nan if cell.lower() in MISSING else parsed(cell)
        if number is None:
            text.append((line, cell))
        elif not math.isfinite(number):
            gaps.append((line, cell or "a blank"))
        else:
            numbers.append(number)
    if text:
        line, cell = text[0]
        raise DataError(
            f"{path}, line {line}, column {name!r}: {cell!r} is not a number; {len(text)} such in the column"
        )
    if gaps:
        line, cell = gaps[0]
        raise DataError(
            f"{path}, line {line}, column {name!r}: {cell} where a finite number should be; {len(gaps)} "
            "missing or infinite in the column; fill or cut them first"
        )
    return numbers


def parsed(cell: str) -> float | None:
    """The number that a cell holds, None for text."""
    try:
        return None if "_" in cell else float(cell)  # float() takes 1_000, which is no number in a CSV file
    except ValueError:
        return None


def listed(names: Iterable[str]) -> str:
    """Names in quotes, the first twelve of many."""
    names = [repr(name) for name in names if name]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
