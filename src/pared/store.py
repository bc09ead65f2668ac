"""The run folder: what a run leaves behind, written without overwriting, read without running code."""

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import tomli_w
from torch import nn

from pared.data import Scaler, Split
from pared.settings import RunConfig
from pared.surgery import Plan, load, save
from pared.types import DataError

FORMAT = 1
RECORD, CONFIG, REPORT = "outcomes.json", "config.toml", "report.html"
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
        name = re.sub(r"[^\w.-]", "-", data.removesuffix(".csv"))
        folder = _first_free(base, f"{name}-seed{seed}")
        made.insert(0, folder)
        yield folder
    finally:
        for path in made:
            with suppress(OSError):  # holds something, or was never made
                path.rmdir()


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


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes outcomes.json; numbers that are not finite become null."""
    text = json.dumps(_finite(record), indent=1, allow_nan=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


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


def write_model(folder: Path, model: nn.Module, plan: Plan, config: RunConfig, split: Split) -> None:
    """Writes plan.json, model.safetensors, and config.toml, which says how to rebuild the network and use it."""
    save(folder, model, plan)
    scaler = {name: value for name, value in asdict(split.scaler).items() if value is not None}
    settings = asdict(config) | {"window": split.train.x.shape[1]}
    text = tomli_w.dumps({"format": FORMAT, "run": settings, "scaler": scaler})
    (folder / CONFIG).write_text(text, encoding="utf-8")


def read_model(folder: Path) -> tuple[nn.Module, int, Scaler]:
    """The saved network in evaluation mode, its window, its scaler. Raises DataError where the folder is damaged."""
    path = folder / CONFIG
    try:
        saved = tomllib.loads(path.read_text(encoding="utf-8"))
        if saved["format"] != FORMAT:
            raise ValueError(f"format {saved['format']!r} is not known to this version of pared")
        config, scaler = _build(RunConfig, saved["run"]), _build(Scaler, saved["scaler"])
        if config.window < 1 or not len(scaler.columns) == len(scaler.shift) == len(scaler.scale) > 0:
            raise ValueError("the window must be positive, and columns, shift and scale as many")
        if min(scaler.scale) <= 0 or scaler.horizon != config.horizon:
            raise ValueError("scale must be positive, and both horizons the same")
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no network: {CONFIG} is missing; give a folder made by `pared run`") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise damaged(path, error) from error
    model = load(folder, config.network(len(scaler.columns), {}, seed=0))
    return model.eval(), config.window, scaler


def damaged(path: Path, error: Exception) -> DataError:
    """What to raise where a file of a run folder cannot be understood."""
    why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return DataError(f"{path} is damaged: {why}; run again or restore a copy")


def _build(kind: type[T], table: Mapping[str, Any]) -> T:
    """A dataclass from a table of TOML. Raises ValueError for a value that is not of its field's type."""
    hints = get_type_hints(kind)
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in table.items()}
    for name, value in values.items():
        if name in hints and not _is_a(value, hints[name]):
            raise ValueError(f"{name} cannot be {value!r}")
    return kind(**values)


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type; a whole number will do for a float, infinity and NaN will not."""
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return value in inner
    if get_origin(hint) is UnionType:
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
