"""Series, the catalogue of built-in ones and the choice between values and increments."""

import numpy as np
import pytest

from pared.data import BUILTINS, Series, builtin, load, resolve_predict
from pared.data.series import autocorrelation
from pared.types import DataError


def series(values, predict: str = "auto") -> Series:
    return Series("mine", np.asarray(values, float)[:, None], ("x",), 4, predict, None, "made up")


def test_values_are_a_read_only_copy() -> None:
    raw = np.ones((4, 1))
    made = Series("mine", raw, ("x",), 2, "values", None, "made up")
    raw[0] = 7
    assert made.values[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        made.values[0] = 2


@pytest.mark.parametrize("values", [np.ones(3), np.ones((3, 2)), np.array([[1.0], [np.nan]]), np.array([[np.inf]])])
def test_malformed_values_are_refused(values) -> None:
    with pytest.raises(DataError, match="mine"):
        Series("mine", values, ("x",), 2, "values", None, "made up")


@pytest.mark.parametrize("name", BUILTINS)
def test_every_builtin_loads(name: str) -> None:
    made = load(name)
    assert made.name == name
    assert made.source
    assert len(made.values) == {"santa-fe": 10_093, "sunspots": 309}.get(name, 50_000)
    assert made.window == {"rossler": 4, "lorenz": 4, "mackey-glass": 18, "santa-fe": 20, "sunspots": 9}.get(name, 2)
    smooth = name in ("rossler", "lorenz", "mackey-glass")
    assert resolve_predict(made) == ("increments" if smooth else "values")
    assert resolve_predict(series(made.values[:, 0])) == resolve_predict(made)  # the rule agrees with the suggestion


def test_measured_series() -> None:
    laser, spots = builtin("santa-fe").values[:, 0], builtin("sunspots").values[:, 0]
    assert (laser.min(), laser.max(), spots[0], spots.max()) == (0, 255, 5.0, 190.2)


def test_any_logistic_map() -> None:
    made = load("logistic-3.65")
    assert made.name == "logistic-3.65"
    np.testing.assert_allclose(made.values[1, 0], 3.65 * 0.1 * 0.9)


@pytest.mark.parametrize("name", ["logistc", "logistic-", "logistic-abc"])
def test_unknown_name_lists_the_known_ones(name: str) -> None:
    for call in (load, builtin):
        with pytest.raises(DataError, match=r"logistc|logistic-.*logistic-3.99.*sunspots"):
            call(name)


def test_builtin_takes_no_column() -> None:
    with pytest.raises(DataError, match="column"):
        load("henon", column="x")
    with pytest.raises(DataError, match="column"):
        load("henon", features=["y"])


def test_logistic_out_of_range() -> None:
    with pytest.raises(DataError, match="mu=5"):
        load("logistic-5")


def test_resolve_predict() -> None:
    noise = np.random.default_rng(0).standard_normal(2000)
    assert resolve_predict(series(noise)) == "values"
    assert resolve_predict(series(noise.cumsum())) == "increments"
    assert resolve_predict(series(noise.cumsum()), "values") == "values"
    assert resolve_predict(series(noise, "increments")) == "increments"
    assert resolve_predict(series(noise, "increments"), "values") == "values"
    assert resolve_predict(series(np.zeros(10))) == "values"
    with pytest.raises(ValueError, match="'both'"):
        resolve_predict(series(noise), "both")


def test_resolve_predict_looks_at_early_rows_only() -> None:
    noise = np.random.default_rng(0).standard_normal(2000)
    noise[1000:] = noise[1000:].cumsum() * 100
    assert resolve_predict(series(noise)) == "values"


def test_autocorrelation_against_a_loop() -> None:
    x = np.random.default_rng(1).standard_normal(50)
    mean = sum(x) / 50
    above = sum((x[t] - mean) * (x[t + 1] - mean) for t in range(49))
    assert autocorrelation(x) == pytest.approx(above / sum((v - mean) ** 2 for v in x))
