"""The command line as tests use it: a small CSV file, runs that take seconds, calls in this process and in another."""

import os
import re
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from pared.cli import app

ROWS = 420
SMALL = (
    "--quick", "--epochs", "2", "--recurrent", "4,3", "--dense", "2", "--window", "3", "--ratios", "0.3", "--jobs", "1",
)  # fmt: skip
QUIET = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "100"}


def logistic(count: int = ROWS) -> list[float]:
    values = [0.3]
    for _ in range(count - 1):
        values.append(3.9 * values[-1] * (1 - values[-1]))
    return values


def write_csv(path: Path, changes: dict[int, str] | None = None, count: int = ROWS) -> Path:
    """Columns day (text), value (logistic map), extra and flat; `changes` replaces cells of value, by row from 1."""
    cells = [repr(value) for value in logistic(count)]
    for row, cell in (changes or {}).items():
        cells[row - 1] = cell
    rows = [f"d{row},{cell},{row % 11 / 7!r},1" for row, cell in enumerate(cells, 1)]
    path.write_text("\n".join(["day,value,extra,flat", *rows]) + "\n", encoding="utf-8")
    return path


def pared(*words: object) -> Result:
    """The command in this process: exit code, stdout, stderr."""
    return CliRunner().invoke(app, [str(word) for word in words], prog_name="pared")


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "pared", *map(str, words)]


def environment() -> dict[str, str]:
    return os.environ | QUIET | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def process(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(command(*words), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120)


def files(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, byte for byte (None: a folder)."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def assert_refused(result: Result, *parts: str, code: int = 2) -> None:
    """The command ended with one message that holds all the parts, and with no traceback."""
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    text = " ".join(result.stderr.replace("│", " ").split())
    assert len(re.findall("Error:|─ Error ─", text)) == 1
    assert "Traceback" not in text
    for part in parts:
        assert part in text, (part, text)
