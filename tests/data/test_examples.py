"""Tables of examples from CSV files: what becomes of a cell, and what is refused, with line and column."""

import numpy as np
import pytest

from pared.data import Table, read_table
from pared.data.examples import rows_to_predict
from pared.types import DataError

ROWS = ["size,colour,kind,price", "1.5,red,a,10", "2,blue,b,20.5", "3,red,a,30", "4.25,green,c,41"]


def written(tmp_path, rows=ROWS):
    path = tmp_path / "t.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_numbers_stay_and_texts_become_indicators(tmp_path):
    table = read_table(written(tmp_path), "price")
    assert table.task == "regression"
    assert table.encoding.names == ("size", "colour=blue", "colour=green", "colour=red", "kind=a", "kind=b", "kind=c")
    expected = [[1.5, 0, 0, 1, 1, 0, 0], [2, 1, 0, 0, 0, 1, 0], [3, 0, 0, 1, 1, 0, 0], [4.25, 0, 1, 0, 0, 0, 1]]
    np.testing.assert_array_equal(table.inputs, expected)
    np.testing.assert_array_equal(table.target, [10, 20.5, 30, 41])
    assert read_table(written(tmp_path), "price", ["colour"]).encoding.columns == ("colour",)


@pytest.mark.parametrize(
    ("cells", "task", "classes"),
    [
        (["b", "a", "b", "c"], None, ("a", "b", "c")),
        (["2", "10", "2.0", "1"], None, ("1", "2", "10")),
        (["2", "10", "2.5", "1"], None, ()),
        (["2", "10", "2.5", "1"], "classification", ("1", "2", "2.5", "10")),
        (["2", "10", "2", "1"], "regression", ()),
        ([str(k) for k in range(10)], None, tuple(map(str, range(10)))),
        ([str(k) for k in range(11)], None, ()),
    ],
)
def test_what_is_a_class(tmp_path, cells, task, classes):
    rows = ["x,y", *(f"{k},{cell}" for k, cell in enumerate(cells))]
    table = read_table(written(tmp_path, rows), "y", task=task)
    assert table.encoding.classes == classes
    if classes:
        values = {float(name) if name.isdigit() else name: k for k, name in enumerate(classes)}
        own = [float(cell) if cell.replace(".", "").isdigit() else cell for cell in cells]
        assert [values.get(cell, values.get(str(cell))) for cell in own] == table.target.tolist()
    else:
        assert table.target.tolist() == list(map(float, cells))


@pytest.mark.parametrize(
    ("line", "cells", "column", "said"),
    [
        (2, "oops,red,a,1", "price", "t.csv, line 2, column 'size': 'oops' is not a number"),
        (3, ",blue,b,2", "price", "t.csv, line 3, column 'size': a blank where a finite number"),
        (3, "2,,b,2", "price", "t.csv, line 3, column 'colour': a blank where a text should be; 1 missing"),
        (3, "2,NA,b,2", "price", "column 'colour': NA where a text"),
        (4, "3,red,,2", "kind", "line 4, column 'kind': a blank"),
        (4, "3,red,a,inf", "price", "line 4, column 'price': inf"),
        (2, "1,red,a,1", "nope", "no column 'nope'; the file has 'size', 'colour', 'kind', 'price'"),
        (2, "1,red,a,1", None, "say which column is to be predicted"),
    ],
)
def test_what_cannot_be_read(tmp_path, line, cells, column, said):
    rows = [*ROWS]
    rows[line - 1] = cells
    with pytest.raises(DataError, match=said):
        read_table(written(tmp_path, rows), column)


@pytest.mark.parametrize(
    ("cells", "said"), [("x", "only the class 'x'"), ("3", "only the class '3'"), ("3.5", "3.5 in")]
)
def test_a_constant_target(tmp_path, cells, said):
    rows = ["x,y", *(f"{k},{cells}" for k in range(20))]
    with pytest.raises(DataError, match=f"'y' is constant .*{said}"):
        read_table(written(tmp_path, rows), "y")


def test_a_column_of_names_is_no_input(tmp_path):
    rows = ["name,x,y", *(f"n{k},{k},{k % 2}" for k in range(40))]
    with pytest.raises(DataError, match=r"'name' holds 40 different texts, at most 30 .* \(--features\)"):
        read_table(written(tmp_path, rows), "y")
    assert read_table(written(tmp_path, rows), "y", ["x"]).encoding.columns == ("x",)
    with pytest.raises(DataError, match="no column but 'y'"):
        read_table(written(tmp_path, ["y", "1", "2"]), "y")
    for features, said in ((["x", "x"], "given twice"), (["y"], "both the target and a feature")):
        with pytest.raises(DataError, match=said):
            read_table(written(tmp_path, rows), "y", features)


def test_rows_to_predict_need_no_target_but_known_texts(tmp_path):
    table = read_table(written(tmp_path), "price")
    inputs, actual = rows_to_predict(written(tmp_path), table.encoding)
    np.testing.assert_array_equal(inputs, table.inputs)
    assert actual == ["10", "20.5", "30", "41"]
    new = ["colour,size,kind", "blue,9,a"]  # in another order
    inputs, actual = rows_to_predict(written(tmp_path, new), table.encoding)
    assert (inputs.tolist(), actual) == ([[9, 1, 0, 0, 1, 0, 0]], [""])
    with pytest.raises(DataError, match="line 2, column 'colour': 'pink' is new; known are 'blue', 'green', 'red'"):
        rows_to_predict(written(tmp_path, [new[0], "pink,9,a"]), table.encoding)
    with pytest.raises(DataError, match="no column 'kind'"):
        rows_to_predict(written(tmp_path, ["colour,size", "blue,9"]), table.encoding)


def test_a_table_keeps_its_own_numbers(tmp_path):
    table = read_table(written(tmp_path), "price")
    assert not table.inputs.flags.writeable
    for inputs in (table.inputs[:3], table.inputs[:, :2], np.full_like(table.inputs, np.nan)):
        with pytest.raises(DataError):
            Table("mine", inputs, table.target, table.encoding, "")
