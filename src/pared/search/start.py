"""`pared run --search`: the network that a run starts from, found first, on data that the run does not test on."""

import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL

from pared import store
from pared.data import Fold, Series, Split, Table
from pared.database.registration import Work, registered
from pared.search.book import about_of
from pared.search.command import QUICK, search_into
from pared.search.defaults import configured, default_space
from pared.search.places import Place
from pared.search.record import record, shown
from pared.search.story import Config, Found, SearchSettings, base_settings, identity
from pared.search.subject import OfSeries, OfTable, subject_of
from pared.settings import RunConfig, TableConfig

C = TypeVar("C", RunConfig, TableConfig)
FOUND = ("window", "predict", "cell", "recurrent", "dense", "init", "hidden", "activation", "lr", "batch_size")
"""Options of a run that make no sense beside a search: it finds these, or takes what is usual."""


@dataclass(frozen=True)
class Start:
    """What a search found, of what, and where: `folder` holds its report, search.json, study.db and best.toml."""

    found: Found
    subject: OfSeries | OfTable
    folder: Path

    def settings(self, told: C) -> C:
        """The settings of the run: the winner's, and for all else what the run was told."""
        own = {name: getattr(self.subject.base, name) for name in ("window", "predict") if hasattr(told, name)}
        return configured(replace(told, **own), self.found.point)

    def blocks(self, config: Config) -> list[Split] | list[Fold]:
        """The blocks of the run: no trial of the search was trained, judged or chosen on their test rows."""
        found: Any = self.subject.blocks(config, True)  # type: ignore[arg-type]  # settings of its own kind
        return list(found)

    def section(self, run: Path) -> dict[str, Any]:
        """What the record of the run says of the search, as JSON holds it."""
        written = record(self.found)
        return {
            "trials": len(self.found.trials),
            "evaluations": self.found.evaluations,
            "winner": self.found.winner.number,
            "point": shown(self.found.point),
            "optimism": self.found.optimism,
            "finding": written["finding"],
            "notes": written["notes"],
            "report": Path(os.path.relpath(self.folder / store.REPORT, run)).as_posix(),
        }


def find_start(data: Series | Table, trials: int, told: Config, folder: Path, jobs: int, place: URL) -> Start:
    """Searches the network to start from, or goes on with the same search where one under `folder` was interrupted.

    `place` is the database that it is entered into.

    Raises: DataError as `search` does. Ctrl-C keeps what is finished and ends the command.
    """
    horizon = told.horizon if isinstance(told, RunConfig) else 1
    base = base_settings(data, QUICK["epochs"] if told.quick else None, horizon)
    settings = SearchSettings(trials=trials, seed=told.seed, quick=told.quick)
    name = f"search-{data.name}"
    target = _same(data, settings, base, folder, store.stem(name, told.seed))
    with nullcontext(target) if target else store.new_folder(folder, name, told.seed) as home:
        work = Work("search", data.name, place, seed=told.seed, settings=asdict(settings))
        with registered(work, home):
            found = search_into(Place(home), data, None, settings, base, jobs, "the same command goes on")
    subject = subject_of(data, base, ("error",), default_space(data, horizon))
    return Start(found, subject, home)


def _same(data: Series | Table, settings: SearchSettings, base: Config, folder: Path, stem: str) -> Path | None:
    """The folder of this very search, the number of its trials aside; None where there is none."""
    wanted = {**identity(data, settings, base), "trials": 0}
    for path in sorted(folder.glob(f"{stem}*")):
        about = about_of(path)
        if about and {**about, "trials": 0} == wanted:
            return path
    return None
