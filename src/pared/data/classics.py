"""Tables that papers know by name, as scikit-learn and mlxtend ship them."""

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from pared.data.examples import Encoding, Table
from pared.types import DataError

TABLES: dict[str, str] = {
    "wine": "classes: 3 cultivars of wine from 13 chemical measurements, 178 rows",
    "breast-cancer": "classes: benign or malignant from 30 measurements of cell nuclei, 569 rows",
    "digits": "classes: handwritten digits from 64 pixels, 1,797 rows",
    "diabetes": "a number: progression of diabetes after a year from 10 measurements, 442 rows",
    "boston": "a number: median house prices in 506 districts of Boston, 1978, from 13 measurements",
}
_SOURCES = {
    "wine": "wines of three cultivars of one region, 13 chemical measurements (from scikit-learn)",
    "breast-cancer": "Wisconsin diagnostic breast cancer: 30 measurements of cell nuclei (from scikit-learn)",
    "digits": "handwritten digits of 8 by 8 pixels (from scikit-learn)",
    "diabetes": "progression of diabetes after a year, 10 measurements, not scaled (from scikit-learn)",
    "boston": "house prices in Boston, 1978, for comparison with published figures; its column B rests on a racist "
    "premise (from mlxtend)",
}
_BOSTON = ("CRIM", "ZN", "INDUS", "CHAS", "NOX", "RM", "AGE", "DIS", "RAD", "TAX", "PTRATIO", "B", "LSTAT")


@cache
def classic(name: str) -> Table:
    """A built-in table: a name of `TABLES`. Inputs are as measured, not scaled.

    Raises: DataError for an unknown name, and for "boston" where mlxtend is not installed.
    """
    if name not in TABLES:
        raise DataError(f"no built-in table {name!r}; there are {', '.join(TABLES)}")
    inputs, target, columns, classes, named = _boston() if name == "boston" else _from_sklearn(name)
    encoding = Encoding(named, classes, columns, ((),) * len(columns))
    return Table(name, np.asarray(inputs, dtype=np.float64), np.asarray(target), encoding, _SOURCES[name])


_Parts = tuple[Any, Any, tuple[str, ...], tuple[str, ...], str]


def _from_sklearn(name: str) -> _Parts:
    datasets = import_module("sklearn.datasets")  # here, since it takes a second to import
    options = {"scaled": False} if name == "diabetes" else {}
    found = getattr(datasets, f"load_{name.replace('-', '_')}")(**options)
    classes = tuple(map(str, getattr(found, "target_names", ())))
    return (
        found.data,
        found.target,
        tuple(map(str, found.feature_names)),
        classes,
        "class" if classes else "progression",
    )


def _boston() -> _Parts:
    try:
        inputs, target = import_module("mlxtend.data").boston_housing_data()
    except ImportError as error:
        raise DataError("boston comes with the package mlxtend, which is missing; pip install mlxtend") from error
    return inputs, target, _BOSTON, (), "MEDV"
