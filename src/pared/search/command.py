"""`pared search`: from data to the settings of the best network to start from."""

import json
import os
import re
import shlex
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from rich.markup import escape
from sqlalchemy import URL

from pared import store
from pared.data import Series, Table
from pared.database.connection import located, server_of
from pared.database.connection import shown as shown_url
from pared.database.registration import Work, parent_of, registered
from pared.options import Column, DataName, Features, Store, TaskName, read
from pared.search.actors import Cluster
from pared.search.book import about_of
from pared.search.defaults import default_space
from pared.search.page import write_page
from pared.search.places import Place, without_password
from pared.search.record import record, shown
from pared.search.samplers import SAMPLERS, Sampler
from pared.search.space import Space, space_from_dict
from pared.search.stopping import Rule, Stopping
from pared.search.story import EPOCHS, Config, Found, SearchSettings, base_settings, search
from pared.search.subject import Objective
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
from pared.types import DataError

Engine = Literal["local", "ray"]
Jobs = int | Cluster
RECORD, BEST = "search.json", "best.toml"
QUICK = {"trials": 12, "epochs": 15}
DEFAULT = SearchSettings()
RESUME = "the same command with --resume goes on"
TRIALS_HELP = f"Evaluations in all, those that confirm the best among them (default {DEFAULT.trials})."
SAMPLER_HELP = f"Who proposes points: {', '.join(SAMPLERS)}."
OBJECTIVES_HELP = f"What is made small: {', '.join(get_args(Objective))}, error first."
FILE_HELP = "Settings to begin at and to beat (default: a run's): the best.toml of a search, the config.toml of a run."
SPACE_HELP = "JSON file with the space to search, as search.json holds one under 'space'."
DROPOUT_HELP = "Search dropout, too (default: of tables only; series train many times slower with it)."
STOPPING_HELP = f"End hopeless trials early: {', '.join(get_args(Rule))}."
EPOCHS_HELP = f"Epochs of a training (default {EPOCHS})."
LAG_HELP = (
    "Trials asked for before the first of them is told: no more are trained at a time. It decides the trials; the "
    "number of jobs does not."
)
JOBS_HELP = "Trials at a time, each in a process; 0: one a processor, up to the lag."
ENGINE_HELP = "Who makes the trials: processes of this machine, or actors on a Ray cluster (pip install 'pared[ray]')."
ADDRESS_HELP = "HOST:PORT of the Ray cluster, or auto (default: RAY_ADDRESS, else Ray is started here)."
RESUME_HELP = "Go on with the newest search of DATA and --seed under --out; options left out are as they were."
BOOK_HELP = "Keep evaluations in PostgreSQL, postgresql://user@host/database, not in study.db in the folder."
QUICK_HELP = f"{QUICK['trials']} trials of {QUICK['epochs']} epochs: soon done, but supports no claim."


def search_command(  # noqa: PLR0913  (one parameter an option)
    context: typer.Context,
    data: DataName,
    column: Column = None,
    features: Features = "",
    task: TaskName = None,
    horizon: Annotated[int, option("Data", "How many steps ahead to forecast.")] = 1,
    trials: Annotated[int | None, option("Search", TRIALS_HELP, least=1)] = None,
    sampler: Annotated[Sampler, option("Search", SAMPLER_HELP)] = DEFAULT.sampler,
    objectives: Annotated[str, option("Search", OBJECTIVES_HELP)] = ",".join(DEFAULT.objectives),
    space: Annotated[Path | None, option("Search", SPACE_HELP)] = None,
    dropout: Annotated[bool | None, option("Search", DROPOUT_HELP)] = None,
    levels: Annotated[int, option("Search", "Grid: values of a continuous range.", least=2)] = DEFAULT.levels,
    file: Annotated[Path | None, option("Search", FILE_HELP, "--config")] = None,
    stopping: Annotated[Rule, option("Search", STOPPING_HELP)] = "none",
    warmup: Annotated[int, option("Search", "Epochs before a trial may end early.")] = DEFAULT.stopping.warmup,
    retries: Annotated[int, option("Search", "How often a trial that failed is tried again.")] = DEFAULT.retries,
    lag: Annotated[int, option("Search", LAG_HELP)] = DEFAULT.lag,
    epochs: Annotated[int | None, option("Training", EPOCHS_HELP)] = None,
    seed: Annotated[int, option("Evidence", "The same seed gives the same search.")] = DEFAULT.seed,
    quick: Annotated[bool, option("Evidence", QUICK_HELP, "--quick")] = False,
    folder: Annotated[Path, option("Output", "Where the folder search-DATA-seedN is made.", "--out")] = Path("runs"),
    jobs: Annotated[int, option("Output", JOBS_HELP, least=0)] = 0,
    engine: Annotated[Engine, option("Output", ENGINE_HELP)] = "local",
    address: Annotated[str | None, option("Output", ADDRESS_HELP)] = None,
    resume: Annotated[bool, option("Output", RESUME_HELP, "--resume")] = False,
    book: Annotated[str | None, option("Output", BOOK_HELP, "--book")] = None,
    database: Store = None,
) -> None:
    """Find the best network to start from for DATA: its layers, its training, its regularisation.

    Tries networks, all on the same seeds and on the older half of the rolling blocks (of a table: on folds that leave a
    fifth of the rows out), trains the best few again on fresh seeds, crowns the one with the least error there, and
    tests it once, beside the settings that it began at, on data that no trial has seen.

    Every evaluation is kept as it is made: after a crash, `--resume` goes on to the same result. Leaves report.html,
    search.json, study.db (for optuna-dashboard) and best.toml (for `pared run DATA --config`) in a folder under --out.
    """
    options: dict[str, Any] = {
        "trials": trials,
        "sampler": sampler,
        "objectives": words(objectives),
        "levels": levels,
        "stopping": stopping,
        "warmup": warmup,
        "retries": retries,
        "lag": lag,
        "epochs": epochs,
        "horizon": horizon,
        "quick": quick,
    }
    given = {name for name in (*options, "dropout") if _is_given(context, name)}
    if quick:
        options |= {name: value for name, value in QUICK.items() if name not in given}
        given |= QUICK.keys()
    with clear_errors():
        workers = _workers(engine, address, jobs)
        found = read(data, column, words(features), task)
        kept = located(database, folder)
        server = _server(book)
        target = _newest(folder, found.name, seed) if resume else None
        stored = about_of(Place(target, server)) if target else None
        options |= {name: value for name, value in _options(stored).items() if name not in given}
        base = _base(found, file, stored, options, given)
        own = _space(space, None if "dropout" in given else stored)
        own = own or default_space(found, getattr(base, "horizon", 1), dropout)
        settings = SearchSettings(
            trials=DEFAULT.trials if options["trials"] is None else options["trials"],
            sampler=options["sampler"],
            seed=seed,
            objectives=tuple(options["objectives"]),
            stopping=Stopping(options["stopping"], options["warmup"]),
            retries=options["retries"],
            levels=options["levels"],
            lag=options["lag"],
            quick=options["quick"],
        )
        work = Work("search", found.name, kept, seed=seed, settings=asdict(settings), parent=parent_of(file))
        again = shlex.join(_data_words(data, column, features, task))
        with nullcontext(target) if target else store.new_folder(folder, f"search-{found.name}", seed) as home:
            with registered(work, home):
                place, usual = Place(home, server), min(processors(), settings.lag)
                search_into(place, found, own, settings, base, workers or usual, RESUME)
                ignore_interrupts()
            _summary(home, again)


def search_into(
    place: Place, data: Series | Table, space: Space | None, settings: SearchSettings, base: Config, jobs: Jobs, on: str
) -> Found:
    """A search shown on the screen, and its record, page and best settings in its folder, written anew if resumed.

    Ctrl-C keeps what is finished, says `on`: how to go on, and ends the command.
    """
    started, home = time.perf_counter(), place.folder
    try:
        with shown_progress() as progress:
            found = search(data, space, settings, base, place, jobs, progress)
        store.write_record(home, record(found) | {"seconds": {"total": time.perf_counter() - started}}, RECORD)
        write_page(json.loads((home / RECORD).read_text(encoding="utf-8")), home / store.REPORT)
        assert found.config is not None
        store.write_settings(home / BEST, found.config)
    except KeyboardInterrupt:
        ignore_interrupts()
        err.print(f"[yellow]Interrupted.[/] What is finished is kept in {escape(str(home))}; {on}.", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    return found


def _summary(home: Path, data: str) -> None:
    """The winner and what to do with it, on the screen."""
    content = json.loads((home / RECORD).read_text(encoding="utf-8"))
    winner = next(trial for trial in content["trials"] if trial["trial"] == content["winner"])
    lines = [
        f"settings: {shown(winner['point'])}",
        f"report: {home / store.REPORT}",
        f"to prune it: pared run {data} --config {home / BEST}",
    ]
    out.print()
    out.print(f"[bold]{escape(content['finding'])}[/]", soft_wrap=True)
    for note in content["notes"]:
        out.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    for line in lines:
        out.print(escape(line), soft_wrap=True)


def _is_given(context: typer.Context, name: str) -> bool:
    return getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"


def _workers(engine: Engine, address: str | None, jobs: int) -> Jobs:
    """What `search` takes as jobs."""
    if engine == "ray":
        return Cluster(jobs, address)
    if address is not None:
        raise DataError("--address names a Ray cluster; add --engine ray")
    return jobs


def _newest(base: Path, name: str, seed: int) -> Path:
    """The folder of the newest search of these data. Raises DataError where there is none."""
    stem = re.escape(store.stem(f"search-{name}", seed))
    found = [
        (int(match[1] or 1), path)
        for path in base.glob("*")
        if (match := re.fullmatch(f"{stem}(?:-(\\d+))?", path.name))
    ]
    if not found:
        raise DataError(f"there is no search of {name} with seed {seed} in {base} to go on with; leave --resume out")
    return max(found)[1]


def _options(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options that a stored search was begun with."""
    if stored is None:
        return {}
    told = stored["settings"]
    plain = {name: told[name] for name in ("sampler", "objectives", "levels", "retries", "lag", "quick")}
    stopping = {"stopping": told["stopping"]["rule"], "warmup": told["stopping"]["warmup"]}
    base = {"epochs": stored["base"]["epochs"], "horizon": stored["base"].get("horizon", 1)}
    return plain | stopping | base | {"trials": stored["trials"]}


def _base(
    data: Series | Table,
    file: Path | None,
    stored: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    given: set[str],
) -> Config:
    """The settings to begin at and to beat: those of a file, else of a stored search, else a run's.

    Raises DataError for a file that cannot be read, and for settings of other data.
    """
    base = base_settings(data, options["epochs"], options["horizon"])
    if file is not None:
        found = store.read_settings(file)
        if not isinstance(found, type(base)):
            raise DataError(f"{file} holds the settings of a network for other data than these")
        return replace(found, **{name: options[name] for name in ("epochs", "horizon") if name in given})
    if stored is None:
        return base
    own = {name: tuple(value) if isinstance(value, list) else value for name, value in stored["base"].items()}
    return type(base)(**own | {"epochs": base.epochs} | ({"horizon": options["horizon"]} if "horizon" in own else {}))


def _server(book: str | None) -> URL | None:
    """The database of --book. Its password goes where libpq looks for one, and no further."""
    if book is None:
        return None
    url = server_of(book, "--book")
    if url.get_backend_name() != "postgresql":
        raise DataError(
            f"--book is for PostgreSQL, postgresql://user@host/database, got {shown_url(url)}; leave it out to keep "
            "evaluations in study.db in the folder"
        )
    if password := url.password or url.query.get("password"):
        os.environ["PGPASSWORD"] = str(password)
    return without_password(url)


def _space(file: Path | None, stored: Mapping[str, Any] | None) -> Space | None:
    """The space of a file, else that of a stored search. Raises DataError where it cannot be read."""
    if file is None:
        return space_from_dict(stored["space"]) if stored else None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; a space is JSON, as search.json holds one under 'space'") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}") from error
    return space_from_dict(content.get("space", content) if isinstance(content, dict) else content)


def _data_words(data: str, column: str | None, features: str, task: str | None) -> list[str]:
    """DATA as it was given."""
    options = {"--column": column, "--features": features, "--task": task}
    return [data, *(word for name, value in options.items() if value for word in (name, value))]
