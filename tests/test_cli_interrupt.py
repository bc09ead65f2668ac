"""Ctrl-C keeps what is finished, leaves nothing where nothing is, and always leaves soon."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from commands import SMALL, command, environment, files, pared, write_csv

pytestmark = pytest.mark.slow
KERNEL, LOOP = "4,3", "128"  # units: the compiled kernel trains small networks only
WAYS = [(KERNEL, 1), (KERNEL, 2), (LOOP, 1), (LOOP, 2)]  # in this thread, in threads, in this thread, in processes


@pytest.fixture
def here(tmp_path) -> Path:
    write_csv(tmp_path / "my.csv")
    return tmp_path


def interrupted(
    here: Path, stage: str, *words: object, presses: int = 1, terminate: bool = False
) -> tuple[int, str, float]:
    """Starts a run, presses Ctrl-C two seconds after a stage began; returns exit code, messages, seconds to the end.

    Like a terminal it signals the whole process group, so that workers hear it too; `terminate` sends SIGTERM to the
    command alone, as `timeout` does.
    """
    log = here / "messages"
    options = ("--column", "value", *SMALL, *words)
    with log.open("w") as stream:
        run = subprocess.Popen(
            command("run", "my.csv", *options),
            cwd=here,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
        )
    try:
        while stage not in log.read_text():
            assert run.poll() is None, log.read_text()
            time.sleep(0.05)
        time.sleep(2)
        pressed = time.monotonic()
        for _ in range(presses):
            if terminate:
                run.terminate()
            else:
                os.killpg(run.pid, signal.SIGINT)
            time.sleep(0.3)
        code = run.wait(timeout=60)
        took = time.monotonic() - pressed
        assert vanishes(run.pid)  # no worker is left
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    text = log.read_text()
    log.unlink()
    return code, text, took


def vanishes(group: int, seconds: float = 15) -> bool:
    """Whether a process group ends in time; init may take a while to bury its dead."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(("units", "jobs"), WAYS)
def test_what_is_finished_is_kept(here, units, jobs):
    words = ("--recurrent", units, "--jobs", jobs, "--refit-epochs", 10_000_000)
    code, text, took = interrupted(here, "cutting and refitting", *words, presses=jobs)
    assert code == 130
    assert took < 10
    assert "Traceback" not in text
    assert "Interrupted. What 10 finished networks show is kept in runs/my-seed0" in text
    folder = here / "runs" / "my-seed0"
    assert {path.name for path in folder.iterdir()} == {"outcomes.json", "report.html", "provenance.json"}
    record = json.loads((folder / "outcomes.json").read_text())
    assert {o["arm"] for o in record["outcomes"]} == {"full"}
    assert len(record["outcomes"]) == len(record["blocks"]) == 10
    assert all("validation.nrmse" in o["metrics"] for o in record["outcomes"])
    assert not any(name.startswith("test.") for o in record["outcomes"] for name in o["metrics"])
    assert "Interrupted" in record["finding"]
    assert "interrupted" in record["notes"][0]
    assert "Interrupted" in (folder / "report.html").read_text()
    page = (folder / "report.html").read_bytes()
    assert pared("report", folder).exit_code == 0
    assert (folder / "report.html").read_bytes() == page


@pytest.mark.parametrize(("units", "jobs"), WAYS)
def test_nothing_is_left_where_nothing_was_finished(here, units, jobs):
    before = files(here)
    words = ("--recurrent", units, "--jobs", jobs, "--epochs", 10_000_000, "--out", "new/folder")
    code, text, took = interrupted(here, "training the full networks", *words)
    assert code == 130
    assert took < 10
    assert "Traceback" not in text
    assert "nothing is left behind" in text
    assert files(here) == before


@pytest.mark.parametrize(("units", "jobs"), [(KERNEL, 2), (LOOP, 2)])
def test_sigterm_is_as_ctrl_c(here, units, jobs):
    words = ("--recurrent", units, "--jobs", jobs, "--epochs", 10_000_000, "--out", "new/folder")
    before = files(here)
    code, text, took = interrupted(here, "training the full networks", *words, terminate=True)
    assert (code, "nothing is left behind" in text, files(here)) == (130, True, before)
    assert took < 10


def test_an_interrupt_while_a_library_compiles_can_be_handled():
    code = """
from pared.cli import heed_interrupts
heed_interrupts()
try:
    exec("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
except KeyboardInterrupt:
    print("handled")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment())
    assert (done.returncode, done.stdout) == (0, "handled\n")
