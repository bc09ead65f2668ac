"""The built-in series by name, and `load`, which takes a name or a CSV file."""

import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np

from pared.data import chaos
from pared.data.classics import TABLES
from pared.data.series import Series
from pared.data.tables import read_csv
from pared.types import DataError


def santa_fe() -> Series:
    """Intensity of a far-infrared laser in a chaotic state: 10,093 measured values, whole numbers from 0 to 255.

    Source: data set A of the Santa Fe competition (Weigend and Gershenfeld, 1994), as shipped with reservoirpy.
    """
    values = import_module("reservoirpy.datasets").santafe_laser()  # here, since it takes a second to import
    source = "Santa Fe competition, data set A: intensity of a chaotic far-infrared laser (from reservoirpy)"
    return Series("santa-fe", np.asarray(values), ("intensity",), 20, "values", None, source)


def sunspots() -> Series:
    """Yearly mean sunspot numbers, 1700 to 2008: 309 values.

    Source: National Geophysical Data Center, as shipped with statsmodels.
    """
    table = import_module("statsmodels.datasets.sunspots").load_pandas().data
    source = "yearly mean sunspot numbers, 1700 to 2008 (from statsmodels)"
    return Series("sunspots", table[["SUNACTIVITY"]].to_numpy(), ("sunspots",), 9, "values", None, source)


_LOGISTIC = re.compile(r"logistic-(\d*\.?\d+)")
_MAKERS: dict[str, Callable[[], Series]] = {
    "henon": chaos.henon,
    "rossler": chaos.rossler,
    "lorenz": chaos.lorenz,
    "mackey-glass": chaos.mackey_glass,
    "santa-fe": santa_fe,
    "sunspots": sunspots,
}

BUILTINS: dict[str, str] = {
    "logistic-3.6": "logistic map x' = 3.6 x (1 - x), two-band chaos, 50,000 values (any mu up to 4: logistic-<mu>)",
    "logistic-3.7": "logistic map, mu = 3.7",
    "logistic-3.8": "logistic map, mu = 3.8",
    "logistic-3.9": "logistic map, mu = 3.9",
    "logistic-3.99": "logistic map, mu = 3.99, close to full chaos",
    "henon": "Henon map, first coordinate, 50,000 values",
    "rossler": "Rossler flow, x every 0.01 time units, 50,000 values",
    "lorenz": "Lorenz flow, x every 0.01 time units, 50,000 values",
    "mackey-glass": "Mackey-Glass delay equation, delay 17, every time unit, 50,000 values",
    "santa-fe": "measured: intensity of a chaotic laser, 10,093 values",
    "sunspots": "measured: yearly sunspot numbers, 309 values",
}


@cache
def builtin(name: str) -> Series:
    """A built-in series: a name of `BUILTINS`, or "logistic-<mu>" for any mu in (0, 4].

    Cost: up to 1 s for the flows, the first time only: series cannot be changed, so they are kept.
    Raises: DataError for an unknown name; it lists the known ones.
    """
    if name in _MAKERS:
        return _MAKERS[name]()
    if match := _LOGISTIC.fullmatch(name):
        return chaos.logistic(float(match[1]))
    raise DataError(f"no built-in series {name!r}; there are {', '.join(BUILTINS)}")


def load(name_or_path: str | Path, column: str | None = None, features: Sequence[str] = ()) -> Series:
    """A built-in series by its name, else a series from a CSV file (see `read_csv`).

    A built-in name wins over a file of the same name; ./henon means the file.

    Raises: DataError if it is neither, or if `column` or `features` is given for a built-in series.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, str) and (text in _MAKERS or _LOGISTIC.fullmatch(text)):
        series = builtin(text)
        if column is not None or features:
            raise DataError(f"{text} is a built-in series of one column; leave column and features away")
        return series
    if not (os.path.exists(text) or Path(text).suffix or os.sep in text):
        raise DataError(
            f"{text!r} is neither a file nor a built-in series; there are {', '.join(BUILTINS)}, and the tables "
            f"{', '.join(TABLES)}"
        )
    return read_csv(name_or_path, column, features)
