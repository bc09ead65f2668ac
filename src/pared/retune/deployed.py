"""The model in use: read from the folder of a run, or of a tuning that promoted its network."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pared import run, store
from pared.data import TABLES, Encoding, Scaler, Series, Table, classic, load
from pared.data.examples import read_encoded
from pared.data.folds import scaled_inputs
from pared.data.tables import listed
from pared.database import provenance
from pared.database.folders import RETUNE, SEARCH
from pared.evaluation.forecast import floats
from pared.evaluation.metrics import Floats
from pared.search.space import Point, Space, space_from_dict
from pared.search.subject import fingerprint
from pared.settings import RunConfig, TableConfig
from pared.source import Config, blocks_of, is_builtin, source_of
from pared.types import DataError

BEST = 5
"""Most points of an old search that are evaluated again."""
Rows = NDArray[np.int64]
Data = Series | Table


@dataclass(frozen=True)
class Model:
    """A network and what it takes to use it: `window` of a series, `encoding` of a table."""

    network: nn.Module
    scaler: Scaler
    window: int = 0
    encoding: Encoding | None = None

    def losses(self, data: Data) -> Floats:
        """(rows,): squared error of each row in units of the data, of classes 1 where wrong; NaN: no prediction."""
        if isinstance(data, Series):
            found = np.full(len(data.values), np.nan)
            for row, actual, forecast in run.forecast_rows(self.network, self.window, self.scaler, data, 1):
                if actual != "":
                    found[int(row) - 1] = (float(forecast) - float(actual)) ** 2
            return found
        task = TableConfig(data.task).task
        predicted = floats(task.predictor(self.network, self.scaler)(scaled_inputs(data.inputs, self.scaler)))
        if data.encoding.classes:
            return np.where(np.isfinite(predicted), predicted != data.target, np.nan).astype(np.float64)
        squared: Floats = (self.scaler.raw(predicted) - data.target) ** 2
        return squared


@dataclass(frozen=True)
class Deployed:
    """The model in use, how it came about and what it was made from.

    `rows` and `sha256` (None: not known) are those of its data, `trained` how many rows it was trained on, `searched`
    whether a search came first; `evaluations`, `space` and `points` are that search's, points best first. `tested`
    are the rows that it was tested on, where its record says so.
    """

    folder: Path
    id: str
    name: str
    columns: tuple[str, ...]
    settings: Config
    model: Model
    rows: int
    sha256: str | None
    trained: int
    block: int
    searched: bool
    tested: tuple[int, ...] | None
    evaluations: int = 0
    space: Space | None = None
    points: tuple[Point, ...] = ()

    def read(self, data: str) -> Data:
        """Data as this model reads them. Raises DataError for others."""
        encoding = self.model.encoding
        if encoding is None:
            found = load(data) if is_builtin(data) else load(data, self.columns[0], self.columns[1:])
            if found.columns != self.columns:
                raise DataError(
                    f"{data} has the columns {listed(found.columns)}, not {listed(self.columns)} of {self.folder}"
                )
            return found
        if data not in TABLES:
            return read_encoded(data, encoding)
        if classic(data).encoding != encoding:
            raise DataError(f"{data} has other columns or classes than the table that {self.folder} was made from")
        return classic(data)

    def former(self, new: Data, data: str | None) -> Data:
        """The data that it was made from: the first rows of the new ones, else read from where it says, or `data` does.

        Raises DataError where they are not found, or are others.
        """
        first = head(new, self.rows)
        if data is None and first is not None and sha256(first) == self.sha256:
            return first
        record = {"data": {"name": self.name, "columns": list(self.columns)}}
        found = self.read(source_of(self.folder, record, self.settings, data, "--old").data)
        if sha256(found) != self.sha256 if self.sha256 else size(found) != self.rows:
            raise DataError(
                f"{found.name} does not hold the data that {self.folder} was made from, {self.rows} rows, and the new "
                "data do not begin with them; say where they are with --old"
            )
        return found

    def tested_rows(self, former: Data) -> Rows:
        """The rows of its data that it was tested on."""
        if self.tested is None:
            blocks = blocks_of(former, self.settings, self.searched)
            own: Any = next(block for block in blocks if block.block == self.block)
            return np.array(own.rows["test"] if isinstance(former, Table) else np.arange(*own.spans["test"]))
        return np.array(self.tested, dtype=np.int64)


def size(data: Data) -> int:
    """Rows."""
    return len(data.values if isinstance(data, Series) else data.target)


def sha256(data: Data) -> str:
    """What tells data apart."""
    return str(fingerprint(data)["sha256"])


def head(data: Data, rows: int) -> Data | None:
    """The first rows; None where there are fewer, or they make no data by themselves."""
    if rows > size(data):
        return None
    try:
        if isinstance(data, Series):
            return replace(data, values=data.values[:rows])
        return replace(data, inputs=data.inputs[:rows], target=data.target[:rows])
    except DataError:
        return None


def read_deployed(folder: Path) -> Deployed:
    """The model of a folder. Raises DataError where there is none."""
    if (folder / RETUNE).is_file():
        return _of_tuning(folder)
    record = store.read_record(folder)
    searched = _searched(folder, record)
    made = provenance.read(folder)
    try:
        return Deployed(
            folder=folder,
            id=made.id if made else str(folder.resolve()),
            name=record["data"]["name"],
            columns=tuple(record["data"]["columns"]),
            settings=_settings(folder),
            model=model_of(folder),
            rows=int(record["data"]["length"]),
            sha256=made.fingerprint if made else None,
            trained=int(record["settings"]["protocol"]["train"]),
            block=int(record["shipped"]["block"]),
            searched="start" in record,
            tested=None,
            evaluations=int(record.get("start", {}).get("evaluations", 0)),
            space=space_from_dict(searched["space"]) if searched else None,
            points=_best(searched) if searched else (),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise store.damaged(folder / store.RECORD, error) from error


def _of_tuning(folder: Path) -> Deployed:
    try:
        record = json.loads((folder / RETUNE).read_text(encoding="utf-8"))
        if not record["promoted"]:
            raise DataError(f"{folder} kept the old model, {record['old']['folder']}; give that folder")
        contest, made = record["contest"], provenance.read(folder)
        return Deployed(
            folder=folder,
            id=made.id if made else str(folder.resolve()),
            name=record["data"]["name"],
            columns=tuple(record["data"]["columns"]),
            settings=_settings(folder),
            model=model_of(folder),
            rows=record["data"]["rows"],
            sha256=record["data"]["sha256"],
            trained=contest["trained"],
            block=0,
            searched=False,
            tested=tuple(contest["tested"]),
            evaluations=int(record["old"]["evaluations"]),
            space=space_from_dict(contest["space"]),
            points=tuple(contest["best"]),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise store.damaged(folder / RETUNE, error) from error


def model_of(folder: Path) -> Model:
    """The network that a folder holds. Raises DataError where it is damaged."""
    if store.is_table(folder):
        network, encoding, scaler = store.read_table_model(folder)
        return Model(network, scaler, encoding=encoding)
    network, window, scaler = store.read_model(folder)
    return Model(network, scaler, window)


def _settings(folder: Path) -> Config:
    """Its settings; of a series with what its network puts out, which other data must not decide anew."""
    settings = store.read_settings(folder / store.CONFIG)
    if isinstance(settings, RunConfig):
        _, _, scaler = store.read_model(folder)
        return replace(settings, predict="values" if scaler.increment is None else "increments")
    return settings


def _searched(folder: Path, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The record of the search that a run began with; None where there was none, or it is not there any more."""
    if "start" not in record:
        return None
    path = (folder / record["start"]["report"]).parent / SEARCH
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _best(searched: Mapping[str, Any]) -> tuple[Point, ...]:
    """The finalists, then the best scores."""
    points = {trial["trial"]: trial["point"] for trial in searched["trials"] if trial["outcome"] == "complete"}
    scores: Sequence[Any] = [trial for trial in searched["trials"] if trial["trial"] in points]
    ranked = [each["trial"] for each in searched["finalists"]]
    ranked += [trial["trial"] for trial in sorted(scores, key=lambda trial: (trial["values"], trial["trial"]))]
    return tuple(points[number] for number in dict.fromkeys(ranked) if number in points)[:BEST]
