"""CSV files: what is read, and that each fault gets one message with its line and column."""

from pathlib import Path

import numpy as np
import pytest

from pared.data import load, read_csv
from pared.types import DataError


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "my.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_the_only_number_column_is_the_target(tmp_path: Path) -> None:
    series = load(written(tmp_path, "date,level\n2020-01-01,1.5\n2020-01-02,-2e3\n2020-01-03, 7 \n"))
    assert (series.name, series.columns, series.window, series.predict) == ("my.csv", ("level",), 16, "auto")
    np.testing.assert_array_equal(series.values, [[1.5], [-2000], [7]])
    assert series.lyapunov is None
    assert str(tmp_path) not in series.source


def test_target_comes_first_then_the_features(tmp_path: Path) -> None:
    path = written(tmp_path, "a,b,c\n1,2,3\n4,5,7\n")
    series = read_csv(path, "c", ["a"])
    assert series.columns == ("c", "a")
    np.testing.assert_array_equal(series.values, [[3, 1], [7, 4]])


@pytest.mark.parametrize(
    "content",
    [
        "\n\nx,t\n1,a\n2,b\n\n  \n",
        "x;t\r\n1;a\r\n2;b\r\n",
        "t\tx\na\t1\nb\t2\n",
        "\ufeffx,t\n1,a\n2,b",
        't,x\n"a, b",1\n"c\nd",2\n',
        ",x\nrow,1\nrow,2\n",
        ",x\n0,1\n1,2\n",
    ],
    ids=["blank lines", "semicolon", "tab", "byte order mark", "quotes", "unnamed text", "unnamed index"],
)
def test_common_kinds_of_csv(tmp_path: Path, content: str) -> None:
    np.testing.assert_array_equal(read_csv(written(tmp_path, content)).values, [[1], [2]])


FAULTS = [
    ("empty", "", "empty"),
    ("only blank", " \n\t\n\n", "empty"),
    ("header only", "x,y\n", "no rows"),
    ("no header", "1,2\n3,4\n", "line 1: numbers"),
    ("two number columns", "a,b\n1,2\n3,4\n", r"2 number columns \('a', 'b'\).*--column"),
    ("no number column", "a,b\nu,v\nw,x\n", "no number column.*'a', 'b'"),
    ("text", "t,x\nu,1\nv,2\nw,oops\ny,bad\nz,5\n", "line 4, column 'x': 'oops' is not a number; 2 such"),
    ("underscore", "x\n1\n2\n1_000\n", "line 4, column 'x': '1_000'"),
    ("NaN", "x\n1\nnan\nNA\n4\n", "line 3, column 'x': nan where .* 2 missing"),
    ("infinite", "x\n1\n2\n-inf\n4\n", "line 4, column 'x': -inf"),
    ("overflow", "x\n1\n2\n1e999\n4\n", "line 4, column 'x': 1e999"),
    ("blank cell", "t,x\na,1\nb,\nc,3\n", "line 3, column 'x': a blank"),
    ("blank line within", "x\n1\n\n3\n", "line 3, column 'x': a blank"),
    ("after a quoted line break", 't,x\n"a\nb",1\nc,?\nd,2\n', "line 4, column 'x'"),
    ("after leading blank lines", "\n\nx\n1\n?\n2\n", "line 5, column 'x'"),
    ("constant", "x\n2\n2\n2\n", "'x' is constant .2 in all 3 rows"),
    ("duplicate names", "x,y,x\n1,2,3\n", "line 1: column names .*'x'"),
    ("long row", "x,t\n1,a\n2,b,c\n", "line 3: 3 cells, .* 2 columns"),
    ("short row", "x,t\n1\n", "line 2: 1 cells"),
    ("not UTF-8", b"x,t\n1,a\n2,\xe9\n", "line 3: not UTF-8 .*0xe9"),
    ("binary", bytes(range(256)), "UTF-8"),
    ("unclosed quote", 'x,t\n1,a\n2,"b\n3,c\n' + "4,d\n" * 50_000, "line .*not a CSV file"),
]


@pytest.mark.parametrize(("content", "words"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_faults_in_the_file(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=rf"my.csv.*{words}"):
        read_csv(written(tmp_path, content))


@pytest.mark.parametrize(
    ("column", "features", "words"),
    [
        ("z", [], "no column 'z'; the file has 'a', 'b', 't'"),
        ("a", ["z"], "no column 'z'"),
        ("a", ["a"], "'a' is both"),
        ("a", ["b", "b"], "'b' is given twice"),
        ("t", [], "line 2, column 't': 'u'"),
        ("a", ["t"], "line 2, column 't': 'u'"),
    ],
)
def test_faults_in_what_is_asked_for(tmp_path: Path, column: str, features: list[str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_csv(written(tmp_path, "a,b,t\n1,2,u\n3,4,v\n"), column, features)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for call in (load, read_csv):
        with pytest.raises(DataError, match=r"gone\.csv: no such file"):
            call(str(tmp_path / "gone.csv"))
        with pytest.raises(DataError, match="is a folder"):
            call(str(tmp_path))
    with pytest.raises(DataError, match=r"logistic-2024\.csv: no such file"):
        load("logistic-2024.csv")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "x\n1\n2\n")

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(DataError, match=r"cannot be read .Permission denied"):
        read_csv(path)


def test_a_file_named_like_a_builtin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "henon").write_text("x\n1\n2\n")
    monkeypatch.chdir(tmp_path)
    assert len(load("henon").values) == 50_000
    assert len(load("./henon").values) == len(load(Path("henon")).values) == 2
