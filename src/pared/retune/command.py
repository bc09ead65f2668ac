"""`pared retune`: whether new data ask for another model, which, and whether it may take the old one's place."""

import json
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.markup import escape
from sqlalchemy import URL

from pared import store
from pared.database.connection import located
from pared.database.folders import RETUNE
from pared.database.registration import Work, parent_of, registered
from pared.options import Store
from pared.report.summary import Record
from pared.report.tables import plural
from pared.retune.contest import Contender, Ring, contest
from pared.retune.deployed import Data, Deployed, Rows, read_deployed, sha256, size
from pared.retune.drift import change
from pared.retune.page import write_page
from pared.retune.record import answered, earlier, reasons, record, spent, without
from pared.retune.rows import FEWEST, needed, new_rows, shared
from pared.search.story import SearchSettings
from pared.surgery import Plan
from pared.terminal import (
    INTERRUPTED,
    clear_errors,
    err,
    ignore_interrupts,
    option,
    out,
    processors,
    shown_progress,
)
from pared.types import DataError, Progress

KEPT = 3
"""Exit code: the old model stays."""
SHARE = 0.2
"""What is searched with, as a share of the old search's evaluations."""
TRIALS, FEWEST_TRIALS = round(SHARE * SearchSettings().trials), 5
TRIALS_HELP = f"Evaluations of the search from the old best (default: a fifth of the old search's, or {TRIALS})."
DATA_HELP = "The new data: a CSV file or a built-in name (default: where the old ones were, grown since)."
OLD_HELP = "The data that RUN was made from, where the new ones do not begin with them and they have moved."
FORCE_HELP = "Hold the contest whether or not anything has changed; not twice on the same data."
QUIET_HELP = "Say nothing but errors and, where a network is promoted, its folder."
OUT_HELP = "Where the folder retune-DATA-seedN is made (default: beside RUN)."


def retune_command(  # noqa: PLR0913  (one parameter an option)
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A folder made by `pared run`, or by `pared retune` that promoted.")
    ],
    data: Annotated[str | None, option("Data", DATA_HELP)] = None,
    old: Annotated[str | None, option("Data", OLD_HELP)] = None,
    trials: Annotated[int | None, option("Search", TRIALS_HELP, least=1)] = None,
    force: Annotated[bool, option("Search", FORCE_HELP, "--force")] = False,
    seed: Annotated[int, option("Evidence", "The same seed gives the same result.", least=0)] = 0,
    quiet: Annotated[bool, option("Output", QUIET_HELP, "--quiet")] = False,
    folder: Annotated[Path | None, option("Output", OUT_HELP, "--out")] = None,
    jobs: Annotated[int, option("Output", "Networks trained at a time; 0: one a processor.", least=0)] = 0,
    database: Store = None,
) -> None:
    """Tune the model of RUN again on new data, and promote another only where it is better beyond chance.

    Tells new rows from those that RUN had, and whether anything changed: a column's distribution, or the old model's
    loss. If so, trains the old configuration anew, searches from the old best, and lets the best on validation rows
    challenge the old model on the newest rows, which nothing has seen. RUN stays as it is.

    Data that were looked at once are not looked at again: the same command gives the answer of the first time, its exit
    code and folder, too. --force looks again where no contest was held, never where one was.

    Leaves report.html and retune.json in a new folder, and of a promoted network model.safetensors, plan.json and
    config.toml (for `pared predict` and `pared run DATA --config`). Exit code 0: promoted; 3: the old model stays; 2:
    input that cannot be used; 130: interrupted.
    """
    with clear_errors():
        deployed = read_deployed(run)
        base = folder or (run.parent if run.name else run.resolve().parent)
        new = deployed.read(data or deployed.name)
        former = deployed.former(new, old)
        before = earlier(base, deployed)
        if (given := answered(new, before, force)) is not None:
            raise typer.Exit(_repeated(*given, quiet))
        fresh = _fresh(deployed, former, new, before)
        if isinstance(fresh, str):
            _say(quiet, fresh)
            raise typer.Exit(KEPT)
        count = trials or (max(FEWEST_TRIALS, round(SHARE * deployed.evaluations)) if deployed.evaluations else TRIALS)
        ring = Ring(deployed, new, shared(fresh, new), count, seed, jobs or processors())
        work = _work(ring, located(database, base))
        torch.set_num_threads(1)
        with store.new_folder(base, f"retune-{new.name}", seed) as target:
            with registered(work, target), _progress(quiet) as progress:
                promoted = _tuned(ring, former, force, target, progress)
            _summary(target, quiet)
        if not promoted:
            raise typer.Exit(KEPT)


def _repeated(path: Path, content: Record, quiet: bool) -> int:
    """Gives the answer that these data had before again; the exit code."""
    _say(quiet, f"These data were looked at before, in {path}; nothing was done. {content['finding']}")
    if not content["promoted"]:
        return KEPT
    _say(False, str(path) if quiet else _new_model(path))
    return 0


def _fresh(deployed: Deployed, former: Data, new: Data, before: list[tuple[Path, Record]]) -> Rows | str:
    """The new rows, or why there is nothing to do. Raises DataError for other data that are too short."""
    fresh = new_rows(new, former)
    if len(fresh) == size(new) < FEWEST:
        raise DataError(f"{new.name}: {size(new)} rows are too few; at least {FEWEST} new ones are needed")
    left = without(fresh, spent(new, before))
    if len(left) < needed(deployed.trained):
        told = f"{plural(len(left), 'new row')} of the {needed(deployed.trained)} that a look is worth"
        return f"Keep the old model: {told}; nothing was done."
    return left


def _work(ring: Ring, database: URL) -> Work:
    return Work(
        kind="retuning",
        data=ring.new.name,
        database=database,
        task=ring.deployed.settings.task.name,
        seed=ring.seed,
        settings={"trials": ring.trials},
        fingerprint=sha256(ring.new),
        parent=parent_of(ring.deployed.folder / store.CONFIG),
    )


def _progress(quiet: bool) -> AbstractContextManager[Progress]:
    return nullcontext(lambda stage, done, total: None) if quiet else shown_progress()


def _tuned(ring: Ring, former: Data, force: bool, target: Path, progress: Progress) -> bool:
    """Looks, holds the contest if there is a reason to, and writes what came of it. Whether a network was promoted."""
    started = time.perf_counter()
    try:
        changed = change(ring.deployed, former, ring.new, ring.shares.looked_at)
        found = contest(ring, progress) if changed.found or force else None
    except KeyboardInterrupt:
        ignore_interrupts()
        err.print("[yellow]Interrupted.[/] Nothing is left behind; the old model stays.")
        raise typer.Exit(INTERRUPTED) from None
    ignore_interrupts()
    content = record(ring, changed, found, force) | {"seconds": {"total": time.perf_counter() - started}}
    store.write_record(target, content, RETUNE)
    write_page(json.loads((target / RETUNE).read_text(encoding="utf-8")), target / store.REPORT)
    if found is not None and found.won and found.challenger is not None:
        _write_model(target, found.challenger)
        return True
    return False


def _write_model(target: Path, challenger: Contender) -> None:
    """The network with the median error on validation rows, as `pared run` writes one."""
    model, config = challenger.models[challenger.median], challenger.config
    told = asdict(config)
    if model.encoding is None:
        saved = {"run": told | {"window": model.window}, "scaler": asdict(model.scaler)}
    else:
        saved = {"table": told, "encoding": asdict(model.encoding), "scaler": asdict(model.scaler)}
    store.write_model(target, model.network, Plan({}), None, saved)


def _summary(target: Path, quiet: bool) -> None:
    """What was found, on the screen; of a promotion its folder alone where it is to be quiet."""
    content = json.loads((target / RETUNE).read_text(encoding="utf-8"))
    if quiet:
        _say(not content["promoted"], str(target))
        return
    out.print()
    for line in reasons(content):
        _say(False, line)
    out.print(f"[bold]{escape(content['finding'])}[/]", soft_wrap=True)
    for note in content["notes"]:
        out.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    _say(False, f"report: {target / store.REPORT}")
    if content["promoted"]:
        _say(False, _new_model(target))


def _new_model(folder: Path) -> str:
    return f"the new model: {folder}; to make it smaller: pared run DATA --config {folder / store.CONFIG}"


def _say(quiet: bool, line: str) -> None:
    if not quiet:
        out.print(escape(line), soft_wrap=True)
