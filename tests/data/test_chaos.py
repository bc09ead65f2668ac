"""The generators against naive steps, known limits and their stated exponents."""

import math
import time

import numpy as np
import pytest

from pared.data import Series, chaos
from pared.types import DataError


def test_maps_follow_their_laws() -> None:
    x = chaos.logistic(3.7, 200).values[:, 0]
    assert x[0] == 0.1
    np.testing.assert_allclose(x[1:], 3.7 * x[:-1] * (1 - x[:-1]), rtol=1e-15)
    x = chaos.henon(length=200).values[:, 0]
    assert x[0] == 0.01
    np.testing.assert_allclose(x[2:], 1 - 1.4 * x[1:-1] ** 2 + 0.3 * x[:-2], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("mu", "exponent"), [(3.6, 0.183), (3.7, 0.355), (3.8, 0.432), (3.9, 0.496), (3.99, 0.640)])
def test_logistic_exponent(mu: float, exponent: float) -> None:
    assert chaos.logistic(mu).lyapunov == pytest.approx(exponent, abs=0.005)


def test_logistic_without_a_finite_exponent() -> None:
    assert chaos.logistic(2.0, 50, 0.5).lyapunov is None


def test_printed_rossler_goes_to_its_fixed_point() -> None:
    states = chaos.flow(chaos.rossler_rates(0.2, 0.4, 5.7, as_printed=True), (0, 0, 0), 0.001, 10, 1000)
    assert not states[:, :2].any()
    assert states[-1, 2] == pytest.approx(0.0701754, abs=1e-7)
    assert not chaos.rossler(length=20, discard=0, as_printed=True).values.any()


def test_rossler_starts_where_the_paper_does_and_matches_scipy() -> None:
    from scipy.integrate import solve_ivp

    x = chaos.rossler(length=301, discard=0).values[:, 0]
    rates = chaos.rossler_rates(0.2, 0.4, 5.7)
    assert rates(1.0, 2.0, 3.0) == pytest.approx((-5.0, 1.4, 0.4 - 14.1))
    reference = solve_ivp(lambda _, s: rates(*s), (0, 3), [0, 0, 0], rtol=1e-11, atol=1e-13, t_eval=[1, 2, 3]).y[0]
    assert x[0] == 0
    np.testing.assert_allclose(x[[100, 200, 300]], reference, rtol=1e-8)
    np.testing.assert_array_equal(chaos.rossler(length=101, discard=200).values[:, 0], x[200:])


def test_flow_is_of_fourth_order() -> None:
    def circle(x: float, y: float, z: float) -> tuple[float, float, float]:
        return -y, x, -z

    errors = [abs(chaos.flow(circle, (1, 0, 1), 1 / n, n, 2)[1] - [math.cos(1), math.sin(1), math.exp(-1)]).max()
              for n in (10, 20)]  # fmt: skip
    assert 13 < errors[0] / errors[1] < 19


def test_lorenz_exponent_by_two_close_trajectories() -> None:
    def rates(x: float, y: float, z: float) -> tuple[float, float, float]:
        return 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z

    state = chaos.flow(rates, (1, 1, 1), 0.01, 2000, 2)[1]
    np.testing.assert_array_equal(chaos.lorenz(length=1).values[0, 0], state[0])
    offset, grown = np.array([1e-8, 0, 0]), []
    for _ in range(200):
        apart = chaos.flow(rates, tuple(state + offset), 0.01, 100, 2)[1]
        state = chaos.flow(rates, tuple(state), 0.01, 100, 2)[1]
        grown.append(np.log(np.linalg.norm(apart - state) / 1e-8))
        offset = 1e-8 * (apart - state) / np.linalg.norm(apart - state)
    assert np.mean(grown) == pytest.approx(0.906, abs=0.1)
    assert chaos.lorenz(length=5, dt=0.02).lyapunov == pytest.approx(0.01812)


def naive_mackey_glass(units: int, steps: int) -> np.ndarray:
    """Implicit trapezoid with a long history; second order, so many steps a unit."""
    h, delay = 1 / steps, 17 * steps
    x = [1.2] * (delay + 1)
    for k in range(delay, delay + units * steps):
        source = [0.2 * x[k - delay + i] / (1 + x[k - delay + i] ** 10) for i in (0, 1)]
        x.append((x[k] * (1 - 0.05 * h) + h * sum(source) / 2) / (1 + 0.05 * h))
    return np.array(x[delay::steps])


def test_mackey_glass_matches_a_naive_scheme() -> None:
    x = chaos.mackey_glass(length=101, discard=0).values[:, 0]
    np.testing.assert_allclose(x, naive_mackey_glass(100, 100), atol=5e-5)
    source = 10 * 0.2 * 1.2 / (1 + 1.2**10)  # up to t = tau the delayed term is constant: an exponential
    np.testing.assert_allclose(x[:17], source + (1.2 - source) * np.exp(-0.1 * np.arange(17)), rtol=1e-9)


@pytest.mark.parametrize("make", [chaos.logistic, chaos.henon, chaos.rossler, chaos.lorenz, chaos.mackey_glass])
def test_default_series(make) -> None:
    began = time.process_time()
    series = make()
    assert time.process_time() - began < 5
    assert isinstance(series, Series)
    assert series.values.shape == (50_000, 1)
    assert series.values.dtype == np.float64
    assert not series.values.flags.writeable
    assert series.lyapunov > 0
    early, late = series.values[:5000], series.values[5000:]
    assert np.ptp(early) > 0.8 * np.ptp(late)  # no transient left


def test_unusual_parameters_have_no_stated_exponent() -> None:
    assert chaos.henon(1.3, length=10).lyapunov is None
    assert chaos.rossler(b=0.2, length=10, discard=0).lyapunov is None
    assert chaos.lorenz(rho=20, length=10).lyapunov is None
    assert chaos.mackey_glass(30, length=10).lyapunov is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: chaos.logistic(4.5), "mu=4.5"),
        (lambda: chaos.logistic(3.9, 10, 1.0), "x0=1"),
        (lambda: chaos.henon(2.0, length=50), "henon: .* infinite"),
        (lambda: chaos.mackey_glass(17.05), "17.05"),
    ],
)
def test_refused(make, words: str) -> None:
    with pytest.raises(DataError, match=words):
        make()


def test_switching_obeys_one_of_three_laws_at_a_time() -> None:
    x = chaos.switching(4000, stay=20, seed=1).values[:, 0]
    hump = 3.99 * x[:-1] * (1 - x[:-1])
    nexts = np.array([hump, 1 - hump, 1.99 * np.minimum(x[:-1], 1 - x[:-1])])
    holds = np.abs(nexts - x[1:]) < 1e-12
    assert holds.any(axis=0).all()
    law = holds.argmax(axis=0)
    assert (np.bincount(law, minlength=3) > 800).all()
    assert 4000 / 20 * 0.7 < (law[1:] != law[:-1]).sum() < 4000 / 20 * 1.3
    with pytest.raises(DataError, match="at least 1 step"):
        chaos.switching(10, stay=0.5)
