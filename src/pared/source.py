"""Where data come from, and the data as a run had them: what commands that take up a run share."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pared import run, run_table, store
from pared.data import TABLES, Block, Series, Table, builtin
from pared.database import provenance
from pared.options import Kind, read
from pared.search.defaults import default_space
from pared.search.subject import fingerprint, of_series, of_table
from pared.settings import RunConfig, TableConfig
from pared.types import DataError

Config = RunConfig | TableConfig


@dataclass(frozen=True)
class Source:
    """Where data come from, as the command line says it."""

    data: str
    column: str | None = None
    features: tuple[str, ...] = ()
    task: Kind | None = None

    @property
    def name(self) -> str:
        """The name without its folder."""
        return Path(self.data).name

    @property
    def words(self) -> str:
        """What follows `pared run`."""
        options = {"column": self.column, "features": ",".join(self.features), "task": self.task}
        return " ".join([shlex.quote(self.data), *(f"--{k} {shlex.quote(v)}" for k, v in options.items() if v)])

    def read(self) -> Series | Table:
        """Raises DataError where it cannot be read."""
        return read(self.data, self.column, self.features, self.task)


def source_of(folder: Path, record: Mapping[str, Any], settings: Config, data: str | None, option: str) -> Source:
    """Where the data of a finished run are. `data`, which `option` gave, says where a CSV file is, of which a run knows
    the name only.

    Raises DataError for a damaged record, and for data that cannot be found.
    """
    try:
        name, columns = str(record["data"]["name"]), tuple(map(str, record["data"]["columns"]))
    except (KeyError, TypeError) as error:
        raise store.damaged(folder / store.RECORD, error) from error
    built_in = data is None and is_builtin(name)
    if not built_in and not Path(data or name).is_file():
        raise DataError(f"{folder} was made from {name}, and {data or name} is no file here; say where with {option}")
    task = settings.predicts if isinstance(settings, TableConfig) else None
    return Source(name) if built_in else Source(data or name, columns[0], columns[1:], task)


def check_origin(folder: Path, data: Series | Table) -> None:
    """Raises DataError where data are not those that a run was made from, as far as it kept their fingerprint."""
    made = provenance.read(folder)
    if made and made.fingerprint not in (None, fingerprint(data)["sha256"]):
        raise DataError(
            f"{data.name} does not hold the data that {folder} was made from; say where those are with --data"
        )


def is_builtin(name: str) -> bool:
    """Whether data of this name come with pared."""
    try:
        return name in TABLES or bool(builtin(name))
    except DataError:  # a file's name
        return False


def blocks_of(data: Series | Table, settings: Config, searched: bool = False) -> Sequence[Block]:
    """The blocks of a run; of one that began with a search (`searched`) those that the search left for it.

    Raises DataError where data and settings do not go together, and as `run.prepare` and `run_table.job` do.
    """
    if isinstance(data, Series) and isinstance(settings, RunConfig):
        if not searched:
            return run.prepare(data, settings)
        return of_series(data, settings, ("error",), default_space(data, settings.horizon)).blocks(settings, True)
    if isinstance(data, Table) and isinstance(settings, TableConfig):
        if not searched:
            return run_table.job(data, settings).blocks
        return of_table(data, settings, ("error",)).blocks(settings, True)
    raise DataError(f"the settings are those of a network for other data than {data.name}")
