"""A table of examples: every row is one, in no order; a column says what is to be predicted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from pared.data.tables import MISSING, Row, listed, mostly_numbers, number_column, table_of
from pared.types import DataError

Array = npt.NDArray[np.float64]
TableTask = Literal["classification", "regression"]
FEW = 10
"""A target of at most so many different whole numbers is taken for classes."""
MOST_TEXTS = 30
"""Most different texts that a column of inputs may hold: each becomes an input of its own."""


@dataclass(frozen=True)
class Encoding:
    """How the cells of a row become numbers: pure data.

    Column j of the inputs is a number where `categories[j]` is empty, else one of these texts: each text is an input
    that is 1 where the cell is that text and 0 elsewhere. `classes` are the names that the target takes, in the order
    of the network's outputs; empty where the target is a number.
    """

    target: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """One name an input of the network: "age", "colour=red", "colour=blue"."""
        return tuple(
            name
            for column, texts in zip(self.columns, self.categories, strict=True)
            for name in ([f"{column}={text}" for text in texts] or [column])
        )

    @property
    def indicators(self) -> tuple[bool, ...]:
        """Which inputs are 0 or 1 and need no scaling."""
        return tuple(bool(texts) for texts in self.categories for _ in texts or ("number",))

    @property
    def outputs(self) -> int:
        """Outputs of a network: one a class, or the value."""
        return len(self.classes) or 1


@dataclass(frozen=True, eq=False)
class Table:
    """Examples: `inputs` (rows, inputs of the network) and `target` (rows,), values or places in `encoding.classes`.

    Both are copied to read-only float64 arrays. Raises DataError for values that are not finite, a target that is
    constant and classes without any row.
    """

    name: str
    inputs: Array
    target: Array
    encoding: Encoding
    source: str

    def __post_init__(self) -> None:
        inputs, target = np.array(self.inputs, dtype=np.float64), np.array(self.target, dtype=np.float64)
        shape = (len(target), len(self.encoding.names))
        if target.ndim != 1 or inputs.shape != shape or 0 in shape:
            raise DataError(f"{self.name}: inputs must be (rows, {shape[1]}), one row a target, got {inputs.shape}")
        if not (np.isfinite(inputs).all() and np.isfinite(target).all()):
            raise DataError(f"{self.name}: NaN or infinite values; fill them or leave their rows out")
        if np.ptp(target) == 0:
            what = f"only the class {self.encoding.classes[0]!r}" if self.encoding.classes else f"{target[0]:g}"
            raise DataError(
                f"{self.name}: the target {self.encoding.target!r} is constant ({what} in all {len(target)} rows); "
                "there is nothing to predict"
            )
        for name, value in (("inputs", inputs), ("target", target)):
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    @property
    def task(self) -> TableTask:
        """What is predicted: a class or a number."""
        return "classification" if self.encoding.classes else "regression"


def read_table(
    path: str | Path, column: str | None, features: Sequence[str] = (), task: TableTask | None = None
) -> Table:
    """Read a table of examples from a CSV file as `read_csv` reads them; `column` is the target.

    The inputs are `features`, by default every other named column: one whose cells are mostly numbers is a column of
    numbers, any other is text and becomes one input of 0 or 1 for each of its texts. Without `task`, a target that is
    text, or holds at most 10 different whole numbers, is a class, any other a number.

    Returns: a `Table`, rows as in the file.
    Raises: DataError as `read_csv`; for missing cells; for a text column of more than 30 texts; without `column`.
    """
    path = Path(path)
    header, rows = table_of(path)
    if column is None:
        raise DataError(f"{path}: say which column is to be predicted (--column); the file has {listed(header)}")
    columns = tuple(features) or tuple(name for name in header if name and name != column)
    _check_columns(path, header, column, columns)
    classes, why = _classes(path, column, header.index(column), rows, task)
    encoding = Encoding(
        target=column,
        classes=classes,
        columns=columns,
        categories=tuple(_texts(path, name, header.index(name), rows) for name in columns),
    )
    inputs, target = encode(path, header, rows, encoding), _targets(path, header, rows, encoding)
    return Table(path.name, inputs, target, encoding, f"column {column!r} of {path.name}, {len(rows)} rows, {why}")


def read_encoded(path: str | Path, encoding: Encoding) -> Table:
    """Read a table as another one was read: the same columns, texts and classes.

    Raises: DataError as `read_table`, for a missing column, and for texts and classes that the other did not hold.
    """
    path = Path(path)
    header, rows = table_of(path)
    _check_columns(path, header, encoding.target, encoding.columns)
    if encoding.classes:
        found = _class_names(path, encoding.target, header.index(encoding.target), rows)
        _check_known(path, encoding.target, encoding.classes, found, rows)
    inputs, target = encode(path, header, rows, encoding), _targets(path, header, rows, encoding)
    return Table(path.name, inputs, target, encoding, f"column {encoding.target!r} of {path.name}, {len(rows)} rows")


def encode(path: Path, header: list[str], rows: list[Row], encoding: Encoding) -> Array:
    """Inputs (rows, inputs of the network). Raises DataError for a missing column and for cells that do not suit it."""
    parts: list[list[float]] = []
    for name, texts in zip(encoding.columns, encoding.categories, strict=True):
        if name not in header:
            raise DataError(f"{path}: no column {name!r}; the file has {listed(header)}")
        if texts:
            found = _text_column(path, name, header.index(name), rows)
            _check_known(path, name, texts, found, rows)
            parts += [[float(cell == text) for cell in found] for text in texts]
        else:
            parts.append(number_column(path, name, header.index(name), rows))
    return np.array(parts, dtype=np.float64).T


def _targets(path: Path, header: list[str], rows: list[Row], encoding: Encoding) -> Array:
    """The target (rows,): values, or places in the classes."""
    index = header.index(encoding.target)
    if not encoding.classes:
        return np.array(number_column(path, encoding.target, index, rows))
    names = _class_names(path, encoding.target, index, rows)
    place = {name: k for k, name in enumerate(encoding.classes)}
    return np.array([place[name] for name in names], dtype=np.float64)


def rows_to_predict(path: str | Path, encoding: Encoding) -> tuple[Array, list[str]]:
    """Inputs (rows, inputs of the network) of a CSV file, and what its target column says, "" where it has none.

    Raises: DataError for a missing column, and for cells that the network has not learnt to read.
    """
    path = Path(path)
    header, rows = table_of(path)
    known = header.index(encoding.target) if encoding.target in header else None
    actual = ["" if known is None else cells[known].strip() for _, cells in rows]
    return encode(path, header, rows, encoding), actual


def _check_columns(path: Path, header: list[str], column: str, columns: tuple[str, ...]) -> None:
    for name, times in Counter((column, *columns)).items():
        if name not in header:
            raise DataError(f"{path}: no column {name!r}; the file has {listed(header)}")
        if times > 1:
            kind = "is both the target and a feature" if name == column else "is given twice as a feature"
            raise DataError(f"{path}: column {name!r} {kind}; name every input column once")
    if not columns:
        raise DataError(f"{path}: no column but {column!r}; there is nothing to predict it from")


def _classes(path: Path, name: str, index: int, rows: list[Row], task: TableTask | None) -> tuple[tuple[str, ...], str]:
    """Names of the classes in order, numbers as numbers, none where the target is a number; and why it is which."""
    if task == "regression":
        return (), "read as a number"
    numeric = mostly_numbers(rows, index)
    why = "read as a class" if task else "a class, as its cells are text"
    if numeric and task is None:
        values = set(number_column(path, name, index, rows))
        if len(values) > FEW or not all(value.is_integer() for value in values):
            return (), f"a number, as it holds more than {FEW} values or fractions (--task classification: a class)"
        why = f"a class, as it holds {len(values)} whole numbers, at most {FEW} (--task regression: a number)"
    names = set(_class_names(path, name, index, rows))
    return tuple(sorted(names, key=float) if numeric else sorted(names)), why


def _class_names(path: Path, name: str, index: int, rows: list[Row]) -> list[str]:
    """Classes as text; 1, 1.0 and 01 are the same class where the column is one of numbers."""
    if not mostly_numbers(rows, index):
        return _text_column(path, name, index, rows)
    values = number_column(path, name, index, rows)
    return [str(int(value)) if value.is_integer() else repr(value) for value in values]


def _texts(path: Path, name: str, index: int, rows: list[Row]) -> tuple[str, ...]:
    """The texts of a column in order; none where it is one of numbers."""
    if mostly_numbers(rows, index):
        return ()
    texts = sorted(set(_text_column(path, name, index, rows)))
    if len(texts) > MOST_TEXTS:
        raise DataError(
            f"{path}: column {name!r} holds {len(texts)} different texts, at most {MOST_TEXTS} can be inputs; leave it "
            "out by naming the input columns (--features), or sum the texts up"
        )
    return tuple(texts)


def _text_column(path: Path, name: str, index: int, rows: list[Row]) -> list[str]:
    cells = [cells[index].strip() for _, cells in rows]
    gaps = [(line, cell) for (line, _), cell in zip(rows, cells, strict=True) if cell.lower() in MISSING]
    if gaps:
        line, cell = gaps[0]
        raise DataError(
            f"{path}, line {line}, column {name!r}: {cell or 'a blank'} where a text should be; {len(gaps)} missing in "
            "the column; fill or cut them first"
        )
    return cells


def _check_known(path: Path, name: str, known: Sequence[str], found: Sequence[str], rows: list[Row]) -> None:
    for (line, _), cell in zip(rows, found, strict=True):
        if cell not in known:
            raise DataError(f"{path}, line {line}, column {name!r}: {cell!r} is new; known are {listed(known)}")
