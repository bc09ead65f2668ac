"""The run folder: what a run leaves behind, written without overwriting, read without running code."""

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w
from torch import nn

from pared.data import Scaler, Split
from pared.run import RunConfig
from pared.surgery import Plan, load, save
from pared.types import DataError

RECORD, CONFIG, REPORT = "outcomes.json", "config.toml", "report.html"


def new_folder(base: Path, data: str, seed: int) -> Path:
    """Makes `<base>/<data>-seed<seed>`, or the first free `...-2`, `...-3`. Raises OSError where it cannot."""
    name = re.sub(r"[^\w.-]", "-", data.removesuffix(".csv"))
    base.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = base / (f"{name}-seed{seed}" + (f"-{number}" if number > 1 else ""))
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
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is damaged: {error}; run again or restore a copy") from error
    if not isinstance(record, dict) or record.get("format") != 1:
        raise DataError(f"{path} was not written by this version of pared; run again")
    return record


def write_model(folder: Path, model: nn.Module, plan: Plan, config: RunConfig, split: Split) -> None:
    """Writes plan.json, model.safetensors, and config.toml, which says how to rebuild the network and use it."""
    save(folder, model, plan)
    scaler = {name: value for name, value in asdict(split.scaler).items() if value is not None}
    settings = asdict(config) | {"window": split.train.x.shape[1]}
    text = tomli_w.dumps({"format": 1, "run": settings, "scaler": scaler})
    (folder / CONFIG).write_text(text, encoding="utf-8")


def read_model(folder: Path) -> tuple[nn.Module, int, Scaler]:
    """The saved network in evaluation mode, its window, its scaler. Raises DataError where the folder is damaged."""
    path = folder / CONFIG
    try:
        saved = tomllib.loads(path.read_text(encoding="utf-8"))
        config = RunConfig(**{name: _tuple(value) for name, value in saved["run"].items()})
        scaler = Scaler(**{name: _tuple(value) for name, value in saved["scaler"].items()})
    except FileNotFoundError as error:
        raise DataError(f"{folder} holds no network: {CONFIG} is missing; give a folder made by `pared run`") from error
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DataError(f"{path} is damaged: {error!r}; run again or restore a copy") from error
    model = load(folder, config.network(len(scaler.columns), {}, seed=0))
    return model.eval(), config.window, scaler


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
