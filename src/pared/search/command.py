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
from pared.search.places import Place, found_in, without_password
from pared.search.record import record, shown
from pared.search.remote import search_in, search_on, take_part
from pared.search.samplers import SAMPLERS, Sampler
from pared.search.space import Space, space_from_dict
from pared.search.stopping import Rule, Stopping
from pared.search.story import EPOCHS, Config, Found, Jobs, SearchSettings, base_settings, search
from pared.search.subject import Objective, base_from_dict
from pared.search.workers import Queue
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

Engine = Literal["local", "ray", "queue"]
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
ENGINE_HELP = (
    "Who makes the trials: processes of this machine; actors on a Ray cluster (pip install 'pared[ray]'); or, beside "
    "processes of this machine, every `pared search-worker` on others, which meet in the database of --book."
)
WHERE_HELP = "The database that the search was given as --book, or the folder of the search."
SCHEMA_HELP = "The schema of the search, where several in that database take workers."
TAKING_HELP = "Trials at a time on this machine, each in a process; 0: one a processor."
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
        server = None if book is None else _server(book, "--book")
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
        workers = _filled(workers, min(processors(), settings.lag))
        work = Work("search", found.name, kept, seed=seed, settings=asdict(settings), parent=parent_of(file))
        again = shlex.join(_data_words(data, column, features, task))
        with nullcontext(target) if target else store.new_folder(folder, f"search-{found.name}", seed) as home:
            with registered(work, home):
                if engine == "queue" and (url := _meeting(home, server)):
                    err.print(escape(f"On other machines: pared search-worker {url}"), soft_wrap=True)
                search_into(Place(home, server), found, own, settings, base, workers, RESUME)
                ignore_interrupts()
            _summary(home, again)


def search_worker_command(
    where: Annotated[str, typer.Argument(metavar="WHERE", help=WHERE_HELP)],
    jobs: Annotated[int, typer.Option(help=TAKING_HELP, min=0)] = 0,
    schema: Annotated[str | None, typer.Option("--search", help=SCHEMA_HELP)] = None,
) -> None:
    """Take part in a search that `pared search --engine queue` drives on another machine.

    Trains what that search asks for until it has ended, or until Ctrl-C, which gives back what is under way; so does a
    worker that dies, after half a minute. The trials are the same, whoever makes them. Needs the versions of pared,
    torch and numpy that the driver has, and no data: they come from the database.
    """
    with clear_errors():
        database = search_on(_server(where, "WHERE"), schema) if "://" in where else search_in(Path(where))
        count = jobs or processors()
        err.print(escape(f"Taking part in {database}, {count} at a time; Ctrl-C leaves."), soft_wrap=True)
        try:
            made = take_part(database, count)
        except KeyboardInterrupt:
            ignore_interrupts()
            err.print("[yellow]Interrupted.[/] What was under way is given back; the search goes on without.")
            raise typer.Exit(INTERRUPTED) from None
        out.print(f"The search has ended; {made} evaluations were made here.")


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
    """What `search` takes as jobs; 0 are as many as is usual."""
    if engine == "ray":
        return Cluster(jobs, address)
    if address is not None:
        raise DataError("--address names a Ray cluster; add --engine ray")
    return Queue(jobs) if engine == "queue" else jobs


def _filled(workers: Jobs, usual: int) -> Jobs:
    """The same, with so many processes on this machine where none were told."""
    return Queue(workers.jobs or usual) if isinstance(workers, Queue) else workers or usual


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
    own = stored["base"]
    changes = {"epochs": base.epochs} | ({"horizon": options["horizon"]} if "horizon" in own else {})
    return base_from_dict(data, {**own, **changes})


def _meeting(folder: Path, server: URL | None) -> str:
    """What workers of other machines are told of a search."""
    known = found_in(Place(folder, server))
    url = known.url if known else server
    return "" if url is None else without_password(url).render_as_string()


def _server(book: str, option: str) -> URL:
    """The database of a book. Its password goes where libpq looks for one, and no further."""
    url = server_of(book, option)
    if url.get_backend_name() != "postgresql":
        raise DataError(
            f"{option} is for PostgreSQL, postgresql://user@host/database, got {shown_url(url)}; a search without one "
            "keeps its evaluations in study.db in the folder"
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
    except IsADirectoryError:
        raise DataError(f"{file} is a folder; a space is JSON, as search.json holds one under 'space'") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}") from error
    return space_from_dict(content.get("space", content) if isinstance(content, dict) else content)


def _data_words(data: str, column: str | None, features: str, task: str | None) -> list[str]:
    """DATA as it was given."""
    options = {"--column": column, "--features": features, "--task": task}
    return [data, *(word for name, value in options.items() if value for word in (name, value))]
