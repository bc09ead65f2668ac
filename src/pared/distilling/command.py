"""The command `pared distill`: a smaller student of a run's network, taught and alone; the better one is saved."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.markup import escape

from pared import store
from pared.database.connection import located
from pared.database.registration import Work, of_job, parent_of, registered
from pared.distilling.lesson import (
    Lesson,
    Which,
    is_classification,
    lesson,
    student_settings,
    students,
    taken,
    teacher_of,
    teaching,
)
from pared.distilling.page import write_page
from pared.distilling.record import build, finding, notes, shipped_key, write
from pared.options import Store, is_given, refuse_senseless
from pared.settings import TableConfig
from pared.surgery import Plan
from pared.terminal import (
    INTERRUPTED,
    clear_errors,
    err,
    ignore_interrupts,
    numbers,
    option,
    out,
    processors,
    shown_progress,
)
from pared.types import DataError, Progress

RUN_HELP = "A folder made by `pared run`."
DATA_HELP = "Where the CSV file is that RUN was made from; a run knows its name only."
TEACHER_HELP = "full: the network before the cut, trained again as it was; shipped: the one that is saved."
LAYERS_HELP = "(default: as many as the run's cut network has)."
ALPHA_HELP = "The teacher's share of the loss (default: of classes 0.9, of numbers 0.5)."
BOUND_HELP = "Numbers: the teacher as a bound to get under, with this weight, instead of --alpha."
LAYERS = ("recurrent", "dense", "hidden")


def distill_command(  # noqa: PLR0913  (one parameter an option)
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help=RUN_HELP)],
    data: Annotated[str | None, option("Data", DATA_HELP)] = None,
    which: Annotated[Which, option("Teaching", TEACHER_HELP, "--teacher")] = "full",
    recurrent: Annotated[str, option("Student", f"Units of its recurrent layers {LAYERS_HELP}")] = "",
    dense: Annotated[str, option("Student", f"Units of its hidden dense layers {LAYERS_HELP}")] = "",
    hidden: Annotated[str, option("Student", f"Table: units of its hidden layers {LAYERS_HELP}")] = "",
    temperature: Annotated[float, option("Teaching", "Classes: how much the teacher's answers are softened.")] = 4.0,
    alpha: Annotated[float | None, option("Teaching", ALPHA_HELP)] = None,
    bound: Annotated[float | None, option("Teaching", BOUND_HELP)] = None,
    epochs: Annotated[int, option("Training", "Epochs of a student; 0: as many as the run's.", least=0)] = 0,
    seeds: Annotated[int, option("Evidence", "Pairs of students, each from its own start.", least=2)] = 10,
    seed: Annotated[int, option("Evidence", "First seed; the same seed gives the same results.", least=0)] = 0,
    folder: Annotated[Path, option("Output", "Where the new folder is made.", "--out")] = Path("runs"),
    jobs: Annotated[int, option("Output", "Networks trained at a time; 0: one a processor.", least=0)] = 0,
    database: Store = None,
) -> None:
    """Train a smaller student on the answers of a run's network, beside the same student trained alone.

    Both take as many multiply-adds, from the same starts, on the block of the network that the run shipped; the kind
    with the smaller validation error is saved, whether it was taught or not, and both are tested once.

    Leaves report.html, distill.json, plan.json, model.safetensors and config.toml in a new folder under --out, which
    `pared predict` takes.
    """
    with clear_errors(), _leaving_nothing():
        torch.set_num_threads(1)
        place, subject = located(database, folder), taken(run, data)
        is_table, classes = isinstance(subject.config, TableConfig), is_classification(subject)
        layers = ("recurrent", "dense") if is_table else ("hidden",)
        refuse_senseless(context, (*layers, "bound" if classes else "temperature"), "for this run's data")
        if bound is not None and alpha is not None:
            raise DataError("--alpha and --bound are two ways to teach; leave one away")
        how = teaching(classes, temperature, (0.9 if classes else 0.5) if alpha is None else alpha, bound)
        texts = {"recurrent": recurrent, "dense": dense, "hidden": hidden}
        given = {name: numbers(f"--{name}", texts[name], int) for name in LAYERS if is_given(context, name)}
        config = student_settings(subject, given, epochs)
        with shown_progress() as show:
            show("preparing the teacher", 0, 1)
            teacher = teacher_of(subject, which)
            show("preparing the teacher", 1, 1)
            own = lesson(subject, config, teacher, how, range(seed, seed + seeds))
            work = of_job("distillation", own.job, place, subject.data, parent_of(run / store.CONFIG))
            _distill(own, work, run, which, folder, jobs or processors(), show)


@contextmanager
def _leaving_nothing() -> Iterator[None]:
    """Ctrl-C ends in one message; once the students are there, it is ignored."""
    try:
        yield
    except KeyboardInterrupt as error:
        err.print("[yellow]Interrupted[/] before the students were trained; nothing is left behind.")
        raise typer.Exit(INTERRUPTED) from error


def _distill(own: Lesson, work: Work, run: Path, which: Which, base: Path, jobs: int, show: Progress) -> None:
    started = time.perf_counter()
    with store.new_folder(base, f"distill-{own.job.name}", own.seeds[0]) as target, registered(work, target):
        found = students(own, jobs, show)
        ignore_interrupts()
        record = build(own, found, run.resolve(), which, time.perf_counter() - started)
        store.write_model(target, found.fits[shipped_key(own, found)].model, Plan({}), None, own.job.saved(own.block))
        write(record, target)
        write_page(record, target)
    for line in [finding(record), *(f"Note: {note}" for note in notes(record)), f"report: {target / store.REPORT}"]:
        out.print(escape(line), soft_wrap=True)
