"""`pared replicate`: a command a paper."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pared.database.connection import located
from pared.database.registration import Work, registered
from pared.options import Store
from pared.replicate import belsley, junk_neuron, parts
from pared.terminal import (
    INTERRUPTED,
    clear_errors,
    err,
    ignore_interrupts,
    option,
    out,
    processors,
    shown_progress,
    words,
)
from pared.types import Progress

app = typer.Typer(no_args_is_help=True, help="Repeat a published study with controls, ours beside the paper's.")


@app.callback()
def _replicate() -> None:
    """Repeat a published study with controls, ours beside the paper's."""


@app.command("junk-neuron")
def junk_neuron_command(
    quick: Annotated[bool, option("Study", "A few networks, about 2 minutes; supports no claim.", "--quick")] = False,
    budget: Annotated[str, option("Study", f"Training budgets: {', '.join(junk_neuron.BUDGETS)} (default: all).")] = "",
    systems: Annotated[str, option("Study", f"Systems: {', '.join(junk_neuron.SYSTEMS)} (default: all).")] = "",
    seeds: Annotated[
        int | None, option("Study", "Networks on each block (default 20; of the converged budget 5).")
    ] = None,
    folder: Annotated[
        Path, option("Output", "Where the folder replicate-junk-neuron[-quick] is made or found.", "--out")
    ] = Path("runs"),
    jobs: Annotated[int, option("Output", "Tasks done at a time; 0: one a processor.", least=0)] = 0,
    database: Store = None,
) -> None:
    """Deleting "junk neurons" (Huang, Gu & Yang 2022), replicated with controls on seven chaotic systems.

    Trains the paper's networks on its blocks under three budgets fixed beforehand (about an epoch, ten epochs, to
    convergence), deletes units by both readings of its index and by controls, with and without training after it, and
    sets its tables beside ours, each difference with a paired interval.

    Every finished piece is kept: the same command goes on where it was stopped, one that asks for more
    adds to it. Leaves report.html, results.json, settings.json and the folder parts. On two processors the two short
    budgets take half an hour, the converged one a little over an hour.
    """
    with clear_errors():
        place = located(database, folder)
        settings = junk_neuron.settings(quick, words(budget), words(systems), seeds)
        target = folder / ("replicate-junk-neuron" + ("-quick" if quick else ""))
        junk_neuron.open_folder(target, settings)
        _carry_out(
            Work("replication", "junk-neuron", place),
            target,
            lambda progress: junk_neuron.work(target, settings, jobs or processors(), progress),
            lambda: junk_neuron.report(target, settings),
        )


@app.command("belsley")
def belsley_command(
    quick: Annotated[bool, option("Study", "Two seeds, some minutes; supports no claim.", "--quick")] = False,
    problems: Annotated[str, option("Study", f"Problems: {', '.join(belsley.PROBLEMS)} (default: all).")] = "",
    seeds: Annotated[
        int | None, option("Study", "Networks of each problem (default 20); half of them where variants are chosen.")
    ] = None,
    folder: Annotated[
        Path, option("Output", "Where the folder replicate-belsley[-quick] is made or found.", "--out")
    ] = Path("runs"),
    jobs: Annotated[int, option("Output", "Tasks done at a time; 0: one a processor.", least=0)] = 0,
    database: Store = None,
) -> None:
    """Relevance of weights by collinearity (Grabovoy, Bakhteev & Strijov 2019), replicated over many seeds.

    Trains the paper's networks for Wine, Boston and synthetic data, removes weights in steps of 2 % by the paper's four
    methods, by other readings of Belsley's and by pared's own ways, without training after it, and sets the paper's
    table and figures beside ours with intervals over seeds. Variants of pared's ways are chosen on other data.

    Every finished piece is kept: the same command goes on where it was stopped, one that asks for more
    adds to it. Leaves report.html, results.json, settings.json and the folder parts.
    """
    with clear_errors():
        place = located(database, folder)
        settings = belsley.settings(quick, words(problems), seeds)
        target = folder / ("replicate-belsley" + ("-quick" if quick else ""))
        parts.open_folder(target, settings.as_dict())
        _carry_out(
            Work("replication", "belsley", place),
            target,
            lambda progress: belsley.work(target, settings, jobs or processors(), progress),
            lambda: belsley.report(target, settings),
        )


def _carry_out(own: Work, folder: Path, work: Callable[[Progress], None], report: Callable[[], list[str]]) -> None:
    """Works, writes the report of what is finished, also after Ctrl-C, and says what it says."""
    with registered(own, folder), shown_progress() as progress:
        stopped = False
        try:
            work(progress)
        except KeyboardInterrupt:
            stopped = True
        ignore_interrupts()
        found = report()
        for line in found:
            out.print(escape(line), soft_wrap=True)
        if stopped:
            err.print("[yellow]Interrupted.[/] What is finished is kept; the same command goes on.", soft_wrap=True)
            raise typer.Exit(INTERRUPTED)
