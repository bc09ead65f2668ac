"""The run folder: what a run leaves behind, written without overwriting, read without running code."""

import gzip
import json
import math
import re
import tomllib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import tomli_w
from torch import nn

from pared.data import Encoding, Scaler
from pared.settings import RunConfig, TableConfig
from pared.surgery import Plan, load, save
from pared.types import DataError, Masks

FORMAT = 1
RECORD, CONFIG, REPORT, CURVES = "outcomes.json", "config.toml", "report.html", "curves.json.gz"
PARTS = {
    "data": dict, "settings": dict, "blocks": list, "outcomes": list, "candidates": list, "comparisons": dict,
    "directions": dict, "notes": list, "finding": str,
}  # fmt: skip
"""What outcomes.json always holds, and as what."""

T = TypeVar("T")


@contextmanager
def new_folder(base: Path, data: str, seed: int) -> Iterator[Path]:
    """Makes `<base>/<data>-seed<seed>`, or the first free `...-2`, `...-3`; takes it back where it stays empty.

    Raises OSError where it cannot be made.
    """
    made = [path for path in (base, *base.parents) if not path.exists()]
    try:
        base.mkdir(parents=True, exist_ok=True)
        folder = _first_free(base, stem(data, seed))
        made.insert(0, folder)
        yield folder
    finally:
        for path in made:
            with suppress(OSError):  # holds something, or was never made
                path.rmdir()


def stem(data: str, seed: int) -> str:
    """What the folder of a run is called."""
    return re.sub(r"[^\w.-]", "-", data.removesuffix(".csv")) + f"-seed{seed}"


def _first_free(base: Path, name: str) -> Path:
    number = 1
    while True:
        folder = base / (name + (f"-{number}" if number > 1 else ""))
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def write_record(folder: Path, record: Mapping[str, Any], name: str = RECORD) -> None:
    """Writes outcomes.json, or a file of another name; numbers that are not finite become null."""
    text = json.dumps(_finite(record), indent=1, allow_nan=False)
    (folder / name).write_text(text + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any]:
    """Reads outcomes.json. Raises DataError where it is missing or damaged."""
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is not a run folder: {RECORD} is missing; give a folder made by `pared run`"
        ) from error
    except (ValueError, RecursionError, OSError) as error:
        raise damaged(path, error) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DataError(f"{path} was not written by this version of pared; run again")
    for name, kind in PARTS.items():
        if not isinstance(record.get(name), kind):
            raise DataError(f"{path} is damaged: no {kind.__name__} under {name!r}; run again or restore a copy")
    return record


def write_curves(folder: Path, curves: Sequence[Mapping[str, Any]]) -> None:
    """Writes curves.json.gz: every network's losses per epoch, to 7 digits; the same ones give the same bytes."""
    text = json.dumps(_finite(_rounded(curves)), allow_nan=False)
    (folder / CURVES).write_bytes(gzip.compress(text.encode(), mtime=0))


def read_curves(folder: Path) -> list[dict[str, Any]]:
    """What `write_curves` wrote, a mapping a network; nothing where there is no such file. Raises DataError."""
    path = folder / CURVES
    try:
        found: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))
    except FileNotFoundError:
        return []
    except (EOFError, ValueError, zlib.error, OSError) as error:
        raise damaged(path, error) from error
    return found


def write_model(
    folder: Path, model: nn.Module, plan: Plan, masks: Masks | None, saved: Mapping[str, Mapping[str, Any]]
) -> None:
    """Writes plan.json, model.safetensors, and config.toml, which says how to rebuild the network and use it."""
    save(folder, model, plan, masks)
    tables = {name: {key: value for key, value in table.items() if value is not None} for name, table in saved.items()}
    (folder / CONFIG).write_text(tomli_w.dumps({"format": FORMAT, **tables}), encoding="utf-8")


def write_settings(path: Path, config: RunConfig | TableConfig) -> None:
    """Writes settings of a run, for `pared run --config`."""
    values = {name: value for name, value in asdict(config).items() if value is not None}
    kind = "run" if isinstance(config, RunConfig) else "table"
    path.write_text(tomli_w.dumps({"format": FORMAT, kind: values}), encoding="utf-8")


def read_settings(path: Path) -> RunConfig | TableConfig:
    """Settings that `write_settings` or a run wrote. Raises DataError where they are missing or damaged."""
    if not path.is_file():
        why = "is a folder" if path.is_dir() else "is missing"
        raise DataError(f"{path} {why}; settings are the best.toml of `pared search` or the config.toml of a run")
    with _reading(path) as saved:
        return _build(RunConfig, saved["run"]) if "run" in saved else _build(TableConfig, saved["table"])


def is_table(folder: Path) -> bool:
    """Whether the saved network reads rows of a table, not windows of a series. Raises DataError as `read_model`."""
    with _reading(folder / CONFIG) as saved:
        return "table" in saved


def read_model(folder: Path) -> tuple[nn.Module, int, Scaler]:
    """The saved network in evaluation mode, its window, its scaler. Raises DataError where the folder is damaged."""
    with _reading(folder / CONFIG) as saved:
        config, scaler = _build(RunConfig, saved["run"]), _build(Scaler, saved["scaler"])
        _check_scaler(scaler)
        if config.window < 1 or scaler.horizon != config.horizon:
            raise ValueError("the window must be positive, and both horizons the same")
    model = load(folder, config.network(len(scaler.columns), {}, seed=0))
    return model.eval(), config.window, scaler


def read_table_model(folder: Path) -> tuple[nn.Module, Encoding, Scaler]:
    """The saved network of a table in evaluation mode, how it reads rows, its scaler. Raises DataError likewise."""
    with _reading(folder / CONFIG) as saved:
        config, scaler = _build(TableConfig, saved["table"]), _build(Scaler, saved["scaler"])
        encoding = _build(Encoding, saved["encoding"])
        _check_scaler(scaler)
        if len(encoding.columns) != len(encoding.categories) or scaler.columns != (encoding.target, *encoding.names):
            raise ValueError("scaler and encoding name other columns")
        if bool(encoding.classes) != (config.predicts == "classification"):
            raise ValueError("classes are for a classification, and a classification needs them")
    inputs = len(encoding.names)
    return load(folder, config.network(inputs, encoding.outputs, {}, seed=0)).eval(), encoding, scaler


def _check_scaler(scaler: Scaler) -> None:
    if not len(scaler.columns) == len(scaler.shift) == len(scaler.scale) > 0 or min(scaler.scale) <= 0:
        raise ValueError("columns, shift and scale must be as many, and scale positive")


@contextmanager
def _reading(path: Path) -> Iterator[dict[str, Any]]:
    """A config.toml; what cannot be made of it inside is raised as DataError."""
    try:
        saved = tomllib.loads(path.read_text(encoding="utf-8"))
        if saved["format"] != FORMAT:
            raise ValueError(f"format {saved['format']!r} is not known to this version of pared")
        yield saved
    except FileNotFoundError as error:
        raise DataError(
            f"{path.parent} holds no network: {path.name} is missing; give a folder made by `pared run`"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> DataError:
    """What to raise where a file of a run folder cannot be understood, or its folder is none."""
    if isinstance(error, NotADirectoryError):
        return DataError(f"{path.parent} is a file; give a folder made by `pared run`")
    why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return DataError(f"{path} is damaged: {why}; run again or restore a copy")


def _build(kind: type[T], table: Mapping[str, Any]) -> T:
    """A dataclass from a table of TOML. Raises ValueError for a value that is not of its field's type."""
    hints = get_type_hints(kind)
    values = {name: _tuples(value) for name, value in table.items()}
    for name, value in values.items():
        if name in hints and not _is_a(value, hints[name]):
            raise ValueError(f"{name} cannot be {value!r}")
    return kind(**values)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type; a whole number will do for a float, infinity and NaN will not."""
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return value in inner
    if get_origin(hint) in (Union, UnionType):
        return any(_is_a(value, each) for each in inner)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is_a(each, inner[0]) for each in value)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value
