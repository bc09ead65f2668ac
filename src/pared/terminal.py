"""What the commands share: options, progress, Ctrl-C, and errors that end in one message."""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pared.surgery import StructureError
from pared.types import DataError, DivergedError

WRONG_INPUT, DIVERGED, INTERRUPTED = 2, 1, 130
ENDINGS = (signal.SIGINT, signal.SIGTERM)
Number = TypeVar("Number", int, float)

out, err = Console(highlight=False), Console(stderr=True, highlight=False)


def option(panel: str, text: str, *names: str, least: int | None = None) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, min=least)


def ignore_interrupts() -> None:
    """Writing what is finished and leaving takes seconds, in which a (second) Ctrl-C must not leave half a folder."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, of a kind that does not end the process once it was caught.

    Python remembers a plain KeyboardInterrupt that passes through `exec`, which libraries use as they compile, and ends
    the process by signal for it although it was handled.
    """


def heed_interrupts() -> None:
    """Ctrl-C, and SIGTERM as well, raises `Interrupted`, unless whoever started this process turned it off.

    `timeout`, systemd and batch systems end a program by SIGTERM; what is finished is to be kept then, too.
    """
    for number in ENDINGS:
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise Interrupted


@contextmanager
def clear_errors() -> Iterator[None]:
    """What a user can mend ends in one message and exit code 2, not in a traceback."""
    try:
        yield
    except DivergedError as error:
        err.print(f"[red]Diverged:[/] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(DIVERGED) from error
    except BrokenPipeError:
        raise  # `pared predict ... | head`: Typer leaves without a word
    except (DataError, StructureError, OSError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:  # reading has errors of its own
            text = f"{error.filename} cannot be written: {error.strerror}; choose another --out"
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = f"{error.strerror}; make room, and repeat the command, a search with --resume"
        err.print(f"[red]Error:[/] {escape(text)}", soft_wrap=True)
        raise typer.Exit(WRONG_INPUT) from error


@contextmanager
def shown_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar a stage with the time left; a line a stage where the output is not a terminal."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=err, disable=not err.is_terminal, speed_estimate_period=600) as bars:

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
                if not err.is_terminal:
                    err.print(f"{stage} ({total})")
            bars.update(tasks[stage], completed=done, total=total)

        yield show


def words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def numbers(name: str, text: str, kind: type[Number]) -> tuple[Number, ...]:
    try:
        return tuple(kind(word) for word in words(text))
    except ValueError as error:
        raise DataError(f"{name} takes numbers separated by commas, got {text!r}") from error


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
