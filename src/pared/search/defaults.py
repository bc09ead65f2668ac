"""The spaces that are searched unless another is given, and what a point of a space makes of a run's settings."""

import math
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from pared.data import Series, Table
from pared.data.splits import FEWEST
from pared.search.space import Categorical, Conditional, Float, Int, Parameter, Point, PowerOfTwo, Scalar, Space
from pared.settings import RunConfig, Settings, TableConfig
from pared.types import DataError

C = TypeVar("C", bound=RunConfig | TableConfig)

LAYERED = {"width": "recurrent", "head": "dense", "hidden": "hidden"}
"""Parameters of one layer each ("width_1", "width_2") and the setting that they fill together."""
COUNTS = ("layers", "heads")
"""Parameters that say how many of these there are."""
PLAIN = (
    *("cell", "window", "activation", "epochs", "lr", "batch_size"),
    *("optimiser", "weight_decay", "clip", "schedule", "dropout", "init"),
)
"""Parameters that are settings themselves."""


def series_space(series: Series, horizon: int = 1, dropout: bool = False) -> Space:
    """Forecasters of a series: cell, layers and widths, head, window; learning rate, batch size and so on.

    The window goes from half to twice what the series suggests. `dropout` is left out by default: the compiled kernels
    train without it only, 6 to 140 times faster.
    """
    widest = max(1, min(2 * series.window, len(series.values) // 2 - horizon - FEWEST))
    parameters: dict[str, Parameter] = {
        "cell": Categorical(("lstm", "gru", "rnn")),
        "layers": Int(1, 2),
        "width_1": PowerOfTwo(4, 32),
        "width_2": Conditional(PowerOfTwo(2, 16), "layers", (2,)),
        "heads": Int(0, 1),
        "head_1": Conditional(PowerOfTwo(2, 16), "heads", (1,)),
        "window": Int(min(widest, max(1, series.window // 2)), widest, log=True),
        "lr": Float(1e-3, 5e-2, log=True),
        "batch_size": PowerOfTwo(16, 256),
        "weight_decay": Float(1e-7, 1e-3, log=True),
        "clip": Categorical((None, 1.0)),
        "schedule": Categorical(("cosine", "constant")),
    }
    return Space(parameters | ({"dropout": Float(0.0, 0.3, step=0.1)} if dropout else {}))


def table_space(dropout: bool = True) -> Space:
    """Dense networks of a table: layers and widths, activation; learning rate, batch size and so on; dropout."""
    parameters: dict[str, Parameter] = {
        "layers": Int(1, 3),
        "hidden_1": PowerOfTwo(8, 128),
        "hidden_2": Conditional(PowerOfTwo(8, 128), "layers", (2, 3)),
        "hidden_3": Conditional(PowerOfTwo(8, 64), "layers", (3,)),
        "activation": Categorical(("relu", "tanh")),
        "lr": Float(3e-4, 3e-2, log=True),
        "batch_size": PowerOfTwo(16, 128),
        "weight_decay": Float(1e-6, 1e-2, log=True),
        "clip": Categorical((None, 1.0)),
        "schedule": Categorical(("cosine", "constant")),
    }
    return Space(parameters | ({"dropout": Float(0.0, 0.5, step=0.1)} if dropout else {}))


def default_space(data: Series | Table, horizon: int = 1, dropout: bool | None = None) -> Space:
    """The space of a series or of a table; `dropout` None: of tables only."""
    if isinstance(data, Series):
        return series_space(data, horizon, bool(dropout))
    return table_space(dropout=dropout is not False)


def configured(base: C, point: Mapping[str, Scalar]) -> C:
    """A run's settings with what a point says. Raises DataError for a point that makes no network or training."""
    changes: dict[str, Any] = {name: value for name, value in point.items() if name in PLAIN}
    for prefix, setting in LAYERED.items():
        widths = [point[name] for name in sorted(point) if _layer(name) == prefix]
        if widths or (prefix == "head" and point.get("heads") == 0):
            changes[setting] = tuple(widths)
    return replace(base, **changes)


def check_names(space: Space, base: Settings) -> None:
    """Raises DataError for parameters that the networks of these settings do not have."""
    own = {field.name for field in fields(base)}
    for name in space.parameters:
        if (name in PLAIN and name in own) or LAYERED.get(_layer(name) or "") in own or name in COUNTS:
            continue
        known = [*(name for name in PLAIN if name in own), *COUNTS]
        known += [f"{prefix}_1, {prefix}_2, ..." for prefix, setting in LAYERED.items() if setting in own]
        raise DataError(f"the space cannot be searched: unknown parameter {name!r}; there are {', '.join(known)}")


def start_point(space: Space, base: Settings) -> Point | None:
    """The settings as a point of the space, each value at the nearest that it may take; None where they are none."""
    wanted = _as_point(base)
    point: Point = {}
    for name in space.parameters:
        if space.active(name, point):
            if name not in wanted:
                return None
            point[name] = _nearest(space, name, wanted[name])
    try:
        space.check(point)
    except DataError:
        return None
    return point


def _nearest(space: Space, name: str, value: Scalar) -> Scalar:
    parameter = space.parameters[name]
    own = parameter.domain if isinstance(parameter, Conditional) else parameter
    if isinstance(own, Categorical) or not isinstance(value, int | float):
        return value
    if isinstance(own, PowerOfTwo) and value > 0:
        value = 2 ** round(math.log2(value))
    return min(max(value, own.low), own.high)


def _as_point(base: Settings) -> Point:
    point: Point = {name: getattr(base, name) for name in PLAIN if hasattr(base, name)}
    for prefix, setting in LAYERED.items():
        for place, width in enumerate(getattr(base, setting, ()), 1):
            point[f"{prefix}_{place}"] = width
    layers = base.recurrent if isinstance(base, RunConfig) else base.hidden if isinstance(base, TableConfig) else ()
    return point | {"layers": len(layers), "heads": len(getattr(base, "dense", ()))}


def _layer(name: str) -> str | None:
    """The kind of layer that a parameter is the width of."""
    found = re.fullmatch(r"(\w+)_\d+", name)
    return found[1] if found and found[1] in LAYERED else None
